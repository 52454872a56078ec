//! A client of para-virtual devices that does what no driver should: whatever it puts into registers and rings, it
//! harms itself alone, and its devices work again after a reset.
//!
//! The tests have the numbers of the cases in their order: queues that there are not, sizes, places, loops, indices,
//! lengths, resets, features, notifications, requests, accesses, interrupts. Each is made against every queue of every
//! device; memory beside the buffers is watched. Parameters: `seed=` (1) and `operations=` (20000) of the random
//! part; `storm=` (0): so many seconds of notifications, and nothing else.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod accesses;
mod attack;
mod chains;
mod granted;
mod interrupts;
mod random;
mod registers;
mod requests;
mod storm;
mod timing;

use attack::Field;
use rt::{gic, machine, memory};
use testkit::random::Random;
use testkit::{ensure, report};

rt::entry!(main);

const AREA_WORDS: usize = 1 << 17; // 1 MiB

fn main() -> ! {
    gic::init();
    gic::init_cpu();
    let mut random = Random::from_parameter();
    // What a mistaken access on this guest's behalf would spoil.
    let area = memory::take(AREA_WORDS).map(|area| {
        let mut pattern = Random::new(7);
        area.fill_with(|| pattern.word());
        &*area
    });
    let field = Field::find();
    report::test("there are devices, and memory to attack them with", || {
        let count = field.as_ref().map(|field| field.devices.len());
        ensure!(count.is_some_and(|count| count > 0), "there are {count:?}");
        Ok(())
    });
    let storm_seconds = machine().number("storm", 0);
    if let Some(mut field) = field {
        if storm_seconds > 0 {
            storm::run(&mut field, storm_seconds);
            report::finish()
        }
        registers::run(&mut field);
        chains::run(&mut field);
        requests::run(&mut field);
        timing::run(&mut field);
        granted::run(&mut field);
        interrupts::run(&mut field);
        accesses::run(&mut field);
        random::run(&mut field, &mut random);
    }
    report::test("the guest's memory is as it was", || {
        let mut pattern = Random::new(7);
        let changed = area.map(|area| area.iter().filter(|&&word| word != pattern.word()).count());
        ensure!(changed == Some(0), "{changed:?} words changed");
        Ok(())
    });
    report::finish()
}
