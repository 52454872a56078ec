//! What a guest asks its firmware: PSCI (Arm DEN0022), SMCCC discovery (DEN0028), TRNG (DEN0098).
//!
//! [`decode`] names the call, [`features`] and its siblings answer discovery, [`Power`] keeps which virtual CPUs are
//! on. Guests call by HVC or SMC alike. What this module leaves out: starting and stopping virtual CPUs and machines
//! (the run loop), and where random numbers come from.

mod discovery;
mod power;
mod trng;

pub use discovery::{
    MIGRATE_INFO_TYPE, PSCI_VERSION, SMCCC_VERSION, SYSTEM_WARM_RESET, arch_features, constant, features, trng_features,
};
pub use power::{Power, mpidr, vcpu_index};
pub use trng::{NO_ENTROPY, TRNG_UUID, TRNG_VERSION, random_words};

/// The call succeeded (PSCI 5.2, "Return error codes").
pub const SUCCESS: u64 = 0;
/// The function is unknown, or not implemented here. SMCCC and TRNG answer the same.
pub const NOT_SUPPORTED: u64 = u64::MAX;
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

    pub(super) const SMCCC_VERSION: u32 = 0x8000_0000;
    pub(super) const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;

    pub(super) const PSCI_VERSION: u32 = 0x8400_0000;
    pub(super) const CPU_SUSPEND: u32 = 0x8400_0001;
    pub(super) const CPU_OFF: u32 = 0x8400_0002;
    pub(super) const CPU_ON: u32 = 0x8400_0003;
    pub(super) const AFFINITY_INFO: u32 = 0x8400_0004;
    pub(super) const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
    pub(super) const SYSTEM_OFF: u32 = 0x8400_0008;
    pub(super) const SYSTEM_RESET: u32 = 0x8400_0009;
    pub(super) const PSCI_FEATURES: u32 = 0x8400_000a;
    pub(super) const SYSTEM_RESET2: u32 = 0x8400_0012;

    pub(super) const CPU_SUSPEND_64: u32 = CPU_SUSPEND | SMC64;
    pub(super) const CPU_ON_64: u32 = CPU_ON | SMC64;
    pub(super) const AFFINITY_INFO_64: u32 = AFFINITY_INFO | SMC64;
    pub(super) const SYSTEM_RESET2_64: u32 = SYSTEM_RESET2 | SMC64;

    pub(super) const TRNG_VERSION: u32 = 0x8400_0050;
    pub(super) const TRNG_FEATURES: u32 = 0x8400_0051;
    pub(super) const TRNG_GET_UUID: u32 = 0x8400_0052;
    pub(super) const TRNG_RND: u32 = 0x8400_0053;
    pub(super) const TRNG_RND_64: u32 = TRNG_RND | SMC64;
}

/// A call by HVC or SMC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// PSCI_VERSION: [`PSCI_VERSION`].
    PsciVersion,
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
    PsciFeatures {
        /// The function asked about.
        function: u32,
    },
    /// SMCCC_VERSION: [`SMCCC_VERSION`].
    SmcccVersion,
    /// SMCCC_ARCH_FEATURES: [`arch_features`].
    SmcccArchFeatures {
        /// The function asked about.
        function: u32,
    },
    /// The UID of the vendor-specific hypervisor service, [`abi::UID`].
    VendorHypUid,
    /// The revision of the vendor-specific hypervisor service, [`abi::ABI_VERSION`].
    VendorHypRevision,
    /// TRNG_VERSION: [`TRNG_VERSION`].
    TrngVersion,
    /// TRNG_FEATURES: [`trng_features`].
    TrngFeatures {
        /// The function asked about.
        function: u32,
    },
    /// TRNG_GET_UUID: [`TRNG_UUID`].
    TrngUuid,
    /// TRNG_RND: [`random_words`].
    TrngRandom {
        /// How many bits of entropy.
        bits: u64,
        /// The call is TRNG_RND64: a register carries 64 bits rather than 32.
        wide: bool,
    },
    /// Any other function: [`NOT_SUPPORTED`].
    Unknown,
}

