//! Real disks: how a system cuts them into partitions.

use manifest::Span;
use std::path::PathBuf;

use super::{backend::Slice, problem::Line, size::show_size};

/// A sector of a virtio disk in bytes (VIRTIO 1.2, 5.2.4).
pub(crate) const SECTOR_SIZE: u64 = 512;
/// Where the first partition starts, and what the others' starts are multiples of, as partitioning tools do.
pub(crate) const PARTITION_ALIGN: u64 = 1 << 20;
/// What the second copy of the table takes at the end of a disk, rounded up (UEFI 2.10, 5.3.1: 33 sectors).
const TABLE_COPY_SIZE: u64 = 1 << 20;
/// A partition's size is a multiple of this: the block size of the file systems that go into it.
pub(crate) const PARTITION_UNIT: u64 = 4096;

/// A disk of the board.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) name: String,
    pub(crate) size: u64,
    /// In the order of their addresses; a disk without any is raw.
    pub(crate) partitions: Vec<Partition>,
    /// A file of the user's, which is used as it is; without it, one is made and kept.
    pub(crate) file: Option<PathBuf>,
    /// The machine that drives it; where the system does not state one, it is made the driver domain.
    pub(crate) owner: Option<String>,
    pub(crate) line: Line,
}

/// A partition of a [`Disk`].
#[derive(Clone, Debug)]
pub(crate) struct Partition {
    pub(crate) name: String,
    /// Its bytes, counted from the start of the disk.
    pub(crate) span: Span,
    pub(crate) content: Option<Content>,
}

/// What a fresh partition holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The root file system of a Linux guest.
    LinuxRoot,
    /// The same with a kernel on it, for a boot loader.
    LinuxBoot,
}

impl Content {
    /// Every content.
    pub(crate) const ALL: [Self; 2] = [Self::LinuxRoot, Self::LinuxBoot];

    /// Its name in a system's file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::LinuxRoot => "linux-root",
            Self::LinuxBoot => "linux-boot",
        }
    }
}

impl Disk {
    /// Appends a partition after the last one.
    ///
    /// # Errors
    /// The end of a sentence that starts with the disk, if it does not fit.
    pub(crate) fn add(&mut self, name: String, size: u64, content: Option<Content>) -> Result<(), String> {
        let end = self.partitions.last().map_or(Some(PARTITION_ALIGN), |last| last.span.end());
        let base = end.and_then(|end| end.checked_next_multiple_of(PARTITION_ALIGN)).unwrap_or(u64::MAX);
        let needed = base.saturating_add(size).saturating_add(TABLE_COPY_SIZE);
        if needed > self.size {
            return Err(format!(
                "has {}, but needs {} up to its partition {name:?}, its tables included; make it larger",
                show_size(self.size),
                show_size(needed.checked_next_multiple_of(PARTITION_ALIGN).unwrap_or(needed))
            ));
        }
        self.partitions.push(Partition { name, span: Span::new(base, size), content });
        Ok(())
    }

    /// The bytes of a slice, counted from the start of the disk.
    pub(crate) fn span_of(&self, slice: Slice) -> Span {
        match slice {
            Slice::Whole => Span::new(0, self.size),
            Slice::Range(span) => span,
            Slice::Partition(index) => self.partitions.get(index).map_or(Span::new(0, 0), |part| part.span),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(size: u64) -> Disk {
        Disk { name: "main".to_string(), size, partitions: Vec::new(), file: None, owner: None, line: None }
    }

    #[test]
    fn partitions_start_at_whole_mebibytes_and_leave_room_for_both_tables() {
        let mut disk = disk(8 << 20);
        disk.add("a".to_string(), (1 << 20) + 4096, None).unwrap();
        disk.add("b".to_string(), 4 << 20, Some(Content::LinuxRoot)).unwrap();
        let spans: Vec<_> = disk.partitions.iter().map(|partition| partition.span).collect();
        assert_eq!(spans, [Span::new(1 << 20, (1 << 20) + 4096), Span::new(3 << 20, 4 << 20)]);
        let end = disk.add("c".to_string(), 4096, None).unwrap_err();
        assert_eq!(end, "has 8 MiB, but needs 9 MiB up to its partition \"c\", its tables included; make it larger");
    }

    #[test]
    fn sizes_that_overflow_are_too_large() {
        disk(1 << 30).add("a".to_string(), u64::MAX, None).unwrap_err();
        disk(1 << 30).add("a".to_string(), u64::MAX - (2 << 20), None).unwrap_err();
    }

    #[test]
    fn a_slice_is_counted_from_the_start_of_the_disk() {
        let mut disk = disk(16 << 20);
        disk.add("a".to_string(), 2 << 20, None).unwrap();
        assert_eq!(disk.span_of(Slice::Whole), Span::new(0, 16 << 20));
        assert_eq!(disk.span_of(Slice::Partition(0)), Span::new(1 << 20, 2 << 20));
        assert_eq!(disk.span_of(Slice::Range(Span::new(512, 512))), Span::new(512, 512));
    }
}
