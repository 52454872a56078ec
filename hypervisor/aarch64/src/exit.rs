//! Why a guest stopped: ESR_EL2, FAR_EL2 and HPFAR_EL2 decoded once, into an enum.
//!
//! The job ends with naming the reason. What to do about it belongs to the run loop, and undoing the instruction's
//! effects (advancing the PC, writing a register) to `arch`.

mod abort;
mod system_register;

pub use abort::{DataAbort, DeviceAccess, Fault, InstructionAbort, MmioAccess};
pub use system_register::{SystemRegister, SystemRegisterAccess};

/// The syndrome registers as an exit left them.
///
/// HPFAR_EL2 holds an address after a translation or access-flag fault, an address size fault, and any stage-2 fault on
/// a stage-1 table walk (Arm ARM, HPFAR_EL2). After a permission fault it is UNKNOWN unless the fault was on a table
/// walk: `arch` then translates FAR_EL2 with `AT S1E1R` and puts the result here, in HPFAR_EL2's own format, before it
/// calls [`decode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Syndrome {
    /// ESR_EL2.
    pub esr: u64,
    /// FAR_EL2.
    pub far: u64,
    /// HPFAR_EL2, or the replacement described above.
    pub hpfar: u64,
}

/// Why the guest left for EL2 with a synchronous exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// HVC from AArch64. ELR_EL2 already points past the instruction.
    Hvc {
        /// The instruction's immediate.
        immediate: u16,
    },
    /// SMC from AArch64, trapped by HCR_EL2.TSC. ELR_EL2 points at the instruction.
    Smc {
        /// The instruction's immediate.
        immediate: u16,
    },
    /// MSR, MRS or a system instruction from AArch64.
    SystemRegister(SystemRegisterAccess),
    /// A load, store or cache operation that stage 2 refused, or that the bus answered with an error.
    DataAbort(DataAbort),
    /// An instruction fetch that stage 2 refused, or that the bus answered with an error.
    InstructionAbort(InstructionAbort),
    /// WFI, or WFIT, trapped by HCR_EL2.TWI.
    WaitForInterrupt,
    /// WFE, or WFET, trapped by HCR_EL2.TWE.
    WaitForEvent,
    /// Anything else: an instruction that is undefined to a guest, which [`undefined_instruction`] has a name for.
    Undefined {
        /// ESR_EL2.
        esr: u64,
    },
}

/// Exception classes, Arm ARM, ESR_EL2 field EC.
mod class {
    pub(super) const WAIT: u8 = 0x01;
    pub(super) const CP15_32: u8 = 0x03;
    pub(super) const CP15_64: u8 = 0x04;
    pub(super) const CP14_32: u8 = 0x05;
    pub(super) const CP14_LOAD_STORE: u8 = 0x06;
    pub(super) const FLOATING_POINT: u8 = 0x07;
    pub(super) const CP10_ID: u8 = 0x08;
    pub(super) const POINTER_AUTHENTICATION: u8 = 0x09;
    pub(super) const CP14_64: u8 = 0x0c;
    pub(super) const HVC_AARCH32: u8 = 0x12;
    pub(super) const SMC_AARCH32: u8 = 0x13;
    pub(super) const HVC: u8 = 0x16;
    pub(super) const SMC: u8 = 0x17;
    pub(super) const SYSTEM_REGISTER: u8 = 0x18;
    pub(super) const SVE: u8 = 0x19;
    pub(super) const SME: u8 = 0x1d;
    pub(super) const INSTRUCTION_ABORT: u8 = 0x20;
    pub(super) const DATA_ABORT: u8 = 0x24;
    pub(super) const BREAKPOINT_AARCH32: u8 = 0x38;
    pub(super) const VECTOR_CATCH_AARCH32: u8 = 0x3a;
}

/// Names the reason for a synchronous exception from EL0 or EL1.
// The reasons that have a budget are decoded in line with what answers them, so that the enum never reaches memory.
#[inline(always)]
#[must_use]
pub fn decode(syndrome: &Syndrome) -> Exit {
    let iss = (syndrome.esr & 0x01ff_ffff) as u32;
    match class_of(syndrome.esr) {
        // The immediate is ISS bits 15:0, for SMC too.
        class::HVC => Exit::Hvc { immediate: (iss & 0xffff) as u16 },
        class::DATA_ABORT => Exit::DataAbort(DataAbort::decode(iss, syndrome)),
        class::SYSTEM_REGISTER => Exit::SystemRegister(SystemRegisterAccess::decode(iss)),
        _ => decode_others(iss, syndrome),
    }
}

/// Whether `esr` is that of a data abort from EL0 or EL1: for the exit path, which looks for it before it decodes
/// anything.
#[inline(always)]
#[must_use]
pub const fn is_data_abort(esr: u64) -> bool {
    esr as u32 >> 26 == class::DATA_ABORT as u32
}

/// Whether `esr`, that of a trapped WFI, WFE, WFIT or WFET, is that of a WFI or WFIT: for the exit path, which does
/// without decoding.
#[inline(always)]
#[must_use]
pub const fn waits_for_interrupt(esr: u64) -> bool {
    // TI, ISS bits 1:0: WFI, WFE, WFIT, WFET.
    esr & 1 == 0
}

