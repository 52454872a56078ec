//! Times loops and single moments with a counter that may be coarser than what it measures.

use rt::{cpu, println, timer};

/// Rounds of an ordinary measurement: a multiple of [`PHASES`].
pub const ROUNDS: u64 = 1024;
/// Every place that a moment can have between two ticks of the counter, where a tick lasts 16 instructions (62.5 MHz).
pub const PHASES: u64 = 16;

/// Prints the line of one measurement.
pub fn print(name: &str, rounds: u64, total: u64, empty: u64) {
    println!("bench {name} rounds={rounds} total={total} loop={empty}");
}

/// Says that a measurement is not possible on this machine, and why.
pub fn absent(name: &str, reason: &str) {
    println!("bench {name} absent: {reason}");
}

/// The nanoseconds in `ticks` of the counter.
pub fn nanoseconds(ticks: u64) -> u64 {
    (u128::from(ticks) * 1_000_000_000 / u128::from(timer::frequency().max(1))) as u64
}

/// Times [`ROUNDS`] rounds of `operation`, after a few that do not count, and prints the result.
#[inline(always)]
pub fn measure(name: &str, mut operation: impl FnMut()) {
    for _ in 0..PHASES {
        operation();
    }
    let total = time(ROUNDS, operation);
    print(name, ROUNDS, nanoseconds(total), nanoseconds(empty(ROUNDS)));
}

/// The ticks that `rounds` rounds of `operation` take.
#[inline(always)]
pub fn time(rounds: u64, mut operation: impl FnMut()) -> u64 {
    let start = timer::now();
    for _ in 0..rounds {
        operation();
    }
    timer::now() - start
}

/// The ticks that the loop itself takes, with a NOP in it.
#[inline(never)]
pub fn empty(rounds: u64) -> u64 {
    time(rounds, cpu::nop)
}

/// Moves the moment that follows to another place between two ticks, each place as often as any other over [`PHASES`]
/// rounds: the average of a length that starts there is then exact, however coarse the counter is.
#[inline(always)]
pub fn shift_phase(round: u64) {
    // Three instructions a turn, and three has no divisor in common with the instructions of a tick.
    cpu::delay(round % PHASES);
}

/// The ticks that `rounds` calls of [`shift_phase`] take, without the loop around them.
fn shifts(rounds: u64) -> u64 {
    let mut round = 0;
    let shifted = time(rounds, || {
        shift_phase(round);
        round += 1;
    });
    shifted.saturating_sub(empty(rounds))
}

/// Times moments that follow an exact tick of the counter, such as a timer's deadline: the sum of [`Moments::note`]d
/// distances, each read at another phase, less what the shifting takes.
pub struct Moments {
    rounds: u64,
    ticks: u64,
}

impl Moments {
    /// Nothing noted yet.
    pub const fn new() -> Self {
        Self { rounds: 0, ticks: 0 }
    }

    /// Adds the distance of one round, in ticks.
    pub fn note(&mut self, ticks: u64) {
        self.rounds += 1;
        self.ticks += ticks;
    }

    /// Prints the line of the measurement, with the shifting taken out.
    pub fn print(self, name: &str) {
        let tick = nanoseconds(1);
        // Cutting off at a tick loses half of one on average.
        let cut_off = self.rounds * (tick - 1) / 2;
        let total = nanoseconds(self.ticks) + cut_off;
        print(name, self.rounds, total.saturating_sub(nanoseconds(shifts(self.rounds))), 0);
    }
}
