//! What can be wrong with this machine rather than with a system, named as what it is.

use anyhow::{Context, ensure};
use std::{io, path::Path};

use crate::{system::show_size_rounded, workspace::Workspace};

/// What a run writes at most before the guests write to their disks: programs, bundle, fresh disks.
const ROOM_MIN: u64 = 512 << 20;

/// Makes sure that there is room below the target directory.
///
/// # Errors
/// How much there is, and what to do.
pub(crate) fn room(workspace: &Workspace) -> anyhow::Result<()> {
    let there = workspace.target().ancestors().find(|directory| directory.is_dir()).unwrap_or(Path::new("/"));
    let found = rustix::fs::statvfs(there).with_context(|| format!("{} cannot be looked at", there.display()))?;
    check_room(there, found.f_bavail.saturating_mul(found.f_frsize))
}

fn check_room(directory: &Path, free: u64) -> anyhow::Result<()> {
    ensure!(
        free >= ROOM_MIN,
        "the disk is full: below {} there are {} left, and a run takes up to {}; make room, or set CARGO_TARGET_DIR to a \
         directory on another disk",
        directory.display(),
        show_size_rounded(free),
        show_size_rounded(ROOM_MIN)
    );
    Ok(())
}

/// What stands behind `error`, where it is this machine: as the end of a message.
pub(crate) fn behind(error: &anyhow::Error) -> Option<&'static str> {
    let is_full = |error: &io::Error| error.kind() == io::ErrorKind::StorageFull;
    let is_full = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).any(is_full);
    if is_full { Some(FULL) } else { None }
}

const FULL: &str = "the disk is full: make room and run the command again";

/// What stands behind the failure of a program that has printed `text`, where that is known.
pub(super) fn cause(text: &str) -> Option<&'static str> {
    const NETWORK: &str = "there is no network: connect this machine and run the command again; once everything is \
                           fetched none is needed";
    let signs: [(&str, &[&str]); 3] = [
        (FULL, &["No space left on device", "enough free space"]),
        (
            NETWORK,
            &[
                "Temporary failure resolving",
                "Could not resolve",
                "Network is unreachable",
                "Could not connect",
                "connection timed out",
                "Cannot initiate the connection",
            ],
        ),
        (
            "this takes root: run the command as root, or let `sudo` need no password",
            &["are you root?", "Permission denied"],
        ),
    ];
    signs.into_iter().find(|(_, signs)| signs.iter().any(|sign| text.contains(sign))).map(|(cause, _)| cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_found_before_anything_is_written() {
        check_room(Path::new("/target"), ROOM_MIN).expect("room");
        let sentence = check_room(Path::new("/target"), 3 << 20).expect_err("no room").to_string();
        assert!(sentence.starts_with("the disk is full: below /target there are 3 MiB left"), "{sentence}");
    }

    #[test]
    fn a_full_disk_is_named_wherever_it_shows() {
        let full = anyhow::Error::new(io::Error::from(io::ErrorKind::StorageFull)).context("x cannot be written");
        assert_eq!(behind(&full), Some(FULL));
        assert_eq!(behind(&anyhow::Error::new(io::Error::from(io::ErrorKind::NotFound))), None);
    }

    #[test]
    fn what_apt_says_is_named_as_what_it_is() {
        let found = |text| cause(text).unwrap_or("");
        assert!(found("E: Could not open lock file - open (13: Permission denied)").contains("root"));
        assert!(found("W: Failed to fetch http://x  Temporary failure resolving 'x'").contains("no network"));
        assert_eq!(found("E: write (28: No space left on device)"), FULL);
        assert_eq!(cause("E: Unable to locate package x"), None);
    }
}
