//! The images of a system's disks: made once, kept between runs.
//!
//! An image is made anew when it is asked for, and when the system describes the disk differently than when it was
//! made: a text beside the image says how it was. What a fresh partition holds comes from elsewhere ([`Fill`]).

use crate::{
    linux,
    system::{Content, Disk, Source},
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use gpt::{GptConfig, disk::LogicalBlockSize, mbr::ProtectiveMBR, partition_types};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

const SECTOR_SIZE: u64 = 512;
/// How much is copied at a time. What is all zeroes is left out, so that an image takes no more room than it needs.
const COPY_SIZE: usize = 64 << 10;

/// What becomes of images that are there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Age {
    /// They are used again.
    #[default]
    Kept,
    /// They are made anew.
    Fresh,
}

/// Makes the image `output` of a partition of so many bytes, with this content, for this virtual machine.
type Fill<'a> = &'a dyn Fn(Content, &str, u64, &Path) -> anyhow::Result<()>;

/// Gives the image of each disk of `source`, in their order, and makes those that are missing, outdated or not wanted.
///
/// # Errors
/// When an image cannot be made, or a file of the user's is not there.
pub(crate) fn provide(workspace: &Workspace, source: &Source, age: Age) -> anyhow::Result<Vec<PathBuf>> {
    let directory = workspace.cache().join("disks").join(source.name());
    let fill = |content, vm: &str, size, output: &Path| match content {
        Content::LinuxRoot => linux::root_partition(vm, linux::Kernel::Elsewhere, size, output),
        Content::LinuxBoot => linux::root_partition(vm, linux::Kernel::OnPartition, size, output),
    };
    let version = scripts_version(workspace)?;
    let one = |disk: &Disk| match &disk.file {
        Some(file) => {
            ensure!(file.is_file(), "there is no disk image {}; check its name", file.display());
            Ok(file.clone())
        }
        None => {
            let description = describe(source, disk, version);
            image(&directory, disk, &description, age, &|content, partition, size, output| {
                fill(content, user_of(source, &disk.name, partition), size, output)
            })
        }
    };
    source.disks().iter().map(one).collect()
}

