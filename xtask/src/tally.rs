//! Counts what passed and what failed, over every kind of test.

use std::fmt;

/// How many tests have passed and failed. Displayed, it is the last line of `test` and `ci`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// How many passed.
    pub(crate) passed: u32,
    /// How many failed.
    pub(crate) failed: u32,
}

impl Tally {
    /// Counts one more.
    pub(crate) const fn count(&mut self, passed: bool) {
        if passed { self.passed += 1 } else { self.failed += 1 }
    }

    /// Adds what another tally has counted.
    pub(crate) const fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// The counts in a line of Rust's test runner: `test result: ok. 3 passed; 0 failed; …`.
    pub(crate) fn from_result_line(line: &str) -> Option<Self> {
        let (_, counts) = line.trim_start().strip_prefix("test result: ")?.split_once(". ")?;
        let mut numbers = counts.split(';').map(|part| part.trim().split_once(' '));
        let mut next = |word: &str| {
            let (number, found) = numbers.next()??;
            if found == word { number.parse().ok() } else { None }
        };
        Some(Self { passed: next("passed")?, failed: next("failed")? })
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_line_of_rusts_test_runner_is_read() {
        let line = "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 4 filtered out; finished in 0.01s";
        assert_eq!(Tally::from_result_line(line), Some(Tally { passed: 12, failed: 3 }));
        assert_eq!(Tally::from_result_line("test exit::tests::an_hvc ... ok"), None);
    }

    #[test]
    fn the_last_line_has_its_agreed_form() {
        assert_eq!(Tally { passed: 7, failed: 0 }.to_string(), "7 passed, 0 failed");
    }
}
