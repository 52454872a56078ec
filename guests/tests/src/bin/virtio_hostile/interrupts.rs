//! A device's interrupt, and a driver that treats it as none should: its device stays silent, or its own CPU is kept
//! busy.

use crate::attack::{Field, Target};
use crate::registers::in_order;
use bulkhead_guest_tests::device::register;
use rt::gic;
use testkit::{Outcome, ensure, report};

/// How often an interrupt is ended whose line is still high.
const ENDS: u32 = 2_000;
/// How long an interrupt may take to come.
const COMES_MICROSECONDS: u64 = 100_000;
/// How long one waits for an interrupt that must not come.
const NOTHING_MICROSECONDS: u64 = 1_000;
/// How often a device may have more to say: a network card tells of the frames that it has sent a little later.
const LATE_MAX: u32 = 8;
/// Requests that are made while nobody listens.
const REQUESTS: u32 = 20;
/// A priority mask that lets nothing through, and one that lets everything.
const CLOSED: u8 = 0;
const OPEN: u8 = 0xff;

pub(crate) fn run(field: &mut Field) {
    report::test("18: a line that stays high and is ended again and again costs only its owner", || {
        field.each_asking(None, |target| with_interrupt(target, ended_again))
    });
    report::test(
        "18: a device whose interrupt is masked works by polling, and the interrupt comes when it is unmasked",
        || field.each_asking(None, |target| with_interrupt(target, masked)),
    );
}

/// The interrupt is enabled, unless `attack` says otherwise, and left as it was.
fn with_interrupt(target: &mut Target<'_>, attack: fn(&mut Target<'_>, u32) -> Outcome) -> Outcome {
    let id = target.device.interrupt;
    gic::enable(id);
    let outcome = attack(target, id);
    gic::set_mask(OPEN);
    gic::disable(id);
    // One that was on its way before.
    if let Some(id) = gic::acknowledge() {
        gic::end(id);
    }
    outcome
}

fn request(target: &mut Target<'_>) -> Outcome {
    target.write_request(0);
    target.ring.offer(0);
    in_order(target)
}

fn ended_again(target: &mut Target<'_>, id: u32) -> Outcome {
    request(target)?;
    for count in 0..ENDS {
        let found = testkit::acknowledge_within(COMES_MICROSECONDS);
        ensure!(found == Some(id), "after {count} of them {found:?} is acknowledged, and not {id}");
        gic::end(id);
    }
    falls_silent(target, id)
}

/// The device has nothing more to say once its interrupt is acknowledged there, and what it says late is too.
fn falls_silent(target: &mut Target<'_>, id: u32) -> Outcome {
    for _ in 0..LATE_MAX {
        let pending = target.device.read(register::INTERRUPT_STATUS)?;
        ensure!(pending == 1, "InterruptStatus is {pending:#x} although the line is high");
        target.device.write(register::INTERRUPT_ACK, pending)?;
        // It may have been in a list register already.
        if let Some(id) = gic::acknowledge() {
            gic::end(id);
        }
        let Some(found) = testkit::acknowledge_within(NOTHING_MICROSECONDS) else {
            ensure!(!gic::is_pending(id), "{id} is pending although the line is low");
            return Ok(());
        };
        gic::end(found);
    }
    ensure!(false, "it is not silent after {LATE_MAX} acknowledgements");
    Ok(())
}

fn masked(target: &mut Target<'_>, id: u32) -> Outcome {
    for (how, mask, unmask) in [
        ("disabled", gic::disable as fn(u32), gic::enable as fn(u32)),
        ("below the priority mask", |_| gic::set_mask(CLOSED), |_| gic::set_mask(OPEN)),
    ] {
        mask(id);
        for _ in 0..REQUESTS {
            request(target)?;
        }
        let found = gic::acknowledge();
        ensure!(found.is_none(), "{how}, and {found:?} is acknowledged");
        unmask(id);
        let found = testkit::acknowledge_within(COMES_MICROSECONDS);
        ensure!(found == Some(id), "no longer {how}, and {found:?} is acknowledged");
        gic::end(id);
        falls_silent(target, id)?;
    }
    Ok(())
}
