//! The tests that run on this machine: `cargo test`, with its results counted.

use crate::{bare_metal::cargo, results::Results, tally::Tally, workspace::Workspace};
use anyhow::{Context, ensure};
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

/// Runs the host tests whose names contain `filter`, or all. Their output is passed on; what does not compile counts as
/// one failure.
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn run(workspace: &Workspace, filter: Option<&str>) -> anyhow::Result<Results> {
    let mut command = cargo(workspace);
    command.args(["test", "--no-fail-fast"]);
    if let Some(filter) = filter {
        command.args(["--", filter]);
    }
    counted("the host tests", command, |_, _| {})
}

/// The names of all host tests.
///
/// # Errors
/// When they do not compile.
pub(crate) fn names(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut command = cargo(workspace);
    command.args(["test", "--quiet", "--", "--list"]).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().context("cargo could not be started")?;
    ensure!(output.status.success(), "the host tests do not compile; cargo's message is above");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Runs `command`, which runs the Rust tests `what`, and counts their results. `each` hears of every line about one
/// test, when it comes: the test's name, and how it ended.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn counted(what: &str, mut command: Command, mut each: impl FnMut(&str, Ended)) -> anyhow::Result<Results> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cargo could not be started")?;
    let mut results = Results::default();
    for line in BufReader::new(child.stdout.take().context("cargo has no output")?).lines() {
        let line = line?;
        let result = Tally::from_result_line(&line);
        if is_worth_showing(&line, result) {
            println!("{line}");
        }
        if let Some((name, ended)) = test_line(&line) {
            if ended == Ended::Failed {
                results.failures.push(name.to_owned());
            }
            each(name, ended);
        }
        results.tally.add(result.unwrap_or_default());
    }
    let status = child.wait()?;
    if !status.success() && results.tally.failed == 0 {
        results.fail(format!("{what}: {status}"));
    }
    Ok(results)
}

/// How a test ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It passed.
    Passed,
    /// It failed.
    Failed,
    /// It did not run, because it says so itself.
    Ignored,
}

/// The name and the end in the line of a test: `test exit::tests::an_hvc ... ok`.
fn test_line(line: &str) -> Option<(&str, Ended)> {
    let (name, word) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    let ended = match word {
        "ok" => Ended::Passed,
        "FAILED" => Ended::Failed,
        word if word.starts_with("ignored") => Ended::Ignored,
        _ => return None,
    };
    Some((name.strip_suffix(" - should panic").unwrap_or(name), ended))
}

/// What passes is counted; what fails is shown. The names of a thousand good tests would scroll the bad one away.
fn is_worth_showing(line: &str, result: Option<Tally>) -> bool {
    let passed = line.starts_with("test ") && line.ends_with(" ok");
    let start = line.starts_with("running ") && (line.ends_with(" tests") || line.ends_with(" test"));
    // `.....` or, after a while, `..... 87/112`.
    let dots = line.trim_end_matches(|character: char| " /".contains(character) || character.is_ascii_digit());
    let dots = dots.chars().all(|character| character == '.');
    !(dots || passed || start || result == Some(Tally::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_shown() {
        for line in
            ["test exit::tests::an_hvc ... FAILED", "---- an_hvc stdout ----", "thread 'an_hvc' panicked at a.rs:1:1"]
        {
            assert!(is_worth_showing(line, None), "{line}");
        }
    }

    fn counted_of(script: &str) -> Results {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]);
        counted("tests", shell, |_, _| {}).expect("a shell")
    }

    #[test]
    fn a_failed_test_is_named_and_what_does_not_compile_is_a_failure() {
        let results =
            counted_of("echo 'test a::b ... FAILED'; echo 'test result: FAILED. 2 passed; 1 failed;'; exit 101");
        assert_eq!((results.tally, results.failures), (Tally { passed: 2, failed: 1 }, vec!["a::b".to_owned()]));
        assert_eq!(counted_of("exit 101").tally.failed, 1);
    }

    #[test]
    fn each_test_is_heard_of_as_it_ends() {
        assert_eq!(test_line("test a::b ... ok"), Some(("a::b", Ended::Passed)));
        assert_eq!(test_line("test a::b - should panic ... FAILED"), Some(("a::b", Ended::Failed)));
        assert_eq!(test_line("test a::b ... ignored, too slow"), Some(("a::b", Ended::Ignored)));
        assert_eq!(test_line("test result: ok. 1 passed; 0 failed"), None);
    }

    #[test]
    fn what_passes_is_counted_only() {
        for line in
            ["", "......", "...... 87/112", "running 12 tests", "running 1 test", "test exit::tests::an_hvc ... ok"]
        {
            assert!(!is_worth_showing(line, None), "{line}");
        }
    }
}
