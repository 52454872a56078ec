//! CPU 0 has the interrupt of a device that it owns, and never serves, come to CPU 1, on a core that a neighbour
//! computes on. Whatever ends the interrupt lets it come again, and the neighbour pays.
//!
//! Parameter: with `to=nowhere` CPU 1 routes the interrupt to itself, then to a CPU that there is not, and sleeps; else
//! it is off.

use core::sync::atomic::{AtomicU32, Ordering};
use rt::{cpu, gic, interrupts, machine, println, timer};
use testkit::clock::Clock;
use testkit::{Outcome, ensure, report};

/// The interrupt that CPU 1 has routed nowhere.
static ROUTED: AtomicU32 = AtomicU32::new(0);
/// The one that it is to route so.
static TO_ROUTE: AtomicU32 = AtomicU32::new(0);

pub(crate) fn run() {
    report::test("an interrupt that is raised without end for a CPU that does not take it comes to an end", storm);
}

fn sleep_without_interrupt(_cpu: usize) {
    let id = TO_ROUTE.load(Ordering::Acquire);
    gic::route(id, 1);
    gic::route_nowhere(id);
    ROUTED.store(id, Ordering::Release);
    loop {
        interrupts::wait();
    }
}

fn storm() -> Outcome {
    let Some(clock) = Clock::find() else {
        ensure!(false, "the device tree has no clock");
        return Ok(());
    };
    gic::init();
    let id = clock.interrupt();
    // The neighbour learns how fast it is undisturbed.
    timer::spin(200_000);
    ensure!(clock.prepare(), "the alarm is not due");
    gic::set_trigger(id, gic::Trigger::Level);
    gic::enable(id);
    let to_nowhere = machine().parameter("to") == Some("nowhere");
    if to_nowhere {
        TO_ROUTE.store(id, Ordering::Release);
        cpu::start(1, sleep_without_interrupt)?;
        ensure!(timer::wait_until(2_000_000, || ROUTED.load(Ordering::Acquire) == id), "CPU 1 did not start");
        timer::spin(10_000);
    } else {
        gic::route(id, 1);
    }
    clock.raise();
    let (mut rounds, end) = (0_u64, crate::end());
    while timer::now() < end {
        match rounds / 64 % 3 {
            0 => gic::clear_pending(id),
            1 => {
                gic::set_active(id);
                gic::clear_active(id);
            }
            _ if to_nowhere => gic::clear_pending(id),
            _ => {
                gic::route(id, 0);
                gic::route(id, 1);
                gic::clear_pending(id);
            }
        }
        rounds += 1;
    }
    println!("rounds={rounds}");
    clock.lower();
    Ok(())
}
