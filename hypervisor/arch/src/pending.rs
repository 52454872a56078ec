//! Whether this core has an interrupt pending; leaves out which, and whose.

use core::arch::asm;

/// Whether a physical interrupt is pending for this core (Arm ARM D19.2.60, ISR_EL1: I, or F). What takes long at EL2
/// asks now and then.
#[inline(always)]
#[must_use]
pub fn has_pending_interrupt() -> bool {
    let pending: u64;
    // SAFETY: a register without side effects.
    unsafe { asm!("mrs {0}, isr_el1", out(reg) pending, options(nomem, nostack)) };
    pending & (0b11 << 6) != 0
}
