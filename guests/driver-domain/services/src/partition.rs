//! A partition of a disk, found by its name in the disk's GUID partition table (UEFI 2.10, 5.3).
//!
//! The table is what somebody wrote to a disk: its checksum is checked, and what it says must fit the disk.

use crate::slice::{SECTOR_SIZE, Slice};
use core::fmt;
use gpt_disk_io::gpt_disk_types::{BlockSize, GptHeader, Lba};
use gpt_disk_io::{BlockIo, Disk};

/// The most entries of a table that are looked at.
const ENTRIES_MAX: usize = 256;
/// The largest logical block in bytes.
const BLOCK_SIZE_MAX: usize = 4096;

/// A disk to read a table from.
pub trait Sectors {
    /// The size of the disk in sectors of 512 bytes.
    fn sectors(&self) -> u64;
    /// The logical block size in bytes.
    fn block_size(&self) -> u32;
    /// Fills `bytes` with the sectors from `sector` on; `false` if that fails.
    fn read(&mut self, sector: u64, bytes: &mut [u8]) -> bool;
}

/// Why there is no such partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The disk cannot be read.
    Unreadable,
    /// Neither the table at the start nor the one at the end of the disk is valid.
    NoTable,
    /// The table names no such partition.
    NoSuchName,
    /// The table says that the partition lies where the disk has no sectors.
    BeyondDisk,
}

impl fmt::Display for Missing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Unreadable => "the disk cannot be read",
            Self::NoTable => "the disk has no valid partition table",
            Self::NoSuchName => "the partition table has no partition of this name",
            Self::BeyondDisk => "the partition lies beyond the end of the disk",
        })
    }
}

/// [`Sectors`] as the crate wants them.
struct Blocks<'a, S: Sectors> {
    disk: &'a mut S,
    size: BlockSize,
}

impl<S: Sectors> Blocks<'_, S> {
    fn sectors_per_block(&self) -> u64 {
        (self.size.to_u64() / SECTOR_SIZE).max(1)
    }
}

impl<S: Sectors> BlockIo for Blocks<'_, S> {
    type Error = Missing;

    fn block_size(&self) -> BlockSize {
        self.size
    }

    fn num_blocks(&mut self) -> Result<u64, Missing> {
        Ok(self.disk.sectors().checked_div(self.sectors_per_block()).unwrap_or(0))
    }

    fn read_blocks(&mut self, start: Lba, bytes: &mut [u8]) -> Result<(), Missing> {
        let sector = start.to_u64().checked_mul(self.sectors_per_block()).ok_or(Missing::Unreadable)?;
        if self.disk.read(sector, bytes) { Ok(()) } else { Err(Missing::Unreadable) }
    }

    fn write_blocks(&mut self, _: Lba, _: &[u8]) -> Result<(), Missing> {
        // A table is only read here.
        Err(Missing::Unreadable)
    }

    fn flush(&mut self) -> Result<(), Missing> {
        Ok(())
    }
}

fn is_valid(header: &GptHeader) -> bool {
    // A header that says it is longer would have its checksum over bytes that the crate does not read.
    header.is_signature_valid()
        && header.header_size.to_u32() as usize == size_of::<GptHeader>()
        && header.header_crc32 == header.calculate_header_crc32()
}

/// Finds the partition `name` of `disk`.
///
/// # Errors
/// See [`Missing`].
pub fn find(disk: &mut impl Sectors, name: &str) -> Result<Slice, Missing> {
    let disk_sectors = disk.sectors();
    let size = BlockSize::new(disk.block_size()).ok_or(Missing::NoTable)?;
    let mut blocks = Disk::new(Blocks { disk, size }).map_err(|_| Missing::Unreadable)?;
    let mut buffer = [0; BLOCK_SIZE_MAX];

    let primary = blocks.read_primary_gpt_header(&mut buffer).ok().filter(is_valid);
    let header = match primary {
        Some(header) => header,
        None => blocks.read_secondary_gpt_header(&mut buffer).ok().filter(is_valid).ok_or(Missing::NoTable)?,
    };
    let layout = header.get_partition_entry_array_layout().map_err(|_| Missing::NoTable)?;
    let entries = blocks.gpt_partition_entry_array_iter(layout, &mut buffer).map_err(|_| Missing::NoTable)?;
    for entry in entries.take(ENTRIES_MAX) {
        let entry = entry.map_err(|_| Missing::Unreadable)?;
        // The entries are packed: copies of their fields, no references to them.
        let entry_name = entry.name;
        if !entry.is_used() || !entry_name.chars().eq(name.chars()) {
            continue;
        }
        let range = entry.lba_range().ok_or(Missing::BeyondDisk)?;
        let per_block = (size.to_u64() / SECTOR_SIZE).max(1);
        let first = range.start().to_u64().checked_mul(per_block).ok_or(Missing::BeyondDisk)?;
        // Both ends are inclusive, so the last block of all of 2⁶⁴ has none behind it.
        let blocks = range.end().to_u64().checked_sub(range.start().to_u64()).and_then(|last| last.checked_add(1));
        let sectors = blocks.and_then(|blocks| blocks.checked_mul(per_block)).ok_or(Missing::BeyondDisk)?;
        return Slice::new(disk_sectors, first, sectors).ok_or(Missing::BeyondDisk);
    }
    Err(Missing::NoSuchName)
}

