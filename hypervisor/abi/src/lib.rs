//! What guests and Bulkhead agree on: call numbers and shared layouts, versioned.
//!
//! A guest finds Bulkhead through the vendor-specific hypervisor service of the SMC Calling Convention (Arm DEN0028,
//! "Vendor Specific Hypervisor Service Calls"): it asks for the service's UID, compares it with [`UID`], and then reads
//! the revision. Both calls work with HVC and with SMC. An unknown function gets NOT_SUPPORTED (-1) in `x0`.
//!
//! What this crate leaves out: PSCI, SMCCC and TRNG, which are Arm's own and live in `model`.
#![no_std]
#![forbid(unsafe_code)]

pub mod io;

/// The function id of "Call UID": `w0..=w3` return [`UID`].
pub const FUNCTION_UID: u32 = 0x8600_ff01;

/// The function id of "Call Revision": `w0` returns the major, `w1` the minor part of [`ABI_VERSION`].
pub const FUNCTION_REVISION: u32 = 0x8600_ff03;

/// Bulkhead's service UID, 551ce281-561a-45da-ba5c-32ec7bb0eafa, as `w0..=w3` carry it: four bytes to a register, the
/// first byte lowest (DEN0028, "Unique Identification format").
pub const UID: [u32; 4] = [0x81e2_1c55, 0xda45_1a56, 0xec32_5cba, 0xfaea_b07b];

/// The version of this crate's contract, which the revision call returns.
pub const ABI_VERSION: Version = Version { major: 0, minor: 1 };

/// A version of the contract between guests and Bulkhead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// Differs when something that worked before no longer does. Zero promises nothing.
    pub major: u32,
    /// Grows when something is added.
    pub minor: u32,
}

impl Version {
    /// Whether a guest built against `wanted` can use a hypervisor that reports this version.
    #[must_use]
    pub const fn serves(self, wanted: Self) -> bool {
        self.major == wanted.major && self.minor >= wanted.minor
    }
}

// DEN0028: a UID whose first word is all ones would read as "not supported".
const _: () = assert!(UID[0] != u32::MAX, "the first word of a service UID is not NOT_SUPPORTED");

#[cfg(test)]
mod tests {
    use super::{UID, Version};

    #[test]
    fn uid_bytes_spell_the_documented_identifier() {
        let mut bytes = [0; 16];
        for (four, word) in bytes.chunks_exact_mut(4).zip(UID) {
            four.copy_from_slice(&word.to_le_bytes());
        }
        assert_eq!(u128::from_be_bytes(bytes), 0x551c_e281_561a_45da_ba5c_32ec_7bb0_eafa);
    }

    #[test]
    fn guest_built_for_a_newer_minor_version_is_not_served() {
        let old = Version { major: 1, minor: 2 };
        assert!(old.serves(Version { major: 1, minor: 2 }));
        assert!(old.serves(Version { major: 1, minor: 0 }));
        assert!(!old.serves(Version { major: 1, minor: 3 }));
        assert!(!old.serves(Version { major: 2, minor: 0 }));
    }
}
