//! `setup`: fetches what the other commands would fetch when they need it, for a machine that is about to go offline.

use crate::{setup, workspace::Workspace};
use std::process::ExitCode;

pub(super) fn run(workspace: &Workspace) -> anyhow::Result<ExitCode> {
    let linux = setup::everything(workspace)?;
    println!("everything is here: the Rust target, QEMU,");
    println!("  Debian's kernel   {}", workspace.display(&linux.kernel));
    println!("  root file system  {}", workspace.display(&linux.initrd));
    Ok(ExitCode::SUCCESS)
}
