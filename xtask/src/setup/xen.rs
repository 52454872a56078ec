//! Debian's Xen for arm64, the hypervisor that `bench --peer xen` measures beside Bulkhead.

use super::{
    apt::ForeignApt,
    package::{self, Wanted},
};
use anyhow::Context;
use std::path::{Path, PathBuf};

/// The package that always depends on Debian's current Xen.
const META_PACKAGE: &str = "xen-system-arm64";
const PACKAGE_PREFIX: &str = "xen-hypervisor-";

/// Gives the Xen image below `cache`, and fetches it where it is missing.
///
/// # Errors
/// One sentence: what is missing on this machine, or apt's own message.
pub(super) fn fetch(cache: &Path) -> anyhow::Result<PathBuf> {
    package::fetch(cache, &Wanted { name: "xen", title: "Debian's Xen", find })
}

fn find(apt: &ForeignApt) -> anyhow::Result<(String, String)> {
    let depends = apt.field(META_PACKAGE, "Depends").unwrap_or_default();
    let package =
        depends
            .split([' ', ','])
            .find(|word| word.starts_with(PACKAGE_PREFIX) && word.ends_with("-arm64"))
            .with_context(|| format!("Debian has no Xen for arm64 here: `{META_PACKAGE}` depends on `{depends}`"))?;
    let release = package.trim_start_matches(PACKAGE_PREFIX);
    Ok((package.to_owned(), format!("./boot/xen-{release}")))
}
