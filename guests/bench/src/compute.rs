//! A loop that asks nothing of anybody: what a hypervisor takes from a guest that has a core to itself.

use crate::clock;
use core::hint::black_box;

/// Long enough (60 milliseconds) that a hypervisor's own ticks show.
const ROUNDS: u64 = 10_000_000;

pub fn run() {
    let mut state = black_box(0x9e37_79b9_7f4a_7c15_u64);
    let total = clock::time(ROUNDS, || {
        // George Marsaglia's xorshift: three steps that no compiler can fold.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
    });
    black_box(state);
    clock::print("compute", ROUNDS, clock::nanoseconds(total), 0);
}
