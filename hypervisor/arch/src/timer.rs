//! The generic timer: EL2's own deadline (CNTHP) and the clock; and what the wall clock said at its beginning.

use crate::gic;
use crate::registers::{CNTHP_CTL_EL2, CNTHP_CVAL_EL2};
use aarch64_cpu::registers::{CNTFRQ_EL0, CNTP_CTL_EL0, CNTPCT_EL0, CNTV_CTL_EL0};
use core::arch::asm;
use tock_registers::interfaces::{Readable, Writeable};
use vdev::{Clock, Ticks};

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

/// Sees to it that the interrupt of this core's deadline comes at `deadline` at the latest.
#[inline(never)]
pub fn advance_deadline(deadline: Ticks) {
    // CNTHP_CTL_EL2.ENABLE (Arm ARM D24.2.5); EL2 leaves IMASK clear.
    if CNTHP_CTL_EL2.get() & 1 == 0 || CNTHP_CVAL_EL2.get() > deadline.0 {
        set_deadline(Some(deadline));
    }
}

/// What is known of time on a board whose PL031, if it has one, is at `clock`: it is read once. Called with the MMU
/// off, so that nothing of it needs to be mapped.
pub(crate) fn clock(clock: Option<u64>) -> Clock {
    let frequency = frequency();
    let epoch_seconds = clock.map(|clock| {
        // SAFETY: RTCDR of the PL031 (DDI0224 3.3.1), which the board's device tree has at this address; with the MMU
        // off all memory is device memory, and a load changes nothing there.
        let seconds = unsafe { (clock as *const u32).read_volatile() };
        u64::from(seconds).saturating_sub(now().0 / frequency)
    });
    Clock { frequency, epoch_seconds }
}

/// Stops this core's EL1 timers. Their state has been saved.
#[inline]
///
/// A barrier must follow before their interrupts are deactivated, or they would fire again.
pub(crate) fn stop_guest_timers() {
    CNTV_CTL_EL0.set(0);
    CNTP_CTL_EL0.set(0);
}
