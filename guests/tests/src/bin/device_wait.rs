//! A device that answers later, or never (`devices::test_timer`): its guest waits for it, and nobody else does.
//!
//! Parameter: `role=` is one of
//! - `asks` (where it is absent): loads and stores that are answered later, interrupts that come meanwhile, and
//!   instructions that cannot wait;
//! - `holds`: waits for such answers without end, until `until=` (150) milliseconds after the board's start;
//! - `dies`: starts again while one of its CPUs waits, `starts=` (1000) times.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicU64, Ordering};
use rt::probe::{self, OddAccess};
use rt::register::Register;
use rt::{cpu, gic, interrupts, machine, psci, timer};
use testkit::{Outcome, ensure, report};

rt::entry!(main);

/// The device, where every system here has it.
const BASE: u64 = 0x0901_1000;

// The offsets of its registers, as its documentation has them.
const RESTARTS: u64 = 0x1c;
const PATIENCE: u64 = 0x24;
const LATER: u64 = 0x40;
const NEVER: u64 = 0x80;
/// What LATER reads as.
const LATER_VALUE: u32 = 0x1a7e;

const PATIENCE_MICROSECONDS: u64 = 1000;
const ROUNDS: u32 = 20;
/// How long a start that ends soon gives its other CPU to begin to wait.
const SOON_MICROSECONDS: u64 = 20;

/// When the timer's interrupt was taken; 0 as long as it was not.
static TAKEN_AT: AtomicU64 = AtomicU64::new(0);
/// How often CPU 1 goes on after an access that is never answered.
static WENT_ON: AtomicU64 = AtomicU64::new(0);

fn load(offset: u64) -> u32 {
    Register::at(BASE + offset).map_or(0, Register::read)
}

fn store(offset: u64, value: u32) {
    if let Some(register) = Register::at(BASE + offset) {
        register.write(value);
    }
}

fn main() -> ! {
    match machine().parameter("role").unwrap_or("asks") {
        "holds" => report::test("an answer is waited for again and again", hold),
        "dies" => report::test("no start leaves anything to the next", die),
        _ => {
            report::test("a load that is answered later returns the answer then", || takes_its_time(&|| load(LATER)));
            report::test("a store that is answered later is done then", || {
                takes_its_time(&|| {
                    store(LATER, 1);
                    LATER_VALUE
                })
            });
            report::test("an interrupt does not end the wait, and comes after it", stays_pending);
            report::test("a CPU that waits for an answer is on, and another one runs", leaves_the_other_alone);
            report::test("an instruction that is answered in parts cannot wait", in_parts);
        }
    }
    report::finish()
}

fn set_patience(microseconds: u64) {
    store(PATIENCE, timer::ticks(microseconds) as u32);
}

fn takes_its_time(ask: &dyn Fn() -> u32) -> Outcome {
    set_patience(PATIENCE_MICROSECONDS);
    for _ in 0..ROUNDS {
        let start = timer::now();
        let value = ask();
        let passed = timer::microseconds(timer::now() - start);
        ensure!(value == LATER_VALUE, "the answer is {value:#x}");
        ensure!(passed >= PATIENCE_MICROSECONDS, "it came after {passed} microseconds");
        ensure!(passed <= PATIENCE_MICROSECONDS + 100, "it came after {passed} microseconds");
    }
    Ok(())
}

fn take(_cpu: usize, _id: u32) {
    TAKEN_AT.store(timer::now(), Ordering::Relaxed);
    timer::disarm();
}

fn stays_pending() -> Outcome {
    gic::start(take);
    gic::enable(timer::VIRTUAL_TIMER);
    set_patience(PATIENCE_MICROSECONDS);
    for _ in 0..ROUNDS {
        TAKEN_AT.store(0, Ordering::Relaxed);
        let start = timer::now();
        timer::arm(start + timer::ticks(PATIENCE_MICROSECONDS / 3));
        interrupts::unmask();
        let value = load(LATER);
        let end = timer::now();
        interrupts::mask();
        let taken = TAKEN_AT.load(Ordering::Relaxed);
        ensure!(value == LATER_VALUE, "the answer is {value:#x}");
        ensure!(taken != 0 && taken <= end, "the interrupt did not come at the end of the wait");
        let passed = timer::microseconds(taken - start);
        ensure!(passed >= PATIENCE_MICROSECONDS, "the interrupt came after {passed} microseconds");
    }
    Ok(())
}

/// CPU 1 waits for what never comes.
fn wait_for_ever(_: usize) {
    loop {
        let _ = load(NEVER);
        WENT_ON.fetch_add(1, Ordering::Relaxed);
    }
}

fn leaves_the_other_alone() -> Outcome {
    cpu::start(1, wait_for_ever)?;
    // The core is both CPUs'.
    timer::sleep(PATIENCE_MICROSECONDS);
    let affinity = machine().cpus.get(1).copied().unwrap_or(0);
    ensure!(psci::affinity_info(affinity) == Ok(psci::Affinity::On), "{:?}", psci::affinity_info(affinity));
    takes_its_time(&|| load(LATER))?;
    ensure!(WENT_ON.load(Ordering::Relaxed) == 0, "it went on");
    Ok(())
}

fn in_parts() -> Outcome {
    set_patience(10);
    for access in [OddAccess::LoadPair, OddAccess::StorePair, OddAccess::LoadPostIndex, OddAccess::StorePostIndex] {
        let outcome = probe::odd(access, BASE + LATER);
        ensure!(outcome.result.is_err() && outcome.write_back == 0, "{access:?} gave {outcome:?}");
        // Its answer comes, and finds nobody.
        timer::spin(200);
    }
    takes_its_time(&|| load(LATER))
}

fn hold() -> Outcome {
    set_patience(PATIENCE_MICROSECONDS);
    let end = timer::ticks(machine().number("until", 150) * 1000);
    while timer::physical_now() < end {
        ensure!(load(LATER) == LATER_VALUE, "another answer came");
    }
    Ok(())
}

fn die() -> Outcome {
    gic::start(take);
    let starts = machine().number("starts", 1000) as u32;
    let start = load(RESTARTS);
    if start < starts {
        set_patience(if start.is_multiple_of(2) { 10 } else { 1_000_000 });
        cpu::start(1, if start.is_multiple_of(3) { wait_for_ever } else { wait_for_later })?;
        // The core is both CPUs'.
        timer::sleep(SOON_MICROSECONDS);
        psci::system_reset();
    }
    ensure!(start == starts, "there were {start} restarts");
    Ok(())
}

fn wait_for_later(_: usize) {
    loop {
        let _ = load(LATER);
    }
}
