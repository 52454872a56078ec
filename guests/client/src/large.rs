//! Large requests, of one piece and of many: what is large enough is not copied on its way, and its memory is a real
//! device's for as long as it is out.

use crate::block::{PAGE, SECTORS_PER_PAGE, in_block, pattern, room};
use rt::shared::Shared;
use rt::timer;
use rt::virtio::{Access, Block, Granted, Slot};
use testkit::{Failure, Outcome, ensure, report};

/// The most pages of a request; a disk that takes fewer pieces gets fewer.
const PAGES: usize = 254;
const REQUEST: usize = PAGES * PAGE;
/// The bytes of a request that passes in pieces where it is copied.
const LONG: usize = 2 * REQUEST;
/// How often a device is reset in the middle.
const RESETS: u64 = 48;
/// How many requests are under way then.
const DEPTH: usize = 4;
/// How long a request may take.
const LIMIT_MICROSECONDS: u64 = 20_000_000;

type Disk = Block<(usize, usize)>;

pub(crate) fn run(slot: &mut Slot) {
    requests(slot);
    report::test("a disk that is reset in the middle of large requests leaves their memory alone", || resets(slot));
}

/// Large requests alone, without resets.
pub(crate) fn requests(slot: &mut Slot) {
    report::test("a large request may lie in many pieces, in any order", || scattered(slot));
    report::test("a request that is longer than what passes at a time is done whole", || long(slot));
}

/// The bytes of a list of a request's pages, with an entry in front and one behind, in whole pages.
const LIST: usize = ((PAGES + 2) * 16).next_multiple_of(PAGE);

/// Room for [`DEPTH`] requests, and for lists of their pages; claimed once.
fn area() -> Result<(Shared, Shared), Failure> {
    static AREA: spin::Once<Option<Shared>> = spin::Once::new();
    let area = *AREA.call_once(|| room((DEPTH * (REQUEST + LIST)) as u64));
    let halves = area.and_then(|area| {
        let lists = area.piece((DEPTH * REQUEST) as u64, (DEPTH * LIST) as u64)?;
        Some((area.piece(0, (DEPTH * REQUEST) as u64)?, lists))
    });
    halves.ok_or_else(|| Failure::new(format_args!("there is no room for large requests")))
}

/// How many pages a request to `disk` has.
fn pages(disk: &Disk) -> usize {
    PAGES.min(disk.segments_max() as usize)
}

/// The first `count` pages of request `index` in `area`; every other one first, so that no two neighbours follow each
/// other.
fn pieces(area: &Shared, index: usize, count: usize) -> impl Iterator<Item = Shared> {
    (0..count).map(move |page| {
        let place = index * PAGES + page * 2 % PAGES + page * 2 / PAGES;
        area.piece((place * PAGE) as u64, PAGE as u64).unwrap_or(*area)
    })
}

/// The list of `pieces`, kept in place `index` of `lists`.
fn list(
    lists: &Shared,
    index: usize,
    access: Access,
    pieces: impl Iterator<Item = Shared>,
) -> Result<Granted, Failure> {
    let memory = lists.piece((index * LIST) as u64, LIST as u64);
    let pieces = pieces.map(|piece| (piece.address(), PAGE as u32));
    let list = memory.and_then(|memory| Granted::fill(memory, access, pieces));
    list.ok_or_else(|| Failure::new(format_args!("there is no room for a list")))
}

/// Waits for a request.
fn wait(disk: &mut Disk) -> Outcome {
    disk.kick();
    let limit = timer::now() + timer::ticks(LIMIT_MICROSECONDS);
    loop {
        if let Some((_, outcome)) = disk.poll() {
            ensure!(outcome.is_ok(), "a large request failed");
            return Ok(());
        }
        ensure!(timer::now() < limit, "a large request takes too long");
    }
}

fn same(seed: u64, page: usize, piece: &Shared) -> Outcome {
    let mut bytes = [0; PAGE];
    piece.read(&mut bytes);
    ensure!(bytes == pattern(seed, page), "page {page} is not what was written");
    Ok(())
}