/// A number that changes with the scripts that go into a Linux guest's root: an old root has no place under new
/// scripts.
fn scripts_version(workspace: &Workspace) -> anyhow::Result<u32> {
    let directory = workspace.root().join("guests/linux");
    let entries = fs::read_dir(&directory).with_context(|| format!("{} cannot be read", directory.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()?;
    paths.sort();
    let mut checksum = flate2::Crc::new();
    for path in paths.iter().filter(|path| path.is_file()) {
        checksum.update(&fs::read(path)?);
    }
    Ok(checksum.sum())
}

/// What an image is made from, as text.
fn describe(source: &Source, disk: &Disk, version: u32) -> String {
    let mut text = format!("{} bytes\n", disk.size);
    for partition in &disk.partitions {
        // Writing to a string cannot fail.
        let _ = write!(text, "{} at {} bytes {}", partition.name, partition.span.base, partition.span.size);
        if let Some(content) = partition.content {
            let user = user_of(source, &disk.name, &partition.name);
            let _ = write!(text, ", {} of {user}, version {version:08x}", content.name());
        }
        text.push('\n');
    }
    text
}

/// The virtual machine that uses a partition: the first, where there are several, and the partition itself for none.
fn user_of<'a>(source: &'a Source, disk: &str, partition: &'a str) -> &'a str {
    source.users_of_partition(disk, partition).next().unwrap_or(partition)
}

/// The image of `disk` in `directory`, made from `description`.
fn image(directory: &Path, disk: &Disk, description: &str, age: Age, fill: Fill<'_>) -> anyhow::Result<PathBuf> {
    let image = directory.join(format!("{}.img", disk.name));
    let note = directory.join(format!("{}.txt", disk.name));
    let made_from = fs::read_to_string(&note).ok().filter(|_| image.is_file());
    match made_from {
        Some(text) if text == description && age == Age::Kept => return Ok(image),
        Some(text) if text != description => {
            eprintln!("disk {}: made anew, because its description or what it starts with has changed", disk.name);
        }
        Some(_) => eprintln!("disk {}: made anew", disk.name),
        None => eprintln!("disk {}: made; it is kept between runs, and --fresh makes it anew", disk.name),
    }
    fs::create_dir_all(directory).with_context(|| format!("{} cannot be created", directory.display()))?;
    // Under another name until it is whole; a QEMU that runs keeps the old one.
    let unfinished = directory.join(format!("{}.img.new", disk.name));
    make(disk, &unfinished, fill).with_context(|| format!("the disk image {} cannot be made", image.display()))?;
    // In this order: an image without its note is made anew, a note without its image does no harm.
    let _ = fs::remove_file(&note);
    fs::rename(&unfinished, &image)?;
    fs::write(&note, description)?;
    Ok(image)
}

fn make(disk: &Disk, path: &Path, fill: Fill<'_>) -> anyhow::Result<()> {
    let mut file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    file.set_len(disk.size)?;
    if disk.partitions.is_empty() {
        return Ok(());
    }
    let sectors = u32::try_from(disk.size / SECTOR_SIZE - 1).unwrap_or(u32::MAX);
    ProtectiveMBR::with_lb_size(sectors).overwrite_lba0(&mut file)?;
    let table = GptConfig::new().writable(true).logical_block_size(LogicalBlockSize::Lb512);
    let mut table = table.create_from_device(file, None)?;
    for (number, partition) in (1..).zip(&disk.partitions) {
        let (first, count) = (partition.span.base / SECTOR_SIZE, partition.span.size / SECTOR_SIZE);
        table.add_partition_at(&partition.name, number, first, count, partition_types::LINUX_FS, 0)?;
    }
    let mut file = table.write()?;
    for partition in &disk.partitions {
        let Some(content) = partition.content else { continue };
        let part = path.with_extension("part");
        fill(content, &partition.name, partition.span.size, &part)?;
        copy(&part, &mut file, partition.span.base, partition.span.size)?;
        fs::remove_file(&part)?;
    }
    file.sync_all()?;
    Ok(())
}

/// Copies the image `from` to the file `to`, under another name until it is whole; what is all zeroes takes no room.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) fn copy_sparse(from: &Path, to: &Path) -> anyhow::Result<()> {
    let size = fs::metadata(from)?.len();
    let unfinished = to.with_extension("img.new");
    let mut file = File::create(&unfinished)?;
    file.set_len(size)?;
    copy(from, &mut file, 0, size)?;
    fs::rename(&unfinished, to)?;
    Ok(())
}

/// Copies the file `from`, of `size` bytes, to `offset` of `to`, which is all zeroes there.
fn copy(from: &Path, to: &mut File, offset: u64, size: u64) -> anyhow::Result<()> {
    let mut from = File::open(from)?;
    let length = from.metadata()?.len();
    ensure!(length == size, "what goes into the partition has {length} bytes, and the partition {size}");
    let mut buffer = vec![0; COPY_SIZE];
    let mut position = offset;
    loop {
        let count = from.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        if bytes.iter().any(|byte| *byte != 0) {
            to.seek(SeekFrom::Start(position))?;
            to.write_all(bytes)?;
        }
        position = position.saturating_add(count as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::Partition;
    use manifest::Span;
    use std::{cell::Cell, os::unix::fs::MetadataExt};

    const MIB: u64 = 1 << 20;

    /// A directory of the test's own, removed at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("bulkhead-disks-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn disk() -> Disk {
        let partition =
            |name: &str, base, content| Partition { name: name.to_owned(), span: Span::new(base, 4 * MIB), content };
        Disk {
            name: "main".to_owned(),
            size: 16 * MIB,
            partitions: vec![partition("a", MIB, None), partition("b", 5 * MIB, Some(Content::LinuxRoot))],
            file: None,
            owner: None,
            line: None,
        }
    }

    /// Fills a partition with its size, and a hole.
    fn fill(_content: Content, partition: &str, size: u64, output: &Path) -> anyhow::Result<()> {
        let mut file = File::create(output)?;
        file.set_len(size)?;
        write!(file, "this is {partition}")?;
        Ok(())
    }

    #[test]
    fn partitions_are_where_the_system_has_them_and_hold_what_it_says() {
        let scratch = Scratch::new("partitions");
        let path = image(&scratch.0, &disk(), "x", Age::Kept, &fill).expect("an image");
        assert_eq!(fs::metadata(&path).expect("a file").len(), 16 * MIB);
        let table = GptConfig::new().open(&path).expect("a table");
        let found: Vec<_> = table.partitions().values().map(|part| (part.name.as_str(), part.first_lba)).collect();
        assert_eq!(found, [("a", 2048), ("b", 5 * 2048)]);
        let bytes = fs::read(&path).expect("an image");
        assert!(bytes[5 << 20..].starts_with(b"this is b"));
        assert!(bytes[1 << 20..2 << 20].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn an_image_takes_no_room_for_zeroes() {
        let scratch = Scratch::new("sparse");
        let path = image(&scratch.0, &disk(), "x", Age::Kept, &fill).expect("an image");
        assert!(fs::metadata(path).expect("a file").blocks() * SECTOR_SIZE < MIB);
    }

    #[test]
    fn an_image_is_kept_until_its_description_changes_or_a_fresh_one_is_wanted() {
        let scratch = Scratch::new("kept");
        let made = Cell::new(0);
        let counting = |content, partition: &str, size, output: &Path| {
            made.set(made.get() + 1);
            fill(content, partition, size, output)
        };
        for (description, age, expected) in
            [("x", Age::Kept, 1), ("x", Age::Kept, 1), ("y", Age::Kept, 2), ("y", Age::Kept, 2), ("y", Age::Fresh, 3)]
        {
            image(&scratch.0, &disk(), description, age, &counting).expect("an image");
            assert_eq!(made.get(), expected);
        }
    }

    #[test]
    fn an_image_that_cannot_be_filled_is_not_left_behind() {
        let scratch = Scratch::new("failed");
        let fail = |_: Content, _: &str, _: u64, _: &Path| anyhow::bail!("nothing to fill it with");
        image(&scratch.0, &disk(), "x", Age::Kept, &fail).expect_err("not filled");
        assert!(!scratch.0.join("main.img").exists());
    }

    #[test]
    fn a_disk_without_partitions_is_raw() {
        let scratch = Scratch::new("raw");
        let raw = Disk { partitions: Vec::new(), size: MIB, ..disk() };
        let path = image(&scratch.0, &raw, "x", Age::Kept, &fill).expect("an image");
        assert!(fs::read(path).expect("an image").iter().all(|byte| *byte == 0));
    }
}