#[inline(never)]
fn decode_others(iss: u32, syndrome: &Syndrome) -> Exit {
    match class_of(syndrome.esr) {
        class::SMC => Exit::Smc { immediate: (iss & 0xffff) as u16 },
        // TI, ISS bits 1:0: WFI, WFE, WFIT, WFET.
        class::WAIT if iss & 1 == 0 => Exit::WaitForInterrupt,
        class::WAIT => Exit::WaitForEvent,
        class::INSTRUCTION_ABORT => Exit::InstructionAbort(InstructionAbort::decode(iss, syndrome)),
        _ => Exit::Undefined { esr: syndrome.esr },
    }
}

/// What kind of instruction [`Exit::Undefined`] of `esr` is, for people.
#[must_use]
pub const fn undefined_instruction(esr: u64) -> &'static str {
    match class_of(esr) {
        class::FLOATING_POINT => "floating-point instruction",
        class::SVE => "SVE instruction",
        class::SME => "SME instruction",
        class::POINTER_AUTHENTICATION => "pointer authentication instruction",
        class::CP15_32
        | class::CP15_64
        | class::CP14_32
        | class::CP14_LOAD_STORE
        | class::CP10_ID
        | class::CP14_64
        | class::HVC_AARCH32
        | class::SMC_AARCH32
        | class::BREAKPOINT_AARCH32
        | class::VECTOR_CATCH_AARCH32 => "trap of AArch32 code",
        _ => "exception",
    }
}

/// ESR_EL2.EC.
#[inline(always)]
const fn class_of(esr: u64) -> u8 {
    (esr >> 26 & 0x3f) as u8
}

#[cfg(test)]
mod tests {
    use super::{Exit, Syndrome, SystemRegister, decode, is_data_abort, undefined_instruction, waits_for_interrupt};
    use vdev::Access;

    fn reason(esr: u64) -> Exit {
        decode(&Syndrome { esr, far: 0, hpfar: 0 })
    }

    #[test]
    fn hvc_and_smc_carry_their_immediates() {
        assert_eq!(reason(0x5a00_0000), Exit::Hvc { immediate: 0 });
        assert_eq!(reason(0x5a00_4a48), Exit::Hvc { immediate: 0x4a48 });
        assert_eq!(reason(0x5e00_ffff), Exit::Smc { immediate: 0xffff });
    }

    #[test]
    fn all_four_waits_are_told_apart_by_what_they_wait_for() {
        assert_eq!(reason(0x07e0_0000), Exit::WaitForInterrupt);
        assert_eq!(reason(0x07e0_0001), Exit::WaitForEvent);
        assert_eq!(reason(0x07e0_0002), Exit::WaitForInterrupt);
        assert_eq!(reason(0x07e0_0003), Exit::WaitForEvent);
        for esr in [0x07e0_0000, 0x07e0_0001, 0x07e0_0002, 0x07e0_0003] {
            assert_eq!(waits_for_interrupt(esr), reason(esr) == Exit::WaitForInterrupt, "{esr:#x}");
        }
    }

    #[test]
    fn msr_to_icc_sgi1r_names_register_direction_and_source() {
        // `msr S3_0_C12_C11_5, x2`: Op0 3, Op2 5, Op1 0, CRn 12, Rt 2, CRm 11, write.
        let esr = 0x18 << 26 | 1 << 25 | 3 << 20 | 5 << 17 | 12 << 10 | 2 << 5 | 11 << 1;
        let Exit::SystemRegister(access) = reason(esr) else { panic!("EC 0x18 is a system register access") };
        assert_eq!(access.register, SystemRegister::ICC_SGI1R_EL1);
        assert_eq!(access.access, Access::Write);
        assert_eq!(access.transfer, 2);
    }

    #[test]
    fn extensions_that_guests_do_not_have_are_named() {
        for (class, name) in [
            (0x07, "floating-point instruction"),
            (0x09, "pointer authentication instruction"),
            (0x19, "SVE instruction"),
            (0x1d, "SME instruction"),
            (0x13, "trap of AArch32 code"),
        ] {
            assert_eq!(reason(class << 26), Exit::Undefined { esr: class << 26 });
            assert_eq!(undefined_instruction(class << 26), name);
        }
    }

    #[test]
    fn every_class_decodes_to_something_and_unknown_ones_keep_their_syndrome() {
        for class in 0..64 {
            let exit = reason(class << 26 | 0x1ff_ffff);
            assert_eq!(is_data_abort(class << 26), matches!(exit, Exit::DataAbort(_)));
        }
        let esr = 0x2f << 26 | 1 << 25 | 0x123;
        assert_eq!(reason(esr), Exit::Undefined { esr });
    }

    #[test]
    fn bits_above_the_defined_syndrome_change_nothing() {
        assert_eq!(reason(0xffff_ffff_5a00_0001), Exit::Hvc { immediate: 1 });
    }
}
