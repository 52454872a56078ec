//! What a request of a disk asks for, and how it ends (VIRTIO 1.2, 5.2.6).
//!
//! A chain of any length comes in pieces, each with the chain's header and its own position ([`Request`]). Where its
//! sectors lie on the disk, and whether it may have them, is decided by [`Slice::locate`] alone.

use crate::slice::{Access, SECTOR_SIZE, Slice};
use abi::io::{Request, TAIL_SIZE_MAX};

/// Bytes of the header: type, reserved, sector.
pub const HEADER_SIZE: u8 = 16;
/// The bytes of a disk's serial number (VIRTIO 1.2, 5.2.6: VIRTIO_BLK_T_GET_ID); a shorter one ends with zeroes.
pub const SERIAL_SIZE: usize = 20;
/// The most sectors of a disk: their bytes are counted in 63 bits.
pub const SECTORS_MAX: u64 = i64::MAX as u64 / SECTOR_SIZE;
/// The most sectors that one request discards or zeroes: 4 MiB, so that nobody waits long behind one.
pub const ERASE_SECTORS_MAX: u32 = 8192;
/// Bytes of a segment of a discard or write-zeroes request: sector, number of sectors, flags.
pub const ERASE_SEGMENT_SIZE: usize = 16;

/// Types of request (VIRTIO 1.2, 5.2.6): VIRTIO_BLK_T_IN and so on.
mod kind {
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
}

/// A flag of a write-zeroes segment, and a hint: the sectors may be given up.
const UNMAP: u32 = 1 << 0;

/// What a disk can do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// It takes no writes.
    pub is_read_only: bool,
    /// It has a volatile cache, which a flush empties.
    pub has_cache: bool,
    /// It discards.
    pub discards: bool,
    /// It writes zeroes without being sent them.
    pub writes_zeroes: bool,
    /// It moves data itself, and so the frontend's memory can be granted to it.
    pub takes_grants: bool,
}

/// What a disk is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Read sectors.
    Read,
    /// Write sectors.
    Write,
    /// Make everything that was completed before survive a loss of power.
    Flush,
    /// The content of sectors is needed no more.
    Discard,
    /// Sectors are to read as zeroes.
    WriteZeroes,
}

/// The status byte (VIRTIO 1.2, 5.2.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// VIRTIO_BLK_S_OK: all of it was done.
    Ok = 0,
    /// VIRTIO_BLK_S_IOERR: it was not.
    IoError = 1,
    /// VIRTIO_BLK_S_UNSUPP: the device cannot do this.
    Unsupported = 2,
}

impl Status {
    /// The tail of a chain that ends like this.
    #[inline]
    #[must_use]
    pub const fn tail(self) -> [u8; TAIL_SIZE_MAX] {
        (self as u64).to_le_bytes()
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It ends at once.
    Answer(Status),
    /// It gets the first `bytes` bytes of the serial number.
    Identify {
        /// [`SERIAL_SIZE`] at most.
        bytes: u32,
    },
    /// Its data says which sectors are to be discarded or zeroed: see [`erase`].
    Erase(Operation),
    /// The disk does it.
    Run {
        /// What it does.
        operation: Operation,
        /// To which sectors; none for a flush.
        extent: Extent,
    },
}

/// Sectors of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The first one, counted on the disk.
    pub sector: u64,
    /// Bytes, whole sectors.
    pub bytes: u64,
}

impl Extent {
    const NONE: Self = Self { sector: 0, bytes: 0 };
}

const FAILED: Plan = Plan::Answer(Status::IoError);

/// The type and the sector in the header of `request`.
#[inline]
const fn header(request: &Request) -> (u32, u64) {
    let header = u128::from_le_bytes(request.header);
    (header as u32, (header >> 64) as u64)
}

/// Whether `request` is a flush.
#[inline]
#[must_use]
pub const fn is_flush(request: &Request) -> bool {
    header(request).0 == kind::FLUSH
}

