//! Breakpoints and watchpoints, on a core that several guests share: each meets its own, and nobody another's.
//!
//! Parameters: `role=` `0` or `1` says which of two functions and words is its own, `none` that it has none;
//! `milliseconds=` (400) is how long it looks.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use rt::debug::{self, BREAK_AT_EL1, CLASS_BREAKPOINT, CLASS_WATCHPOINT, TARGETS, WATCH_STORES_AT_EL1};
use rt::system_registers as id;
use rt::{Abort, interrupts, machine, println, timer};
use testkit::{Outcome, ensure, report};

rt::entry!(main);

/// MDSCR_EL1.KDE and MDE.
const ENABLES: u64 = 1 << 13 | 1 << 15;

fn main() -> ! {
    interrupts::mask();
    let own = machine().parameter("role").and_then(|role| role.parse().ok());
    match own {
        Some(own) => with_own(own),
        None => {
            report::test("who has no breakpoints meets none, whatever its neighbours have", || look(None));
        }
    }
    report::finish()
}

fn with_own(own: usize) {
    report::test("there are as many breakpoints and watchpoints as the CPU says", counts);
    report::test("breakpoints and watchpoints keep what is stored, but for what names other levels", values);
    report::test("a breakpoint and a watchpoint are hit, whenever they are on", || on_and_off(own));
    report::test("while the OS lock is locked, none is hit", || lock(own));
    report::test("a guest meets its own breakpoints and watchpoints, and none of its neighbours'", || look(Some(own)));
    report::test("the number of its software context stays a guest's own", || software_context(own));
}

fn field(value: u64, shift: u32) -> u32 {
    (value >> shift & 0xf) as u32
}

fn counts() -> Outcome {
    let features = id::id_aa64dfr0()?;
    let (breakpoints, watchpoints) = (field(features, 12) + 1, field(features, 20) + 1);
    ensure!(breakpoints >= 2 && watchpoints >= 2, "{breakpoints} breakpoints and {watchpoints} watchpoints");
    println!("breakpoints={breakpoints} watchpoints={watchpoints}");
    for number in 0..16 {
        let set = debug::set_breakpoint(number, 0, 0);
        let is_there = number < breakpoints;
        ensure!(set.is_ok() == is_there && !set.is_err_and(|abort| !abort.is_undefined()), "number {number}: {set:?}");
        let set = debug::set_watchpoint(number, 0, 0);
        let is_there = number < watchpoints;
        ensure!(set.is_ok() == is_there && !set.is_err_and(|abort| !abort.is_undefined()), "number {number}: {set:?}");
    }
    Ok(())
}

fn values() -> Outcome {
    // No exception comes of them: MDSCR_EL1.MDE is clear.
    debug::set_monitor_control(0)?;
    debug::set_breakpoint(0, 0x1234_5678, u64::MAX)?;
    debug::set_watchpoint(0, 0x1234_5678, u64::MAX)?;
    let found = [debug::breakpoint_value()?, debug::watchpoint_value()?];
    ensure!(found == [0x1234_5678; 2], "the values are {found:x?}");
    let found = [debug::breakpoint_control()?, debug::watchpoint_control()?];
    // E; HMC and SSC.
    ensure!(found.iter().all(|control| control & 1 != 0), "the controls are {found:x?}");
    if machine().under_bulkhead {
        ensure!(found.iter().all(|control| control & 0b111 << 13 == 0), "the controls are {found:x?}");
    }
    debug::set_breakpoint(0, 0, 0)?;
    debug::set_watchpoint(0, 0, 0)?;
    Ok(())
}

/// Whether the exception is a breakpoint at function `index`.
fn is_break(abort: Abort, index: usize) -> bool {
    abort.class() == CLASS_BREAKPOINT && abort.pc == debug::function(index)
}

/// Whether the exception is a watchpoint at word `index`.
fn is_watch(abort: Abort, index: usize) -> bool {
    abort.class() == CLASS_WATCHPOINT && abort.address == debug::word(index) && abort.is_write()
}

