//! Loses its translation tables: every instruction from then on, the exception vectors included, faults on a table walk
//! outside of memory, for ever. Nobody else may notice.
//!
//! Its second CPU, if it has one, keeps the tables, and turns the guest off after `seconds=` (3).
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use rt::{cpu, gic, interrupts, machine, mmu, println, timer};
use testkit::report;

rt::entry!(main);

fn main() -> ! {
    interrupts::mask();
    gic::init();
    let behind_memory = machine().memory.last().map_or(0, rt::machine::Region::end);
    if cpu::count() > 1
        && let Err(error) = cpu::start(1, end_later)
    {
        println!("the second CPU did not start: {error:?}");
    }
    println!("losing the translation tables");
    mmu::lose_tables(behind_memory)
}

fn end_later(_: usize) {
    gic::init_cpu();
    timer::sleep(machine().number("seconds", 3).saturating_mul(1_000_000));
    report::test("the other CPU of a guest without tables goes on", || Ok(()));
    report::finish()
}
