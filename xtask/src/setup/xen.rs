//! Debian's Xen for arm64, the hypervisor that `bench --peer xen` measures beside Bulkhead.

use super::{apt, debian};
use crate::progress;
use anyhow::{Context, ensure};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The package that always depends on Debian's current Xen.
const META_PACKAGE: &str = "xen-system-arm64";
const PACKAGE_PREFIX: &str = "xen-hypervisor-";

/// Gives the Xen image below `cache`, and fetches it where it is missing.
///
/// # Errors
/// One sentence: what is missing on this machine, or apt's own message.
pub(super) fn fetch(cache: &Path) -> anyhow::Result<PathBuf> {
    let done = cache.join("xen");
    let image = done.join("xen");
    if image.is_file() {
        return Ok(image);
    }
    for program in ["apt-get", "apt-cache", "dpkg-deb", "tar"] {
        ensure!(
            apt::exists(program),
            "this machine has no `{program}` to fetch Debian's Xen with; run on Debian, or put an arm64 Xen image at {}",
            image.display()
        );
    }
    let work = cache.join("xen.partial");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(work.join("packages"))?;
    let apt = debian::lists(cache, &work)?;
    let depends = apt.field(META_PACKAGE, "Depends").unwrap_or_default();
    let package =
        depends
            .split([' ', ','])
            .find(|word| word.starts_with(PACKAGE_PREFIX) && word.ends_with("-arm64"))
            .with_context(|| format!("Debian has no Xen for arm64 here: `{META_PACKAGE}` depends on `{depends}`"))?;
    progress::step(&format!("fetching {package}"), || {
        apt.download(&[package], &work.join("packages"))?;
        let release = package.trim_start_matches(PACKAGE_PREFIX);
        let file = debian::package_file(&work.join("packages"), package)?;
        apt::extract(&file, &format!("./boot/xen-{release}"), &work.join("xen"))
    })
    .context("Debian's Xen cannot be fetched; check the network and run the command again")?;
    fs::remove_dir_all(work.join("packages"))?;
    if done.exists() {
        fs::remove_dir_all(&done)?;
    }
    // The directory gets its name only when it is complete.
    fs::rename(&work, &done)?;
    Ok(image)
}