/// Decides what becomes of `request` to a disk that is `slice` of one with `features`.
#[inline]
#[must_use]
pub fn plan(request: &Request, slice: &Slice, features: Features) -> Plan {
    let (kind, sector) = header(request);
    let is_writable = !slice.is_read_only();
    match kind {
        // A read has room, a write has data, and neither has both: its pieces would not lie where they say.
        kind::IN if request.readable == 0 => {
            transfer(Operation::Read, slice, (sector, request.position, request.writable), Access::Read)
        }
        kind::OUT if request.writable == 0 => {
            transfer(Operation::Write, slice, (sector, request.position, request.readable), Access::Write)
        }
        kind::IN | kind::OUT => FAILED,
        kind::FLUSH if features.has_cache => Plan::Run { operation: Operation::Flush, extent: Extent::NONE },
        // Without a volatile cache, everything that was completed is there to stay.
        kind::FLUSH => Plan::Answer(Status::Ok),
        // As much of it as there is room for.
        kind::GET_ID if request.writable != 0 => Plan::Identify { bytes: request.writable.min(SERIAL_SIZE as u32) },
        kind::DISCARD if is_writable && features.discards => Plan::Erase(Operation::Discard),
        kind::WRITE_ZEROES if is_writable && features.writes_zeroes => Plan::Erase(Operation::WriteZeroes),
        _ => Plan::Answer(Status::Unsupported),
    }
}

/// A transfer of so many bytes, which begins so many bytes behind a sector of the frontend's.
#[inline]
fn transfer(operation: Operation, slice: &Slice, (sector, position, bytes): (u64, u64, u32), access: Access) -> Plan {
    let bytes = u64::from(bytes);
    let first = if position.is_multiple_of(SECTOR_SIZE) { sector.checked_add(position / SECTOR_SIZE) } else { None };
    match first.and_then(|first| slice.locate(first, bytes, access)) {
        Some(sector) => Plan::Run { operation, extent: Extent { sector, bytes } },
        None => FAILED,
    }
}

