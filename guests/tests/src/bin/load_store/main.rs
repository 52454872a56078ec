//! Loads and stores of devices by instructions whose syndrome does not say what they transfer: whatever they do to
//! memory they do to a device, or they are refused and nothing has happened.
//!
//! What is right the CPU itself says: each instruction runs on this guest's memory too.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod changing;
mod forms;
mod refused;

use rt::{gic, interrupts, machine, uart};
use testkit::report;

rt::entry!(main);

fn main() -> ! {
    interrupts::mask();
    gic::init();
    gic::init_cpu();
    forms::run();
    if machine().under_bulkhead {
        refused::run();
    } else {
        report::skip("refusals", "a bare board does not promise them");
    }
    changing::run();
    gic::init();
    uart::init();
    report::finish()
}
