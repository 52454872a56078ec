//! PSCI (Arm DEN0022): which of a guest's CPUs are on, and how it ends.
//!
//! [`decode`] names the call, [`features`] answers discovery, [`Power`] keeps which virtual CPUs are on. Guests call by
//! HVC or SMC alike. What this module leaves out: starting and stopping virtual CPUs and machines (`bulkhead`).

mod power;

use crate::smccc;
use function::SMC64;

pub use crate::smccc::{NOT_SUPPORTED, SUCCESS};
pub use function::VERSION;
pub use power::{Power, mpidr, vcpu_index};

/// PSCI 1.1: the major version in bits 31:16, the minor one below.
pub const PSCI_VERSION: u64 = 0x1_0001;
/// What MIGRATE_INFO_TYPE returns: there is no trusted OS that would have to move between CPUs.
pub const MIGRATE_INFO_TYPE: u64 = 2;
/// The one reset of SYSTEM_RESET2 that the specification itself defines (PSCI, SYSTEM_RESET2).
pub const SYSTEM_WARM_RESET: u32 = 0;

/// An argument is not valid.
pub const INVALID_PARAMETERS: u64 = u64::MAX - 1;
/// The call is not allowed now.
pub const DENIED: u64 = u64::MAX - 2;
/// CPU_ON: the CPU is on.
pub const ALREADY_ON: u64 = u64::MAX - 3;
/// CPU_ON: the CPU is being turned on.
pub const ON_PENDING: u64 = u64::MAX - 4;
/// The call failed for a reason of the implementation's own.
pub const INTERNAL_FAILURE: u64 = u64::MAX - 5;
/// The CPU does not exist.
pub const NOT_PRESENT: u64 = u64::MAX - 6;
/// The CPU is disabled.
pub const DISABLED: u64 = u64::MAX - 7;
/// CPU_ON, CPU_SUSPEND: the entry point is not valid.
pub const INVALID_ADDRESS: u64 = u64::MAX - 8;

/// Function ids. Bit 30 (SMC64) is set where a call's arguments have 64 bits.
mod function {
    pub(super) const SMC64: u32 = 1 << 30;

    /// The function id of PSCI_VERSION.
    pub const VERSION: u32 = 0x8400_0000;
    pub(super) const CPU_SUSPEND: u32 = 0x8400_0001;
    pub(super) const CPU_OFF: u32 = 0x8400_0002;
    pub(super) const CPU_ON: u32 = 0x8400_0003;
    pub(super) const AFFINITY_INFO: u32 = 0x8400_0004;
    pub(super) const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
    pub(super) const SYSTEM_OFF: u32 = 0x8400_0008;
    pub(super) const SYSTEM_RESET: u32 = 0x8400_0009;
    pub(super) const FEATURES: u32 = 0x8400_000a;
    pub(super) const SYSTEM_RESET2: u32 = 0x8400_0012;

    pub(super) const CPU_SUSPEND_64: u32 = CPU_SUSPEND | SMC64;
    pub(super) const CPU_ON_64: u32 = CPU_ON | SMC64;
    pub(super) const AFFINITY_INFO_64: u32 = AFFINITY_INFO | SMC64;
    pub(super) const SYSTEM_RESET2_64: u32 = SYSTEM_RESET2 | SMC64;
}

/// A call of PSCI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// PSCI_VERSION: [`PSCI_VERSION`].
    Version,
    /// CPU_SUSPEND: wait in a low-power state for an interrupt.
    CpuSuspend {
        /// What to enter; bit 16 tells powerdown (which resumes at `entry`) from standby.
        power_state: u32,
        /// Where a powerdown resumes, a guest address.
        entry: u64,
        /// What `x0` holds there.
        context: u64,
    },
    /// CPU_OFF: turn the caller off.
    CpuOff,
    /// CPU_ON: turn another CPU on; see [`Power::turn_on`].
    CpuOn {
        /// The CPU, by the affinity fields of its MPIDR_EL1: see [`vcpu_index`].
        target: u64,
        /// Where it starts, a guest address.
        entry: u64,
        /// What `x0` holds there.
        context: u64,
    },
    /// AFFINITY_INFO: is a CPU on? See [`Power::affinity_info`].
    AffinityInfo {
        /// The CPU, as in [`Call::CpuOn`].
        target: u64,
        /// The lowest affinity level that counts; since PSCI 1.0 only 0 need be supported.
        lowest_level: u64,
    },
    /// MIGRATE_INFO_TYPE: [`MIGRATE_INFO_TYPE`].
    MigrateInfoType,
    /// SYSTEM_OFF: end the virtual machine.
    SystemOff,
    /// SYSTEM_RESET: restart the virtual machine from its images.
    SystemReset,
    /// SYSTEM_RESET2: restart the virtual machine in a way that the caller names.
    SystemReset2 {
        /// [`SYSTEM_WARM_RESET`]; others, and vendor-specific ones with bit 31, get [`INVALID_PARAMETERS`].
        kind: u32,
        /// For vendor-specific resets.
        cookie: u64,
    },
    /// PSCI_FEATURES: [`features`].
    Features {
        /// The function asked about.
        function: u32,
    },
    /// Any other function: [`NOT_SUPPORTED`].
    Unknown,
}

