//! The programs for Linux guests: built for Linux on arm64, with nothing that they need at run time.

use super::root_file_system::{Entry, Node};
use crate::{bare_metal::cargo, setup::rust_target, workspace::Workspace};
use anyhow::{Context, ensure};

/// The target of programs for Linux guests: statically linked, and without a C compiler, for musl comes with Rust.
const TARGET: &str = "aarch64-unknown-linux-musl";

/// A program for Linux guests.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Program {
    package: &'static str,
    name: &'static str,
}

/// What measures a guest's disk and network.
pub(crate) const IO_BENCH: Program = Program { package: "bulkhead-linux-io-bench", name: "io-bench" };
/// What checks a guest's sockets.
pub(crate) const SOCKET_CHECK: Program = Program { package: "bulkhead-linux-socket-check", name: "socket-check" };

impl Program {
    /// Builds it, and gives its place in a guest's root file system.
    ///
    /// # Errors
    /// When cargo fails, which has said why, or the target cannot be had.
    pub(crate) fn build(self, workspace: &Workspace) -> anyhow::Result<Entry> {
        let Self { package, name } = self;
        rust_target(TARGET)?;
        let status = cargo(workspace)
            .args(["build", "--quiet", "--release", "--target", TARGET, "--package", package, "--bin", name])
            .status()
            .context("cargo could not be started")?;
        ensure!(status.success(), "`{name}` does not build for {TARGET}; the compiler's message is above");
        let program = workspace.target().join(TARGET).join("release").join(name);
        let bytes = std::fs::read(&program).with_context(|| format!("{} cannot be read", program.display()))?;
        Ok(Entry { path: format!("bin/{name}"), node: Node::Program(bytes) })
    }
}
