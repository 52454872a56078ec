//! A disk: what is written is read back, one request at a time and many; errors are errors; resets lose nothing.

use crate::failed;
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::shared::Shared;
use rt::virtio::{Block, Error, Platform, Slot};
use rt::{machine, println, timer};
use testkit::random::Random;
use testkit::{Failure, Outcome, ensure, report};
use virtio_drivers::device::blk::VirtIOBlk;
use virtio_drivers::transport::mmio::MmioTransport;

pub(crate) type Disk<'a> = VirtIOBlk<Platform, MmioTransport<'a>>;

const SECTOR: usize = 512;
/// A page, which is what file systems ask for.
pub(crate) const PAGE: usize = 4096;
pub(crate) const SECTORS_PER_PAGE: usize = PAGE / SECTOR;
/// How many requests are in flight at full depth.
const DEPTH: usize = 16;
/// How many pages are written and read back.
const PAGES: usize = 64;
/// How often the device is brought up.
const STARTS: u64 = 8;
/// How long a batch of requests may take.
const BATCH_LIMIT_MICROSECONDS: u64 = 20_000_000;

/// The longest time that a request of [`one_at_a_time`] took, in ticks.
static LONGEST: AtomicU64 = AtomicU64::new(0);

/// The longest time that one request took, in microseconds.
pub(crate) fn longest_microseconds() -> u64 {
    timer::microseconds(LONGEST.load(Ordering::Relaxed))
}

fn timed<R>(request: impl FnOnce() -> R) -> R {
    let started = timer::now();
    let result = request();
    LONGEST.fetch_max(timer::now() - started, Ordering::Relaxed);
    result
}

/// Returns whether it can be written.
pub(crate) fn run(slot: &mut Slot) -> bool {
    let read_only = match open(slot) {
        Ok(disk) => {
            println!("a disk of {} sectors{}", disk.capacity(), if disk.readonly() { ", read-only" } else { "" });
            disk.readonly()
        }
        Err(reason) => {
            report::test("a disk comes up", || Err(reason));
            return false;
        }
    };
    if read_only {
        report::test("a read-only disk can be read and not written", || refuses_writes(slot));
        report::test("sectors beyond the end of a read-only disk are errors", || ends(slot));
        return false;
    }
    report::test("a disk gives back what was written, one request at a time", || one_at_a_time(slot, 1));
    report::test("a disk says who it is", || identity(slot));
    report::test("a large request is done whole", || large(slot));
    report::test("sectors beyond the end of a disk are errors", || ends(slot));
    report::test("a disk can be brought up again and again", || restarts(slot));
    report::test("a disk gives back what was written with sixteen requests in flight", || at_depth(slot, 3));
    report::test("a disk that is reset in the middle of requests starts clean", || resets(slot));
    true
}

/// The disk, which has room for the tests.
pub(crate) fn open(slot: &mut Slot) -> Result<Disk<'_>, Failure> {
    let disk = open_any(slot)?;
    if disk.capacity() < (PAGES * SECTORS_PER_PAGE) as u64 {
        return Err(Failure::new(format_args!("it has only {} sectors", disk.capacity())));
    }
    Ok(disk)
}

/// The disk, whatever its size.
pub(crate) fn open_any(slot: &mut Slot) -> Result<Disk<'_>, Failure> {
    let mut disk = Disk::new(slot.lend().map_err(failed("the registers"))?).map_err(failed("the driver"))?;
    disk.disable_interrupts();
    Ok(disk)
}

/// The contents of page `page` in round `seed`.
pub(crate) fn pattern(seed: u64, page: usize) -> [u8; PAGE] {
    let mut random = Random::new(seed << 32 ^ page as u64);
    let mut bytes = [0; PAGE];
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&random.word().to_le_bytes());
    }
    bytes
}

fn same(seed: u64, page: usize, bytes: &[u8]) -> Outcome {
    let wanted = pattern(seed, page);
    let differs = bytes.iter().zip(&wanted).position(|(found, wanted)| found != wanted);
    ensure!(differs.is_none(), "page {page} differs from byte {differs:?} on");
    Ok(())
}

