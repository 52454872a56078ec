//! Many interrupts pending at once: what it costs to take one of them, and to make one more pending.

use crate::clock::{self, ROUNDS};
use rt::gic;
use rt::timer;

/// How many are pending for the CPU that measures.
const MANY: u32 = 128;
const FIRST: u32 = 32;

pub fn run() {
    measure(["pending-take", "pending-raise"], 1);
    if rt::cpu::count() < 2 {
        return clock::absent("pending-take-two", "there is one CPU");
    }
    measure(["pending-take-two", "pending-raise-two"], 2);
}

/// With every `step`-th SPI for this CPU; those between are pending for another one.
fn measure([take, raise]: [&str; 2], step: u32) {
    let end = FIRST + MANY * step;
    if end > gic::interrupt_count() {
        return clock::absent(take, "there are too few SPIs");
    }
    let mine = |id: &u32| id.is_multiple_of(step);
    for id in FIRST..end {
        gic::route(id, if mine(&id) { 0 } else { 1 });
        // In no order of their numbers.
        gic::set_priority(id, (id * 7 % 16 * 8) as u8 + 0x40);
        gic::enable(id);
    }
    // The last one is made pending time and again. It waits behind others, and none of them is taken meanwhile.
    let last = end - step;
    (FIRST..end).filter(|id| *id != last).for_each(gic::set_pending);
    let mut total = 0;
    for round in 0..ROUNDS {
        clock::shift_phase(round);
        let start = timer::now();
        gic::set_pending(last);
        total += timer::now() - start;
        gic::clear_pending(last);
    }
    clock::print(raise, ROUNDS, clock::nanoseconds(total), 0);
    gic::set_pending(last);
    let start = timer::now();
    let taken = (0..MANY).filter_map(|_| gic::acknowledge().inspect(|id| gic::end(*id))).count() as u32;
    let total = timer::now() - start;
    gic::init();
    if taken < MANY {
        return clock::absent(take, "not all of them come");
    }
    clock::print(take, u64::from(MANY), clock::nanoseconds(total), 0);
}
