//! The programs of this machine: the Rust target, the debugger.

use super::apt;
use crate::progress;
use anyhow::{Context, ensure};
use std::{path::Path, process::Command};

/// Makes sure that the compiler can build for `target`.
///
/// # Errors
/// One sentence, where neither the target nor rustup is there.
pub(crate) fn rust_target(target: &str) -> anyhow::Result<()> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output().context("rustc could not be started")?;
    let sysroot = String::from_utf8(output.stdout).context("rustc names no sysroot")?;
    if Path::new(sysroot.trim()).join("lib/rustlib").join(target).join("lib").is_dir() {
        return Ok(());
    }
    ensure!(
        apt::exists("rustup"),
        "this Rust cannot build for {target} and there is no rustup to add it; install Rust with rustup (https://rustup.rs)"
    );
    progress::step(&format!("adding the Rust target {target}"), || {
        apt::run(Command::new("rustup").args(["target", "add", target]))
    })
}

/// Gives the name of a debugger that knows AArch64, and installs one where there is none.
///
/// # Errors
/// One sentence that says what to install.
pub(crate) fn debugger() -> anyhow::Result<&'static str> {
    if let Some(found) = find_debugger() {
        return Ok(found);
    }
    const MISSING: &str =
        "no gdb here knows AArch64: install `gdb-multiarch` (or `aarch64-linux-gnu-gdb`) and run the command again";
    apt::install("gdb-multiarch").context(MISSING)?;
    find_debugger().context(MISSING)
}

fn find_debugger() -> Option<&'static str> {
    ["gdb-multiarch", "aarch64-linux-gnu-gdb", "aarch64-none-elf-gdb", "gdb"].into_iter().find(|name| {
        let mut probe = Command::new(name);
        probe.args(["--batch", "--nx", "-ex", "set architecture aarch64"]);
        probe.output().is_ok_and(|output| {
            output.status.success() && !String::from_utf8_lossy(&output.stderr).contains("Undefined")
        })
    })
}