#[inline(never)]
fn one_at_a_time(slot: &mut Slot, seed: u64) -> Outcome {
    let mut disk = open(slot)?;
    for page in 0..PAGES {
        let bytes = pattern(seed, page);
        timed(|| disk.write_blocks(page * SECTORS_PER_PAGE, &bytes)).map_err(failed("a write"))?;
    }
    disk.flush().map_err(failed("a flush"))?;
    let mut bytes = [0; PAGE];
    for page in (0..PAGES).rev() {
        timed(|| disk.read_blocks(page * SECTORS_PER_PAGE, &mut bytes)).map_err(failed("a read"))?;
        same(seed, page, &bytes)?;
    }
    // A single sector in the middle of a page leaves its neighbours alone.
    let sector = [0x5a; SECTOR];
    disk.write_blocks(3, &sector).map_err(failed("a write of one sector"))?;
    disk.read_blocks(0, &mut bytes).map_err(failed("a read"))?;
    let wanted = pattern(seed, 0);
    ensure!(bytes[..3 * SECTOR] == wanted[..3 * SECTOR], "the sectors before the one that was written changed");
    ensure!(bytes[3 * SECTOR..4 * SECTOR] == sector, "the sector that was written is another");
    ensure!(bytes[4 * SECTOR..] == wanted[4 * SECTOR..], "the sectors behind the one that was written changed");
    Ok(())
}

#[inline(never)]
fn identity(slot: &mut Slot) -> Outcome {
    let mut identity = [0; 20];
    let length = open(slot)?.device_id(&mut identity).map_err(failed("the identity"))?;
    let text = identity.get(..length).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or_default();
    ensure!(!text.is_empty() && text.is_ascii(), "it is {identity:02x?}");
    // Whoever judges this run knows what it must be.
    println!("its serial number is {text}");
    Ok(())
}

#[inline(never)]
fn large(slot: &mut Slot) -> Outcome {
    const PAGES_AT_ONCE: usize = 4;
    let mut disk = open(slot)?;
    let mut bytes = [0; PAGES_AT_ONCE * PAGE];
    for (page, part) in bytes.chunks_exact_mut(PAGE).enumerate() {
        part.copy_from_slice(&pattern(2, page));
    }
    disk.write_blocks(0, &bytes).map_err(failed("a write of 16 KiB"))?;
    bytes.fill(0);
    disk.read_blocks(0, &mut bytes).map_err(failed("a read of 16 KiB"))?;
    bytes.chunks_exact(PAGE).enumerate().try_for_each(|(page, part)| same(2, page, part))
}

#[inline(never)]
fn ends(slot: &mut Slot) -> Outcome {
    let mut disk = open(slot)?;
    let sectors = disk.capacity() as usize;
    let mut bytes = [0; PAGE];
    for sector in [sectors, sectors - 1, sectors + 1, usize::MAX / SECTOR, usize::MAX, usize::MAX - 7] {
        let outcome = disk.read_blocks(sector, &mut bytes);
        ensure!(outcome == Err(Error::IoError), "a read at sector {sector:#x} of {sectors:#x} gave {outcome:?}");
        let outcome = disk.write_blocks(sector, &bytes);
        ensure!(outcome == Err(Error::IoError), "a write at sector {sector:#x} of {sectors:#x} gave {outcome:?}");
    }
    disk.read_blocks(sectors - SECTORS_PER_PAGE, &mut bytes).map_err(failed("a read of the last page"))?;
    Ok(())
}

#[inline(never)]
fn refuses_writes(slot: &mut Slot) -> Outcome {
    let mut disk = open(slot)?;
    let mut before = [0; PAGE];
    disk.read_blocks(0, &mut before).map_err(failed("a read"))?;
    let outcome = disk.write_blocks(0, &[0xff; PAGE]);
    ensure!(outcome == Err(Error::IoError), "a write gave {outcome:?}");
    let mut after = [0; PAGE];
    disk.read_blocks(0, &mut after).map_err(failed("a read after the write"))?;
    ensure!(before == after, "the write was refused and done");
    Ok(())
}

#[inline(never)]
fn restarts(slot: &mut Slot) -> Outcome {
    let mut bytes = [0; PAGE];
    for start in 0..STARTS {
        let mut disk = open(slot)?;
        if let Some(last) = start.checked_sub(1) {
            disk.read_blocks(0, &mut bytes).map_err(failed("a read after a restart"))?;
            same(100 + last, 0, &bytes)?;
        }
        disk.write_blocks(0, &pattern(100 + start, 0)).map_err(failed("a write after a restart"))?;
    }
    Ok(())
}

/// `bytes` bytes of RAM that nothing else uses; from the end down, where no loader puts anything but the device tree.
pub(crate) fn room(bytes: u64) -> Option<Shared> {
    let memory = machine().memory.first()?;
    (1..64).find_map(|step| Shared::claim(memory.end().checked_sub(step * bytes)?, bytes))
}

