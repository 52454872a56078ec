//! The tests that run on this machine: `cargo test`, with its results counted.

use crate::{bare_metal::cargo, tally::Tally, workspace::Workspace};
use anyhow::Context;
use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

/// Runs the host tests whose names contain `filter`, or all. Their output is passed on; what does not compile counts as
/// one failure.
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn run(workspace: &Workspace, filter: Option<&str>) -> anyhow::Result<Tally> {
    let mut command = cargo(workspace);
    command.args(["test", "--no-fail-fast"]);
    if let Some(filter) = filter {
        command.args(["--", filter]);
    }
    counted(command)
}

/// The names of all host tests.
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn names(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut command = cargo(workspace);
    command.args(["test", "--quiet", "--", "--list"]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().context("cargo could not be started")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Runs `command`, which runs Rust tests, and counts their results.
///
/// # Errors
/// When it cannot be started.
pub(crate) fn counted(mut command: Command) -> anyhow::Result<Tally> {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cargo could not be started")?;
    let mut tally = Tally::default();
    for line in BufReader::new(child.stdout.take().context("cargo has no output")?).lines() {
        let line = line?;
        let result = Tally::from_result_line(&line);
        if is_worth_showing(&line, result) {
            println!("{line}");
        }
        tally.add(result.unwrap_or_default());
    }
    if !child.wait()?.success() && tally.failed == 0 {
        tally.count(false);
    }
    Ok(tally)
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

    #[test]
    fn what_passes_is_counted_only() {
        for line in
            ["", "......", "...... 87/112", "running 12 tests", "running 1 test", "test exit::tests::an_hvc ... ok"]
        {
            assert!(!is_worth_showing(line, None), "{line}");
        }
    }
}