/// Names the call that a guest made with `function` in `w0` and `arguments` in `x1..=x3`.
///
/// An SMC32 function takes 32-bit arguments; what the caller left above them is cut off (SMCCC, "Register use in
/// AArch64").
#[inline(always)]
#[must_use]
pub fn decode(function: u32, arguments: [u64; 3]) -> Call {
    // The call that benchmarks and probes make most; the rest is kept out of its way.
    if function == function::PSCI_VERSION {
        return Call::PsciVersion;
    }
    decode_others(function, arguments)
}

/// Whether CPU_SUSPEND knows `power_state` (PSCI, CPU_SUSPEND, "power_state: original format"): bits 31:26 and 23:17
/// are reserved, and a power level above that of a CPU, in bits 25:24, does not exist here.
#[must_use]
pub const fn is_power_state(power_state: u32) -> bool {
    power_state & 0xfffe_0000 == 0
}

#[inline(never)]
fn decode_others(function: u32, arguments: [u64; 3]) -> Call {
    let mask = if function & function::SMC64 == 0 { 0xffff_ffff } else { u64::MAX };
    let [first, second, third] = arguments.map(|argument| argument & mask);
    match function {
        function::PSCI_VERSION => Call::PsciVersion,
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
        function::PSCI_FEATURES => Call::PsciFeatures { function: first as u32 },
        function::SMCCC_VERSION => Call::SmcccVersion,
        function::SMCCC_ARCH_FEATURES => Call::SmcccArchFeatures { function: first as u32 },
        abi::FUNCTION_UID => Call::VendorHypUid,
        abi::FUNCTION_REVISION => Call::VendorHypRevision,
        function::TRNG_VERSION => Call::TrngVersion,
        function::TRNG_FEATURES => Call::TrngFeatures { function: first as u32 },
        function::TRNG_GET_UUID => Call::TrngUuid,
        function::TRNG_RND => Call::TrngRandom { bits: first, wide: false },
        function::TRNG_RND_64 => Call::TrngRandom { bits: first, wide: true },
        _ => Call::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, INVALID_ADDRESS, NOT_SUPPORTED, PSCI_VERSION, decode, is_power_state};

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
        assert_eq!(decode(0x8400_0053, arguments), Call::TrngRandom { bits: 1, wide: false });
        assert_eq!(
            decode(0xc400_0001, arguments),
            Call::CpuSuspend { power_state: 1, entry: dirty | 2, context: dirty | 3 }
        );
    }

    #[test]
    fn each_function_of_the_specifications_is_known_by_its_number() {
        let none = [0; 3];
        for (function, call) in [
            (0x8400_0000, Call::PsciVersion),
            (0x8400_0001, Call::CpuSuspend { power_state: 0, entry: 0, context: 0 }),
            (0x8400_0002, Call::CpuOff),
            (0xc400_0004, Call::AffinityInfo { target: 0, lowest_level: 0 }),
            (0x8400_0006, Call::MigrateInfoType),
            (0x8400_0008, Call::SystemOff),
            (0x8400_0009, Call::SystemReset),
            (0x8400_000a, Call::PsciFeatures { function: 0 }),
            (0x8400_0012, Call::SystemReset2 { kind: 0, cookie: 0 }),
            (0xc400_0012, Call::SystemReset2 { kind: 0, cookie: 0 }),
            (0x8000_0000, Call::SmcccVersion),
            (0x8000_0001, Call::SmcccArchFeatures { function: 0 }),
            (0x8600_ff01, Call::VendorHypUid),
            (0x8600_ff03, Call::VendorHypRevision),
            (0x8400_0050, Call::TrngVersion),
            (0x8400_0051, Call::TrngFeatures { function: 0 }),
            (0x8400_0052, Call::TrngUuid),
            (0xc400_0053, Call::TrngRandom { bits: 0, wide: true }),
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
    fn errors_are_small_negative_numbers() {
        assert_eq!(NOT_SUPPORTED as i64, -1);
        assert_eq!(INVALID_ADDRESS as i64, -9);
        assert_eq!(PSCI_VERSION, 0x1_0001);
    }
}
