//! No attack but its victim: how much of its core's time a CPU gets that only computes.
//!
//! Parameters: `stolen=` (2), how much of the time in which it runs may go to others in small pieces, in percent;
//! `share=` (0), the least that it must get of all time, in percent.
//!
//! A long gap is a turn that somebody else had, a neighbour on the core or a program on the emulator's host. Small ones
//! are interrupts that it did not ask for.

use rt::{cpu, machine, println, timer};
use testkit::{ensure, report};

/// Short enough that some rounds are not disturbed whatever the neighbours do; the shortest round is the measure.
const TURNS: u64 = 100;
const TURN_MICROSECONDS: u64 = 1000;

pub(crate) fn run() {
    let (start, end) = (timer::now(), crate::end());
    let turn = timer::ticks(TURN_MICROSECONDS);
    let (mut rounds, mut ran, mut shortest, mut longest, mut last) = (0_u64, 0_u64, u64::MAX, 0, start);
    while last < end {
        cpu::delay(TURNS);
        let now = timer::now();
        let round = now - last;
        if round < turn {
            rounds += 1;
            ran += round;
            shortest = shortest.min(round);
        }
        longest = longest.max(round);
        last = now;
    }
    let stolen_percent = 100 - (rounds * shortest * 100 / ran.max(1)).min(100);
    let share_percent = ran * 100 / (last - start).max(1);
    println!(
        "stolen={stolen_percent} share={share_percent} rounds={rounds} longest_us={}",
        timer::microseconds(longest)
    );
    report::test("a CPU that computes is not interrupted for others", || {
        let most_percent = machine().number("stolen", 2);
        ensure!(stolen_percent <= most_percent, "it lost {stolen_percent} % where {most_percent} % may be lost");
        Ok(())
    });
    report::test("a CPU that computes gets its share of its core", || {
        let due_percent = machine().number("share", 0);
        ensure!(share_percent >= due_percent, "it got {share_percent} % where {due_percent} % were due");
        Ok(())
    });
}
