//! Debian's U-Boot for QEMU's `virt` board, which starts as a guest of its own.

use super::{
    apt::ForeignApt,
    package::{self, Wanted},
};
use anyhow::ensure;
use std::path::{Path, PathBuf};

const PACKAGE: &str = "u-boot-qemu";
const MEMBER: &str = "./usr/lib/u-boot/qemu_arm64/u-boot.bin";

/// Gives U-Boot's image below `cache`, and fetches it where it is missing.
///
/// # Errors
/// One sentence: what is missing on this machine, or apt's own message.
pub(super) fn fetch(cache: &Path) -> anyhow::Result<PathBuf> {
    package::fetch(cache, &Wanted { name: "u-boot", title: "Debian's U-Boot", find })
}

fn find(apt: &ForeignApt) -> anyhow::Result<(String, String)> {
    ensure!(apt.field(PACKAGE, "Version").is_some(), "this machine's apt sources have no package `{PACKAGE}`");
    Ok((PACKAGE.to_owned(), MEMBER.to_owned()))
}
