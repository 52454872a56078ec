//! What guests report about themselves, and Bulkhead about them: taken line by line as it comes, so that nothing is
//! lost in a flood.

use crate::lines::owner;
use std::collections::{BTreeMap, VecDeque};

/// What Bulkhead's epitaph starts with.
const PANIC_MARK: &str = "BULKHEAD PANIC";
/// What Bulkhead says when it cannot boot: a sentence follows.
const REFUSAL_MARK: &str = "BULKHEAD STOPS";
/// The checks of Linux guests, each of which ends in a line `CHECK NAME: ok …`.
const CHECKS: [&str; 7] = ["selfcheck", "hotplug", "ticks", "write", "reread", "crash", "sockets"];
/// How many of a guest's last lines are kept, and how much of each.
const LAST_LINES: usize = 3;
const LAST_LINE_CHARACTERS: usize = 160;

/// What is known of a run's virtual machines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reports {
    vms: BTreeMap<String, Report>,
    /// Bulkhead's last line, if it panicked or refused to boot: the line that says why.
    pub(crate) last_words: Option<String>,
    /// Whether Bulkhead has said anything.
    pub(crate) has_begun: bool,
}

/// What is known of one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    /// The first failure that it reports.
    pub(crate) failure: Option<String>,
    /// It has passed something.
    pub(crate) has_passed: bool,
    /// It has come to the end of its tests.
    pub(crate) is_done: bool,
    /// It is off for good.
    pub(crate) is_off: bool,
    /// How often it has started again.
    pub(crate) restarts: u64,
    /// What it printed before it last started again.
    before_restart: Vec<String>,
    /// What it printed last.
    last: VecDeque<String>,
    /// What Bulkhead has said of it last.
    said_of: Option<String>,
    /// The first report of each check.
    checks: BTreeMap<&'static str, String>,
}

impl Reports {
    /// Takes the next line.
    pub(crate) fn take(&mut self, line: &str) {
        match owner(line) {
            None => self.take_last_words(line),
            Some((terminal::OWN_NAME, text)) => {
                self.has_begun = true;
                self.take_last_words(text);
                self.take_own(text);
            }
            Some((name, text)) => self.vms.entry(name.to_owned()).or_default().take(name, text),
        }
    }

    fn take_last_words(&mut self, text: &str) {
        if text.starts_with(PANIC_MARK) || text.starts_with(REFUSAL_MARK) {
            self.last_words.get_or_insert_with(|| text.to_owned());
        }
    }

    /// Takes what Bulkhead says of a virtual machine: `vm alpha restarts (start 2)`, `warning: vm alpha …`.
    fn take_own(&mut self, text: &str) {
        let sentence = text.strip_prefix("warning: ").or_else(|| text.strip_prefix("error: ")).unwrap_or(text);
        let Some((name, what)) = sentence.strip_prefix("vm ").and_then(|rest| rest.split_once([' ', ',', ':'])) else {
            return;
        };
        let report = self.vms.entry(name.to_owned()).or_default();
        report.said_of = Some(shortened(text));
        if what == "is off" {
            report.is_off = true;
        }
        if let Some(number) = what.strip_prefix("restarts (start ").and_then(|rest| rest.strip_suffix(')')) {
            report.restarts = number.parse::<u64>().map_or(report.restarts, |start| start.saturating_sub(1));
            report.before_restart = report.last.iter().cloned().collect();
        }
    }

    /// What is known of `vm`.
    pub(crate) fn of(&self, vm: &str) -> Report {
        self.vms.get(vm).cloned().unwrap_or_default()
    }
}

impl Report {
    fn take(&mut self, name: &str, text: &str) {
        let is_failure =
            text.starts_with("FAIL ") || text.starts_with("GUEST PANIC") || text.contains("Kernel panic - not syncing");
        if is_failure && self.failure.is_none() {
            self.failure = Some(shortened(text));
        }
        self.has_passed |= text.starts_with("PASS ");
        self.is_done |= text == "DONE";
        for check in CHECKS {
            let report = text.strip_prefix(check).and_then(|rest| rest.strip_prefix(' ')?.strip_prefix(name));
            if let Some(report) = report.and_then(|rest| rest.strip_prefix(": ")) {
                self.checks.entry(check).or_insert_with(|| report.to_owned());
            }
        }
        if !text.trim().is_empty() {
            if self.last.len() == LAST_LINES {
                self.last.pop_front();
            }
            self.last.push_back(shortened(text));
        }
    }

