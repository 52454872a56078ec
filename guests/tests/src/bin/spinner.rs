//! Masks its interrupts and loops for ever, as a guest that has lost its way does.
//!
//! Parameter: `seconds=`, after which it turns itself off; without it, only the hypervisor can end it.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use rt::{cpu, interrupts, machine, println, timer};
use testkit::report;

rt::entry!(main);

fn main() -> ! {
    interrupts::mask();
    if let Err(error) = cpu::start_others(|_| spin(u64::MAX)) {
        println!("the other CPUs did not start: {error:?}");
    }
    println!("spinning with interrupts masked");
    let seconds = machine().parameter("seconds").map_or(u64::MAX, |_| machine().number("seconds", 1));
    spin(timer::now().saturating_add(seconds.saturating_mul(timer::frequency())));
    report::test("spun to the end", || Ok(()));
    report::finish()
}

fn spin(end: u64) {
    while timer::now() < end {
        core::hint::spin_loop();
    }
}
