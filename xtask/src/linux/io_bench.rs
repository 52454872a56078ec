//! The program that measures a Linux guest's disk and network: built for Linux on arm64, with nothing that it needs at
//! run time.

use super::root_file_system::{Entry, Node};
use crate::{bare_metal::cargo, workspace::Workspace};
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};

/// The target of programs for Linux guests: statically linked, and without a C compiler, for musl comes with Rust.
pub(crate) const TARGET: &str = "aarch64-unknown-linux-musl";
const PACKAGE: &str = "bulkhead-linux-io-bench";
const PROGRAM: &str = "io-bench";

/// Builds it.
///
/// # Errors
/// When cargo fails; it has said why.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let status = cargo(workspace)
        .args(["build", "--quiet", "--release", "--target", TARGET, "--package", PACKAGE, "--bin", PROGRAM])
        .status()
        .context("cargo could not be started")?;
    ensure!(status.success(), "`{PROGRAM}` does not build for {TARGET}; the compiler's message is above");
    Ok(workspace.target().join(TARGET).join("release").join(PROGRAM))
}

/// Its place in a guest's root file system.
///
/// # Errors
/// When `program` cannot be read.
pub(crate) fn entry(program: &Path) -> anyhow::Result<Entry> {
    let bytes = std::fs::read(program).with_context(|| format!("{} cannot be read", program.display()))?;
    Ok(Entry { path: format!("bin/{PROGRAM}"), node: Node::Program(bytes) })
}
