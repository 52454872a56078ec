//! The root file system of the Linux guests: a cpio `newc` archive (Linux: Documentation/driver-api/early-userspace/
//! buffer-format.rst) with `guests/linux/init`, busybox, and the directories that `init` mounts on.
//!
//! The archive depends on its two inputs alone (no times, no owners of the host), so it is the same on every machine.

use std::io::{self, Write};

const DIRECTORY: u32 = 0o040_755;
const STICKY_DIRECTORY: u32 = 0o041_777;
const PROGRAM: u32 = 0o100_755;
const SYMBOLIC_LINK: u32 = 0o120_777;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Packs `init` and `busybox` into an archive that Linux unpacks as its first root file system.
///
/// # Errors
/// Whatever the archive writer reports; nothing is expected when it writes to memory.
pub(crate) fn pack(init: &[u8], busybox: &[u8]) -> io::Result<Vec<u8>> {
    let mut archive = Archive { bytes: Vec::new(), entries: 0 };
    for directory in ["bin", "dev", "proc", "root", "sys"] {
        archive.entry(directory, DIRECTORY, &[])?;
    }
    archive.entry("tmp", STICKY_DIRECTORY, &[])?;
    archive.entry("bin/busybox", PROGRAM, busybox)?;
    archive.entry("bin/sh", SYMBOLIC_LINK, b"busybox")?;
    archive.entry("init", PROGRAM, init)?;
    // Linux opens /dev/console for process 1 before that can mount devtmpfs: major 5, minor 1.
    archive.device("dev/console", (5, 1))?;
    cpio::newc::trailer(&mut archive.bytes)?;
    Ok(archive.bytes)
}

struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn entry(&mut self, name: &str, mode: u32, data: &[u8]) -> io::Result<()> {
        let builder = self.builder(name, mode);
        self.write(builder, data)
    }

    fn device(&mut self, name: &str, (major, minor): (u32, u32)) -> io::Result<()> {
        let builder = self.builder(name, CHARACTER_DEVICE).rdev_major(major).rdev_minor(minor);
        self.write(builder, &[])
    }

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
        let archive = pack(b"#!/bin/busybox sh\n", b"\x7fELF").expect("packed");
        let entries = names_and_modes(&archive);
        for expected in
            [("init", PROGRAM), ("bin/busybox", PROGRAM), ("bin/sh", SYMBOLIC_LINK), ("dev/console", CHARACTER_DEVICE)]
        {
            assert!(entries.contains(&(expected.0.to_owned(), expected.1)), "{expected:?} is missing: {entries:?}");
        }
    }

    #[test]
    fn directories_precede_what_lies_in_them() {
        let archive = pack(b"init", b"busybox").expect("packed");
        let names: Vec<String> = names_and_modes(&archive).into_iter().map(|(name, _)| name).collect();
        let position = |name: &str| names.iter().position(|entry| entry == name).expect("listed");
        assert!(position("bin") < position("bin/busybox"));
        assert!(position("dev") < position("dev/console"));
    }

    #[test]
    fn packing_twice_gives_the_same_bytes() {
        assert_eq!(pack(b"a", b"b").expect("packed"), pack(b"a", b"b").expect("packed"));
    }
}
