//! What CPU 1 does while this one tests.

use core::sync::atomic::{AtomicBool, Ordering};
use rt::{cpu, timer};
use spin::Mutex;
use testkit::{Outcome, ensure};

/// Says whether the other CPU is to go on.
pub type GoesOn = fn() -> bool;

/// How long the other CPU may take to start, and to come to its end.
const LIMIT_MICROSECONDS: u64 = 1_000_000;
/// How long it may take from there until it is off.
const OFF_MICROSECONDS: u64 = 2_000;

static WORK: Mutex<Option<fn(GoesOn)>> = Mutex::new(None);
static GOING: AtomicBool = AtomicBool::new(false);
static AT_WORK: AtomicBool = AtomicBool::new(false);

fn goes_on() -> bool {
    GOING.load(Ordering::Acquire)
}

fn run(_: usize) {
    AT_WORK.store(true, Ordering::Release);
    let work = *WORK.lock();
    if let Some(work) = work {
        work(goes_on);
    }
    AT_WORK.store(false, Ordering::Release);
}

/// Runs `test` while CPU 1 does `work`, which ends when it is told to.
///
/// # Errors
/// What `test` gives, or that the other CPU does not start or does not end.
pub fn beside(work: fn(GoesOn), test: impl FnOnce() -> Outcome) -> Outcome {
    *WORK.lock() = Some(work);
    GOING.store(true, Ordering::Release);
    let outcome = started().and_then(|()| test());
    GOING.store(false, Ordering::Release);
    let ended = timer::wait_until(LIMIT_MICROSECONDS, || !AT_WORK.load(Ordering::Acquire));
    timer::spin(OFF_MICROSECONDS);
    outcome?;
    ensure!(ended, "the other CPU has not come to its end");
    Ok(())
}

fn started() -> Outcome {
    cpu::start(1, run)?;
    ensure!(timer::wait_until(LIMIT_MICROSECONDS, || AT_WORK.load(Ordering::Acquire)), "the other CPU has not started");
    Ok(())
}
