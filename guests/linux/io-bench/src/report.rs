//! What a work has taken: the line that `cargo xtask bench io` reads again.

use std::{fmt, fs, time::Instant};

/// How often a second `/proc/stat` counts (Linux: USER_HZ), in milliseconds for each count.
const USER_TICK_MILLISECONDS: u64 = 10;

/// How many operations a median is taken of.
const LAPS_MAX: usize = 1 << 14;

/// A work that was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How often the operation ran.
    pub rounds: u64,
    /// The data that was moved, in bytes.
    pub bytes: u64,
    /// The time that all of it took, in nanoseconds of the guest's own clock.
    pub nanoseconds: u64,
    /// How long this guest's CPUs idled meanwhile, in milliseconds; a coarse figure.
    pub idle_milliseconds: u64,
    /// The frames that this guest's network cards have sent and received meanwhile.
    pub frames: u64,
    /// What the median operation took, in nanoseconds; 0 where several were on their way at a time.
    pub median: u64,
}

/// What every report begins with; its name follows.
const START: &str = "bench ";

impl Report {
    /// The whole line of a report.
    #[must_use]
    pub fn line(&self, name: &str) -> String {
        format!("{START}{name} {self}")
    }

    /// Reads a line again: the name, and the report.
    #[must_use]
    pub fn parse(line: &str) -> Option<(&str, Self)> {
        let (name, words) = line.strip_prefix(START)?.split_once(' ')?;
        let number = |key: &str| {
            let word = words.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            word?.parse().ok()
        };
        let report = Self {
            rounds: number("rounds")?,
            bytes: number("bytes")?,
            nanoseconds: number("total")?,
            idle_milliseconds: number("idle_ms")?,
            frames: number("frames")?,
            median: number("median")?,
        };
        Some((name, report))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rounds, bytes, nanoseconds, idle_milliseconds, frames, median } = self;
        write!(
            formatter,
            "rounds={rounds} total={nanoseconds} loop=0 bytes={bytes} idle_ms={idle_milliseconds} frames={frames} \
             median={median}"
        )
    }
}

/// A work that is being done.
#[derive(Debug)]
pub struct Running {
    started: Instant,
    idle: u64,
    frames: u64,
}

impl Running {
    /// The work begins.
    #[must_use]
    pub fn start() -> Self {
        let (idle, frames) = (idle_ticks(), frames());
        Self { idle, frames, started: Instant::now() }
    }

    /// The work begins only now.
    #[must_use]
    pub fn restart(self) -> Self {
        Self { started: Instant::now(), ..self }
    }

    /// The work is done.
    #[must_use]
    pub fn stop(self, rounds: u64, bytes: u64) -> Report {
        let nanoseconds = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Report {
            rounds,
            bytes,
            nanoseconds,
            idle_milliseconds: idle_ticks().saturating_sub(self.idle).saturating_mul(USER_TICK_MILLISECONDS),
            frames: frames().saturating_sub(self.frames),
            median: 0,
        }
    }
}

/// How long each of many operations takes.
#[derive(Debug)]
pub struct Laps {
    since: Instant,
    /// In nanoseconds.
    taken: Vec<u64>,
}

impl Default for Laps {
    fn default() -> Self {
        Self { since: Instant::now(), taken: Vec::with_capacity(LAPS_MAX) }
    }
}

impl Laps {
    /// The next operation is done. Gives how long it took, in nanoseconds.
    pub fn lap(&mut self) -> u64 {
        let now = Instant::now();
        let taken = u64::try_from(now.duration_since(self.since).as_nanos()).unwrap_or(u64::MAX);
        self.since = now;
        // The rest are like these.
        if self.taken.len() < LAPS_MAX {
            self.taken.push(taken);
        }
        taken
    }

    /// What the median operation took, in nanoseconds.
    #[must_use]
    pub fn median(mut self) -> u64 {
        self.taken.sort_unstable();
        self.taken.get(self.taken.len() / 2).copied().unwrap_or(0)
    }
}

/// The fourth and fifth number of the first line of `/proc/stat`: idle, and idle with I/O on its way.
fn idle_ticks() -> u64 {
    idle_ticks_of(&fs::read_to_string("/proc/stat").unwrap_or_default())
}

fn idle_ticks_of(stat: &str) -> u64 {
    let line = stat.lines().next().unwrap_or_default();
    line.split_ascii_whitespace().skip(4).take(2).filter_map(|word| word.parse::<u64>().ok()).sum()
}

/// The frames of all cards but the loopback, both ways.
fn frames() -> u64 {
    frames_of(&fs::read_to_string("/proc/net/dev").unwrap_or_default())
}

fn frames_of(devices: &str) -> u64 {
    let cards = devices.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| name.trim() != "lo");
    // Received: bytes, packets, six more; sent: bytes, packets.
    let numbers = cards.flat_map(|(_, rest)| {
        let words: Vec<&str> = rest.split_ascii_whitespace().collect();
        [words.get(1), words.get(9)].map(|word| word.and_then(|word| word.parse::<u64>().ok()).unwrap_or(0))
    });
    numbers.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_again() {
        let report = Report { rounds: 3, bytes: 12_288, nanoseconds: 99, idle_milliseconds: 10, frames: 0, median: 33 };
        let line = report.line("read-4k");
        assert_eq!(line, "bench read-4k rounds=3 total=99 loop=0 bytes=12288 idle_ms=10 frames=0 median=33");
        assert_eq!(Report::parse(&line), Some(("read-4k", report)));
        assert_eq!(Report::parse("bench read-4k rounds=3"), None);
        assert_eq!(Report::parse("bench FAILED: `read-4k` cannot be done"), None);
    }

    #[test]
    fn the_median_is_not_moved_by_one_that_takes_long() {
        let laps = Laps { taken: vec![5, 900, 4, 6, 5], ..Laps::default() };
        assert_eq!(laps.median(), 5);
        assert_eq!(Laps::default().median(), 0);
    }

    #[test]
    fn idle_counts_waiting_for_input_and_output_too() {
        assert_eq!(idle_ticks_of("cpu  10 0 20 300 4 0 0 0 0 0\ncpu0 10 0 20 300 4 0 0 0 0 0\n"), 304);
        assert_eq!(idle_ticks_of(""), 0);
    }

    #[test]
    fn frames_are_those_of_real_cards_both_ways() {
        let devices = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:    5000      50    0    0    0     0          0         0     5000      50    0    0    0     0       0          0
  eth0:  123456     100    0    0    0     0          0         0    65432      70    0    0    0     0       0          0
";
        assert_eq!(frames_of(devices), 170);
    }
}
