//! The neighbour in all attack systems: it counts its own timer ticks on every CPU, and keeps a checksum of its memory.
//!
//! Parameters: `seconds=` (3) to count, `period=` (10000) microseconds between ticks, `share=` (98) percent of the
//! ticks that must come on each CPU. A tick that comes later than the next is due stands for both, so lost time is lost
//! ticks. An emulated board loses time also when its host is busy; a longer period forgives more of that.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use rt::{cpu, gic, interrupts, machine, memory, println, timer};
use testkit::random::Random;
use testkit::{Outcome, ensure, report};

rt::entry!(main);

const AREA_WORDS: usize = 16 << 17; // 16 MiB
/// The period, in timer ticks; set before any CPU counts.
static PERIOD: AtomicU64 = AtomicU64::new(0);

/// One CPU's count; only that CPU writes it.
struct Count {
    ticks: AtomicU64,
    last: AtomicU64,
    next: AtomicU64,
    longest: AtomicU64,
    shortest: AtomicU64,
}

static COUNTS: [Count; cpu::CPUS_MAX] = [const {
    Count {
        ticks: AtomicU64::new(0),
        last: AtomicU64::new(0),
        next: AtomicU64::new(0),
        longest: AtomicU64::new(0),
        shortest: AtomicU64::new(u64::MAX),
    }
}; cpu::CPUS_MAX];
static COUNTING: AtomicBool = AtomicBool::new(true);
static FINISHED: AtomicUsize = AtomicUsize::new(0);

fn main() -> ! {
    let seconds = machine().number("seconds", 3);
    let area = memory::take(AREA_WORDS);
    let before = area.map(|area| {
        fill(area);
        (checksum(area), area)
    });
    let period_microseconds = machine().number("period", 10_000).max(100);
    PERIOD.store(timer::ticks(period_microseconds), Ordering::Release);
    gic::start(tick);

    let started = cpu::start_others(|index| count(index, machine().number("seconds", 3)));
    count(0, seconds);
    COUNTING.store(false, Ordering::Release);
    let all = timer::wait_until(2_000_000, || FINISHED.load(Ordering::Acquire) == cpu::count());

    print_counts();
    report::test("undisturbed", || {
        started?;
        ensure!(all, "{} of {} CPUs came to the end", FINISHED.load(Ordering::Acquire), cpu::count());
        enough_ticks(seconds * 1_000_000 / period_microseconds)?;
        let Some((before, area)) = before else {
            ensure!(false, "there is no room for 16 MiB of pattern");
            return Ok(());
        };
        let changed = changed_words(area);
        ensure!(changed == 0, "{changed} words of memory changed");
        ensure!(checksum(area) == before, "the checksum of memory changed");
        Ok(())
    });
    report::finish()
}

fn fill(area: &mut [u64]) {
    let mut random = Random::new(1);
    area.fill_with(|| random.word());
}

fn changed_words(area: &[u64]) -> usize {
    let mut random = Random::new(1);
    area.iter().filter(|&&word| word != random.word()).count()
}

/// Fletcher's sum over 64-bit words: it sees changed and exchanged words.
fn checksum(area: &[u64]) -> u64 {
    let (sum, sums) = area.iter().fold((0_u64, 0_u64), |(sum, sums), &word| {
        let sum = sum.wrapping_add(word);
        (sum, sums.wrapping_add(sum))
    });
    sum ^ sums.rotate_left(32)
}

fn count(index: usize, seconds: u64) {
    if index != 0 {
        gic::init_cpu();
    }
    gic::enable(timer::VIRTUAL_TIMER);
    let start = timer::now();
    let period = PERIOD.load(Ordering::Acquire);
    let next = start + period;
    COUNTS[index].last.store(start, Ordering::Relaxed);
    COUNTS[index].next.store(next, Ordering::Relaxed);
    timer::arm(next);

    // A little more than the time asked for, so that the last tick is not a matter of luck.
    let end = start + timer::ticks(seconds * 1_000_000) + period / 2;
    interrupts::unmask();
    while timer::now() < end {
        interrupts::wait();
    }
    interrupts::mask();
    timer::disarm();
    FINISHED.fetch_add(1, Ordering::AcqRel);
}

fn tick(index: usize, id: u32) {
    if id != timer::VIRTUAL_TIMER {
        return;
    }
    let count = &COUNTS[index];
    let now = timer::now();
    let gap = now - count.last.swap(now, Ordering::Relaxed);
    count.longest.fetch_max(gap, Ordering::Relaxed);
    count.shortest.fetch_min(gap, Ordering::Relaxed);
    count.ticks.fetch_add(1, Ordering::Relaxed);

    let period = PERIOD.load(Ordering::Relaxed);
    let due = count.next.load(Ordering::Relaxed);
    let next = due + period * (1 + now.saturating_sub(due) / period);
    count.next.store(next, Ordering::Relaxed);
    timer::arm(next);
}

fn enough_ticks(due: u64) -> Outcome {
    let share_percent = machine().number("share", 98);
    for (index, count) in COUNTS.iter().enumerate().take(cpu::count()) {
        let ticks = count.ticks.load(Ordering::Relaxed);
        ensure!(ticks * 100 >= due * share_percent, "CPU {index} had {ticks} of {due} ticks");
        ensure!(ticks <= due + 1, "CPU {index} had {ticks} ticks where {due} were due");
    }
    Ok(())
}

/// `ticks cpu0=300 cpu1=300 max_gap_us=10123 min_gap_us=9876`
fn print_counts() {
    struct Counts;
    impl core::fmt::Display for Counts {
        fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
            let counts = &COUNTS[..cpu::count()];
            for (index, count) in counts.iter().enumerate() {
                write!(formatter, " cpu{index}={}", count.ticks.load(Ordering::Relaxed))?;
            }
            let longest = counts.iter().map(|count| count.longest.load(Ordering::Relaxed)).max().unwrap_or(0);
            let shortest = counts.iter().map(|count| count.shortest.load(Ordering::Relaxed)).min().unwrap_or(0);
            let shortest = if shortest == u64::MAX { 0 } else { timer::microseconds(shortest) };
            write!(formatter, " max_gap_us={} min_gap_us={shortest}", timer::microseconds(longest))
        }
    }
    println!("ticks{}", Counts);
}