/// Names the call that a guest made with `function` in `w0` and `arguments` in `x1..=x3`.
///
/// An SMC32 function takes 32-bit arguments; what the caller left above them is cut off (SMCCC, "Register use in
/// AArch64").
#[must_use]
pub const fn decode(function: u32, arguments: [u64; 3]) -> Call {
    let mask = if function & SMC64 == 0 { 0xffff_ffff } else { u64::MAX };
    let [first, second, third] = arguments;
    let (first, second, third) = (first & mask, second & mask, third & mask);
    match function {
        function::VERSION => Call::Version,
        function::CPU_SUSPEND | function::CPU_SUSPEND_64 => {
            Call::CpuSuspend { power_state: first as u32, entry: second, context: third }
        }
        function::CPU_OFF => Call::CpuOff,
        function::CPU_ON | function::CPU_ON_64 => Call::CpuOn { target: first, entry: second, context: third },
        function::AFFINITY_INFO | function::AFFINITY_INFO_64 => {
            Call::AffinityInfo { target: first, lowest_level: second }
        }
        function::MIGRATE_INFO_TYPE => Call::MigrateInfoType,
        function::SYSTEM_OFF => Call::SystemOff,
        function::SYSTEM_RESET => Call::SystemReset,
        function::SYSTEM_RESET2 | function::SYSTEM_RESET2_64 => {
            Call::SystemReset2 { kind: first as u32, cookie: second }
        }
        function::FEATURES => Call::Features { function: first as u32 },
        _ => Call::Unknown,
    }
}

/// What PSCI_FEATURES returns for `function`: feature flags, or [`NOT_SUPPORTED`].
///
/// No function has a flag set: CPU_SUSPEND takes the original format of its power state and has no OS-initiated mode
/// (PSCI, PSCI_FEATURES).
#[must_use]
pub const fn features(function: u32) -> u64 {
    match decode(function, [0; 3]) {
        Call::Version
        | Call::CpuSuspend { .. }
        | Call::CpuOff
        | Call::CpuOn { .. }
        | Call::AffinityInfo { .. }
        | Call::MigrateInfoType
        | Call::SystemOff
        | Call::SystemReset
        | Call::SystemReset2 { .. }
        | Call::Features { .. } => SUCCESS,
        // How a guest learns that SMCCC is at least 1.1 (SMCCC, "Discovery through PSCI").
        Call::Unknown if function == smccc::FUNCTION_VERSION => SUCCESS,
        Call::Unknown => NOT_SUPPORTED,
    }
}

/// The answer to a call that has but one, whatever the state and the arguments: the calls that the exit path answers
/// before it does anything else.
#[must_use]
#[inline]
pub const fn constant(function: u32) -> Option<u64> {
    match function {
        function::VERSION => Some(PSCI_VERSION),
        smccc::FUNCTION_VERSION => Some(smccc::SMCCC_VERSION),
        _ => None,
    }
}

/// Whether CPU_SUSPEND knows `power_state` (PSCI, CPU_SUSPEND, "power_state: original format"): bits 31:26 and 23:17
/// are reserved, and a power level above that of a CPU, in bits 25:24, does not exist here.
#[must_use]
pub const fn is_power_state(power_state: u32) -> bool {
    power_state & 0xfffe_0000 == 0
}

#[cfg(test)]
mod tests {
    use super::{
        Call, INVALID_ADDRESS, NOT_SUPPORTED, PSCI_VERSION, SUCCESS, constant, decode, features, is_power_state,
    };
    use crate::smccc::{self, Service};
    use crate::trng;

    #[test]
    fn linux_turns_a_cpu_on_with_the_64_bit_call() {
        let arguments = [1, 0x4021_0000, 0x1_0000_0001];
        assert_eq!(
            decode(0xc400_0003, arguments),
            Call::CpuOn { target: 1, entry: 0x4021_0000, context: 0x1_0000_0001 }
        );
    }

