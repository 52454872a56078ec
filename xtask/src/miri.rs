//! The pure crates' tests under Miri, which interprets them and notices undefined behaviour.
//!
//! Miri runs one thread at a time however many cores there are, so the tests are dealt out in pieces, which run side by
//! side.

use crate::{
    host_tests::{self, Ended},
    pool::Job,
    results::Results,
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use std::{
    collections::BTreeSet,
    process::{Command, Stdio},
    time::Instant,
};

/// What `ci` calls these tests.
pub(crate) const STEP: &str = "the pure crates under Miri";
/// How to get Miri, where there is none: it needs the nightly toolchain, which not everybody has.
pub(crate) const MISSING: &str = "under Miri: `rustup toolchain install nightly --component miri,rust-src` adds it";

/// The crates without a single line that knows about hardware or the host.
const PACKAGES: &[&str] = &[
    "bulkhead-abi",
    "bulkhead-device-tree",
    "bulkhead-devices",
    "bulkhead-manifest",
    "bulkhead-aarch64",
    "bulkhead-memory",
    "bulkhead-vgic",
    "bulkhead-virtio-transport",
    "bulkhead-vm-lifecycle",
    "bulkhead-platform",
    "bulkhead-terminal",
    "bulkhead-vdev",
];

/// How many tests a piece has at most. Each piece costs a start of Miri, some seconds; and the last to end is waited
/// for.
const PIECE: usize = 60;

/// Whether Miri is there.
pub(crate) fn is_there(workspace: &Workspace) -> bool {
    let status = miri(workspace, &["--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// The tests as work to be done side by side.
///
/// # Errors
/// When they do not compile for Miri.
pub(crate) fn jobs(workspace: &Workspace) -> anyhow::Result<Vec<Job<'_>>> {
    let mut jobs = Vec::new();
    for package in PACKAGES {
        for names in deal(names(workspace, package)?) {
            let work = move || piece(workspace, package, names);
            jobs.push(Job { step: STEP, uses: None, cores: 1, work: Box::new(work) });
        }
    }
    Ok(jobs)
}

/// Runs the tests `names` of `package`, each of which must say how it ended.
fn piece(workspace: &Workspace, package: &str, names: BTreeSet<String>) -> anyhow::Result<Results> {
    let mut command = test(workspace, package);
    command.args(["--", "--exact"]).args(&names);
    let (mut times, mut missing) = (Vec::new(), names.clone());
    let started = Instant::now();
    let mut last = started;
    let what = format!("{} tests of {package} under Miri", names.len());
    let mut results = host_tests::counted(&what, command, |name, ended| {
        missing.remove(name);
        if ended != Ended::Ignored {
            times.push((format!("{package}: {name}"), last.elapsed()));
        }
        last = Instant::now();
    })?;
    results.times = times;
    // Miri ends at the first undefined behaviour, and says nothing of the tests behind it.
    if let Some(first) = missing.first() {
        results.fail(format!("{what}: {} of them have not come to an end, {first} among these", missing.len()));
    }
    if results.failures.is_empty() {
        println!("PASS {what} ({:.1} s)", started.elapsed().as_secs_f32());
    } else {
        results.print_failures();
    }
    Ok(results)
}

/// The names of all tests of `package`.
fn names(workspace: &Workspace, package: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut command = test(workspace, package);
    command.args(["--", "--list", "--format", "terse"]).stderr(Stdio::inherit());
    let output = command.output().context("rustup has gone")?;
    ensure!(output.status.success(), "{package} does not compile for Miri; the compiler's message is above");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let names: BTreeSet<_> = text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect();
    ensure!(!names.is_empty(), "Miri lists no tests of {package}");
    Ok(names)
}

/// Deals `names` out into pieces, one by one: slow tests stand together in the alphabet, because their names begin
/// alike.
fn deal(names: BTreeSet<String>) -> Vec<BTreeSet<String>> {
    let mut dealt = vec![BTreeSet::new(); names.len().div_ceil(PIECE)];
    let count = dealt.len();
    for (index, name) in names.into_iter().enumerate() {
        dealt[index % count].insert(name);
    }
    dealt
}

fn test(workspace: &Workspace, package: &str) -> Command {
    miri(workspace, &["test", "--lib", "--no-fail-fast", "--package", package])
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
        let dealt = deal(names(2 * PIECE + 1));
        assert_eq!(dealt.iter().map(BTreeSet::len).collect::<Vec<_>>(), [PIECE.div_ceil(3) * 2 + 1, 40, 40]);
        assert_eq!(dealt.into_iter().flatten().collect::<BTreeSet<_>>(), names(2 * PIECE + 1));
    }

    #[test]
    fn no_piece_is_empty_because_that_would_mean_every_test() {
        for count in [1, PIECE, PIECE + 1] {
            assert!(deal(names(count)).iter().all(|piece| !piece.is_empty()), "{count}");
        }
    }
}