fn arm(own: usize) -> Result<(), Abort> {
    debug::set_lock(0)?;
    debug::set_breakpoint(0, debug::function(own), BREAK_AT_EL1)?;
    debug::set_watchpoint(0, debug::word(own), WATCH_STORES_AT_EL1)?;
    debug::set_monitor_control(ENABLES)
}

/// Calls each function and stores to each word: only its own are hit.
fn try_all(own: Option<usize>) -> Outcome {
    for index in 0..TARGETS {
        let (call, store) = (debug::call(index), debug::store(index));
        if own == Some(index) {
            ensure!(call.is_err_and(|abort| is_break(abort, index)), "the call of {index} met {call:?}");
            ensure!(store.is_err_and(|abort| is_watch(abort, index)), "the store to {index} met {store:?}");
        } else {
            ensure!(call.is_ok(), "the call of {index}, where no breakpoint is, met {call:?}");
            ensure!(store.is_ok(), "the store to {index}, where no watchpoint is, met {store:?}");
        }
    }
    Ok(())
}

fn on_and_off(own: usize) -> Outcome {
    try_all(None)?;
    arm(own)?;
    try_all(Some(own))?;
    // The last of either kind does as well as the first.
    let features = id::id_aa64dfr0()?;
    let other = 1 - own % TARGETS;
    debug::set_breakpoint(0, 0, 0)?;
    debug::set_watchpoint(0, 0, 0)?;
    debug::set_breakpoint(field(features, 12), debug::function(other), BREAK_AT_EL1)?;
    debug::set_watchpoint(field(features, 20), debug::word(other), WATCH_STORES_AT_EL1)?;
    try_all(Some(other))?;
    debug::set_monitor_control(0)?;
    try_all(None)?;
    debug::set_breakpoint(field(features, 12), 0, 0)?;
    debug::set_watchpoint(field(features, 20), 0, 0)?;
    Ok(())
}

fn lock(own: usize) -> Outcome {
    arm(own)?;
    debug::set_lock(1)?;
    let status = debug::lock_status()?;
    ensure!(status & 0b1010 == 0b1010, "OSLSR_EL1 is {status:#x}");
    try_all(None)?;
    debug::set_lock(0)?;
    let status = debug::lock_status()?;
    ensure!(status & 0b1010 == 0b1000, "OSLSR_EL1 is {status:#x}");
    try_all(Some(own))
}

/// For as many turns on the core as the time has.
fn look(own: Option<usize>) -> Outcome {
    let end = timer::now() + timer::ticks(machine().number("milliseconds", 400) * 1000);
    let mut rounds = 0_u64;
    while timer::now() < end {
        try_all(own)?;
        rounds += 1;
    }
    ensure!(rounds > 100, "there were but {rounds} rounds");
    if let Some(own) = own {
        let found = [debug::breakpoint_value()?, debug::watchpoint_value()?];
        ensure!(found == [debug::function(own), debug::word(own)], "the values are {found:x?}");
        debug::set_monitor_control(0)?;
    }
    Ok(())
}

fn software_context(own: usize) -> Outcome {
    let (pfr0, pfr1) = (id::id_aa64pfr0()?, id::id_aa64pfr1()?);
    if field(pfr0, 56) < 2 && field(pfr1, 32) < 2 {
        let read = debug::software_context();
        ensure!(read.is_err_and(|abort| abort.is_undefined()), "it is not there, and reads {read:?}");
        return Ok(());
    }
    let number = 0x1234_0000 + own as u64;
    debug::set_software_context(number)?;
    debug::set_software_context_of_el0(!number)?;
    let end = timer::now() + timer::ticks(100_000);
    while timer::now() < end {
        let found = [debug::software_context()?, debug::software_context_of_el0()?];
        ensure!(found == [number, !number], "they are {found:x?}");
    }
    Ok(())
}
