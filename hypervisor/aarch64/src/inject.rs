//! What EL1 sees when Bulkhead hands it a synchronous exception.
//!
//! This follows the manual's pseudocode `AArch64.TakeException` for an exception taken to EL1, with the exits'
//! registers as arguments. It computes; `arch` writes ELR_EL1, SPSR_EL1, ESR_EL1, FAR_EL1 and the guest's own PC and
//! PSTATE.

/// The state of a virtual CPU that decides how it takes an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct El1Target {
    /// VBAR_EL1.
    pub vbar: u64,
    /// The guest's PSTATE at the exit (SPSR_EL2).
    pub spsr: u64,
    /// The preferred return address: the instruction that is to be blamed, and run again.
    pub pc: u64,
    /// SCTLR_EL1.
    pub sctlr: u64,
}

/// The registers of a virtual CPU that has just taken an exception to EL1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct El1Entry {
    /// The PC: the vector (ELR_EL2 on the way back to the guest).
    pub pc: u64,
    /// PSTATE in the handler (SPSR_EL2 on the way back to the guest).
    pub pstate: u64,
    /// ELR_EL1.
    pub elr: u64,
    /// SPSR_EL1.
    pub spsr: u64,
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1, where the exception defines it.
    pub far: Option<u64>,
}

/// PSTATE as it is saved for exceptions, Arm ARM, SPSR_EL2, "exception taken from AArch64" and "from AArch32 state".
mod pstate {
    pub(super) const NZCV: u64 = 0xf << 28;
    pub(super) const TCO: u64 = 1 << 25;
    pub(super) const DIT: u64 = 1 << 24;
    pub(super) const PAN: u64 = 1 << 22;
    pub(super) const SSBS: u64 = 1 << 12;
    pub(super) const DAIF: u64 = 0xf << 6;
    pub(super) const AARCH32: u64 = 1 << 4;
    pub(super) const EL0: u64 = 0;
    pub(super) const EL1T: u64 = 4;
    pub(super) const EL1H: u64 = 5;
}

/// SCTLR_EL1.SPAN: set, an exception leaves PSTATE.PAN alone. It is RES1 without FEAT_PAN.
const SCTLR_SPAN: u64 = 1 << 23;
/// SCTLR_EL1.DSSBS: PSTATE.SSBS on an exception. It is RES0 without FEAT_SSBS.
const SCTLR_DSSBS: u64 = 1 << 44;

/// Where the exception came from: it selects the vector and the exception class.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    El1WithSpEl0,
    El1,
    El0,
    El0Aarch32,
}

impl Origin {
    fn of(spsr: u64) -> Self {
        match (spsr & pstate::AARCH32 != 0, spsr & 0xf) {
            // EL1 is always AArch64 (HCR_EL2.RW), so that AArch32 state can only be EL0.
            (true, _) => Self::El0Aarch32,
            (false, pstate::EL0) => Self::El0,
            (false, pstate::EL1T) => Self::El1WithSpEl0,
            (false, _) => Self::El1,
        }
    }

    /// Arm ARM D1.3, "Exception vectors": offsets of the synchronous entries.
    fn vector_offset(self) -> u64 {
        match self {
            Self::El1WithSpEl0 => 0x000,
            Self::El1 => 0x200,
            Self::El0 => 0x400,
            Self::El0Aarch32 => 0x600,
        }
    }

    fn is_el0(self) -> bool {
        matches!(self, Self::El0 | Self::El0Aarch32)
    }
}

/// Injects "the instruction is undefined" (ESR_ELx.EC 0x00).
#[must_use]
pub fn undefined(target: &El1Target) -> El1Entry {
    enter(target, 0x00, 0, None)
}

/// Injects a synchronous external abort on a load or store at virtual address `far`; `write` is ISS.WnR.
#[must_use]
pub fn data_abort(target: &El1Target, far: u64, write: bool) -> El1Entry {
    let class = if Origin::of(target.spsr).is_el0() { 0x24 } else { 0x25 };
    enter(target, class, SYNCHRONOUS_EXTERNAL_ABORT | u64::from(write) << 6, Some(far))
}

/// Injects a synchronous external abort on an instruction fetch at virtual address `far`.
#[must_use]
pub fn instruction_abort(target: &El1Target, far: u64) -> El1Entry {
    let class = if Origin::of(target.spsr).is_el0() { 0x20 } else { 0x21 };
    enter(target, class, SYNCHRONOUS_EXTERNAL_ABORT, Some(far))
}

/// DFSC and IFSC of a synchronous external abort that is not on a table walk.
const SYNCHRONOUS_EXTERNAL_ABORT: u64 = 0x10;

/// ESR_ELx.IL. One for each class used here: an undefined instruction, an instruction abort, and a data abort without
/// ISS.ISV (Arm ARM, ESR_EL1, field IL).
const ESR_IL: u64 = 1 << 25;

