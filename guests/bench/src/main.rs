//! Measures what a guest pays for its hypervisor: the same image runs on the board itself, under Bulkhead, and under
//! any other hypervisor that gives it a device tree.
//!
//! Each measurement prints one line, `bench NAME rounds=N total=T loop=L`: T is the time that N rounds took, L the
//! time that the same loop takes with a NOP in place of what is measured, both in nanoseconds of the virtual counter.
//! Under QEMU's `-icount shift=0` a nanosecond is an instruction of any core. Nothing is subtracted here; the command
//! that reads the lines knows what each row means.
//!
//! The parameter `bench=` on the command line chooses: `shared` measures the switch between CPUs that share a
//! core, `virtio` the devices of a driver domain, `pending` many pending interrupts, `boot` prints only when this guest
//! was started, and without it everything else is measured.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod accesses;
mod clock;
mod compute;
mod interrupts;
mod pair;
mod pending;
mod registers;
mod shared;
mod virtio;

use rt::{gic, machine, timer};
use testkit::report;

rt::entry!(main);

fn main() -> ! {
    boot();
    // A UART's line is no part of what is measured, and neither are interrupts that somebody left behind.
    rt::interrupts::mask();
    gic::init();
    gic::init_cpu();
    match machine().parameter("bench") {
        Some("boot") => {}
        Some("shared") => shared::run(),
        Some("virtio") => virtio::run(true),
        Some("pending") => pending::run(),
        _ => {
            accesses::run();
            registers::run();
            interrupts::run();
            pair::run();
            pending::run();
            compute::run();
            virtio::run(false);
        }
    }
    report::finish()
}

/// When this guest's virtual counter stood at zero, on the board's own: how long it took until the guest could begin.
/// Nothing else can tell a guest; where the virtual counter has no offset this is zero and says nothing.
fn boot() {
    let started = timer::physical_now().saturating_sub(timer::now());
    clock::print("boot", 1, clock::nanoseconds(started), 0);
}
