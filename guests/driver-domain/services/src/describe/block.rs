//! A disk (VIRTIO 1.2, 5.2).

use super::{copy_size_max, description, optional, pair};
use crate::block::{ERASE_SECTORS_MAX, Features, HEADER_SIZE, SECTORS_MAX, Status};
use crate::slice::SECTOR_SIZE;
use abi::io::{Description, LongChains, QueueDescription, Restart, SEGMENTS_MAX, WINDOW_PAGE_SIZE};

/// Features (VIRTIO 1.2, 5.2.3): VIRTIO_BLK_F_SIZE_MAX and so on.
mod feature {
    pub const SIZE_MAX: u64 = 1 << 1;
    pub const SEG_MAX: u64 = 1 << 2;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const TOPOLOGY: u64 = 1 << 10;
    pub const MQ: u64 = 1 << 12;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// The least logical block in bytes, and the most: Linux takes none that is larger than a page.
const BLOCK_SIZE_MIN: u32 = SECTOR_SIZE as u32;
const BLOCK_SIZE_MAX: u32 = 4096;

/// The most segments of a request, and the most bytes of each (`seg_max`, `size_max`). No request that keeps to both
/// need be split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SegmentLimits {
    count: u32,
    size: u32,
}

/// Where data is copied: pages.
const COPIED: SegmentLimits = SegmentLimits { count: 64, size: WINDOW_PAGE_SIZE as u32 };
/// Where it is granted.
const GRANTED: SegmentLimits = SegmentLimits { count: SEGMENTS_MAX as u32, size: 16 << 10 };

/// From this length on a request is granted rather than copied, in bytes. A grant costs about as many instructions as
/// two copied pages, EL2's and the driver domain's; what is more, a frontend that resets its device waits for the
/// grants that are out, so it should be rare for what is done a thousand times a second.
const GRANT_SIZE_MIN: u32 = 16 << 10;

/// So many bytes of the configuration space follow a change while there is a driver: the capacity.
const LIVE_SIZE: u16 = 8;

/// A disk, as its driver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its size in sectors of 512 bytes.
    pub sectors: u64,
    /// The logical block in bytes.
    pub block_size: u32,
    /// What it can do.
    pub features: Features,
}

