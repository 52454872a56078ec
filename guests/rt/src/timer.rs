//! The counters and the EL1 timers (Arm ARM D12).

use crate::{gic, interrupts};
use aarch64_cpu::asm::barrier;
use aarch64_cpu::registers::{
    CNTFRQ_EL0, CNTP_CTL_EL0, CNTP_CVAL_EL0, CNTPCT_EL0, CNTV_CTL_EL0, CNTV_CVAL_EL0, CNTVCT_EL0, Readable, Writeable,
};

/// The INTID of the EL1 virtual timer.
pub const VIRTUAL_TIMER: u32 = 27;
/// The INTID of the EL1 physical timer.
pub const PHYSICAL_TIMER: u32 = 30;

/// The virtual counter (CNTVCT_EL0), in ticks.
#[must_use]
pub fn now() -> u64 {
    barrier::isb(barrier::SY);
    CNTVCT_EL0.get()
}

/// The physical counter (CNTPCT_EL0), in ticks since the board started.
#[must_use]
pub fn physical_now() -> u64 {
    barrier::isb(barrier::SY);
    CNTPCT_EL0.get()
}

/// Ticks per second.
#[must_use]
pub fn frequency() -> u64 {
    CNTFRQ_EL0.get()
}

/// The ticks in `microseconds`.
#[must_use]
pub fn ticks(microseconds: u64) -> u64 {
    (u128::from(microseconds) * u128::from(frequency()) / 1_000_000) as u64
}

/// The microseconds in `ticks`.
#[must_use]
pub fn microseconds(ticks: u64) -> u64 {
    (u128::from(ticks) * 1_000_000 / u128::from(frequency().max(1))) as u64
}

/// Arms the virtual timer: its interrupt is raised once the virtual counter reaches `deadline`, and stays so.
pub fn arm(deadline: u64) {
    CNTV_CVAL_EL0.set(deadline);
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET);
    barrier::isb(barrier::SY);
}

/// Arms the virtual timer with its interrupt masked at the timer.
pub fn arm_masked(deadline: u64) {
    CNTV_CVAL_EL0.set(deadline);
    CNTV_CTL_EL0.write(CNTV_CTL_EL0::ENABLE::SET + CNTV_CTL_EL0::IMASK::SET);
    barrier::isb(barrier::SY);
}

/// Says whether the virtual timer's condition is met (ISTATUS), masked or not.
#[must_use]
pub fn condition_met() -> bool {
    barrier::isb(barrier::SY);
    CNTV_CTL_EL0.is_set(CNTV_CTL_EL0::ISTATUS)
}

/// Turns the virtual timer off.
pub fn disarm() {
    CNTV_CTL_EL0.set(0);
    barrier::isb(barrier::SY);
}

/// Arms the physical timer, against the physical counter.
pub fn arm_physical(deadline: u64) {
    CNTP_CVAL_EL0.set(deadline);
    CNTP_CTL_EL0.write(CNTP_CTL_EL0::ENABLE::SET);
    barrier::isb(barrier::SY);
}

/// Turns the physical timer off.
pub fn disarm_physical() {
    CNTP_CTL_EL0.set(0);
    barrier::isb(barrier::SY);
}

/// Waits until `condition` holds, for at most `microseconds`; says whether it came to hold.
pub fn wait_until(microseconds: u64, mut condition: impl FnMut() -> bool) -> bool {
    let end = now().saturating_add(ticks(microseconds));
    loop {
        if condition() {
            return true;
        }
        if now() >= end {
            return condition();
        }
        core::hint::spin_loop();
    }
}

/// Spins for `microseconds`.
pub fn spin(microseconds: u64) {
    wait_until(microseconds, || false);
}

/// Waits for `microseconds` without using the core, interrupts masked. The CPU's GIC interface must be set up; its
/// virtual timer's interrupt is left disabled.
pub fn sleep(microseconds: u64) {
    let end = now().saturating_add(ticks(microseconds));
    interrupts::without(|| {
        gic::enable(VIRTUAL_TIMER);
        arm(end);
        while now() < end {
            interrupts::wait();
        }
        disarm();
        gic::disable(VIRTUAL_TIMER);
    });
}
