//! The smallest guest: it says who it is, and turns itself off. Copy it to begin your own.
//!
//! A guest is a program for EL1 without an operating system. `rt` brings it up (stack, MMU, vectors, console) and calls
//! the function that `entry!` names. Give it a stanza in a system's TOML file with `kernel = "guest:hello"`.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use rt::{machine, println};
use testkit::{ensure, report};

rt::entry!(main);

fn main() -> ! {
    // Everything a guest knows about its machine comes from its device tree.
    let machine = machine();
    println!("hello from {}: {} CPUs, {} MiB", machine.name(), machine.cpus.len(), machine.memory[0].size >> 20);

    // Say what you found by tests: each prints one line, PASS or FAIL.
    report::test("a guest has memory and a CPU", || {
        ensure!(!machine.memory.is_empty(), "the device tree names no memory");
        ensure!(!machine.cpus.is_empty(), "the device tree names no CPU");
        Ok(())
    });

    // Prints DONE and turns the machine off (PSCI SYSTEM_OFF).
    report::finish()
}
