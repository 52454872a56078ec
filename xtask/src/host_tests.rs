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
        // One line per crate is enough for those without a failure: the tests' names scroll the rest away.
        if !line.starts_with("test ") || !line.ends_with(" ok") {
            println!("{line}");
        }
        tally.add(Tally::from_result_line(&line).unwrap_or_default());
    }
    if !child.wait()?.success() && tally.failed == 0 {
        tally.count(false);
    }
    Ok(tally)
}
