//! All CPUs at once, each with a device of its own.

use crate::{Slots, load};
use core::sync::atomic::{AtomicUsize, Ordering};
use rt::{cpu, timer};
use spin::Mutex;
use testkit::{Failure, ensure, report};

/// Rounds with each device.
const ROUNDS: u64 = 3;
const LIMIT_MICROSECONDS: u64 = 60_000_000;

static SLOTS: Mutex<Slots> = Mutex::new(Slots::new_const());
static FINISHED: AtomicUsize = AtomicUsize::new(0);
static FAILURE: Mutex<Option<Failure>> = Mutex::new(None);

pub(crate) fn run(slots: Slots) {
    *SLOTS.lock() = slots;
    report::test("all CPUs use devices at the same time", || {
        cpu::start_others(work)?;
        work(0);
        let all = timer::wait_until(LIMIT_MICROSECONDS, || FINISHED.load(Ordering::Acquire) == cpu::count());
        if let Some(failure) = FAILURE.lock().take() {
            return Err(failure);
        }
        ensure!(all, "{} of {} CPUs came to the end", FINISHED.load(Ordering::Acquire), cpu::count());
        Ok(())
    });
}

/// Takes devices as long as there are any.
fn work(_: usize) {
    loop {
        // A guard in the condition of a `while let` would live through its body.
        let slot = SLOTS.lock().pop();
        let Some(mut slot) = slot else { break };
        for round in 0..ROUNDS {
            if let Err(failure) = load::one(&mut slot, 500 + round) {
                *FAILURE.lock() = Some(failure);
            }
        }
    }
    FINISHED.fetch_add(1, Ordering::AcqRel);
}
