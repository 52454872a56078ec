//! Reads and writes every page that is not its own, and expects an abort for each.
//!
//! Two places every VM may read, and nobody can change: the bank of flash, which is erased, and the virtio slots
//! without a device. They must hold what they hold for everybody.
//!
//! Parameters: `from=` (0) and `size=` (4 GiB) of the window, and `also=` the base of a second window of 16 MiB. Its
//! own RAM and the windows of its own devices are left out. With `ready=1` it says first that it is a driver domain
//! whose clients may start.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::ops::Range;
use rt::{hypercall, machine, mmu, println, probe, timer};
use testkit::{Outcome, ensure, report};

rt::entry!(main);

const PAGE: u64 = 4096;
const SECOND_WINDOW: u64 = 16 << 20;
/// The bank of flash: it reads as erased, and refuses stores.
const FLASH: Range<u64> = 0x0400_0000..0x0800_0000;
const ERASED: u32 = u32::MAX;
/// The virtio slots, each of which begins with MagicValue (VIRTIO 1.2, 4.2.2); those without a device ignore stores.
const SLOTS: Range<u64> = 0x0a00_0000..0x0a02_0000;
const MAGIC: u32 = 0x7472_6976;

#[derive(Default)]
struct Tally {
    pages: u64,
    reads_refused: u64,
    writes_refused: u64,
    constant_pages: u64,
    first_leak: Option<u64>,
    first_odd_abort: Option<probe::Abort>,
}

fn main() -> ! {
    let from = machine().number("from", 0) & !(PAGE - 1);
    let size = machine().number("size", 4 << 30);
    if machine().number("ready", 0) == 1 {
        // Whoever waits for this driver domain starts, and has memory worth reading.
        report::test("a driver domain is ready", || {
            let answer = hypercall::call(abi::io::FUNCTION_READY, [0; 4]);
            ensure!(answer == 0, "Bulkhead answers {:#x}", answer);
            Ok(())
        });
    }
    let started = timer::now();

    let tally = probe_window(from, size);
    report::test("every page outside refuses", || verdict(&tally));

    if let Some(base) = machine().parameter("also").map(|_| machine().number("also", 0) & !(PAGE - 1)) {
        let tally = probe_window(base, SECOND_WINDOW);
        report::test("every page of the second window refuses", || verdict(&tally));
    }
    println!("probed for {} ms", timer::microseconds(timer::now() - started) / 1000);
    report::finish()
}

fn verdict(tally: &Tally) -> Outcome {
    let Tally { pages, reads_refused, writes_refused, constant_pages, first_leak, first_odd_abort } = tally;
    println!(
        "pages={pages} reads_refused={reads_refused} writes_refused={writes_refused} constant_pages={constant_pages}"
    );
    ensure!(*pages > 0, "the window has no page that is not mine");
    if let Some(address) = first_leak {
        ensure!(
            false,
            "{} accesses went through, or a constant page is none, the first at {address:#x}",
            2 * pages - reads_refused - writes_refused
        );
    }
    if let Some(abort) = first_odd_abort {
        ensure!(false, "not a synchronous external abort: {abort}");
    }
    Ok(())
}

fn probe_window(from: u64, size: u64) -> Tally {
    let mut tally = Tally::default();
    let end = from.saturating_add(size);
    let mut address = from;
    while address < end {
        if let Some(own) = own_at(address) {
            address = own.next_multiple_of(PAGE).max(address + PAGE);
            continue;
        }
        // Nothing of mine begins before this, so the inner loop need not look.
        let limit = next_own(address).min(end);
        while address < limit {
            probe_page(address, &mut tally);
            address += PAGE;
        }
    }
    tally
}

/// The end of what this guest owns at `address`, if it owns that page.
fn own_at(address: u64) -> Option<u64> {
    let alias = (address >= mmu::ALIAS_BASE).then_some(mmu::ALIAS_BASE + mmu::ALIAS_BYTES).filter(|&end| address < end);
    let memory = machine().memory_at(address, PAGE).map(|region| region.end());
    let window = machine().window_at(address, PAGE).map(|region| region.end());
    memory.or(window).or(alias)
}

/// The first page behind `address` that this guest owns.
fn next_own(address: u64) -> u64 {
    let regions = machine().memory.iter().chain(&machine().windows).map(|region| region.start & !(PAGE - 1));
    regions.chain([mmu::ALIAS_BASE]).filter(|&start| start > address).min().unwrap_or(u64::MAX)
}

/// A page that every VM may read must hold `word` at its start, after a store, too.
fn probe_constant(address: u64, word: u32, tally: &mut Tally) {
    tally.constant_pages += 1;
    let before = probe::try_read32(address);
    let write = probe::try_write32(address, 0x0bad_beef);
    let after = probe::try_read32(address);
    let is_constant = [before, after].into_iter().all(|read| matches!(read, Ok(value) if value == word));
    if !is_constant || FLASH.contains(&address) && write.is_ok() {
        tally.first_leak = tally.first_leak.or(Some(address));
    }
}

fn probe_page(address: u64, tally: &mut Tally) {
    if FLASH.contains(&address) {
        return probe_constant(address, ERASED, tally);
    }
    if SLOTS.contains(&address) {
        return probe_constant(address, MAGIC, tally);
    }
    tally.pages += 1;
    let read = probe::try_read32(address).map(|_| ());
    let write = probe::try_write32(address, 0x0bad_beef);
    for (outcome, refused) in [(read, &mut tally.reads_refused), (write, &mut tally.writes_refused)] {
        match outcome {
            Ok(()) => tally.first_leak = tally.first_leak.or(Some(address)),
            Err(abort) => {
                *refused += 1;
                let expected = abort.class() == 0x25 && abort.is_external() && abort.address == address;
                if !expected {
                    tally.first_odd_abort = tally.first_odd_abort.or(Some(abort));
                }
            }
        }
    }
}
