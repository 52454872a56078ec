//! A virtual CPU's registers: what the exit path touches first, then everything that changes hands on a switch. It
//! names nothing that runs a virtual CPU, so that the vectors can stand on it.

use crate::controls;
use core::arch::asm;

/// What a fast handler says at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Verdict {
    /// The exit is answered: back to the guest.
    Resume = 0,
    /// The run loop must see it.
    Leave = 1,
    /// As `Resume`, after a trap that changed no general register of the guest's: a store. Then they need not all be
    /// loaded again.
    ResumeUnchanged = 2,
}

pub(super) type Handler = unsafe extern "C" fn(*mut Context, u64) -> Verdict;

/// The registers of a virtual CPU. The first fields are laid out for the vectors' assembly.
#[repr(C)]
pub struct Context {
    /// X0 to X30.
    pub x: [u64; 31],
    /// Where the guest goes on; held in ELR_EL2 itself while it runs and in the fast tier.
    pub(crate) elr: u64,
    /// The guest's PSTATE; held in SPSR_EL2 itself while it runs and in the fast tier.
    pub(crate) spsr: u64,
    /// EL1 state; meaningful while the virtual CPU is not loaded. Here, where instructions that store pairs reach it.
    pub(crate) el1: El1State,
    pub(crate) hypercall: Handler,
    pub(crate) trap: Handler,
    pub(crate) wait: Handler,
    pub(crate) interrupt: Handler,
    pub(crate) system_error: Handler,
    /// Tells this virtual CPU from every other; never 0.
    pub(crate) identity: u64,
    pub(crate) fp: FpState,
}

/// EL1h, debug exceptions, SError, IRQ and FIQ masked.
pub(super) const RESET_PSTATE: u64 = 0x3c5;

macro_rules! el1_state {
    ($($field:ident = $register:literal, $other_field:ident = $other_register:literal;)*) => {
        /// The EL1 system registers that a guest can change, timers included. They come in pairs, as the instructions
        /// do that load and store them.
        #[repr(C)]
        pub(crate) struct El1State {
            $(pub(crate) $field: u64, pub(crate) $other_field: u64,)*
        }

        impl El1State {
            pub(super) const fn new() -> Self {
                let mut state = Self { $($field: 0, $other_field: 0,)* };
                state.sctlr = controls::SCTLR_EL1_RESET;
                state
            }

            /// Reads this core's EL1 registers into `self`.
            #[inline(always)]
            pub(crate) fn save(&mut self) {
                $(
                    // SAFETY: reads of EL1 registers have no side effects at EL2.
                    unsafe {
                        asm!(concat!("mrs {0}, ", $register), concat!("mrs {1}, ", $other_register),
                            out(reg) self.$field, out(reg) self.$other_field, options(nomem, nostack));
                    }
                )*
            }

            /// Writes `self` to this core's EL1 registers.
            #[inline(always)]
            pub(crate) fn load(&self) {
                $(
                    // SAFETY: EL1 registers do not affect EL2; the next ERET synchronises them.
                    unsafe {
                        asm!(concat!("msr ", $register, ", {0}"), concat!("msr ", $other_register, ", {1}"),
                            in(reg) self.$field, in(reg) self.$other_field, options(nomem, nostack));
                    }
                )*
            }
        }
    };
}

el1_state! {
    sctlr = "sctlr_el1", cpacr = "cpacr_el1";
    ttbr0 = "ttbr0_el1", ttbr1 = "ttbr1_el1";
    tcr = "tcr_el1", mair = "mair_el1";
    amair = "amair_el1", esr = "esr_el1";
    far = "far_el1", afsr0 = "afsr0_el1";
    afsr1 = "afsr1_el1", vbar = "vbar_el1";
    contextidr = "contextidr_el1", tpidr_el1 = "tpidr_el1";
    tpidr_el0 = "tpidr_el0", tpidrro_el0 = "tpidrro_el0";
    sp_el0 = "sp_el0", sp_el1 = "sp_el1";
    elr = "elr_el1", spsr = "spsr_el1";
    csselr = "csselr_el1", par = "par_el1";
    mdscr = "mdscr_el1", cntkctl = "cntkctl_el1";
    cntv_cval = "cntv_cval_el0", cntv_ctl = "cntv_ctl_el0";
    cntp_cval = "cntp_cval_el0", cntp_ctl = "cntp_ctl_el0";
}

/// The FP and SIMD registers. EL2 is built without them, so they change only with the virtual CPU, eagerly.
#[repr(C, align(16))]
pub(crate) struct FpState {
    fpcr: u64,
    fpsr: u64,
    v: [u128; 32],
}

impl FpState {
    pub(super) const fn new() -> Self {
        Self { fpcr: 0, fpsr: 0, v: [0; 32] }
    }

    #[inline(always)]
    pub(crate) fn save(&mut self) {
        // SAFETY: stores within `self`, as laid out above; CPTR_EL2.TFP is clear, so FP instructions do not trap at
        // EL2.
        unsafe {
            asm!(
                ".arch_extension fp", ".arch_extension simd",
                "stp q0, q1, [{0}, #16]", "stp q2, q3, [{0}, #48]", "stp q4, q5, [{0}, #80]", "stp q6, q7, [{0}, #112]",
                "stp q8, q9, [{0}, #144]", "stp q10, q11, [{0}, #176]", "stp q12, q13, [{0}, #208]",
                "stp q14, q15, [{0}, #240]", "stp q16, q17, [{0}, #272]", "stp q18, q19, [{0}, #304]",
                "stp q20, q21, [{0}, #336]", "stp q22, q23, [{0}, #368]", "stp q24, q25, [{0}, #400]",
                "stp q26, q27, [{0}, #432]", "stp q28, q29, [{0}, #464]", "stp q30, q31, [{0}, #496]",
                "mrs {1}, fpcr", "mrs {2}, fpsr", "stp {1}, {2}, [{0}]",
                in(reg) &raw mut *self, out(reg) _, out(reg) _, options(nostack)
            );
        }
    }

    #[inline(always)]
    pub(crate) fn load(&self) {
        // SAFETY: reads within `self`, as laid out above, into registers that no EL2 code uses.
        unsafe {
            asm!(
                ".arch_extension fp", ".arch_extension simd",
                "ldp q0, q1, [{0}, #16]", "ldp q2, q3, [{0}, #48]", "ldp q4, q5, [{0}, #80]", "ldp q6, q7, [{0}, #112]",
                "ldp q8, q9, [{0}, #144]", "ldp q10, q11, [{0}, #176]", "ldp q12, q13, [{0}, #208]",
                "ldp q14, q15, [{0}, #240]", "ldp q16, q17, [{0}, #272]", "ldp q18, q19, [{0}, #304]",
                "ldp q20, q21, [{0}, #336]", "ldp q22, q23, [{0}, #368]", "ldp q24, q25, [{0}, #400]",
                "ldp q26, q27, [{0}, #432]", "ldp q28, q29, [{0}, #464]", "ldp q30, q31, [{0}, #496]",
                "ldp {1}, {2}, [{0}]", "msr fpcr, {1}", "msr fpsr, {2}",
                in(reg) &raw const *self, out(reg) _, out(reg) _, options(nostack, readonly)
            );
        }
    }
}
