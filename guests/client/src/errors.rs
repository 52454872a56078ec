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

/// Has every disk do `what`.
pub(crate) fn run(mut slots: Slots, what: fn(&mut Slot) -> Outcome) {
    for slot in slots.iter_mut().filter(|slot| slot.kind() == Some(Kind::Block)) {
        report::test("errors of a disk arrive as errors", || what(slot));
    }
}

/// The disk fails at one sector, again and again, and nowhere else.
pub(crate) fn failing(slot: &mut Slot) -> Outcome {
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

/// Nobody serves the disk: it has no sectors, and refuses what is asked of it.
pub(crate) fn missing(slot: &mut Slot) -> Outcome {
    let mut disk = crate::block::open_any(slot)?;
    ensure!(disk.capacity() == 0, "it has {} sectors", disk.capacity());
    let started = timer::now();
    let mut bytes = [0; PAGE];
    for sector in [0, 1, 8, usize::MAX] {
        let outcome = disk.read_blocks(sector, &mut bytes);
        ensure!(outcome == Err(Error::IoError), "a read at sector {sector:#x} gave {outcome:?}");
        let outcome = disk.write_blocks(sector, &bytes);
        ensure!(outcome == Err(Error::IoError), "a write at sector {sector:#x} gave {outcome:?}");
    }
    disk.flush().map_err(failed("a flush"))?;
    let took = timer::microseconds(timer::now() - started);
    ensure!(took < ANSWER_MICROSECONDS, "eight errors took {took} us");
    Ok(())
}