#[inline(never)]
fn scattered(slot: &mut Slot) -> Outcome {
    const SEED: u64 = 300;
    let (area, lists) = area()?;
    in_block(slot, |disk| {
        let count = pages(disk);
        let (from, to) = (|| pieces(&area, 0, count), || pieces(&area, 1, count));
        for (page, piece) in from().enumerate() {
            piece.write(&pattern(SEED, page));
        }
        let (source, target) = (list(&lists, 0, Access::Reads, from())?, list(&lists, 1, Access::Writes, to())?);
        ensure!(disk.write_granted(0, source, (0, 0)).is_ok(), "a large write is not taken");
        wait(disk)?;
        ensure!(disk.read_granted(0, target, (0, 0)).is_ok(), "a large read is not taken");
        wait(disk)?;
        to().enumerate().try_for_each(|(page, piece)| same(SEED, page, &piece))?;
        // The same in one piece.
        let Some(whole) = area.piece((2 * REQUEST) as u64, (count * PAGE) as u64) else { return Ok(()) };
        ensure!(disk.read(0, whole, (0, 0)).is_ok(), "a large read in one piece is not taken");
        wait(disk)?;
        for page in 0..count {
            let piece = whole.piece((page * PAGE) as u64, PAGE as u64);
            same(SEED, page, &piece.unwrap_or(whole))?;
        }
        Ok(())
    })
}

#[inline(never)]
fn long(slot: &mut Slot) -> Outcome {
    const SEED: u64 = 301;
    let (area, _) = area()?;
    in_block(slot, |disk| {
        let bytes = disk.sectors().saturating_mul(512).min(LONG as u64) / PAGE as u64 * PAGE as u64;
        let (Some(source), Some(target)) = (area.piece(0, bytes), area.piece(LONG as u64, bytes)) else {
            return Ok(());
        };
        let pages = |whole: Shared| {
            (0..bytes / PAGE as u64).filter_map(move |page| whole.piece(page * PAGE as u64, PAGE as u64)).enumerate()
        };
        for (page, piece) in pages(source) {
            piece.write(&pattern(SEED, page));
        }
        target.clear();
        ensure!(disk.write(0, source, (0, 0)).is_ok(), "a long write is not taken");
        wait(disk)?;
        ensure!(disk.read(0, target, (0, 0)).is_ok(), "a long read is not taken");
        wait(disk)?;
        pages(target).try_for_each(|(page, piece)| same(SEED, page, &piece))
    })
}

#[inline(never)]
fn resets(slot: &mut Slot) -> Outcome {
    let (area, lists) = area()?;
    for round in 0..RESETS {
        in_block(slot, |disk| {
            // One that passes in pieces, between two of which the reset may come.
            if round % 3 == 2
                && let Some(whole) = area.piece(0, disk.sectors().saturating_mul(512).min(LONG as u64))
            {
                ensure!(disk.read(0, whole, (0, 0)).is_ok(), "the read of round {round} was not taken");
            }
            for index in 0..DEPTH {
                let into = list(&lists, index, Access::Writes, pieces(&area, index, pages(disk)))?;
                let taken = disk.read_granted((index * SECTORS_PER_PAGE) as u64, into, (index, 0));
                ensure!(taken.is_ok(), "read {index} of round {round} was not taken");
            }
            disk.kick();
            timer::spin(round * 10);
            // Here it is the store to Status that waits for the requests; otherwise the driver stops the queue first
            // when it is dropped, and that is what waits.
            if round % 2 == 1 {
                disk.reset();
                untouched(&area, round)?;
            }
            Ok(())
        })?;
        untouched(&area, round)?;
    }
    Ok(())
}

/// The device was reset: from here on the memory is nobody's but ours.
fn untouched(area: &Shared, round: u64) -> Outcome {
    /// Short, so that all pages are marked before a device that went on would be done with them.
    const MARK: [u8; 8] = [0xa5; 8];
    let pages = || (0..DEPTH * PAGES).filter_map(|page| area.piece((page * PAGE) as u64, PAGE as u64));
    for page in pages() {
        page.write(&MARK);
    }
    timer::spin(1000);
    for (index, page) in pages().enumerate() {
        let mut bytes = [0; MARK.len()];
        page.read(&mut bytes);
        ensure!(bytes == MARK, "page {index} was written after the reset of round {round}");
    }
    Ok(())
}
