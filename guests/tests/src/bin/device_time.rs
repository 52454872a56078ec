//! A device with deadlines, `devices::test_timer`, and what comes of them for its guest and for its neighbours.
//!
//! Parameter: `role=` is one of
//! - `measures` (where it is absent): sets deadlines from each of its CPUs, asleep and awake, and asks the device how
//!   late it was polled: 2,000 nanoseconds at most. Then it looks at what else the device is told, and starts again,
//!   with a deadline left over;
//! - `attacks`: has a deadline that stays in the past, and sleeps, until `middle=` (80) milliseconds after the board's
//!   start; then it sets deadlines that have passed as often as it can, until `until=` (150).
//!
//! Where time is counted in instructions, a nanosecond is one.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use rt::gic::Trigger;
use rt::register::Register;
use rt::{cpu, gic, interrupts, machine, psci, timer};
use testkit::random::Random;
use testkit::{Outcome, ensure, report};

rt::entry!(main);

/// The device, where every system here has it.
const BASE: u64 = 0x0901_1000;
const INTERRUPT: u32 = 35;

// The offsets of its registers, as its documentation has them.
const DELAY: u64 = 0x00;
const STUCK: u64 = 0x04;
const STOP: u64 = 0x08;
const POLLS: u64 = 0x0c;
const LATE: u64 = 0x10;
const FREQUENCY: u64 = 0x14;
const CLOCK: u64 = 0x18;
const RESTARTS: u64 = 0x1c;
const CONFIGURATION: u64 = 0x20;

const ROUNDS: u64 = 100;
/// The most from a deadline to its poll, in nanoseconds.
const LATE_NANOSECONDS: u64 = 2000;
/// From one deadline to the next, in nanoseconds: at least, and what comes on top at random.
const PAUSE: u64 = 150_000;
const PAUSES: u64 = 250_000;
/// Long after 2001, and long before the device's 32 bits are full.
const LONG_AGO_SECONDS: u32 = 1_000_000_000;

static POLLED: AtomicBool = AtomicBool::new(false);
/// What CPU 1 stores to DELAY next, plus one; 0 if nothing.
static NEXT_DELAY: AtomicU64 = AtomicU64::new(0);

fn register(offset: u64) -> Option<Register> {
    Register::at(BASE + offset)
}

fn load(offset: u64) -> u32 {
    register(offset).map_or(0, Register::read)
}

fn store(offset: u64, value: u32) {
    if let Some(register) = register(offset) {
        register.write(value);
    }
}

fn main() -> ! {
    match machine().parameter("role").unwrap_or("measures") {
        "attacks" => {
            report::test("a deadline that stays in the past is met again and again", stay_stuck);
            report::test("deadlines may be set as often as one likes", storm);
        }
        _ => measure(),
    }
    report::finish()
}

/// Does `action` again and again until the board has run for the milliseconds that the parameter `end` says.
fn until(end: &str, otherwise: u64, mut action: impl FnMut()) {
    let end = timer::ticks(machine().number(end, otherwise) * 1000);
    while timer::physical_now() < end {
        action();
    }
}

fn stay_stuck() -> Outcome {
    gic::start(|_, _| {});
    store(STUCK, 0);
    until("middle", 80, || timer::sleep(5000));
    let polls = load(POLLS);
    store(STOP, 0);
    ensure!(polls >= 100, "it was met {polls} times");
    Ok(())
}

fn storm() -> Outcome {
    let before = load(POLLS);
    until("until", 150, || store(DELAY, 0));
    store(STOP, 0);
    let polls = load(POLLS) - before;
    ensure!(polls >= 100, "{polls} of them were met");
    Ok(())
}

fn take(_cpu: usize, _id: u32) {
    store(STOP, 0);
    POLLED.store(true, Ordering::Release);
}

fn measure() {
    gic::start(take);
    gic::set_trigger(INTERRUPT, Trigger::Level);
    gic::enable(INTERRUPT);
    if load(RESTARTS) > 0 {
        report::test("a device knows a restart, and nothing of the last start is polled in the next", || {
            timer::sleep(2000);
            ensure!(load(RESTARTS) == 1, "there were {} restarts", load(RESTARTS));
            ensure!(load(POLLS) == 0, "it was polled {} times", load(POLLS));
            Ok(())
        });
        return;
    }
    report::test("a poll is on time if its guest sleeps", || polls(|delay| store(DELAY, delay), interrupts::wait));
    report::test("a poll is on time if its guest computes", || polls(|delay| store(DELAY, delay), look));
    if machine().cpus.len() > 1 {
        report::test("a deadline that another CPU has set is met", || {
            cpu::start(1, second)?;
            let set = |delay| NEXT_DELAY.store(u64::from(delay) + 1, Ordering::Release);
            polls(set, look)
        });
    }
    report::test("a device is told the counter's frequency, the wall clock and its configuration", || {
        ensure!(u64::from(load(FREQUENCY)) == timer::frequency(), "the counter has {} Hz", load(FREQUENCY));
        ensure!(load(CLOCK) > LONG_AGO_SECONDS, "the wall clock says {}", load(CLOCK));
        ensure!(load(CONFIGURATION) == u32::from_le_bytes(*b"text"), "its configuration is {:#x}", load(CONFIGURATION));
        Ok(())
    });
    store(STUCK, 0);
    psci::system_reset();
}

/// Lets interrupts in, and goes on.
fn look() {
    interrupts::unmask();
    cpu::relax();
    interrupts::mask();
}

fn polls(set: impl Fn(u32), wait: fn()) -> Outcome {
    let mut random = Random::new(1);
    let ticks = |nanoseconds: u64| (nanoseconds * timer::frequency() / 1_000_000_000) as u32;
    interrupts::mask();
    store(LATE, 0);
    let before = load(POLLS);
    for _ in 0..ROUNDS {
        POLLED.store(false, Ordering::Release);
        set(ticks(PAUSE + random.word() % PAUSES));
        while !POLLED.load(Ordering::Acquire) {
            wait();
            look();
        }
    }
    let (polls, late) = (u64::from(load(POLLS) - before), u64::from(load(LATE)));
    let late_nanoseconds = late * 1_000_000_000 / timer::frequency();
    rt::println!("late_ns={late_nanoseconds} at most, in {polls} polls");
    ensure!(polls == ROUNDS, "there were {polls} polls for {ROUNDS} deadlines");
    ensure!(late_nanoseconds <= LATE_NANOSECONDS, "one came {late_nanoseconds} ns late");
    Ok(())
}

fn second(_: usize) {
    gic::init_cpu();
    loop {
        match NEXT_DELAY.swap(0, Ordering::AcqRel).checked_sub(1) {
            Some(delay) => store(DELAY, delay as u32),
            None => cpu::relax(),
        }
    }
}
