//! Disks that fail: their errors arrive as errors, and soon.

use crate::block::{PAGE, SECTORS_PER_PAGE, open, pattern};
use crate::{Slots, failed};
use rt::virtio::{Error, Kind, Slot};
use rt::{machine, timer};
use testkit::{Outcome, ensure, report};

/// How long an answer may take, whatever it is.
const ANSWER_MICROSECONDS: u64 = 5_000_000;
/// How often a request that fails is made.
const ATTEMPTS: usize = 20;

/// Tries every disk.
pub(crate) fn run(mut slots: Slots) {
    for slot in slots.iter_mut().filter(|slot| slot.kind() == Some(Kind::Block)) {
        report::test("errors of a disk arrive as errors", || failing(slot));
    }
}

/// The disk fails at one sector, again and again, and nowhere else.
fn failing(slot: &mut Slot) -> Outcome {
    let bad = machine().number("bad", 0) as usize / SECTORS_PER_PAGE * SECTORS_PER_PAGE;
    let mut disk = open(slot)?;
    let mut bytes = [0; PAGE];
    for attempt in 0..ATTEMPTS {
        let started = timer::now();
        let outcome = disk.read_blocks(bad, &mut bytes);
        ensure!(outcome == Err(Error::IoError), "read {attempt} of a bad sector gave {outcome:?}");
        let outcome = disk.write_blocks(bad, &pattern(1, attempt));
        ensure!(outcome == Err(Error::IoError), "write {attempt} of a bad sector gave {outcome:?}");
        let took = timer::microseconds(timer::now() - started);
        ensure!(took < ANSWER_MICROSECONDS, "two errors took {took} us");
        // Before and behind it all is well.
        for good in [bad - SECTORS_PER_PAGE, bad + SECTORS_PER_PAGE] {
            disk.write_blocks(good, &pattern(2, attempt)).map_err(failed("a write beside a bad sector"))?;
            disk.read_blocks(good, &mut bytes).map_err(failed("a read beside a bad sector"))?;
            ensure!(bytes == pattern(2, attempt), "sector {good} does not hold what was written");
        }
    }
    Ok(())
}

/// Nobody serves the disk, and so there is none (VIRTIO 1.2, 4.2.2: a DeviceID of 0).
pub(crate) fn missing(slots: &Slots) -> Outcome {
    for slot in slots {
        let base = slot.registers().start;
        ensure!(slot.kind() != Some(Kind::Block), "there is a disk at {base:#x}");
    }
    ensure!(slots.iter().any(|slot| slot.kind().is_none()), "there is a device in every slot");
    Ok(())
}
