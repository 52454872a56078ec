//! CPU 0 has the interrupt of a device that it owns, and never serves, come to CPU 1, which is off, on a core that a
//! neighbour computes on. Whatever ends the interrupt lets it come again, and the neighbour pays.

use rt::{gic, println, timer};
use testkit::clock::Clock;
use testkit::{Outcome, ensure, report};

pub(crate) fn run() {
    report::test("an interrupt that is raised without end for a CPU that is off comes to an end", storm);
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
    gic::route(id, 1);
    clock.raise();
    let (mut rounds, end) = (0_u64, crate::end());
    while timer::now() < end {
        match rounds / 64 % 3 {
            0 => gic::clear_pending(id),
            1 => {
                gic::set_active(id);
                gic::clear_active(id);
            }
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
