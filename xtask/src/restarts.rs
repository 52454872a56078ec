//! How often a run's driver domains ended, in which phase of a request, and for how long their clients waited: found in
//! its output.

use crate::{
    lines::owner,
    session::Outcome,
    system::{Source, VmSource},
};
use std::{collections::BTreeMap, fmt};

/// What a driver domain says before it ends itself (`guests/driver-domain/src/kill.rs`).
const END: &str = "driver-domain: ends itself: ";
/// What Bulkhead says when a driver domain serves again.
const PAUSE: &str = " serves again after ";
/// The phases of a request in which a driver domain can end itself.
pub(crate) const PHASES: [&str; 3] = ["posted", "submitted", "done"];

/// The ways in which one can end itself.
pub(crate) const ENDS: [&str; 4] = ["panic", "reset", "off", "hang"];

/// The ends and restarts of driver domains in a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Restarts {
    /// How often one has ended itself, by phase.
    pub(crate) phases: BTreeMap<String, usize>,
    /// How often one has ended itself, by how it did.
    pub(crate) ends: BTreeMap<String, usize>,
    /// The pauses in microseconds, in ascending order.
    pub(crate) pauses: Vec<u64>,
}

impl Restarts {
    /// Those that Bulkhead, and the driver domains of `source` themselves, tell of.
    pub(crate) fn of(source: &Source, outcome: &Outcome) -> Self {
        let domains: Vec<_> = source.vms().iter().filter(|vm| vm.doorbell.is_some()).map(VmSource::name).collect();
        Self::of_lines(&domains, &outcome.lines)
    }

    fn of_lines(domains: &[&str], lines: &[String]) -> Self {
        let mut restarts = Self::default();
        for line in lines {
            let Some((name, text)) = owner(line) else { continue };
            if domains.contains(&name)
                && let Some(end) = text.strip_prefix(END)
            {
                for (key, value) in end.split(' ').filter_map(|word| word.split_once('=')) {
                    let counts = if key == "phase" { &mut restarts.phases } else { &mut restarts.ends };
                    *counts.entry(value.to_owned()).or_default() += 1;
                }
            }
            if name == terminal::OWN_NAME {
                let pause = text.strip_prefix("vm ").and_then(|text| text.split_once(PAUSE));
                restarts.pauses.extend(pause.and_then(|(_, pause)| pause.strip_suffix(" us")?.parse::<u64>().ok()));
            }
        }
        restarts.pauses.sort_unstable();
        restarts
    }

    /// The pause that half of all pauses are not longer than, in microseconds.
    pub(crate) fn median(&self) -> Option<u64> {
        self.pauses.get(self.pauses.len().checked_sub(1)? / 2).copied()
    }

    /// Whether there were any.
    pub(crate) fn is_empty(&self) -> bool {
        self.phases.is_empty() && self.pauses.is_empty()
    }
}

impl fmt::Display for Restarts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |counts: &BTreeMap<String, usize>| {
            counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
        };
        let milliseconds = |microseconds: Option<u64>| microseconds.unwrap_or(0) as f64 / 1000.0;
        write!(
            out,
            "{} restarts of a driver domain ({}; {}); its clients waited {:.1} ms each time (median), {:.1} ms at most",
            self.pauses.len(),
            list(&self.phases),
            list(&self.ends),
            milliseconds(self.median()),
            milliseconds(self.pauses.last().copied())
        )
    }
}

/// Reads a time such as `500ms` or `2s`, in milliseconds.
///
/// # Errors
/// A sentence.
pub(crate) fn parse_milliseconds(text: &str) -> Result<u64, String> {
    let number = |digits: &str, unit: u64| digits.parse::<u64>().ok()?.checked_mul(unit);
    let time = match text.strip_suffix("ms") {
        Some(digits) => number(digits, 1),
        None => text.strip_suffix('s').and_then(|digits| number(digits, 1000)),
    };
    time.filter(|time| (1..=3_600_000).contains(time))
        .ok_or_else(|| format!("{text:?} is not a time of 1 ms to an hour; write one such as 500ms or 2s"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_and_pauses_measured() {
        let lines = [
            "[driver-domain] driver-domain: ends itself: phase=posted end=panic",
            "[bulkhead] vm driver-domain serves again after 3000 us",
            "[alpha] vm driver-domain serves again after 9 us",
            "[alpha] [bulkhead] vm driver-domain serves again after 9 us",
            "[alpha] driver-domain: ends itself: phase=done end=off",
            "[driver-domain] driver-domain: ends itself: phase=done end=hang",
            "[bulkhead] vm driver-domain serves again after 1000 us",
            "[driver-domain] driver-domain: ends itself: phase=posted end=off",
            "[bulkhead] vm driver-domain serves again after 2000 us",
        ];
        let restarts = Restarts::of_lines(&["driver-domain"], &lines.map(str::to_owned));
        assert_eq!((restarts.phases["posted"], restarts.phases["done"]), (2, 1));
        assert_eq!((restarts.median(), restarts.pauses.last()), (Some(2000), Some(&3000)));
        assert_eq!(
            restarts.to_string(),
            "3 restarts of a driver domain (done 1, posted 2; hang 1, off 1, panic 1); its clients waited 2.0 ms each time \
             (median), 3.0 ms at most"
        );
    }

    #[test]
    fn a_run_without_restarts_has_none() {
        let restarts = Restarts::of_lines(&[], &[]);
        assert!(restarts.is_empty() && restarts.median().is_none());
    }

    #[test]
    fn times_have_units() {
        assert_eq!((parse_milliseconds("500ms"), parse_milliseconds("2s")), (Ok(500), Ok(2000)));
        for wrong in ["", "500", "ms", "0s", "-1s", "1h", "2h", "18446744073709551615s"] {
            assert!(parse_milliseconds(wrong).is_err(), "{wrong}");
        }
    }
}
