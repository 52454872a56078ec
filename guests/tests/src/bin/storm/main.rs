//! A guest that attacks by doing what is allowed, too often, in the wrong order, and from all of its CPUs at once.
//!
//! Parameters: `attack=` names one of the modules below (`random` where it is absent), `seconds=` how long it lasts,
//! `seed=` (1) replays what is random. The attacks that are aimed at a neighbour say nothing of what it loses: the
//! neighbour does, with `attack=none`.
//!
//! What this guest leaves out: single accesses and calls that must be refused, which `hostile` and `prober` try.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod alarm;
mod assembler;
mod kicks;
mod meter;
mod power;
mod random;
mod registers;
mod resets;
mod waits;

use rt::{interrupts, machine, timer};
use testkit::{ensure, report};

rt::entry!(main);

fn main() -> ! {
    interrupts::mask();
    match machine().parameter("attack").unwrap_or("random") {
        "alarm" => alarm::run(),
        "kicks" => kicks::run(),
        "none" => meter::run(),
        "power" => power::run(),
        "random" => random::run(),
        "registers" => registers::run(),
        "resets" => resets::run(),
        "waits" => waits::run(),
        other => report::test("the attack is known", || {
            ensure!(false, "there is no attack `{other}`");
            Ok(())
        }),
    }
    report::finish()
}

/// The virtual count at which the attack is over.
fn end() -> u64 {
    timer::now() + machine().number("seconds", 3) * timer::frequency()
}
