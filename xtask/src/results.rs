//! What came of tests: how many passed, which failed, and how long they took.

use crate::tally::Tally;
use std::time::Duration;

/// So many of the slowest are named.
const SLOWEST: usize = 10;

/// The results of some tests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Results {
    /// How many passed and failed.
    pub(crate) tally: Tally,
    /// A line for each failure.
    pub(crate) failures: Vec<String>,
    /// The names of the tests whose time is known, with it.
    pub(crate) times: Vec<(String, Duration)>,
}

impl Results {
    /// One test that failed: `what` is its name and, behind a colon, why.
    pub(crate) fn failed(what: impl Into<String>) -> Self {
        let mut results = Self::default();
        results.fail(what);
        results
    }

    /// Counts one more failure.
    pub(crate) fn fail(&mut self, what: impl Into<String>) {
        self.tally.count(false);
        self.failures.push(what.into());
    }

    /// Adds what came of other tests.
    pub(crate) fn add(&mut self, other: Self) {
        self.tally.add(other.tally);
        self.failures.extend(other.failures);
        self.times.extend(other.times);
    }

    /// Says once more what failed: where it was said first, a thousand lines may have come since.
    pub(crate) fn print_failures(&self) {
        self.failures.iter().for_each(|failure| println!("FAIL {failure}"));
    }

    /// The tests that took the longest, the longest first, as lines.
    pub(crate) fn slowest(&self) -> Vec<String> {
        let mut times: Vec<_> = self.times.iter().collect();
        times.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        times.into_iter().take(SLOWEST).map(|(name, time)| time_line(name, *time)).collect()
    }
}

/// A line of a list of times.
pub(crate) fn time_line(name: &str, time: Duration) -> String {
    format!("  {:>7.1} s  {name}", time.as_secs_f32())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_come_first_and_the_rest_is_left_out() {
        let time = |number: u64| (format!("test {number}"), Duration::from_secs(number));
        let results = Results { times: (1..=20).map(time).collect(), ..Results::default() };
        let slowest = results.slowest();
        assert_eq!((slowest.len(), slowest[0].as_str()), (SLOWEST, "     20.0 s  test 20"));
    }

    #[test]
    fn failures_are_kept_when_results_are_added() {
        let mut results = Results::failed("one: why");
        results.add(Results::failed("two"));
        assert_eq!((results.tally, results.failures.len()), (Tally { passed: 0, failed: 2 }, 2));
    }
}
