//! Answers to "do you have this function?".

use super::{Call, NOT_SUPPORTED, SUCCESS, decode, function as ids};

/// PSCI 1.1: the major version in bits 31:16, the minor one below.
pub const PSCI_VERSION: u64 = 0x1_0001;

/// SMCCC 1.1, as [`PSCI_VERSION`] is laid out.
pub const SMCCC_VERSION: u64 = 0x1_0001;

/// What MIGRATE_INFO_TYPE returns: there is no trusted OS that would have to move between CPUs.
pub const MIGRATE_INFO_TYPE: u64 = 2;

/// The one reset of SYSTEM_RESET2 that the specification itself defines (PSCI, SYSTEM_RESET2).
pub const SYSTEM_WARM_RESET: u32 = 0;

/// The answer to a call that has but one, whatever the state and the arguments: the calls that the exit path answers
/// before it does anything else.
#[must_use]
#[inline]
pub const fn constant(function: u32) -> Option<u64> {
    match function {
        ids::PSCI_VERSION => Some(PSCI_VERSION),
        ids::SMCCC_VERSION => Some(SMCCC_VERSION),
        _ => None,
    }
}

/// What PSCI_FEATURES returns for `function`: feature flags, or [`NOT_SUPPORTED`].
///
/// No function has a flag set: CPU_SUSPEND takes the original format of its power state and has no OS-initiated mode
/// (PSCI, PSCI_FEATURES).
#[must_use]
pub fn features(function: u32) -> u64 {
    match decode(function, [0; 3]) {
        Call::PsciVersion
        | Call::CpuSuspend { .. }
        | Call::CpuOff
        | Call::CpuOn { .. }
        | Call::AffinityInfo { .. }
        | Call::MigrateInfoType
        | Call::SystemOff
        | Call::SystemReset
        | Call::SystemReset2 { .. }
        | Call::PsciFeatures { .. }
        // How a guest learns that SMCCC is at least 1.1 (SMCCC, "Discovery through PSCI").
        | Call::SmcccVersion => SUCCESS,
        Call::SmcccArchFeatures { .. }
        | Call::VendorHypUid
        | Call::VendorHypRevision
        | Call::TrngVersion
        | Call::TrngFeatures { .. }
        | Call::TrngUuid
        | Call::TrngRandom { .. }
        | Call::Unknown => NOT_SUPPORTED,
    }
}

/// What SMCCC_ARCH_FEATURES returns for `function`.
///
/// The firmware's workaround calls (SMCCC_ARCH_WORKAROUND_1 and later) are not offered: a guest then says that its
/// processor is vulnerable, or uses a mitigation that needs no firmware.
#[must_use]
pub fn arch_features(function: u32) -> u64 {
    match decode(function, [0; 3]) {
        Call::SmcccVersion | Call::SmcccArchFeatures { .. } => SUCCESS,
        Call::PsciVersion
        | Call::CpuSuspend { .. }
        | Call::CpuOff
        | Call::CpuOn { .. }
        | Call::AffinityInfo { .. }
        | Call::MigrateInfoType
        | Call::SystemOff
        | Call::SystemReset
        | Call::SystemReset2 { .. }
        | Call::PsciFeatures { .. }
        | Call::VendorHypUid
        | Call::VendorHypRevision
        | Call::TrngVersion
        | Call::TrngFeatures { .. }
        | Call::TrngUuid
        | Call::TrngRandom { .. }
        | Call::Unknown => NOT_SUPPORTED,
    }
}

/// What TRNG_FEATURES returns for `function`.
#[must_use]
pub fn trng_features(function: u32) -> u64 {
    match decode(function, [0; 3]) {
        Call::TrngVersion | Call::TrngFeatures { .. } | Call::TrngUuid | Call::TrngRandom { .. } => SUCCESS,
        Call::PsciVersion
        | Call::CpuSuspend { .. }
        | Call::CpuOff
        | Call::CpuOn { .. }
        | Call::AffinityInfo { .. }
        | Call::MigrateInfoType
        | Call::SystemOff
        | Call::SystemReset
        | Call::SystemReset2 { .. }
        | Call::PsciFeatures { .. }
        | Call::SmcccVersion
        | Call::SmcccArchFeatures { .. }
        | Call::VendorHypUid
        | Call::VendorHypRevision
        | Call::Unknown => NOT_SUPPORTED,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        Call, NOT_SUPPORTED, PSCI_VERSION, SMCCC_VERSION, SUCCESS, arch_features, constant, decode, features,
        trng_features,
    };

    #[test]
    fn constant_answers_are_those_of_the_decoded_calls() {
        assert_eq!(constant(0x8400_0000), Some(PSCI_VERSION));
        assert_eq!(decode(0x8400_0000, [0; 3]), Call::PsciVersion);
        assert_eq!(constant(0x8000_0000), Some(SMCCC_VERSION));
        assert_eq!(decode(0x8000_0000, [0; 3]), Call::SmcccVersion);
        assert_eq!(constant(0xc400_0000), None);
    }

    #[test]
    fn every_mandatory_function_of_psci_1_1_is_offered() {
        // Mandatory since 1.0: VERSION, CPU_SUSPEND, CPU_OFF, CPU_ON, AFFINITY_INFO, SYSTEM_OFF, SYSTEM_RESET,
        // PSCI_FEATURES.
        for function in [
            0x8400_0000,
            0x8400_0001,
            0xc400_0001,
            0x8400_0002,
            0x8400_0003,
            0xc400_0003,
            0x8400_0004,
            0xc400_0004,
            0x8400_0008,
            0x8400_0009,
            0x8400_000a,
        ] {
            assert_eq!(features(function), SUCCESS, "{function:#x}");
        }
    }

    #[test]
    fn functions_that_decode_to_nothing_are_not_offered() {
        // MIGRATE, CPU_FREEZE, CPU_DEFAULT_SUSPEND, SYSTEM_SUSPEND, PSCI_STAT_COUNT, MEM_PROTECT.
        for function in [0x8400_0005, 0x8400_000b, 0x8400_000c, 0xc400_000e, 0xc400_0011, 0x8400_0013, 0, u32::MAX] {
            assert_eq!(features(function), NOT_SUPPORTED, "{function:#x}");
        }
    }

    #[test]
    fn smccc_is_found_through_psci_and_offers_no_firmware_workarounds() {
        assert_eq!(features(0x8000_0000), SUCCESS);
        assert_eq!(arch_features(0x8000_0000), SUCCESS);
        assert_eq!(arch_features(0x8000_0001), SUCCESS);
        for function in [0x8000_8000, 0x8000_7fff, 0x8000_3fff, 0x8000_0002, 0x8400_0000] {
            assert_eq!(arch_features(function), NOT_SUPPORTED, "{function:#x}");
        }
    }

    #[test]
    fn random_numbers_come_in_both_widths() {
        for function in 0x8400_0050..=0x8400_0053 {
            assert_eq!(trng_features(function), SUCCESS, "{function:#x}");
        }
        assert_eq!(trng_features(0xc400_0053), SUCCESS);
        assert_eq!(trng_features(0x8400_0054), NOT_SUPPORTED);
        assert_eq!(trng_features(0x8400_0000), NOT_SUPPORTED);
    }
}
