//! Interrupts on one CPU: their end, one sent to oneself, and the virtual timer.

use crate::clock::{self, Moments, ROUNDS};
use core::sync::atomic::{AtomicU64, Ordering};
use rt::gic::{self, Target};
use rt::timer::{self, VIRTUAL_TIMER};
use rt::{cpu, interrupts};
use spin::Once;
use testkit::clock::Clock;

const SGI: u32 = 1;
/// From arming the timer to its deadline.
const AHEAD_NANOSECONDS: u64 = 20_000;
/// How often a test looks for what it waits for.
const PATIENCE: u32 = 1_000_000;

/// The clock, while its interrupt is measured.
static CLOCK: Once<Clock> = Once::new();
static TAKEN: AtomicU64 = AtomicU64::new(0);
static TAKEN_AT: AtomicU64 = AtomicU64::new(0);

pub fn run() {
    interrupts::set_handler(take);
    gic::enable(SGI);
    end();
    to_self();
    gic::disable(SGI);
    gic::enable(VIRTUAL_TIMER);
    on_time("timer-running", false);
    on_time("timer-waiting", true);
    gic::disable(VIRTUAL_TIMER);
    of_device();
}

/// The virtual timer of a CPU in WFI, while another one on its core computes.
pub fn beside_neighbour(name: &str) {
    interrupts::set_handler(take);
    gic::enable(VIRTUAL_TIMER);
    on_time(name, true);
    gic::disable(VIRTUAL_TIMER);
}

fn take(_cpu: usize, id: u32) {
    let round = TAKEN.load(Ordering::Relaxed);
    if id == VIRTUAL_TIMER {
        clock::shift_phase(round);
        TAKEN_AT.store(timer::now(), Ordering::Relaxed);
        timer::disarm();
    }
    if let Some(clock) = CLOCK.get().filter(|clock| clock.interrupt() == id) {
        TAKEN_AT.store(timer::now(), Ordering::Relaxed);
        clock.lower();
    }
    TAKEN.store(round + 1, Ordering::Relaxed);
}

/// From the store that raises the interrupt of the board's clock to the handler: a device of the guest's own.
fn of_device() {
    const NAME: &str = "assigned-interrupt";
    let Some(clock) = Clock::find() else { return clock::absent(NAME, "the guest has no clock of the board's") };
    let clock = CLOCK.call_once(|| clock);
    if !clock.prepare() {
        return clock::absent(NAME, "the clock's alarm is not due when it should be");
    }
    gic::set_trigger(clock.interrupt(), gic::Trigger::Level);
    gic::route(clock.interrupt(), 0);
    gic::enable(clock.interrupt());
    interrupts::unmask();
    let mut total = 0;
    for round in 0..ROUNDS {
        TAKEN.store(0, Ordering::Relaxed);
        clock::shift_phase(round);
        let start = timer::now();
        clock.raise();
        for _ in 0..PATIENCE {
            if TAKEN.load(Ordering::Relaxed) != 0 {
                break;
            }
        }
        if TAKEN.load(Ordering::Relaxed) == 0 {
            interrupts::mask();
            return clock::absent(NAME, "the clock's interrupt does not come");
        }
        total += TAKEN_AT.load(Ordering::Relaxed).saturating_sub(start);
    }
    interrupts::mask();
    gic::disable(clock.interrupt());
    clock.end();
    clock::print(NAME, ROUNDS, clock::nanoseconds(total), 0);
}

/// ICC_EOIR1_EL1 alone: each round makes an SGI active, and only its end is timed.
fn end() {
    let mut total = 0;
    let mut empty = 0;
    for round in 0..ROUNDS {
        gic::send_sgi(SGI, Target::Cpu(0));
        let mut id = None;
        for _ in 0..PATIENCE {
            id = gic::acknowledge();
            if id.is_some() {
                break;
            }
        }
        let Some(id) = id else { return clock::absent("eoi", "an SGI to oneself does not come") };
        clock::shift_phase(round);
        let start = timer::now();
        gic::end(id);
        total += timer::now() - start;
    }
    for round in 0..ROUNDS {
        clock::shift_phase(round);
        let start = timer::now();
        cpu::nop();
        empty += timer::now() - start;
    }
    clock::print("eoi", ROUNDS, clock::nanoseconds(total), clock::nanoseconds(empty));
}

/// An SGI to this CPU, from the write that sends it until its handler is done and this code goes on.
fn to_self() {
    interrupts::unmask();
    clock::measure("sgi-self", || {
        let before = TAKEN.load(Ordering::Relaxed);
        gic::send_sgi(SGI, Target::Cpu(0));
        for _ in 0..PATIENCE {
            if TAKEN.load(Ordering::Relaxed) != before {
                break;
            }
        }
    });
    interrupts::mask();
}

/// From the deadline of the virtual timer to its handler, with the CPU busy or waiting in WFI.
fn on_time(name: &str, waiting: bool) {
    let ahead = timer::frequency() * AHEAD_NANOSECONDS / 1_000_000_000;
    let mut moments = Moments::new();
    TAKEN.store(0, Ordering::Relaxed);
    for round in 0..ROUNDS {
        let deadline = timer::now() + ahead;
        timer::arm(deadline);
        if waiting {
            // Masked, so that an interrupt between the look and the wait ends the wait.
            while TAKEN.load(Ordering::Relaxed) == round {
                interrupts::wait();
                interrupts::unmask();
                interrupts::mask();
            }
        } else {
            interrupts::unmask();
            for _ in 0..PATIENCE {
                if TAKEN.load(Ordering::Relaxed) != round {
                    break;
                }
            }
            interrupts::mask();
        }
        if TAKEN.load(Ordering::Relaxed) == round {
            timer::disarm();
            return clock::absent(name, "the virtual timer does not come");
        }
        moments.note(TAKEN_AT.load(Ordering::Relaxed).saturating_sub(deadline));
    }
    moments.print(name);
}
