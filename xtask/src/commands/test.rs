//! `test`: the host's tests, then the scenarios under QEMU.

use crate::{host_tests, pool, scenarios, setup, tally::Tally, workspace::Workspace};
use anyhow::bail;
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// The options of `test`.
#[derive(clap::Args)]
pub(super) struct Test {
    /// Run only the tests and scenarios whose names contain this
    filter: Option<String>,
    /// List their names, and run none
    #[arg(long)]
    list: bool,
}

impl Test {
    pub(super) fn run(&self, workspace: &Workspace) -> anyhow::Result<ExitCode> {
        setup::room(workspace)?;
        let filter = self.filter.as_deref();
        if self.list {
            return list(workspace, filter);
        }
        let mut results = host_tests::run(workspace, filter)?;
        for done in pool::run(scenarios::jobs(workspace, filter)?)? {
            results.add(done.results);
        }
        results.print_failures();
        let is_good = is_good(filter, &results.tally, || names(workspace))?;
        println!("{}", results.tally);
        Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Whether `tally` is that of a run without failures; `names` are asked for where it is that of no run at all.
///
/// # Errors
/// Where `filter` left nothing to run, with the names that it may have meant.
fn is_good(
    filter: Option<&str>,
    tally: &Tally,
    names: impl FnOnce() -> anyhow::Result<Vec<String>>,
) -> anyhow::Result<bool> {
    if let (Some(filter), 0) = (filter, tally.passed + tally.failed) {
        bail!("no test and no scenario has a name with {filter:?} in it; {}", near(&names()?, filter));
    }
    Ok(tally.failed == 0)
}

/// Prints the names with `filter` in them, as Rust's test runner does.
fn list(workspace: &Workspace, filter: Option<&str>) -> anyhow::Result<ExitCode> {
    let mut output = io::stdout().lock();
    for (names, kind) in [(host_tests::names(workspace)?, "test"), (scenarios::names(), "scenario")] {
        for name in names.iter().filter(|name| filter.is_none_or(|filter| name.contains(filter))) {
            // Who has closed the output has seen enough.
            if writeln!(output, "{name}: {kind}").is_err() {
                return Ok(ExitCode::SUCCESS);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// From this likeness on a name is suggested: one slip in four letters.
const LIKENESS_MIN: f64 = 0.75;
/// How many names are suggested.
const NEAR_MAX: usize = 3;

/// The names of all tests and scenarios.
fn names(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut names = host_tests::names(workspace)?;
    names.extend(scenarios::names());
    Ok(names)
}

/// What was meant: those of `names` that are most like `filter`, or have a word that is.
fn near(names: &[String], filter: &str) -> String {
    match suggestions(filter, names).as_slice() {
        [] => "`cargo xtask test --list` prints the names".to_owned(),
        near => format!("did you mean one of these? {}", near.join(", ")),
    }
}

fn suggestions<'a>(filter: &str, names: &'a [String]) -> Vec<&'a str> {
    let likeness = |name: &str| {
        let words = name.split(|character: char| !character.is_alphanumeric()).filter(|word| word.len() > 3);
        let parts = words.chain(name.rsplit("::").next()).chain([name]);
        parts.map(|part| strsim::normalized_damerau_levenshtein(filter, &part.to_lowercase())).fold(0.0, f64::max)
    };
    let mut all: Vec<_> = names.iter().map(|name| (likeness(name), name.as_str())).collect();
    all.retain(|(likeness, _)| *likeness >= LIKENESS_MIN);
    all.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    all.into_iter().take(NEAR_MAX).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_with_a_slip_finds_what_was_meant() {
        let names = ["vgic::tests::an_sgi_is_taken", "two Linux guests on cortex-a57", "psci::tests::cpu_on"];
        let names = names.map(str::to_owned);
        assert_eq!(suggestions("linxu", &names), ["two Linux guests on cortex-a57"]);
        assert_eq!(suggestions("vgci", &names), ["vgic::tests::an_sgi_is_taken"]);
        assert!(suggestions("qqqq", &names).is_empty());
    }

    #[test]
    fn a_filter_that_leaves_nothing_to_run_is_a_failure() {
        let names = || Ok(vec!["two Linux guests on cortex-a57".to_owned()]);
        let sentence = is_good(Some("linxu"), &Tally::default(), names).expect_err("nothing has run").to_string();
        assert_eq!(
            sentence,
            "no test and no scenario has a name with \"linxu\" in it; did you mean one of these? two Linux guests on \
             cortex-a57"
        );
        let sentence = is_good(Some("qqqq"), &Tally::default(), names).expect_err("nothing has run").to_string();
        assert!(sentence.ends_with("; `cargo xtask test --list` prints the names"), "{sentence}");
        let mut tally = Tally::default();
        tally.count(true);
        assert!(is_good(Some("linux"), &tally, names).expect("one has run"));
        tally.count(false);
        assert!(!is_good(Some("linux"), &tally, names).expect("two have run"));
    }
}
