//! A virtual CPU's registers: what the exit path touches first, then everything that changes hands on a switch.
//!
//! Leaves out what a virtual CPU *means* (its VM, its interrupts): that is the type parameter of [`Vcpu`].

use crate::lazy::LazyState;
use crate::per_core;
use crate::vectors::enter_guest;
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};

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

/// What EL2 does when a guest leaves; `Self` is what the hypervisor keeps for each virtual CPU.
///
/// The handlers run on the exit path, with interrupts masked, and are the *fast tier*: they answer or say
/// [`Verdict::Leave`], and never wait.
pub trait Guest: Sized {
    /// An HVC from AArch64.
    fn hypercall(vcpu: &mut Vcpu<Self>) -> Verdict;
    /// A trapped WFI or WFE; `esr` is ESR_EL2.
    fn wait(vcpu: &mut Vcpu<Self>, esr: u64) -> Verdict;
    /// Any other synchronous exit; `esr` is ESR_EL2.
    fn trap(vcpu: &mut Vcpu<Self>, esr: u64) -> Verdict;
    /// A physical interrupt.
    fn interrupt(vcpu: &mut Vcpu<Self>) -> Verdict;
    /// An SError; `esr` is ESR_EL2.
    fn system_error(vcpu: &mut Vcpu<Self>, esr: u64) -> Verdict;
}

type Handler = unsafe extern "C" fn(*mut Context, u64) -> Verdict;

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

/// A virtual CPU: registers, and what the hypervisor keeps with them.
#[repr(C)]
pub struct Vcpu<G: Guest> {
    /// The registers.
    pub context: Context,
    /// The hypervisor's own part.
    pub guest: G,
    pub(crate) lazy: LazyState,
}

macro_rules! handler {
    ($name:ident, $method:ident ( $($argument:ident)? )) => {
        /// # Safety
        /// `context` is the one that [`Vcpu::enter`] handed to the vectors.
        unsafe extern "C" fn $name<G: Guest>(context: *mut Context, _esr: u64) -> Verdict {
            // SAFETY: `enter` passed the address of a whole `Vcpu<G>` that it holds exclusively, and the context is its
            // first field; `enter` does not touch it until the guest has left.
            let vcpu = unsafe { &mut *context.cast::<Vcpu<G>>() };
            $(let $argument = _esr;)?
            G::$method(vcpu $(, $argument)?)
        }
    };
}

handler!(hypercall, hypercall());
handler!(wait, wait(esr));
handler!(trap, trap(esr));
handler!(interrupt, interrupt());
handler!(system_error, system_error(esr));

impl<G: Guest> Vcpu<G> {
    /// A virtual CPU that has never run; [`Vcpu::start_at`] comes before [`Vcpu::enter`].
    pub fn new(guest: G) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            context: Context {
                x: [0; 31],
                elr: 0,
                spsr: RESET_PSTATE,
                hypercall: hypercall::<G>,
                trap: trap::<G>,
                wait: wait::<G>,
                interrupt: interrupt::<G>,
                system_error: system_error::<G>,
                identity: NEXT.fetch_add(1, Ordering::Relaxed),
                el1: El1State::new(),
                fp: FpState::new(),
            },
            guest,
            lazy: LazyState::new(),
        }
    }

    /// Runs the guest until a fast handler says [`Verdict::Leave`].
    ///
    /// Its list registers must be loaded too.
    ///
    /// # Panics
    /// If the virtual CPU is not loaded on this core ([`Vcpu::load`]).
    pub fn enter(&mut self) {
        let loaded = per_core::this().loaded.load(Ordering::Relaxed);
        assert!(loaded == self.context.identity, "a virtual CPU runs where it is loaded");
        // SAFETY: the context is exclusively ours during the call, and this core's EL1 state and stage 2 are its own.
        // That the list registers are is the caller's contract; were it broken, a guest would get another's interrupts,
        // but EL2's memory is out of reach of either.
        unsafe { enter_guest((&raw mut *self).cast::<Context>()) }
    }

    /// Resets the registers as PSCI CPU_ON does (DEN0022 6.4): EL1h, MMU off, interrupts masked, `x0` = `argument`.
    pub fn start_at(&mut self, entry: u64, argument: u64) {
        self.context.x = [0; 31];
        self.context.x[0] = argument;
        self.context.elr = entry;
        self.context.spsr = RESET_PSTATE;
        self.context.el1 = El1State::new();
        self.lazy = LazyState::new();
        self.context.fp = FpState::new();
    }

    /// General register `index`; 31 reads as zero.
    #[inline]
    pub fn register(&self, index: u8) -> u64 {
        self.context.x.get(usize::from(index)).copied().unwrap_or(0)
    }

    /// Sets general register `index`; 31 ignores it.
    #[inline]
    pub fn set_register(&mut self, index: u8, value: u64) {
        if let Some(register) = self.context.x.get_mut(usize::from(index)) {
            *register = value;
        }
    }
}

/// EL1h, debug exceptions, SError, IRQ and FIQ masked.
const RESET_PSTATE: u64 = 0x3c5;

/// SCTLR_EL1's RES1 bits (Arm ARM D19.2.118): MMU and caches off.
const RESET_SCTLR: u64 = 0x30d0_0800;

macro_rules! el1_state {
    ($($field:ident = $register:literal, $other_field:ident = $other_register:literal;)*) => {
        /// The EL1 system registers that a guest can change, timers included. They come in pairs, as the instructions
        /// do that load and store them.
        #[repr(C)]
        pub(crate) struct El1State {
            $(pub(crate) $field: u64, pub(crate) $other_field: u64,)*
        }

        impl El1State {
            const fn new() -> Self {
                let mut state = Self { $($field: 0, $other_field: 0,)* };
                state.sctlr = RESET_SCTLR;
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
    const fn new() -> Self {
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