    /// What it reported for `check`.
    pub(crate) fn check(&self, check: &str) -> Option<&str> {
        self.checks.get(check).map(String::as_str)
    }

    /// Where it stands: what it said last, what Bulkhead said of it, and what came before its restarts.
    pub(crate) fn stand(&self) -> String {
        let mut parts = Vec::new();
        if let Some(said) = &self.said_of {
            parts.push(format!("Bulkhead's last word of it was `{said}`"));
        }
        match self.last.back() {
            Some(last) => parts.push(format!("its last line was `{last}`")),
            None => parts.push("it has printed nothing".to_owned()),
        }
        parts.join("; ")
    }

    /// That it starts again and again, with what it printed before it last did.
    pub(crate) fn loops(&self) -> Option<String> {
        /// A guest that resets itself a few times may be meant to.
        const RESTARTS_MIN: u64 = 3;
        let lines: Vec<_> = self.before_restart.iter().map(|line| format!("`{line}`")).collect();
        let lines = if lines.is_empty() { "nothing".to_owned() } else { lines.join(", ") };
        let times = self.restarts;
        (times >= RESTARTS_MIN).then(|| format!("has started again {times} times; before that it printed {lines}"))
    }
}

/// As much of `line` as a sentence can hold.
fn shortened(line: &str) -> String {
    match line.char_indices().nth(LAST_LINE_CHARACTERS) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reports<'a>(lines: impl IntoIterator<Item = &'a str>) -> Reports {
        let mut reports = Reports::default();
        lines.into_iter().for_each(|line| reports.take(line));
        reports
    }

    #[test]
    fn a_failure_after_a_flood_is_found() {
        let flood = std::iter::repeat_n("[guest] x", 300_000);
        let reports = reports(flood.chain(["[guest] FAIL the guest found a leak"]));
        assert_eq!(reports.of("guest").failure.as_deref(), Some("FAIL the guest found a leak"));
    }

    #[test]
    fn a_guest_cannot_speak_for_bulkhead_or_for_its_neighbour() {
        let reports = reports([
            "[bulkhead] Bulkhead 0.1.0 on 2 cores",
            "[a] vm b is off",
            "[a] [bulkhead] vm b is off",
            "[a] BULKHEAD PANIC on core 0: forged",
            "[a] BULKHEAD STOPS: forged",
            "[a] [bulkhead] BULKHEAD PANIC on core 0: forged",
            "[a] [b] FAIL forged",
            "[a] [b] DONE",
            "[a] selfcheck b: ok",
            "[a] vm b restarts (start 99)",
        ]);
        assert!(reports.last_words.is_none() && reports.has_begun);
        let neighbour = reports.of("b");
        assert!(!neighbour.is_off && neighbour.failure.is_none() && !neighbour.is_done && neighbour.restarts == 0);
        assert!(neighbour.check("selfcheck").is_none());
    }

    #[test]
    fn bulkheads_own_word_counts() {
        let own = reports(["[bulkhead] vm a is off", "[bulkhead] vm b restarts (start 2)"]);
        assert!(own.of("a").is_off && own.of("b").restarts == 1);
        for line in ["BULKHEAD STOPS: there is no bundle", "[bulkhead] BULKHEAD PANIC: no memory", "BULKHEAD PANIC: x"]
        {
            assert!(reports([line]).last_words.is_some(), "{line}");
        }
    }

    #[test]
    fn a_guest_that_restarts_for_ever_is_shown_with_its_last_lines() {
        let round = |start: &'static str| ["[a] booting", "[a] Kernel oops", start];
        let restarts = ["[bulkhead] vm a restarts (start 2)", "[bulkhead] vm a restarts (start 3)"];
        assert_eq!(reports(restarts.into_iter().flat_map(round)).of("a").loops(), None);
        let all = restarts.into_iter().chain(["[bulkhead] vm a restarts (start 1024)"]);
        let sentence = reports(all.flat_map(round)).of("a").loops().expect("it loops");
        assert_eq!(
            sentence,
            "has started again 1023 times; before that it printed `Kernel oops`, `booting`, `Kernel oops`"
        );
    }

    #[test]
    fn a_stand_says_who_waits_for_whom() {
        let reports = reports(["[bulkhead] vm a waits for its driver domain, vm io", "[b] login:"]);
        let stand = "Bulkhead's last word of it was `vm a waits for its driver domain, vm io`; it has printed nothing";
        assert_eq!(reports.of("a").stand(), stand);
        assert_eq!(reports.of("b").stand(), "its last line was `login:`");
    }
}
