//! The generic timer: EL2's own deadline (CNTHP) and the clock.

use crate::gic;
use crate::registers::{CNTHP_CTL_EL2, CNTHP_CVAL_EL2};
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTP_CTL_EL0, CNTPCT_EL0, CNTV_CTL_EL0};
use core::arch::asm;
use tock_registers::interfaces::{Readable, Writeable};
use vdev::Ticks;

/// The board's system counter.
#[inline(always)]
pub fn now() -> Ticks {
    // SAFETY: a barrier, so that the counter is not read early (Arm ARM D12.1.2).
    unsafe { asm!("isb", options(nomem, nostack)) };
    Ticks(CNTPCT_EL0.get())
}

/// Ticks of the system counter in a second.
#[inline]
pub fn frequency() -> u64 {
    CNTFRQ_EL0.get().max(1)
}

/// The loaded guest's timer interrupts (a bitmap of PPIs) whose timers are off or have not met their condition.
#[inline]
pub fn quiet_guest_timers() -> u32 {
    // CNTx_CTL_EL0 (Arm ARM D24.2): ENABLE, IMASK, ISTATUS.
    let is_quiet = |control: u64| control & 0b111 != 0b101;
    u32::from(is_quiet(CNTV_CTL_EL0.get())) << gic::VIRTUAL_TIMER
        | u32::from(is_quiet(CNTP_CTL_EL0.get())) << gic::PHYSICAL_TIMER
}

/// Asks for the interrupt [`crate::gic::HYP_TIMER`] on this core at `deadline`, or for none.
#[inline]
pub fn set_deadline(deadline: Option<Ticks>) {
    match deadline {
        Some(Ticks(count)) => {
            CNTHP_CVAL_EL2.set(count);
            CNTHP_CTL_EL2.set(1);
        }
        None => CNTHP_CTL_EL2.set(0),
    }
}

/// Stops this core's EL1 timers. Their state has been saved.
#[inline]
///
/// A barrier must follow before their interrupts are deactivated, or they would fire again.
pub(crate) fn stop_guest_timers() {
    CNTV_CTL_EL0.set(0);
    CNTP_CTL_EL0.set(0);
}