impl Disk {
    /// Describes the disk, with `queues` queues and a request window of `window_size` bytes; `None` for one that no
    /// driver can use: its blocks are larger than a page, or none, or its bytes cannot be counted.
    #[must_use]
    pub fn describe(&self, queues: u16, window_size: u64) -> Option<Description> {
        let Self { sectors, block_size, features } = *self;
        let is_block = block_size.is_power_of_two() && (BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&block_size);
        if !is_block || sectors > SECTORS_MAX {
            return None;
        }
        let offered = feature::SIZE_MAX
            | feature::SEG_MAX
            | feature::BLK_SIZE
            | feature::TOPOLOGY
            | optional(feature::RO, features.is_read_only)
            | optional(feature::FLUSH, features.has_cache)
            | optional(feature::MQ, queues > 1)
            | optional(feature::DISCARD, features.discards)
            | optional(feature::WRITE_ZEROES, features.writes_zeroes);
        let limits = if features.takes_grants { GRANTED } else { COPIED };
        // VIRTIO 1.2, 5.2.4. There is no geometry, no write-back switch, and zeroes never unmap.
        let configuration = [
            sectors as u32,
            (sectors >> 32) as u32,
            limits.size,
            limits.count,
            0,
            block_size,
            // A physical block is a logical one; whole pages are what costs least (`min_io_size`, in blocks).
            pair(0, (WINDOW_PAGE_SIZE as u32 >> block_size.trailing_zeros()) as u16),
            0,
            pair(0, queues),
            ERASE_SECTORS_MAX,
            1,
            block_size >> BLOCK_SIZE_MIN.trailing_zeros(),
            ERASE_SECTORS_MAX,
            1,
            0,
        ];
        let queue = QueueDescription {
            header_size: HEADER_SIZE,
            tail_size: 1,
            long_chains: LongChains::Split,
            restart: Restart::Replay,
            is_patient: false,
            size_max: copy_size_max(window_size),
            piece_unit: WINDOW_PAGE_SIZE as u32,
            grant_min: features.takes_grants.then_some(GRANT_SIZE_MIN),
            failure: Status::IoError.tail(),
            ..QueueDescription::NONE
        };
        Some(description(offered, &configuration, LIVE_SIZE, core::iter::repeat_n(queue, queues.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{half, word};
    use super::*;

    const WINDOW: u64 = 2 << 20;

    /// A disk that can do everything.
    fn able_disk() -> Disk {
        let features =
            Features { is_read_only: true, has_cache: true, discards: true, writes_zeroes: true, takes_grants: true };
        Disk { sectors: 0x1_2345_6789, block_size: 4096, features }
    }

    fn plain_disk(block_size: u32) -> Disk {
        Disk { sectors: 8, block_size, features: Features::default() }
    }

    #[test]
    fn a_disk_describes_itself() {
        let disk = able_disk().describe(4, WINDOW).unwrap();
        let own = feature::SIZE_MAX
            | feature::SEG_MAX
            | feature::RO
            | feature::BLK_SIZE
            | feature::FLUSH
            | feature::TOPOLOGY
            | feature::MQ
            | feature::DISCARD
            | feature::WRITE_ZEROES;
        assert_eq!(disk.features, own);
        assert_eq!((word(&disk, 0), word(&disk, 4), disk.live_size), (0x2345_6789, 1, 8));
        // `size_max` and `seg_max`, the geometry that there is not, and `blk_size`.
        assert_eq!((word(&disk, 0x8), word(&disk, 0xc)), (16 << 10, 254));
        assert_eq!((word(&disk, 0x10), word(&disk, 0x14)), (0, 4096));
        // `topology`: `physical_block_exp`, `alignment_offset`, `min_io_size`, `opt_io_size`.
        assert_eq!((half(&disk, 0x18), half(&disk, 0x1a), word(&disk, 0x1c)), (0, 1, 0));
        // `num_queues`.
        assert_eq!((half(&disk, 0x22), disk.queue_count), (4, 4));
        // Discard: sectors, segments, alignment in sectors. Zeroes: sectors, segments, `write_zeroes_may_unmap`.
        assert_eq!([0x24, 0x28, 0x2c].map(|offset| word(&disk, offset)), [ERASE_SECTORS_MAX, 1, 8]);
        assert_eq!([0x30, 0x34, 0x38].map(|offset| word(&disk, offset)), [ERASE_SECTORS_MAX, 1, 0]);
        assert!(disk.configuration[0x3c..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_disk_that_can_do_less_offers_less() {
        let disk = plain_disk(512).describe(1, WINDOW).unwrap();
        assert_eq!(disk.features, feature::SIZE_MAX | feature::SEG_MAX | feature::BLK_SIZE | feature::TOPOLOGY);
        assert_eq!((word(&disk, 0x8), word(&disk, 0xc)), (4096, 64));
        assert_eq!(half(&disk, 0x1a), 8, "4 KiB are eight blocks of 512 bytes");
        assert_eq!(disk.queues[0].grant_min, None);
    }

    #[test]
    fn a_disk_has_blocks_that_its_driver_can_use() {
        for block_size in [512, 1024, 2048, 4096] {
            assert!(plain_disk(block_size).describe(1, WINDOW).is_some(), "{block_size}");
        }
        for block_size in [0, 1, 256, 511, 513, 8192, 0x8000_0000, u32::MAX] {
            assert_eq!(plain_disk(block_size).describe(1, WINDOW), None, "{block_size}");
        }
        for (sectors, is_disk) in [(0, true), (SECTORS_MAX, true), (SECTORS_MAX + 1, false), (u64::MAX, false)] {
            let disk = Disk { sectors, ..plain_disk(512) };
            assert_eq!(disk.describe(1, WINDOW).is_some(), is_disk, "{sectors}");
        }
    }

    #[test]
    fn a_request_of_any_length_is_split_replayed_and_failed_with_a_status() {
        let disk = able_disk().describe(2, WINDOW).unwrap();
        let [first, second, rest @ ..] = disk.queues;
        assert_eq!(first, second);
        assert!(rest.iter().all(|queue| *queue == QueueDescription::NONE));
        assert_eq!((first.header_size, first.tail_size, first.failure[0]), (16, 1, 1));
        assert_eq!((first.long_chains, first.restart), (LongChains::Split, Restart::Replay));
        assert!(!first.returns_early && !first.is_patient);
        assert_eq!((first.size_max, first.piece_unit, first.grant_min), (256 << 10, 4096, Some(16 << 10)));
        let small = able_disk().describe(1, 8192).unwrap();
        assert_eq!(small.queues[0].size_max, 8192);
    }

    #[test]
    fn a_request_that_keeps_to_the_limits_is_not_split() {
        assert!(u64::from(COPIED.count) * u64::from(COPIED.size) <= super::super::COPY_SIZE_MAX);
        assert_eq!(GRANTED.count, u32::from(SEGMENTS_MAX));
    }
}
