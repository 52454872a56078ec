//! The virtqueue beside its reference (`hypervisor/virtio-transport/tests/virtqueue_reference.rs`), on steps that
//! nobody thought of.
//!
//! Where cargo-fuzz and a nightly toolchain are there, libFuzzer looks for steps that reach new code. Without them, and
//! in `ci`, chance changes the committed corpus: cargo-fuzz takes longer to install than such a run lasts.

use crate::{bare_metal::cargo, host_tests, results::Results, workspace::Workspace};
use anyhow::Context;
use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

/// What tells the test how long to go on; it knows the variable by this name.
const SECONDS_VARIABLE: &str = "BULKHEAD_FUZZ_SECONDS";

/// Takes random steps for `seconds`. What chance finds is printed with its seed.
///
/// # Errors
/// When cargo cannot be started.
pub(crate) fn random(workspace: &Workspace, seconds: u32) -> anyhow::Result<Results> {
    let mut command = cargo(workspace);
    command
        .args(["test", "--package", "bulkhead-virtio-transport", "--test", "virtqueue_reference"])
        .args(["--", "--ignored", "--nocapture"])
        .env(SECONDS_VARIABLE, seconds.to_string());
    host_tests::counted("the virtqueue beside its reference", command, |_, _| {})
}

/// Whether [`guided`] can run here.
pub(crate) fn is_guidance_there(workspace: &Workspace) -> bool {
    let status = cargo_fuzz(workspace, &["--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Lets libFuzzer look for `seconds`, beginning with the committed corpus. What it keeps goes below `target`, what
/// fails into `hypervisor/virtio-transport/fuzz/artifacts`. Whether nothing failed.
///
/// # Errors
/// When cargo-fuzz cannot be started.
pub(crate) fn guided(workspace: &Workspace, seconds: u32) -> anyhow::Result<bool> {
    let kept = workspace.metadata.target_directory.join("fuzz-corpus");
    std::fs::create_dir_all(&kept).with_context(|| format!("cannot make {kept}"))?;
    let limit = format!("-max_total_time={seconds}");
    let corpus = "fuzz/corpus/virtqueue";
    let arguments = ["run", "virtqueue", kept.as_str(), corpus, "--", &limit, "-max_len=400"];
    let status = cargo_fuzz(workspace, &arguments).status().context("rustup has gone")?;
    Ok(status.success())
}

fn cargo_fuzz(workspace: &Workspace, arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo", "fuzz"]).args(arguments).current_dir(directory(workspace));
    command.stdin(Stdio::null());
    command
}

fn directory(workspace: &Workspace) -> PathBuf {
    workspace.root().join("hypervisor/virtio-transport")
}