#[cfg(test)]
mod tests {
    use super::*;
    use gpt_disk_io::BlockIoAdapter;
    use gpt_disk_io::gpt_disk_types::{GptPartitionEntry, GptPartitionEntryArray, GptPartitionType, LbaLe, U32Le};
    use std::vec::Vec;

    struct Image(Vec<u8>);

    impl Sectors for Image {
        fn sectors(&self) -> u64 {
            self.0.len() as u64 / SECTOR_SIZE
        }

        fn block_size(&self) -> u32 {
            512
        }

        fn read(&mut self, sector: u64, bytes: &mut [u8]) -> bool {
            let Ok(start) = usize::try_from(sector.saturating_mul(512)) else { return false };
            let Some(source) = start.checked_add(bytes.len()).and_then(|end| self.0.get(start..end)) else {
                return false;
            };
            bytes.copy_from_slice(source);
            true
        }
    }

    const SECTORS: u64 = 128;

    /// A disk with the partitions `root` (sectors 40 to 59) and `far` (beyond the end), and its table in both places.
    fn image() -> Image {
        let mut bytes = std::vec![0; SECTORS as usize * 512];
        let mut header = GptHeader {
            my_lba: LbaLe::from_u64(1),
            alternate_lba: LbaLe::from_u64(SECTORS - 1),
            partition_entry_lba: LbaLe::from_u64(2),
            number_of_partition_entries: U32Le::from_u32(8),
            ..Default::default()
        };
        let layout = header.get_partition_entry_array_layout().unwrap();
        let mut storage = [0; 1024];
        let mut entries = GptPartitionEntryArray::new(layout, BlockSize::BS_512, &mut storage).unwrap();
        for (index, name, start, end) in [(0, "root", 40, 59), (3, "far", 120, 128)] {
            *entries.get_partition_entry_mut(index).unwrap() = GptPartitionEntry {
                partition_type_guid: GptPartitionType::BASIC_DATA,
                starting_lba: LbaLe::from_u64(start),
                ending_lba: LbaLe::from_u64(end),
                name: name.parse().unwrap(),
                ..Default::default()
            };
        }
        header.partition_entry_array_crc32 = entries.calculate_crc32();
        header.update_header_crc32();
        let adapter = BlockIoAdapter::new(bytes.as_mut_slice(), BlockSize::BS_512);
        let mut disk = Disk::new(adapter).unwrap();
        let mut block = [0; 512];
        disk.write_gpt_partition_entry_array(&entries).unwrap();
        disk.write_primary_gpt_header(&header, &mut block).unwrap();
        disk.write_secondary_gpt_header(&header, &mut block).unwrap();
        drop(disk);
        Image(bytes)
    }

    #[test]
    fn a_partition_is_found_by_its_name() {
        assert_eq!(find(&mut image(), "root"), Ok(Slice::new(SECTORS, 40, 20).unwrap()));
        assert_eq!(find(&mut image(), "roo"), Err(Missing::NoSuchName));
        assert_eq!(find(&mut image(), ""), Err(Missing::NoSuchName));
    }

    #[test]
    fn a_partition_beyond_the_disk_is_refused() {
        assert_eq!(find(&mut image(), "far"), Err(Missing::BeyondDisk));
    }

    #[test]
    fn a_damaged_table_is_replaced_by_the_one_at_the_end() {
        let mut image = image();
        image.0[512 + 20] ^= 1;
        assert!(find(&mut image, "root").is_ok());
        let last = image.0.len() - 512 + 20;
        image.0[last] ^= 1;
        assert_eq!(find(&mut image, "root"), Err(Missing::NoTable));
    }

    #[test]
    fn a_disk_without_a_table_has_no_partitions() {
        assert_eq!(find(&mut Image(std::vec![0; 4096]), "root"), Err(Missing::NoTable));
        assert_eq!(find(&mut Image(Vec::new()), "root"), Err(Missing::NoTable));
    }
}
