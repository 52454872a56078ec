//! How much of a work is done.

use crate::report::Laps;
use std::{io, time::Duration};

/// When a work has been done for long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// After so many operations.
    Rounds(u64),
    /// When so much time has passed.
    Time(Duration),
}

impl Amount {
    /// `2000`, or `2s`, or `500ms`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some(milliseconds) = text.strip_suffix("ms") {
            return milliseconds.parse().ok().map(Duration::from_millis).map(Self::Time);
        }
        if let Some(seconds) = text.strip_suffix('s') {
            return seconds.parse().ok().map(Duration::from_secs).map(Self::Time);
        }
        text.parse().ok().map(Self::Rounds)
    }
}

/// Repeats `step` for `amount`. Gives how often, and what the median took in nanoseconds.
///
/// # Errors
/// Those of `step`.
pub fn repeat(amount: Amount, mut step: impl FnMut() -> io::Result<()>) -> io::Result<(u64, u64)> {
    let mut laps = Laps::default();
    let (mut rounds, mut nanoseconds) = (0_u64, 0_u64);
    let is_enough = |rounds: u64, nanoseconds: u64| match amount {
        Amount::Rounds(wanted) => rounds >= wanted,
        Amount::Time(time) => u128::from(nanoseconds) >= time.as_nanos(),
    };
    while !is_enough(rounds, nanoseconds) {
        step()?;
        rounds = rounds.saturating_add(1);
        nanoseconds = nanoseconds.saturating_add(laps.lap());
    }
    Ok((rounds, laps.median()))
}
