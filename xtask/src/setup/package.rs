//! One file out of one Debian package, fetched once and kept.

use super::{
    apt::{self, ForeignApt},
    debian,
};
use crate::progress;
use anyhow::{Context, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What is wanted.
pub(super) struct Wanted {
    /// Its name below the cache: a directory, and the file in it.
    pub(super) name: &'static str,
    /// What it is to people, such as `Debian's Xen`.
    pub(super) title: &'static str,
    /// The package, found in Debian's lists, and the path of the file in it.
    pub(super) find: fn(&ForeignApt) -> anyhow::Result<(String, String)>,
}

/// Gives the file below `cache`, and fetches it where it is missing.
///
/// # Errors
/// One sentence: what is missing on this machine, or apt's own message.
pub(super) fn fetch(cache: &Path, wanted: &Wanted) -> anyhow::Result<PathBuf> {
    let Wanted { name, title, find } = wanted;
    let done = cache.join(name);
    let file = done.join(name);
    if file.is_file() {
        return Ok(file);
    }
    for program in ["apt-get", "apt-cache", "dpkg-deb", "tar"] {
        ensure!(
            apt::exists(program),
            "this machine has no `{program}` to fetch {title} with; run on Debian, or put the file at {}",
            file.display()
        );
    }
    let work = cache.join(format!("{name}.partial"));
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(work.join("packages"))?;
    let apt = debian::lists(cache, &work)?;
    let (package, member) = find(&apt)?;
    progress::step(&format!("fetching {package}"), || {
        apt.download(&[&package], &work.join("packages"))?;
        let archive = debian::package_file(&work.join("packages"), &package)?;
        apt::extract(&archive, &member, &work.join(name))
    })
    .with_context(|| format!("{title} cannot be fetched"))?;
    fs::remove_dir_all(work.join("packages"))?;
    if done.exists() {
        fs::remove_dir_all(&done)?;
    }
    // The directory gets its name only when it is complete.
    fs::rename(&work, &done)?;
    Ok(file)
}
