//! The driver domain is lost for good in the middle of the work: errors, at once, and no silence.

use crate::block::{PAGE, SECTORS_PER_PAGE, open, pattern};
use crate::{Slots, console, entropy, failed};
use rt::virtio::{Error, Kind, Slot};
use rt::{println, timer};
use testkit::{Failure, Outcome, ensure, report};

/// How long the driver domain may take to be lost, its restarts included.
const PATIENCE_MICROSECONDS: u64 = 60_000_000;
/// How long an answer may take when it is lost.
const ANSWER_MICROSECONDS: u64 = 1_000_000;
/// How many requests are made then.
const ATTEMPTS: usize = 100;

pub(crate) fn run(mut slots: Slots) {
    // The disk first: it is by its requests that the driver domain ends itself.
    for kind in [Kind::Block, Kind::Entropy, Kind::Console] {
        for slot in slots.iter_mut().filter(|slot| slot.kind() == Some(kind)) {
            match kind {
                Kind::Block => report::test("a disk without a driver domain gives errors", || disk(slot)),
                Kind::Entropy => report::test("entropy without a driver domain is none", || entropy::is_dry(slot)),
                Kind::Console | Kind::Network | Kind::Other(_) => {
                    report::test("a console without a driver domain takes what it is given", || {
                        console::load(slot, "nobody reads this\n")
                    })
                }
            }
        }
    }
}

fn disk(slot: &mut Slot) -> Outcome {
    let mut disk = open(slot)?;
    let mut bytes = [0; PAGE];
    let started = timer::now();
    let mut done = 0;
    loop {
        let page = done % 64;
        let written = disk.write_blocks(page * SECTORS_PER_PAGE, &pattern(3, done));
        let outcome = written.and_then(|()| disk.read_blocks(page * SECTORS_PER_PAGE, &mut bytes));
        if outcome == Err(Error::IoError) {
            break;
        }
        outcome.map_err(failed("a request before the driver domain was lost"))?;
        ensure!(bytes == pattern(3, done), "round {done} came back as something else");
        done += 1;
        let took = timer::microseconds(timer::now() - started);
        ensure!(took < PATIENCE_MICROSECONDS, "the driver domain still serves after {took} us");
    }
    println!("lost after {done} rounds");
    for attempt in 0..ATTEMPTS {
        let started = timer::now();
        let outcomes = [disk.read_blocks(0, &mut bytes), disk.write_blocks(0, &bytes), disk.flush()];
        if let Some(outcome) = outcomes.into_iter().find(|outcome| *outcome != Err(Error::IoError)) {
            return Err(Failure::new(format_args!("a request of round {attempt} gave {outcome:?}")));
        }
        let took = timer::microseconds(timer::now() - started);
        ensure!(took < ANSWER_MICROSECONDS, "three errors took {took} us");
    }
    Ok(())
}
