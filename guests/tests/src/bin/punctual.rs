//! A guest whose timer has to be on time on a core that it shares, and the neighbours that it has there.
//!
//! Parameters: `role=` is one of
//! - `timer` (where it is absent): sleeps, and measures how late each of its timer's interrupts comes to the handler;
//!   `late=` (2000) is the most, in nanoseconds, but for `lines=` (0) that may come while Bulkhead prints a line of
//!   its log on this core;
//! - `computes`: asks nothing of anybody, and must get `share=` (0) percent of its core's time;
//! - `wakes`: has a timer that goes off without end, and computes in its handler: it is awake for `awake=` (180)
//!   microseconds at a time, and asleep for `asleep=` (20) in between;
//! - `resets`: resets itself at each start; its last start comes within `restart=` (20000) microseconds of the end.
//!
//! All do so from `from=` (20) to `until=` (150) milliseconds after the board's start. Where time is counted in
//! instructions, a nanosecond is one.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};
use rt::{cpu, gic, interrupts, machine, println, psci, timer};
use testkit::random::Random;
use testkit::{Outcome, ensure, report};

rt::entry!(main);

/// From a timer's interrupt to the deadline of the next, at least and at most, in microseconds.
const PAUSE_MIN: u64 = 150;
const PAUSES: u64 = 400;
/// A gap this long is a turn that somebody else had, in microseconds.
const TURN: u64 = 2;
/// What Bulkhead takes for a line of its log at most, in nanoseconds.
const LINE_NANOSECONDS: u64 = 20_000;
/// The fewest interrupts that say something.
const ROUNDS_MIN: u64 = 100;

/// How often the one that wakes without end was woken.
static WOKEN: AtomicU64 = AtomicU64::new(0);

/// When the timer's interrupt was taken; 0 as long as it was not.
static TAKEN_AT: AtomicU64 = AtomicU64::new(0);

fn main() -> ! {
    match machine().parameter("role").unwrap_or("timer") {
        "computes" => report::test("a CPU that computes gets its share of its core", compute),
        "wakes" => {
            gic::start(stay_awake);
            gic::enable(timer::VIRTUAL_TIMER);
            timer::arm(timer::now());
            interrupts::unmask();
            until_end(interrupts::wait);
            interrupts::mask();
            report::test("a CPU that is woken without end gets its turns", || {
                let rounds = WOKEN.load(Ordering::Relaxed);
                println!("woken={rounds}");
                ensure!(rounds >= ROUNDS_MIN, "it was woken {rounds} times");
                Ok(())
            });
        }
        "resets" => {
            if timer::physical_now() < milliseconds("until", 150) {
                psci::system_reset();
            }
            report::test("a guest that resets itself starts again in time", || {
                let late = timer::physical_now() - milliseconds("until", 150);
                let limit = timer::ticks(machine().number("restart", 20_000));
                ensure!(late < limit, "its last start came {late} ticks after the end");
                Ok(())
            });
        }
        _ => report::test("the timer's interrupts come on time", measure),
    }
    report::finish()
}

/// The parameter `name`, in milliseconds since the board's start, as a physical count.
fn milliseconds(name: &str, otherwise: u64) -> u64 {
    timer::ticks(machine().number(name, otherwise) * 1000)
}

fn until_end(mut action: impl FnMut()) {
    let end = milliseconds("until", 150);
    while timer::physical_now() < end {
        action();
    }
}

fn stay_awake(_cpu: usize, _id: u32) {
    WOKEN.fetch_add(1, Ordering::Relaxed);
    timer::spin(machine().number("awake", 180));
    timer::arm(timer::now() + timer::ticks(machine().number("asleep", 20)));
}

fn compute() -> Outcome {
    while timer::physical_now() < milliseconds("from", 20) {}
    let (start, turn) = (timer::now(), timer::ticks(TURN));
    let (mut last, mut ran, mut state) = (start, 0, 1_u64);
    until_end(|| {
        state = black_box(state.rotate_left(7) ^ 0x9e37_79b9_7f4a_7c15);
        let now = timer::now();
        if now - last < turn {
            ran += now - last;
        }
        last = now;
    });
    let (share_percent, due_percent) = (ran * 100 / (last - start).max(1), machine().number("share", 0));
    println!("share={share_percent}");
    ensure!(share_percent >= due_percent, "it got {share_percent} % where {due_percent} % were due");
    Ok(())
}

fn take(_cpu: usize, _id: u32) {
    TAKEN_AT.store(timer::now(), Ordering::Relaxed);
    timer::disarm();
}

fn measure() -> Outcome {
    gic::start(take);
    interrupts::mask();
    gic::enable(timer::VIRTUAL_TIMER);
    let mut random = Random::new(1);
    timer::sleep(machine().number("from", 20) * 1000);
    gic::enable(timer::VIRTUAL_TIMER);
    let (mut rounds, mut sum, mut most, mut over) = (0, 0, 0, 0);
    let nanoseconds = |ticks: u64| ticks * 1_000_000_000 / timer::frequency();
    let allowed = machine().number("late", 2000);
    until_end(|| {
        TAKEN_AT.store(0, Ordering::Relaxed);
        // Any moment of what the neighbours do.
        let pause = PAUSE_MIN * 1000 + random.word() % (PAUSES * 1000);
        let deadline = timer::now() + timer::ticks(pause) / 1000;
        timer::arm(deadline);
        while TAKEN_AT.load(Ordering::Relaxed) == 0 {
            interrupts::wait();
            interrupts::unmask();
            interrupts::mask();
        }
        let late = TAKEN_AT.load(Ordering::Relaxed) - deadline;
        cpu::delay(rounds % 16);
        (rounds, sum, most) = (rounds + 1, sum + late, late.max(most));
        over += u64::from(nanoseconds(late) > allowed);
    });
    let most = nanoseconds(most);
    println!("rounds={rounds} late_ns={} at most {most}, {over} of them over", nanoseconds(sum) / rounds.max(1));
    ensure!(rounds >= ROUNDS_MIN, "there were {rounds} interrupts");
    ensure!(over <= machine().number("lines", 0), "{over} of {rounds} came more than {allowed} ns late, one {most} ns");
    ensure!(most <= allowed + LINE_NANOSECONDS, "one came {most} ns late");
    Ok(())
}
