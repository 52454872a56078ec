//! The pure crates' tests under Miri, which interprets them and notices undefined behaviour.
//!
//! Miri runs one thread at a time however many cores there are, so the tests are dealt out to several of it.

use crate::{host_tests, tally::Tally, workspace::Workspace};
use anyhow::{Context, ensure};
use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    thread,
};

/// The crates without a single line that knows about hardware or the host.
const PACKAGES: &[&str] = &[
    "bulkhead-abi",
    "bulkhead-device-tree",
    "bulkhead-devices",
    "bulkhead-manifest",
    "bulkhead-model",
    "bulkhead-platform",
    "bulkhead-vdev",
];

/// Runs the tests, or says how to get Miri where there is none: it needs the nightly toolchain, which not everybody
/// has.
///
/// # Errors
/// When Miri cannot be started.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<Tally> {
    let there = miri(workspace, &["--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        println!("Miri is skipped: `rustup toolchain install nightly --component miri,rust-src` adds it");
        return Ok(Tally::default());
    }
    let Some(names) = names(workspace)? else {
        println!("FAIL the pure crates do not compile for Miri");
        return Ok(Tally { passed: 0, failed: 1 });
    };
    let hands = deal(names, thread::available_parallelism().map_or(1, usize::from));
    let tallies: Vec<anyhow::Result<Tally>> = thread::scope(|scope| {
        let start = |hand: Vec<String>| {
            scope.spawn(|| {
                let mut command = test(workspace);
                command.args(["--", "--exact"]).args(hand);
                host_tests::counted(command)
            })
        };
        let running: Vec<_> = hands.into_iter().map(start).collect();
        running
            .into_iter()
            .map(|hand| hand.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a thread failed"))))
            .collect()
    });
    let mut tally = Tally::default();
    for hand in tallies {
        tally.add(hand?);
    }
    Ok(tally)
}

/// The names of all tests; `None` where they do not compile (the compiler has said why).
fn names(workspace: &Workspace) -> anyhow::Result<Option<BTreeSet<String>>> {
    let output = test(workspace).args(["--", "--list", "--format", "terse"]).output().context("rustup has gone")?;
    if !output.status.success() {
        eprint!("{}", String::from_utf8_lossy(&output.stderr));
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
    ensure!(!names.is_empty(), "Miri lists no tests");
    Ok(Some(names))
}

/// Deals `names` out to `hands`, one by one: slow tests stand together in the alphabet, because their names begin
/// alike.
fn deal(names: BTreeSet<String>, hands: usize) -> Vec<Vec<String>> {
    let mut dealt = vec![Vec::new(); hands.clamp(1, names.len().max(1))];
    let count = dealt.len();
    for (index, name) in names.into_iter().enumerate() {
        dealt[index % count].push(name);
    }
    dealt
}

fn test(workspace: &Workspace) -> Command {
    let mut command = miri(workspace, &["test", "--quiet", "--lib", "--no-fail-fast"]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    command
}

fn miri(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command
        .args(["run", "nightly", "cargo", "miri"])
        .args(arguments)
        .current_dir(workspace.root())
        .stdin(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> BTreeSet<String> {
        (0..count).map(|number| format!("test_{number:03}")).collect()
    }

    #[test]
    fn every_test_is_dealt_once() {
        let dealt = deal(names(7), 3);
        assert_eq!(dealt.iter().map(Vec::len).collect::<Vec<_>>(), [3, 2, 2]);
        assert_eq!(dealt.into_iter().flatten().collect::<BTreeSet<_>>(), names(7));
    }

    #[test]
    fn no_hand_is_empty_because_that_would_mean_every_test() {
        assert_eq!(deal(names(2), 8).len(), 2);
        assert!(deal(names(2), 8).iter().all(|hand| !hand.is_empty()));
    }
}
