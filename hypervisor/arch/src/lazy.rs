//! Registers that few guests use: they change hands only with a virtual CPU that does.
//!
//! Breakpoints and watchpoints that are on are so while their virtual CPU is loaded, and off for everybody else; what
//! else they hold nobody can read. SCXTNUM_EL0 and
//! SCXTNUM_EL1 (FEAT_CSV2_2), by which software names its contexts to branch prediction, trap until they are used.

use crate::controls::HCR_SOFTWARE_CONTEXT;
use crate::registers::{ID_AA64DFR0_EL1, MDSCR_EL1, SCXTNUM_EL0, SCXTNUM_EL1};
use aarch64::debug::{Comparators, Counts, DebugRegisters};
use aarch64::exit::SystemRegister;
use aarch64_cpu::registers::HCR_EL2;
use core::arch::global_asm;
use tock_registers::interfaces::{Readable, Writeable};

/// What a virtual CPU has of them.
pub(crate) struct LazyState {
    /// Whether there is anything to load and save.
    pub(crate) is_used: bool,
    debug: DebugRegisters,
    /// SCXTNUM_EL0 and SCXTNUM_EL1, while not loaded.
    software_context: Option<[u64; 2]>,
}

impl LazyState {
    pub(crate) const fn new() -> Self {
        Self { is_used: false, debug: DebugRegisters::new(), software_context: None }
    }

    /// Gives this core's registers back to the virtual CPU, which is being loaded. (MDSCR_EL1 is among those that
    /// always change hands.)
    #[cold]
    #[inline(never)]
    pub(crate) fn load(&self) {
        set_comparators(self.debug.comparators());
        if let Some([el0, el1]) = self.software_context {
            HCR_EL2.set(HCR_EL2.get() | HCR_SOFTWARE_CONTEXT);
            SCXTNUM_EL0.set(el0);
            SCXTNUM_EL1.set(el1);
        }
    }

    /// Leaves nothing of the virtual CPU in this core's registers.
    #[cold]
    #[inline(never)]
    pub(crate) fn save(&mut self) {
        set_comparators(&Comparators::OFF);
        if let Some(software_context) = &mut self.software_context {
            *software_context = [SCXTNUM_EL0.get(), SCXTNUM_EL1.get()];
            SCXTNUM_EL0.set(0);
            SCXTNUM_EL1.set(0);
        }
    }
}

impl LazyState {
    /// What the guest reads from the debug register `register`; `None` if there is none.
    pub(crate) fn read_debug_register(&self, register: SystemRegister) -> Option<u64> {
        self.debug.read(register, counts())
    }

    /// The guest, which is loaded, stores to the debug register `register`; `None` if there is none.
    pub(crate) fn write_debug_register(&mut self, register: SystemRegister, value: u64) -> Option<()> {
        let was_on = self.debug.is_on();
        self.debug.write(register, value, counts())?;
        MDSCR_EL1.set(self.debug.monitor());
        let is_on = self.debug.is_on();
        if was_on || is_on {
            set_comparators(self.debug.comparators());
        }
        self.is_used = is_on || self.software_context.is_some();
        Some(())
    }

    /// The guest, which is loaded, has come upon the trap of SCXTNUM_EL0 or SCXTNUM_EL1: they are its own from now on.
    /// Returns whether that is new.
    pub(crate) fn enable_software_context(&mut self) -> bool {
        self.is_used = true;
        HCR_EL2.set(HCR_EL2.get() | HCR_SOFTWARE_CONTEXT);
        let is_first = self.software_context.replace([0; 2]).is_none();
        if is_first {
            SCXTNUM_EL0.set(0);
            SCXTNUM_EL1.set(0);
        }
        is_first
    }
}

/// How many this core has (Arm ARM, ID_AA64DFR0_EL1: BRPs and WRPs, less one each).
fn counts() -> Counts {
    let features = ID_AA64DFR0_EL1.get();
    let count = |shift: u32| (features >> shift & 0xf) as usize + 1;
    Counts { breakpoints: count(12), watchpoints: count(20) }
}

fn set_comparators(comparators: &Comparators) {
    let Counts { breakpoints, watchpoints } = counts();
    // SAFETY: the counts are this core's. What the registers hold concerns EL1 and EL0 alone: MDCR_EL2.TDE is clear, so
    // that no debug exception is EL2's, and none of EL1's is taken here (Arm ARM D2.4).
    unsafe { load_comparators(comparators, breakpoints, watchpoints) };
}

unsafe extern "C" {
    /// Loads so many breakpoints and watchpoints.
    ///
    /// # Safety
    /// The core must have them, and no more than 16 of either.
    fn load_comparators(comparators: *const Comparators, breakpoints: usize, watchpoints: usize);
}

// The registers are named by the instructions, three for each; those of numbers that the core lacks are jumped over.
global_asm!(
    r#"
.section .text.load_comparators, "ax"
.balign 4
.global load_comparators
load_comparators:
    mov     x3, #12
    adr     x4, 2f
    msub    x4, x1, x3, x4
    br      x4
.irp number, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0
    ldp     x4, x5, [x0, #16 * \number]
    msr     s2_0_c0_c\number\()_4, x4
    msr     s2_0_c0_c\number\()_5, x5
.endr
2:  add     x0, x0, #256
    adr     x4, 3f
    msub    x4, x2, x3, x4
    br      x4
.irp number, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0
    ldp     x4, x5, [x0, #16 * \number]
    msr     s2_0_c0_c\number\()_6, x4
    msr     s2_0_c0_c\number\()_7, x5
.endr
3:  ret
"#
);

const _: () = assert!(core::mem::offset_of!(Comparators, watchpoints) == 256, "the assembly counts on it");
