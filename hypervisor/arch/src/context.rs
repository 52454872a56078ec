//! A virtual CPU, and how it runs.
//!
//! Leaves out what a virtual CPU *means* (its VM, its interrupts): that is the type parameter of [`Vcpu`].

pub(crate) mod registers;

pub use registers::{Context, Verdict};

use crate::lazy::LazyState;
use crate::per_core;
use crate::vectors::enter_guest;
use aarch64::exit::SystemRegister;
use core::sync::atomic::{AtomicU64, Ordering};
use registers::{El1State, FpState, RESET_PSTATE};

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

    /// What the guest reads from the debug register `register`; `None` if there is none.
    pub fn read_debug_register(&self, register: SystemRegister) -> Option<u64> {
        self.lazy.read_debug_register(register)
    }

    /// The guest, which is loaded, stores to the debug register `register`; `None` if there is none.
    pub fn write_debug_register(&mut self, register: SystemRegister, value: u64) -> Option<()> {
        self.lazy.write_debug_register(register, value)
    }

    /// The guest, which is loaded, has come upon the trap of SCXTNUM_EL0 or SCXTNUM_EL1: they are its own from now on.
    /// Returns whether that is new.
    pub fn enable_software_context(&mut self) -> bool {
        self.lazy.enable_software_context()
    }
}
