//! A limit on a rate: a bucket of tokens that fills with time.

/// A bucket of tokens. It holds what may pass at once, and fills at the rate that may pass for long.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Tokens a second.
    rate: u64,
    /// The most tokens it holds, times `frequency`.
    capacity: u64,
    /// What it holds, in tokens times `frequency`: no division when it fills.
    level: u64,
    /// Ticks of the counter a second.
    frequency: u64,
    /// The counter when it was last filled.
    filled: u64,
}

impl Bucket {
    /// A full bucket of `burst` tokens that fills with `rate` tokens a second, by a counter of `frequency` ticks a
    /// second that says `now`.
    #[must_use]
    pub const fn new(rate: u64, burst: u64, frequency: u64, now: u64) -> Self {
        let capacity = burst.saturating_mul(frequency);
        Self { rate, capacity, level: capacity, frequency, filled: now }
    }

    /// Takes `tokens` if there are as many; says whether there were. A refused taker has taken nothing.
    pub const fn take(&mut self, tokens: u64, now: u64) -> bool {
        let earned = now.saturating_sub(self.filled).saturating_mul(self.rate);
        let level = self.level.saturating_add(earned);
        self.level = if level < self.capacity { level } else { self.capacity };
        self.filled = now;
        match self.level.checked_sub(tokens.saturating_mul(self.frequency)) {
            Some(rest) => {
                self.level = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut bucket = Bucket::new(1000, 100, 1_000_000, 0);
        assert!(bucket.take(100, 0));
        assert!(!bucket.take(1, 0));
        // A millisecond earns one token.
        assert!(bucket.take(1, 1000));
        assert!(!bucket.take(1, 1999));
        assert!(bucket.take(1, 2000));
    }

    #[test]
    fn it_never_holds_more_than_its_burst() {
        let mut bucket = Bucket::new(1000, 100, 1_000_000, 0);
        assert!(bucket.take(100, u64::MAX));
        assert!(!bucket.take(1, u64::MAX));
    }

    #[test]
    fn what_is_larger_than_the_burst_never_passes() {
        assert!(!Bucket::new(1000, 100, 1_000_000, 0).take(101, u64::MAX));
    }

    #[test]
    fn a_counter_that_steps_back_earns_nothing() {
        let mut bucket = Bucket::new(1000, 10, 1_000_000, 5000);
        assert!(bucket.take(10, 5000));
        assert!(!bucket.take(1, 0));
    }
}