/// What a discard or write-zeroes request is about whose data is `data`, if that is in the window: one segment of
/// sector, number of sectors, flags.
///
/// # Errors
/// How it ends at once.
#[cold]
pub fn erase(operation: Operation, slice: &Slice, data: Option<[u8; ERASE_SEGMENT_SIZE]>) -> Result<Extent, Status> {
    let segment = data.map(u128::from_le_bytes).ok_or(Status::IoError)?;
    let (sector, sectors, flags) = (segment as u64, (segment >> 64) as u32, (segment >> 96) as u32);
    let flags_allowed = if operation == Operation::WriteZeroes { UNMAP } else { 0 };
    if flags & !flags_allowed != 0 {
        return Err(Status::Unsupported);
    }
    if sectors > ERASE_SECTORS_MAX {
        return Err(Status::IoError);
    }
    let bytes = u64::from(sectors).saturating_mul(SECTOR_SIZE);
    let sector = slice.locate(sector, bytes, Access::Write).ok_or(Status::IoError)?;
    Ok(Extent { sector, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Operation::{Discard, Flush, Read, Write, WriteZeroes};

    const ABLE: Features =
        Features { is_read_only: false, has_cache: true, discards: true, writes_zeroes: true, takes_grants: true };
    const IO_ERROR: Plan = Plan::Answer(Status::IoError);
    const UNSUPPORTED: Plan = Plan::Answer(Status::Unsupported);

    /// Fifty sectors, the first of which is number 100 of the disk.
    fn slice() -> Slice {
        Slice::new(1000, 100, 50).unwrap()
    }

    /// What a driver asks for: type, sector, bytes that it gives, bytes of room.
    fn request(kind: u32, sector: u64, readable: u32, writable: u32) -> Request {
        Request {
            sequence: 1,
            session: 1,
            generation: 1,
            queue: 0,
            is_last: true,
            segments: 0,
            readable,
            writable,
            offset: 0x4000,
            position: 0,
            header: (u128::from(kind) | u128::from(sector) << 64).to_le_bytes(),
        }
    }

    fn run(operation: Operation, sector: u64, bytes: u64) -> Plan {
        Plan::Run { operation, extent: Extent { sector, bytes } }
    }

    fn plan_of(request: &Request) -> Plan {
        plan(request, &slice(), ABLE)
    }

    fn erasing(operation: Operation, sector: u64, sectors: u32, flags: u32) -> Result<Extent, Status> {
        let segment = u128::from(sector) | u128::from(sectors) << 64 | u128::from(flags) << 96;
        erase(operation, &slice(), Some(segment.to_le_bytes()))
    }

    #[test]
    fn a_read_has_room_and_a_write_has_data() {
        assert_eq!(plan_of(&request(0, 3, 0, 1024)), run(Read, 103, 1024));
        assert_eq!(plan_of(&request(1, 49, 512, 0)), run(Write, 149, 512));
        for (readable, writable) in [(512, 512), (512, 0), (0, 0)] {
            assert_eq!(plan_of(&request(0, 0, readable, writable)), IO_ERROR, "{readable}, {writable}");
        }
        for (readable, writable) in [(512, 512), (0, 512), (0, 0)] {
            assert_eq!(plan_of(&request(1, 0, readable, writable)), IO_ERROR, "{readable}, {writable}");
        }
    }

    #[test]
    fn a_piece_lies_behind_those_before_it() {
        let piece = Request { position: 8192, ..request(0, 3, 0, 4096) };
        assert_eq!(plan_of(&piece), run(Read, 119, 4096));
        // The first pieces of a chain that leaves the disk are within it, and the one that leaves it fails.
        assert_eq!(plan_of(&Request { position: 46 * 512, ..piece }), IO_ERROR);
        assert_eq!(plan_of(&Request { position: u64::MAX - 511, ..piece }), IO_ERROR);
        assert_eq!(plan_of(&Request { position: 513, ..piece }), IO_ERROR);
    }

    #[test]
    fn sectors_beyond_the_slice_are_an_error() {
        for sector in [49, 50, u64::MAX, u64::MAX - 1, u64::MAX / 512, 1 << 55, 1 << 63] {
            assert_eq!(plan_of(&request(0, sector, 0, 1024)), IO_ERROR, "{sector:#x}");
            assert_eq!(plan_of(&request(1, sector, 1024, 0)), IO_ERROR, "{sector:#x}");
        }
    }

    #[test]
    fn no_request_leaves_the_slice() {
        let mut state = 20_u64;
        let mut random = |below: u64| {
            // Of a linear congruential generator the upper bits are the better ones.
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 32) % below
        };
        let mut run = 0;
        for _ in 0..if cfg!(miri) { 200 } else { 100_000 } {
            let sector = [random(64), u64::MAX - random(64), random(64) << 55][random(3) as usize];
            let sizes = [0, random(64) as u32 * 512, random(1 << 16) as u32, u32::MAX - random(1024) as u32];
            let (readable, writable) = (sizes[random(4) as usize], sizes[random(2) as usize]);
            let position = [0, random(64) * 512, random(1 << 16), u64::MAX - random(1024)][random(4) as usize];
            let request = Request { position, ..request(random(2) as u32, sector, readable, writable) };
            let Plan::Run { extent: Extent { sector, bytes }, .. } = plan_of(&request) else { continue };
            run += 1;
            assert!(sector >= 100 && bytes != 0 && bytes.is_multiple_of(512), "{request:?}");
            assert!(sector.checked_add(bytes / 512).is_some_and(|end| end <= 150), "{request:?}");
        }
        assert!(run > 0, "none of them was one");
    }

    #[test]
    fn part_of_a_sector_is_an_error() {
        for bytes in [1, 511, 513, 1023, u32::MAX] {
            assert_eq!(plan_of(&request(0, 0, 0, bytes)), IO_ERROR, "{bytes}");
            assert_eq!(plan_of(&request(1, 0, bytes, 0)), IO_ERROR, "{bytes}");
        }
    }

    #[test]
    fn what_is_read_only_is_read() {
        let slice = slice().read_only();
        assert_eq!(plan(&request(0, 0, 0, 512), &slice, ABLE), run(Read, 100, 512));
        assert_eq!(plan(&request(1, 0, 512, 0), &slice, ABLE), IO_ERROR);
        assert_eq!(plan(&request(11, 0, 16, 0), &slice, ABLE), UNSUPPORTED);
        assert_eq!(plan(&request(13, 0, 16, 0), &slice, ABLE), UNSUPPORTED);
        assert_eq!(erase(Discard, &slice, Some((1_u128 << 64).to_le_bytes())), Err(Status::IoError));
    }

    #[test]
    fn a_flush_of_a_disk_without_a_cache_is_done() {
        assert_eq!(plan_of(&request(4, 7, 0, 0)), run(Flush, 0, 0));
        assert_eq!(plan(&request(4, 7, 0, 0), &slice(), Features::default()), Plan::Answer(Status::Ok));
        assert!(is_flush(&request(4, 0, 0, 0)) && !is_flush(&request(0, 4, 0, 0)));
    }

    #[test]
    fn a_serial_number_is_as_long_as_the_room_for_it() {
        for (room, bytes) in [(1, 1), (20, 20), (21, 20), (4096, 20)] {
            assert_eq!(plan_of(&request(8, 0, 0, room)), Plan::Identify { bytes }, "{room}");
        }
        assert_eq!(plan_of(&request(8, 0, 0, 0)), UNSUPPORTED);
    }

    #[test]
    fn an_operation_that_nobody_knows_is_unsupported() {
        for kind in [2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 0x8000_0000, 0xffff_ffff] {
            assert_eq!(plan_of(&request(kind, 0, 0, 512)), UNSUPPORTED, "{kind:#x}");
        }
    }

    #[test]
    fn a_segment_says_what_is_discarded_or_zeroed() {
        for (kind, operation) in [(11, Discard), (13, WriteZeroes)] {
            assert_eq!(plan_of(&request(kind, 0, 16, 0)), Plan::Erase(operation));
            assert_eq!(plan(&request(kind, 0, 16, 0), &slice(), Features::default()), UNSUPPORTED);
        }
        let extent = Extent { sector: 102, bytes: 4096 };
        assert_eq!(erasing(Discard, 2, 8, 0), Ok(extent));
        assert_eq!(erasing(WriteZeroes, 2, 8, 0), Ok(extent));
        assert_eq!(erasing(WriteZeroes, 2, 8, 1), Ok(extent));
        assert_eq!(erasing(Discard, 2, 8, 1), Err(Status::Unsupported));
        assert_eq!(erasing(WriteZeroes, 2, 8, 2), Err(Status::Unsupported));
        let long = ERASE_SECTORS_MAX + 1;
        for (sector, sectors) in [(0, 0), (43, 8), (50, 1), (u64::MAX, 1), (0, long), (0, u32::MAX)] {
            assert_eq!(erasing(Discard, sector, sectors, 0), Err(Status::IoError), "{sector} + {sectors}");
        }
        assert_eq!(erase(Discard, &slice(), None), Err(Status::IoError), "it has no segment, or more than one");
    }

    #[test]
    fn no_more_is_discarded_at_a_time_than_the_disk_says() {
        let large = Slice::new(1 << 20, 0, 1 << 20).unwrap();
        let erasing = |sectors: u32| erase(Discard, &large, Some((u128::from(sectors) << 64).to_le_bytes()));
        assert_eq!(erasing(ERASE_SECTORS_MAX), Ok(Extent { sector: 0, bytes: 4 << 20 }));
        assert_eq!(erasing(ERASE_SECTORS_MAX + 1), Err(Status::IoError));
    }

    #[test]
    fn the_status_is_the_tails_first_byte() {
        assert_eq!(Status::Ok.tail(), [0; 8]);
        assert_eq!(Status::IoError.tail()[..2], [1, 0]);
        assert_eq!(Status::Unsupported.tail()[..2], [2, 0]);
    }
}
