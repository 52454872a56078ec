//! Calls and accesses that a hypervisor answers on its own.

use crate::clock::{self, PHASES, ROUNDS, absent, measure, print};
use rt::gic::offset;
use rt::machine::Conduit;
use rt::probe::{self, Width};
use rt::register::Register;
use rt::{gic, machine, memory, psci, smccc, timer, uart};

/// An SPI that no device has, in the second word of the distributor's bitmaps.
const UNUSED_SPI: u32 = 60;
/// An SGI that nobody sends.
const UNUSED_SGI: u32 = 15;
/// A virtio slot of QEMU's virt in which there is no device.
const VACANT_SLOT: u64 = 0x0a00_0000;
/// Where a machine like QEMU's virt has room between its devices.
const GAP: u64 = 0x0b00_0000;
const GAP_END: u64 = 0x0c00_0000;
const PAGE: usize = 4096;
/// The pages that are read for the first time.
const FRESH_PAGES: usize = 1024;

pub fn run() {
    call();
    let machine = machine();
    let distributor = machine.distributor.start;
    read("gicd-read", distributor + offset::CTLR);
    write("gicd-write", distributor + offset::ISENABLER + 4, 1 << (UNUSED_SPI % 32));
    match gic::redistributor(0) {
        Some(frame) => {
            let private = frame + offset::SGI_FRAME;
            read("gicr-read", private + offset::ISENABLER);
            write("gicr-write", private + offset::ISENABLER, 1 << UNUSED_SGI);
            read("gicr-priority-read", private + offset::IPRIORITYR + 12);
            write("gicr-priority-write", private + offset::IPRIORITYR + 12, 0xa0a0_a0a0);
        }
        None => absent("gicr-read", "no redistributor is this CPU's"),
    }
    match uart::base() {
        Some(base) => {
            read("uart-read", base + uart::offset::FR);
            characters();
        }
        None => absent("uart-read", "there is no UART"),
    }
    read("vacant-slot-read", VACANT_SLOT);
    nobody();
    fresh_pages();
}

fn call() {
    if machine().conduit == Conduit::Smc {
        return absent("hvc", "firmware is called by SMC");
    }
    measure("hvc", || {
        smccc::bare_hvc(psci::function::VERSION);
    });
}

pub(crate) fn read(name: &str, address: u64) {
    let Some(register) = Register::at(address) else { return absent(name, "memory is in its place") };
    measure(name, || {
        let _ = register.read();
    });
}

pub(crate) fn write(name: &str, address: u64, value: u32) {
    let Some(register) = Register::at(address) else { return absent(name, "memory is in its place") };
    measure(name, || register.write(value));
}

/// Characters to the console, as a driver sends them: a look whether there is room, and the character.
fn characters() {
    /// Divides the rounds, those that do not count included, so that the last line has an end.
    const LINE: u64 = 52;
    const { assert!((ROUNDS + PHASES).is_multiple_of(LINE), "the guest's next line would begin in the middle of one") };
    let mut sent = 0;
    measure("uart-put", || {
        sent += 1;
        uart::put(if sent % LINE == 0 { b'\n' } else { b'.' });
    });
}

/// A load from an address at which nothing answers, to the instruction behind it: what a probing driver pays.
fn nobody() {
    let machine = machine();
    let free = |address: &u64| machine.window_at(*address, PAGE as u64).is_none();
    let Some(address) = (GAP..GAP_END).step_by(PAGE).find(free) else {
        return absent("abort", "devices are everywhere");
    };
    if probe::read(address, Width::Word).is_ok() {
        return absent("abort", "something answers where nothing should");
    }
    let read = || {
        let _ = probe::read(address, Width::Word);
    };
    // One of each doubling of their number is logged, which would hide what the others cost: none from here to the
    // fourth round of `ROUNDS`.
    clock::time(2 * ROUNDS, read);
    measure("abort", read);
}

/// The first load from each of many pages, then a second one: a hypervisor that gives memory out only when it is
/// touched shows here.
fn fresh_pages() {
    let words = PAGE / size_of::<u64>();
    let Some(memory) = memory::take(FRESH_PAGES * words) else {
        return absent("page-first", "there is too little memory");
    };
    for name in ["page-first", "page-second"] {
        let start = timer::now();
        let mut sum = 0_u64;
        for page in memory.chunks_exact(words) {
            sum = sum.wrapping_add(core::hint::black_box(page)[0]);
        }
        let total = timer::now() - start;
        core::hint::black_box(sum);
        let rounds = FRESH_PAGES as u64;
        print(name, rounds, clock::nanoseconds(total), clock::nanoseconds(clock::empty(rounds)));
    }
}