    #[test]
    fn arguments_of_a_32_bit_call_lose_their_upper_halves() {
        let dirty = 0xdead_beef_0000_0000;
        let arguments = [dirty | 1, dirty | 2, dirty | 3];
        assert_eq!(decode(0x8400_0003, arguments), Call::CpuOn { target: 1, entry: 2, context: 3 });
        assert_eq!(decode(0x8400_0004, arguments), Call::AffinityInfo { target: 1, lowest_level: 2 });
        assert_eq!(
            decode(0xc400_0001, arguments),
            Call::CpuSuspend { power_state: 1, entry: dirty | 2, context: dirty | 3 }
        );
    }

    #[test]
    fn each_function_of_the_specification_is_known_by_its_number() {
        let none = [0; 3];
        for (function, call) in [
            (0x8400_0000, Call::Version),
            (0x8400_0001, Call::CpuSuspend { power_state: 0, entry: 0, context: 0 }),
            (0x8400_0002, Call::CpuOff),
            (0xc400_0004, Call::AffinityInfo { target: 0, lowest_level: 0 }),
            (0x8400_0006, Call::MigrateInfoType),
            (0x8400_0008, Call::SystemOff),
            (0x8400_0009, Call::SystemReset),
            (0x8400_000a, Call::Features { function: 0 }),
            (0x8400_0012, Call::SystemReset2 { kind: 0, cookie: 0 }),
            (0xc400_0012, Call::SystemReset2 { kind: 0, cookie: 0 }),
        ] {
            assert_eq!(decode(function, none), call, "{function:#x}");
        }
    }

    #[test]
    fn a_suspend_names_a_state_of_a_cpu_and_nothing_that_is_reserved() {
        for power_state in [0, 1, 0xffff, 1 << 16, 0x1_ffff] {
            assert!(is_power_state(power_state), "{power_state:#x}");
        }
        for bit in 17..32 {
            assert!(!is_power_state(1 << bit) && !is_power_state(1 << bit | 1 << 16), "bit {bit}");
        }
    }

    #[test]
    fn everything_else_is_unknown() {
        // No function, a 64-bit id of a 32-bit call, MIGRATE, a yielding call, a trusted OS call, all ones.
        for function in [0, 0xc400_0000, 0xc400_0002, 0x8400_0005, 0x0400_0000, 0xb200_0000, u32::MAX] {
            assert_eq!(decode(function, [1, 2, 3]), Call::Unknown, "{function:#x}");
        }
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
    fn smccc_is_found_through_psci_and_other_services_are_not() {
        assert_eq!(features(0x8000_0000), SUCCESS);
        for function in [0x8000_0001, 0x8400_0050, 0xc400_0053, abi::FUNCTION_UID, abi::io::FUNCTION_ATTACH] {
            assert_eq!(features(function), NOT_SUPPORTED, "{function:#x}");
        }
    }

    #[test]
    fn constant_answers_are_those_of_the_decoded_calls() {
        assert_eq!(constant(0x8400_0000), Some(PSCI_VERSION));
        assert_eq!(decode(0x8400_0000, [0; 3]), Call::Version);
        assert_eq!(constant(0x8000_0000), Some(smccc::SMCCC_VERSION));
        assert_eq!(smccc::answer(0x8000_0000, 0), smccc::SMCCC_VERSION);
        assert_eq!(constant(0xc400_0000), None);
    }

    #[test]
    fn every_call_that_a_service_knows_is_its_own() {
        for owner in 0..=u8::MAX {
            for number in (0..0x100).chain([0xff00, 0xff01, 0xff03]) {
                let function = u32::from(owner) << 24 | number;
                if decode(function, [0; 3]) != Call::Unknown {
                    assert_eq!(Service::of(function), Service::Psci, "{function:#x}");
                }
                if trng::decode(function, 0) != trng::Call::Unknown {
                    assert_eq!(Service::of(function), Service::Trng, "{function:#x}");
                }
                if smccc::answer(function, 0) != NOT_SUPPORTED {
                    assert_eq!(Service::of(function), Service::Architecture, "{function:#x}");
                }
            }
        }
        assert_eq!(Service::of(abi::FUNCTION_UID), Service::VendorHypervisor);
        assert_eq!(Service::of(abi::FUNCTION_REVISION), Service::VendorHypervisor);
        for function in [abi::io::FUNCTION_ATTACH, abi::io::FUNCTION_READY, abi::io::FUNCTION_COMPLETE] {
            assert_eq!(Service::of(function), Service::VendorHypervisor);
        }
    }

    #[test]
    fn errors_are_small_negative_numbers() {
        assert_eq!(NOT_SUPPORTED as i64, -1);
        assert_eq!(INVALID_ADDRESS as i64, -9);
        assert_eq!(PSCI_VERSION, 0x1_0001);
    }
}
