//! Whose a call by HVC or SMC is, by the SMC Calling Convention (Arm DEN0028), and the convention's own calls.
//!
//! What this module leaves out: the other services' calls ([`crate::psci`], [`crate::trng`], `abi`).

/// The call succeeded.
pub const SUCCESS: u64 = 0;
/// The function is unknown, or not implemented here, or not for this caller (DEN0028 7.1).
pub const NOT_SUPPORTED: u64 = u64::MAX;

/// The function id of SMCCC_VERSION.
pub const FUNCTION_VERSION: u32 = 0x8000_0000;
/// The function id of SMCCC_ARCH_FEATURES.
pub const FUNCTION_ARCH_FEATURES: u32 = 0x8000_0001;

/// SMCCC 1.1: the major version in bits 31:16, the minor one below.
pub const SMCCC_VERSION: u64 = 0x1_0001;

/// Who answers a range of function ids: an owning entity (DEN0028 6.1), or one service of an entity that has several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Arm architecture calls.
    Architecture,
    /// Of the standard secure services, PSCI (DEN0022).
    Psci,
    /// Of the standard secure services, TRNG (DEN0098).
    Trng,
    /// Vendor-specific hypervisor services: Bulkhead's own calls.
    VendorHypervisor,
    /// Everybody else: CPU, SiP, OEM and standard hypervisor services, trusted applications, yielding calls.
    Nobody,
}

impl Service {
    /// Whose the call with function id `function` is.
    ///
    /// Bit 31 says that it is a fast call, and bits 29:24 name the entity; bit 30, which tells SMC64 from SMC32, does
    /// not count. Bits 23:16 have to be zero, which who answers sees to: ids with others are none of its own.
    #[inline]
    #[must_use]
    pub const fn of(function: u32) -> Self {
        match function >> 24 {
            0x80 | 0xc0 => Self::Architecture,
            0x84 | 0xc4 => match function & 0xff_ffff {
                0x00..=0x1f => Self::Psci,
                0x50..=0x5f => Self::Trng,
                _ => Self::Nobody,
            },
            0x86 | 0xc6 => Self::VendorHypervisor,
            _ => Self::Nobody,
        }
    }
}

/// What an Arm architecture call returns; `argument` is what it has in `w1`.
#[must_use]
pub const fn answer(function: u32, argument: u32) -> u64 {
    match function {
        FUNCTION_VERSION => SMCCC_VERSION,
        FUNCTION_ARCH_FEATURES => arch_features(argument),
        _ => NOT_SUPPORTED,
    }
}

/// What SMCCC_ARCH_FEATURES returns for `function`.
///
/// The firmware's workaround calls (SMCCC_ARCH_WORKAROUND_1 and later) are not offered: a guest then says that its
/// processor is vulnerable, or uses a mitigation that needs no firmware.
const fn arch_features(function: u32) -> u64 {
    match function {
        FUNCTION_VERSION | FUNCTION_ARCH_FEATURES => SUCCESS,
        _ => NOT_SUPPORTED,
    }
}

#[cfg(test)]
mod tests {
    use super::{NOT_SUPPORTED, SMCCC_VERSION, SUCCESS, Service, answer};

    #[test]
    fn each_owner_of_the_convention_has_its_calls_in_both_widths() {
        for (owner, service) in [
            (0, Service::Architecture),
            (1, Service::Nobody), // CPU
            (2, Service::Nobody), // SiP
            (3, Service::Nobody), // OEM
            (4, Service::Psci),
            (5, Service::Nobody), // standard hypervisor
            (6, Service::VendorHypervisor),
            (7, Service::Nobody), // vendor EL3 monitor
        ] {
            for width in [0, 1 << 30] {
                assert_eq!(Service::of(1 << 31 | width | owner << 24), service, "owner {owner}");
                assert_eq!(Service::of(width | owner << 24), Service::Nobody, "a yielding call, owner {owner}");
            }
        }
        for owner in 8..64 {
            assert_eq!(Service::of(1 << 31 | owner << 24), Service::Nobody, "owner {owner}");
        }
    }

    #[test]
    fn the_standard_secure_services_share_their_owner_by_ranges() {
        for (first, last, service) in [
            (0, 0x1f, Service::Psci),
            (0x20, 0x4f, Service::Nobody), // SDEI
            (0x50, 0x5f, Service::Trng),
            (0x60, 0xff, Service::Nobody), // FF-A
        ] {
            for number in [first, last] {
                assert_eq!(Service::of(0x8400_0000 | number), service, "{number:#x}");
                assert_eq!(Service::of(0xc400_0000 | number), service, "{number:#x}");
            }
        }
    }

    #[test]
    fn bits_that_have_to_be_zero_make_a_call_nobodys() {
        for bit in 16..24 {
            assert_eq!(Service::of(0x8400_0000 | 1 << bit), Service::Nobody, "bit {bit}");
            assert_eq!(answer(0x8000_0000 | 1 << bit, 0), NOT_SUPPORTED, "bit {bit}");
        }
    }

    #[test]
    fn no_firmware_workarounds_are_offered() {
        assert_eq!(answer(0x8000_0000, 0), SMCCC_VERSION);
        assert_eq!(answer(0x8000_0001, 0x8000_0000), SUCCESS);
        assert_eq!(answer(0x8000_0001, 0x8000_0001), SUCCESS);
        for function in [0x8000_8000, 0x8000_7fff, 0x8000_3fff, 0x8000_0002, 0x8400_0000] {
            assert_eq!(answer(0x8000_0001, function), NOT_SUPPORTED, "{function:#x}");
            assert_eq!(answer(function, 0), NOT_SUPPORTED, "{function:#x}");
        }
    }
}
