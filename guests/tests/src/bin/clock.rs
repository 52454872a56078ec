//! The board's clock in the hands of a guest: each interrupt reaches the CPU that it is routed to, once, and nothing of
//! one start reaches the next.
//!
//! Parameter: `raises=` (5000), how often the interrupt is raised for each CPU.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use rt::gic::Trigger;
use rt::{cpu, gic, interrupts, machine, println, psci, timer};
use spin::Once;
use testkit::clock::Clock;
use testkit::{Outcome, ensure, report};

rt::entry!(main);

const CPUS: usize = 2;
/// What the first start leaves in the alarm's register, where the second finds it: a second long ago.
const MARK: u32 = 0x0b5e_55ed;
const SOON_MICROSECONDS: u64 = 1_000_000;
const SHORT_MICROSECONDS: u64 = 20_000;

static CLOCK: Once<Clock> = Once::new();
/// How often each CPU has taken the interrupt.
static TAKEN: [AtomicU32; CPUS] = [const { AtomicU32::new(0) }; CPUS];
/// How often the interrupt may still come before it is lowered.
static LEAVE_RAISED: AtomicU32 = AtomicU32::new(0);
static IS_UP: AtomicBool = AtomicBool::new(false);

fn main() -> ! {
    gic::start(handler);
    interrupts::unmask();
    let Some(clock) = Clock::find() else {
        report::test("the board's clock is there", || {
            ensure!(false, "the device tree has none");
            Ok(())
        });
        report::finish()
    };
    let clock = *CLOCK.call_once(|| clock);
    if machine().under_bulkhead && clock.alarm() == MARK {
        report::test("what was due and raised at the reset is over", || is_silent(clock));
        clock.set_alarm(0);
        report::finish()
    }
    gic::set_trigger(clock.interrupt(), Trigger::Level);
    gic::set_priority(clock.interrupt(), 0x80);
    report::test("time goes on", || time(clock));
    report::test("an interrupt that is not lowered comes again after each end", || stays_raised(clock));
    report::test("an interrupt that is disabled waits until it is enabled", || waits(clock));
    report::test("each interrupt comes once, to the CPU that it is routed to", || to_each_cpu(clock));
    if !machine().under_bulkhead {
        report::finish()
    }
    // Raised, and taken by nobody; then another is the next start's.
    interrupts::mask();
    let _ = clock.prepare();
    clock.set_alarm(MARK);
    clock.raise();
    psci::system_reset();
    panic!("SYSTEM_RESET returned")
}

fn handler(cpu: usize, id: u32) {
    let Some(clock) = CLOCK.get().filter(|clock| clock.interrupt() == id) else { return };
    if LEAVE_RAISED.load(Ordering::Relaxed) > 0 {
        LEAVE_RAISED.fetch_sub(1, Ordering::Relaxed);
    } else {
        clock.lower();
    }
    if let Some(taken) = TAKEN.get(cpu) {
        taken.fetch_add(1, Ordering::Release);
    }
}

fn taken(cpu: usize) -> u32 {
    TAKEN.get(cpu).map_or(0, |taken| taken.load(Ordering::Acquire))
}

/// Waits until CPU `cpu` has taken the interrupt `count` times. Gives whether it has.
fn wait_for(cpu: usize, count: u32) -> bool {
    let deadline = timer::now() + timer::frequency() * SOON_MICROSECONDS / 1_000_000;
    while taken(cpu) != count {
        if timer::now() > deadline {
            return false;
        }
        cpu::relax();
    }
    true
}

fn time(clock: Clock) -> Outcome {
    let before = clock.seconds();
    ensure!(before != 0, "it has not begun");
    for _ in 0..25 {
        timer::sleep(100_000);
        if clock.seconds() > before {
            return Ok(());
        }
    }
    ensure!(false, "it stands still at {before}");
    Ok(())
}

fn stays_raised(clock: Clock) -> Outcome {
    ensure!(clock.prepare(), "the alarm is not due");
    gic::route(clock.interrupt(), 0);
    gic::enable(clock.interrupt());
    LEAVE_RAISED.store(3, Ordering::Relaxed);
    let before = taken(0);
    clock.raise();
    let came = wait_for(0, before + 4);
    ensure!(came, "it came {} times out of 4", taken(0) - before);
    timer::sleep(SHORT_MICROSECONDS);
    ensure!(taken(0) == before + 4, "it came after it was lowered");
    Ok(())
}

fn waits(clock: Clock) -> Outcome {
    gic::disable(clock.interrupt());
    let before = taken(0);
    clock.raise();
    timer::sleep(SHORT_MICROSECONDS);
    ensure!(taken(0) == before, "it came while it was disabled");
    gic::enable(clock.interrupt());
    ensure!(wait_for(0, before + 1), "it did not come when it was enabled");
    Ok(())
}

fn to_each_cpu(clock: Clock) -> Outcome {
    let raises = machine().number("raises", 5000) as u32;
    cpu::start(1, second)?;
    while !IS_UP.load(Ordering::Acquire) {
        cpu::relax();
    }
    for cpu in (0..CPUS).rev() {
        gic::route(clock.interrupt(), cpu);
        let before = [taken(0), taken(1)];
        for round in 1..=raises {
            clock.raise();
            ensure!(wait_for(cpu, before[cpu] + round), "interrupt {round} for CPU {cpu} did not come");
        }
        ensure!(taken(1 - cpu) == before[1 - cpu], "CPU {} took some that were for CPU {cpu}", 1 - cpu);
    }
    println!("raised {}", raises * 2);
    Ok(())
}

fn second(_: usize) {
    gic::init_cpu();
    interrupts::unmask();
    IS_UP.store(true, Ordering::Release);
    loop {
        interrupts::wait();
    }
}

/// The alarm has been ended, and nothing comes of it.
fn is_silent(clock: Clock) -> Outcome {
    ensure!(!clock.is_unmasked(), "its interrupt is not masked");
    ensure!(!clock.is_due(), "its alarm is still due");
    ensure!(!gic::is_pending(clock.interrupt()), "its interrupt is pending");
    ensure!(!gic::is_active(clock.interrupt()), "its interrupt is active");
    gic::route(clock.interrupt(), 0);
    gic::enable(clock.interrupt());
    timer::sleep(SHORT_MICROSECONDS);
    ensure!(taken(0) == 0, "its interrupt came");
    // And it is not lost for good.
    ensure!(clock.prepare(), "the alarm is not due when it is set to now");
    clock.raise();
    ensure!(wait_for(0, 1), "its interrupt does not come any more");
    Ok(())
}
