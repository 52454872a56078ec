//! The archive that Linux unpacks as its first root file system: cpio, format `newc` (Linux: Documentation/driver-api/
//! early-userspace/buffer-format.rst).
//!
//! It depends on its entries alone (no times, no owners of the host), so it is the same on every machine.

use super::root_file_system::{Entry, Node};
use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const SHARED_DIRECTORY: u32 = 0o041_777;
const PROGRAM: u32 = 0o100_755;
const DATA: u32 = 0o100_644;
const SYMBOLIC_LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Packs `entries`, and the console.
///
/// # Errors
/// A file is larger than the format's 4 GiB.
pub(crate) fn pack<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> io::Result<Vec<u8>> {
    let mut archive = Archive { bytes: Vec::new(), entries: 0 };
    for Entry { path, node } in entries {
        let (mode, data): (u32, &[u8]) = match node {
            Node::Directory => (DIRECTORY, &[]),
            Node::SharedDirectory => (SHARED_DIRECTORY, &[]),
            Node::Program(data) => (PROGRAM, data),
            Node::Data(data) => (DATA, data),
            Node::Link(target) => (SYMBOLIC_LINK, target.as_bytes()),
        };
        let builder = archive.builder(path, mode);
        archive.write(builder, data)?;
    }
    // Linux opens /dev/console for process 1 before that can mount devtmpfs: major 5, minor 1.
    let console = archive.builder("dev/console", CHARACTER_DEVICE).rdev_major(5).rdev_minor(1);
    archive.write(console, &[])?;
    cpio::newc::trailer(&mut archive.bytes)?;
    Ok(archive.bytes)
}

struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn builder(&mut self, name: &str, mode: u32) -> cpio::newc::Builder {
        // Linux takes entries of one inode number for hard links.
        self.entries += 1;
        cpio::newc::Builder::new(name).ino(self.entries).mode(mode).nlink(1)
    }

    fn write(&mut self, builder: cpio::newc::Builder, data: &[u8]) -> io::Result<()> {
        let size = u32::try_from(data.len()).map_err(|_| io::Error::other("a file of 4 GiB or more"))?;
        let mut writer = builder.write(&mut self.bytes, size);
        writer.write_all(data)?;
        writer.finish()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::root_file_system::tests::Sources;

    fn names_and_modes(archive: &[u8]) -> Vec<(String, u32)> {
        let mut rest = archive;
        let mut found = Vec::new();
        loop {
            let reader = cpio::newc::Reader::new(rest).expect("a newc header");
            if reader.entry().is_trailer() {
                return found;
            }
            found.push((reader.entry().name().to_owned(), reader.entry().mode()));
            rest = reader.finish().expect("the file's data");
        }
    }

    #[test]
    fn linux_finds_init_busybox_and_a_console() {
        let sources = Sources::new("archive");
        let entries = names_and_modes(&pack(&sources.tree()).expect("packed"));
        for expected in
            [("init", PROGRAM), ("bin/busybox", PROGRAM), ("bin/sh", SYMBOLIC_LINK), ("dev/console", CHARACTER_DEVICE)]
        {
            assert!(entries.contains(&(expected.0.to_owned(), expected.1)), "{expected:?} is missing: {entries:?}");
        }
    }

    #[test]
    fn packing_twice_gives_the_same_bytes() {
        let sources = Sources::new("twice");
        assert_eq!(pack(&sources.tree()).expect("packed"), pack(&sources.tree()).expect("packed"));
    }
}
