//! The programs that make a Linux file system in a file.

use super::apt;
use anyhow::Context;
use std::path::{Path, PathBuf};

/// The package that has the programs, by Debian's name.
const PACKAGE: &str = "e2fsprogs";
/// Where they are: Debian's users do not have these directories in their PATH.
const DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// Where the programs are.
#[derive(Debug)]
pub(crate) struct FileSystemPrograms {
    /// Makes the file system.
    pub(crate) mke2fs: PathBuf,
    /// Changes what is in it.
    pub(crate) debugfs: PathBuf,
    /// Checks it.
    pub(crate) e2fsck: PathBuf,
}

impl FileSystemPrograms {
    /// The programs, where this machine has them.
    pub(crate) fn find() -> Option<Self> {
        Some(Self { mke2fs: find("mke2fs")?, debugfs: find("debugfs")?, e2fsck: find("e2fsck")? })
    }
}

/// Finds the programs, and installs them where they are missing.
///
/// # Errors
/// One sentence that says what to install.
pub(crate) fn file_system_programs() -> anyhow::Result<FileSystemPrograms> {
    if let Some(found) = FileSystemPrograms::find() {
        return Ok(found);
    }
    let missing = || {
        format!(
            "the disks of the Linux guests are made with `mke2fs` and `debugfs`: install `{PACKAGE}` and run the command \
             again"
        )
    };
    apt::install(PACKAGE).with_context(missing)?;
    FileSystemPrograms::find().with_context(missing)
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let own = std::env::split_paths(&path);
    let candidates = own.chain(DIRECTORIES.iter().map(|directory| Path::new(directory).to_owned()));
    candidates.map(|directory| directory.join(program)).find(|candidate| candidate.is_file())
}