fn enter(target: &El1Target, class: u64, iss: u64, far: Option<u64>) -> El1Entry {
    let origin = Origin::of(target.spsr);
    // The rest, UAO, SS, IL, BTYPE and the AArch32 state, is cleared on entry.
    let mut kept = pstate::NZCV | pstate::DIT | pstate::PAN;
    if origin != Origin::El0Aarch32 {
        // In an AArch32 PSTATE this bit belongs to IT.
        kept |= pstate::TCO;
    }
    let mut state = target.spsr & kept | pstate::DAIF | pstate::EL1H;
    if target.sctlr & SCTLR_SPAN == 0 {
        state |= pstate::PAN;
    }
    if target.sctlr & SCTLR_DSSBS != 0 {
        state |= pstate::SSBS;
    }
    El1Entry {
        // VBAR_EL1 bits 10:0 are RES0.
        pc: target.vbar & !0x7ff | origin.vector_offset(),
        pstate: state,
        elr: target.pc,
        spsr: target.spsr,
        esr: class << 26 | ESR_IL | iss,
        far,
    }
}

#[cfg(test)]
mod tests {
    use super::{El1Target, SCTLR_DSSBS, SCTLR_SPAN, data_abort, instruction_abort, undefined};

    const HANDLER: u64 = 0x3c5; // EL1h, D, A, I and F masked.

    fn guest(spsr: u64) -> El1Target {
        El1Target { vbar: 0xffff_8000_1000_0800, spsr, pc: 0xffff_8000_1020_0004, sctlr: SCTLR_SPAN }
    }

    #[test]
    fn kernel_sees_undef_at_its_own_vector_with_everything_masked() {
        let entry = undefined(&guest(0x6000_0005));
        assert_eq!(entry.pc, 0xffff_8000_1000_0a00);
        assert_eq!(entry.pstate, 0x6000_0000 | HANDLER);
        assert_eq!(entry.elr, 0xffff_8000_1020_0004);
        assert_eq!(entry.spsr, 0x6000_0005);
        assert_eq!(entry.esr, 0x0200_0000);
        assert_eq!(entry.far, None);
    }

    #[test]
    fn vector_follows_the_origin() {
        assert_eq!(undefined(&guest(0x4)).pc & 0x7ff, 0x000);
        assert_eq!(undefined(&guest(0x5)).pc & 0x7ff, 0x200);
        assert_eq!(undefined(&guest(0x0)).pc & 0x7ff, 0x400);
        assert_eq!(undefined(&guest(0x10)).pc & 0x7ff, 0x600);
    }

    #[test]
    fn abort_class_tells_user_space_from_kernel() {
        assert_eq!(data_abort(&guest(0x5), 0x10, true).esr, 0x25 << 26 | 1 << 25 | 1 << 6 | 0x10);
        assert_eq!(data_abort(&guest(0x0), 0x10, false).esr, 0x24 << 26 | 1 << 25 | 0x10);
        assert_eq!(data_abort(&guest(0x10), 0x10, false).esr >> 26, 0x24);
        assert_eq!(instruction_abort(&guest(0x5), 0x10).esr, 0x21 << 26 | 1 << 25 | 0x10);
        assert_eq!(instruction_abort(&guest(0x0), 0x10).esr >> 26, 0x20);
    }

    #[test]
    fn abort_names_the_faulting_address() {
        assert_eq!(data_abort(&guest(0x5), 0xdead_0000, false).far, Some(0xdead_0000));
        assert_eq!(instruction_abort(&guest(0x5), 0xdead_0000).far, Some(0xdead_0000));
    }

    #[test]
    fn kernel_that_wants_pan_on_exceptions_gets_it() {
        let pan = 1 << 22;
        assert_eq!(undefined(&guest(0x5)).pstate & pan, 0);
        assert_eq!(undefined(&guest(pan | 0x5)).pstate & pan, pan);
        assert_eq!(undefined(&El1Target { sctlr: 0, ..guest(0x5) }).pstate & pan, pan);
    }

    #[test]
    fn speculation_safety_follows_sctlr_and_not_the_interrupted_code() {
        let ssbs = 1 << 12;
        assert_eq!(undefined(&guest(ssbs | 0x5)).pstate & ssbs, 0);
        let target = El1Target { sctlr: SCTLR_SPAN | SCTLR_DSSBS, ..guest(0x5) };
        assert_eq!(undefined(&target).pstate & ssbs, ssbs);
    }

    #[test]
    fn single_step_illegal_state_uao_and_branch_type_end_at_the_vector() {
        let (step, illegal, uao, branch_type) = (1 << 21, 1 << 20, 1 << 23, 3 << 10);
        assert_eq!(undefined(&guest(step | illegal | uao | branch_type | 0x5)).pstate, HANDLER);
    }

    #[test]
    fn nothing_of_aarch32_state_reaches_the_handler_but_the_flags_dit_and_pan() {
        // Q, IT, GE, E, T and every mode bit set.
        let entry = undefined(&guest(0xffff_ffff));
        assert_eq!(entry.pstate, 0xf000_0000 | 1 << 24 | 1 << 22 | HANDLER);
        assert_eq!(entry.spsr, 0xffff_ffff);
    }
}