/// A piece of RAM for each request in flight; claimed once, so that every disk's tests use the same.
pub(crate) fn buffers() -> Option<ArrayVec<Shared, DEPTH>> {
    static BUFFERS: spin::Once<Option<Shared>> = spin::Once::new();
    let all = (*BUFFERS.call_once(|| room((DEPTH * PAGE) as u64)))?;
    (0..DEPTH as u64).map(|index| all.piece(index * PAGE as u64, PAGE as u64)).collect()
}

/// Has `count` requests done, [`DEPTH`] at a time; `request` starts the one with the given number in a buffer and `end`
/// looks at what came of it.
fn batch(
    disk: &mut Block<(usize, usize)>,
    count: usize,
    mut request: impl FnMut(&mut Block<(usize, usize)>, usize, usize) -> bool,
    mut end: impl FnMut(usize, usize) -> Outcome,
) -> Outcome {
    let mut free: ArrayVec<usize, DEPTH> = (0..DEPTH).collect();
    let (mut started, mut ended) = (0, 0);
    let limit = timer::now() + timer::ticks(BATCH_LIMIT_MICROSECONDS);
    while ended < count {
        while started < count
            && let Some(buffer) = free.pop()
        {
            if !request(disk, started, buffer) {
                free.push(buffer);
                break;
            }
            started += 1;
        }
        disk.kick();
        while let Some(((number, buffer), outcome)) = disk.poll() {
            ensure!(outcome.is_ok(), "request {number} failed");
            end(number, buffer)?;
            free.push(buffer);
            ended += 1;
        }
        ensure!(timer::now() < limit, "{ended} of {count} requests came to an end, {started} were started");
    }
    Ok(())
}

#[inline(never)]
fn at_depth(slot: &mut Slot, seed: u64) -> Outcome {
    in_block(slot, |disk| write_and_read(disk, seed))
}

#[inline(never)]
fn write_and_read(disk: &mut Block<(usize, usize)>, seed: u64) -> Outcome {
    let Some(buffers) = buffers() else { return Err(Failure::new(format_args!("there is no room for buffers"))) };
    let write = |disk: &mut Block<_>, page: usize, buffer: usize| {
        buffers[buffer].write(&pattern(seed, page));
        disk.write((page * SECTORS_PER_PAGE) as u64, buffers[buffer], (page, buffer)).is_ok()
    };
    batch(disk, PAGES, write, |_, _| Ok(()))?;
    let read = |disk: &mut Block<_>, page: usize, buffer: usize| {
        buffers[buffer].clear();
        disk.read((page * SECTORS_PER_PAGE) as u64, buffers[buffer], (page, buffer)).is_ok()
    };
    batch(disk, PAGES, read, |page, buffer| {
        let mut bytes = [0; PAGE];
        buffers[buffer].read(&mut bytes);
        same(seed, page, &bytes)
    })
}

#[inline(never)]
fn resets(slot: &mut Slot) -> Outcome {
    let Some(buffers) = buffers() else { return Err(Failure::new(format_args!("there is no room for buffers"))) };
    for round in 0..STARTS {
        // Sixteen reads are under way when the device is reset, more or less of them done.
        in_block(slot, |disk| {
            for (index, buffer) in buffers.iter().enumerate() {
                let taken = disk.read((index * SECTORS_PER_PAGE) as u64, *buffer, (index, index)).is_ok();
                ensure!(taken, "read {index} of round {round} was not taken");
            }
            disk.kick();
            timer::spin(round * 20);
            Ok(())
        })?;
        // From here on the buffers are nobody's but ours.
        for buffer in &buffers {
            buffer.write(&[0xa5; PAGE]);
        }
        timer::spin(2000);
        for (index, buffer) in buffers.iter().enumerate() {
            let mut bytes = [0; PAGE];
            buffer.read(&mut bytes);
            ensure!(bytes == [0xa5; PAGE], "buffer {index} was written after the reset of round {round}");
        }
        in_block(slot, |disk| write_and_read(disk, 200 + round))?;
    }
    Ok(())
}

/// Runs `body` with the runtime's own driver, which has several requests in flight, and resets the device after that.
pub(crate) fn in_block(slot: &mut Slot, body: impl FnOnce(&mut Block<(usize, usize)>) -> Outcome) -> Outcome {
    Block::with(slot, body).map_err(failed("the driver"))?
}

/// A round of writes and reads, by both drivers.
pub(crate) fn load(slot: &mut Slot, seed: u64) -> Outcome {
    if open(slot)?.readonly() {
        return refuses_writes(slot);
    }
    one_at_a_time(slot, seed)?;
    at_depth(slot, seed + 1)
}
