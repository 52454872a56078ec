//! The hardware behind the vGIC: `ICH_LR<n>_EL2` and their control register (IHI 0069 12.4).

use crate::gic;
use crate::pending::has_pending_interrupt;
use crate::registers::{
    ICH_AP0R0_EL2, ICH_AP1R0_EL2, ICH_EISR_EL2, ICH_ELRSR_EL2, ICH_HCR_EL2, ICH_VMCR_EL2, ICH_VTR_EL2,
};
use aarch64_cpu::registers::{
    ICH_LR0_EL2, ICH_LR1_EL2, ICH_LR2_EL2, ICH_LR3_EL2, ICH_LR4_EL2, ICH_LR5_EL2, ICH_LR6_EL2, ICH_LR7_EL2,
    ICH_LR8_EL2, ICH_LR9_EL2, ICH_LR10_EL2, ICH_LR11_EL2, ICH_LR12_EL2, ICH_LR13_EL2, ICH_LR14_EL2, ICH_LR15_EL2,
};
use tock_registers::interfaces::{Readable, Writeable};
use vgic::{ListRegister, ListRegisters};

/// ICH_VTR_EL2.TDS: ICH_HCR_EL2.TDIR exists.
const VTR_TDS: u64 = 1 << 19;
/// ICH_HCR_EL2: En; LRENPIE (EOI with no list register); NPIE (no pending interrupt); TDIR (trap ICC_DIR_EL1); EOIcount
/// at bit 27.
const EN: u64 = 1;
const LRENPIE: u64 = 1 << 2;
const NPIE: u64 = 1 << 3;
const TDIR: u64 = 1 << 14;
const EOI_COUNT_SHIFT: u64 = 27;
const EOI_COUNT_MASK: u64 = 0x1f << EOI_COUNT_SHIFT;

/// This core's list registers.
pub struct CoreListRegisters(());

impl CoreListRegisters {
    /// The list registers of the core that runs this.
    #[inline]
    #[must_use]
    pub fn of_this_core() -> Self {
        Self(())
    }
}

macro_rules! by_index {
    ($index:expr, $register:ident => $action:expr, else $otherwise:expr) => {
        by_index!(@ $index, $register => $action, $otherwise,
            0 ICH_LR0_EL2, 1 ICH_LR1_EL2, 2 ICH_LR2_EL2, 3 ICH_LR3_EL2, 4 ICH_LR4_EL2, 5 ICH_LR5_EL2, 6 ICH_LR6_EL2,
            7 ICH_LR7_EL2, 8 ICH_LR8_EL2, 9 ICH_LR9_EL2, 10 ICH_LR10_EL2, 11 ICH_LR11_EL2, 12 ICH_LR12_EL2,
            13 ICH_LR13_EL2, 14 ICH_LR14_EL2, 15 ICH_LR15_EL2)
    };
    (@ $index:expr, $register:ident => $action:expr, $otherwise:expr, $($number:literal $name:ident),*) => {
        match $index {
            $($number => { let $register = &$name; $action })*
            _ => $otherwise,
        }
    };
}

impl ListRegisters for CoreListRegisters {
    #[inline]
    fn count(&self) -> usize {
        (ICH_VTR_EL2.get() & 0x1f) as usize + 1
    }

    #[inline(always)]
    fn read(&self, index: usize) -> ListRegister {
        ListRegister::from_bits(if index == 0 { ICH_LR0_EL2.get() } else { read_any(index) })
    }

    #[inline(always)]
    fn write(&mut self, index: usize, value: ListRegister) {
        // The first one is the one of the exits that count.
        if index == 0 {
            ICH_LR0_EL2.set(value.bits());
        } else {
            write_any(index, value.bits());
        }
    }

    #[inline(always)]
    fn empty(&self) -> u32 {
        ICH_ELRSR_EL2.get() as u32
    }

    #[inline]
    fn ended(&self) -> u32 {
        ICH_EISR_EL2.get() as u32
    }

    fn set_no_pending_interrupt(&mut self, on: bool) {
        set_control(NPIE, on);
    }

    fn set_unlisted_eoi_interrupt(&mut self, on: bool) {
        let has_tdir = ICH_VTR_EL2.get() & VTR_TDS != 0;
        set_control(if has_tdir { LRENPIE | TDIR } else { LRENPIE }, on);
    }

    fn take_unlisted_eois(&mut self) -> u32 {
        let control = ICH_HCR_EL2.get();
        let count = (control & EOI_COUNT_MASK) >> EOI_COUNT_SHIFT;
        if count != 0 {
            ICH_HCR_EL2.set(control & !EOI_COUNT_MASK);
        }
        // With EOImode = 1 an EOI ends nothing, be it counted or not (QEMU does), and what does end an interrupt traps.
        if control & TDIR != 0 && ICH_VMCR_EL2.get() & VMCR_VEOIM != 0 { 0 } else { count as u32 }
    }

    #[inline(always)]
    fn has_pending_interrupt(&self) -> bool {
        has_pending_interrupt()
    }

    fn deactivate_physical(&mut self, physical: u32) {
        gic::deactivate(physical);
    }
}

#[inline(never)]
fn read_any(index: usize) -> u64 {
    by_index!(index, register => register.get(), else 0)
}

#[inline(never)]
fn write_any(index: usize, value: u64) {
    by_index!(index, register => register.set(value), else ());
}

#[cold]
#[inline(never)]
fn set_control(bits: u64, on: bool) {
    let before = ICH_HCR_EL2.get();
    let after = if on { before | bits } else { before & !bits };
    if after != before {
        ICH_HCR_EL2.set(after);
    }
}

/// ICH_VMCR_EL2.VEOIM: the guest's ICC_CTLR_EL1.EOImode.
const VMCR_VEOIM: u64 = 1 << 9;

/// What the virtual CPU interface holds beside the list registers: priority mask, enables, active priorities, and the
/// maintenance interrupts asked for.
#[derive(Clone, Copy, Debug)]
pub struct VirtualInterface {
    vmcr: u64,
    ap0r: u64,
    ap1r: u64,
    hcr: u64,
}

impl VirtualInterface {
    /// The state at reset: everything masked.
    #[must_use]
    pub const fn reset() -> Self {
        Self { vmcr: 0, ap0r: 0, ap1r: 0, hcr: EN }
    }

    /// Loads this state on this core.
    ///
    /// One active-priorities register a group is enough: Bulkhead's vGIC has five bits of priority.
    #[inline(always)]
    pub fn load(&self) {
        ICH_VMCR_EL2.set(self.vmcr);
        ICH_AP0R0_EL2.set(self.ap0r);
        ICH_AP1R0_EL2.set(self.ap1r);
        ICH_HCR_EL2.set(self.hcr);
    }

    /// Reads this core's state, and turns its virtual interface off.
    #[inline(always)]
    #[must_use]
    pub fn save() -> Self {
        let state = Self {
            vmcr: ICH_VMCR_EL2.get(),
            ap0r: ICH_AP0R0_EL2.get(),
            ap1r: ICH_AP1R0_EL2.get(),
            hcr: ICH_HCR_EL2.get(),
        };
        ICH_HCR_EL2.set(0);
        state
    }
}
