//! What a chain of a block device asks for (VIRTIO 1.2, 5.2.6).

use crate::virtqueue::Chain;
use abi::io::{Operation, SERIAL_SIZE, WINDOW_PAGE_SIZE};
use vdev::{GuestFault, GuestMemory};

/// Bytes of the header: type, reserved, sector.
pub const HEADER_SIZE: u64 = 16;
/// Bytes of a sector, whatever the block size.
pub const SECTOR_SIZE: u64 = 512;
/// The most bytes of data of one request: a run of 64 window pages. A channel has at least as many.
pub const DATA_SIZE_MAX: u64 = 64 * WINDOW_PAGE_SIZE;
/// The same where data is granted and not copied.
pub const GRANT_SIZE_MAX: u64 = 4 << 20;

/// The status byte (VIRTIO 1.2, 5.2.6): VIRTIO_BLK_S_OK, IOERR, UNSUPP.
pub const STATUS_OK: u8 = 0;
pub const STATUS_FAILED: u8 = 1;
pub const STATUS_UNSUPPORTED: u8 = 2;

/// What the driver domain said of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// Its size in sectors of 512 bytes.
    pub capacity_sectors: u64,
    /// A set of `abi::io`'s `FEATURE_` bits.
    pub features: u64,
}

impl Disk {
    /// Whether large requests are granted to it ([`abi::io::FEATURE_GRANTS`]).
    #[inline]
    pub const fn takes_grants(&self) -> bool {
        self.features & abi::io::FEATURE_GRANTS != 0
    }
}

/// What becomes of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plan {
    /// It is answered at once: the bytes that were written into it, the status among them.
    Answered(u32),
    /// The driver domain does it.
    Post {
        /// What it does.
        operation: Operation,
        /// Where on the disk.
        sector: u64,
        /// How much: of the disk, and, for a read or a write, of the window.
        length: u32,
    },
}

/// Decides what becomes of `chain`.
///
/// # Errors
/// The chain names memory that is not the client's.
#[inline]
pub fn plan(chain: &Chain, memory: &impl GuestMemory, disk: &Disk) -> Result<Plan, GuestFault> {
    let Some(data_in) = chain.writable_bytes().checked_sub(1) else {
        // Without a status byte there is nothing to say: the chain goes back untouched.
        return Ok(Plan::Answered(0));
    };
    let Some(data_out) = chain.readable_bytes().checked_sub(HEADER_SIZE) else {
        return answer(chain, memory, STATUS_FAILED);
    };
    let mut header = [0; HEADER_SIZE as usize];
    chain.read(memory, 0, &mut header)?;
    let header = u128::from_le_bytes(header);
    let (kind, sector) = (header as u32, (header >> 64) as u64);
    let is_writable = disk.features & abi::io::FEATURE_READ_ONLY == 0;
    match kind {
        // VIRTIO_BLK_T_IN
        0 if is_within(disk, sector, data_in) => {
            Ok(Plan::Post { operation: Operation::Read, sector, length: data_in as u32 })
        }
        // VIRTIO_BLK_T_OUT
        1 if is_writable && is_within(disk, sector, data_out) => {
            Ok(Plan::Post { operation: Operation::Write, sector, length: data_out as u32 })
        }
        0 | 1 => answer(chain, memory, STATUS_FAILED),
        // VIRTIO_BLK_T_FLUSH
        4 if disk.features & abi::io::FEATURE_FLUSH != 0 => {
            Ok(Plan::Post { operation: Operation::Flush, sector: 0, length: 0 })
        }
        // Without a volatile cache, everything that was completed is there to stay.
        4 => answer(chain, memory, STATUS_OK),
        // VIRTIO_BLK_T_GET_ID: as much of it as there is room for.
        8 if data_in != 0 => {
            let length = data_in.min(SERIAL_SIZE as u64) as u32;
            Ok(Plan::Post { operation: Operation::Identify, sector: 0, length })
        }
        // VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES
        11 if is_writable && disk.features & abi::io::FEATURE_DISCARD != 0 => {
            range(chain, memory, disk, data_out, Operation::Discard)
        }
        13 if is_writable && disk.features & abi::io::FEATURE_WRITE_ZEROES != 0 => {
            range(chain, memory, disk, data_out, Operation::WriteZeroes)
        }
        _ => answer(chain, memory, STATUS_UNSUPPORTED),
    }
}

/// Whether a transfer of `bytes` at `sector` is one that the device can do.
fn is_within(disk: &Disk, sector: u64, bytes: u64) -> bool {
    bytes != 0
        && bytes <= if disk.takes_grants() { GRANT_SIZE_MAX } else { DATA_SIZE_MAX }
        && bytes.is_multiple_of(SECTOR_SIZE)
        && covers(disk, sector, bytes / SECTOR_SIZE)
}

fn covers(disk: &Disk, sector: u64, sectors: u64) -> bool {
    sector.checked_add(sectors).is_some_and(|end| end <= disk.capacity_sectors)
}

/// A discard or write-zeroes request: one segment of sector, number of sectors, flags (VIRTIO 1.2, 5.2.6).
#[cold]
fn range(
    chain: &Chain,
    memory: &impl GuestMemory,
    disk: &Disk,
    data_out: u64,
    operation: Operation,
) -> Result<Plan, GuestFault> {
    if data_out != 16 {
        return answer(chain, memory, STATUS_FAILED);
    }
    let mut segment = [0; 16];
    chain.read(memory, HEADER_SIZE, &mut segment)?;
    let segment = u128::from_le_bytes(segment);
    let (sector, sectors, flags) = (segment as u64, (segment >> 64) as u32, (segment >> 96) as u32);
    let length = sectors.checked_mul(SECTOR_SIZE as u32);
    // Flag 0, unmap, is for write-zeroes alone, and a hint; others are reserved.
    let flags_allowed = if operation == Operation::WriteZeroes { 1 } else { 0 };
    match length {
        _ if flags & !flags_allowed != 0 => answer(chain, memory, STATUS_UNSUPPORTED),
        Some(length) if length != 0 && covers(disk, sector, u64::from(sectors)) => {
            Ok(Plan::Post { operation, sector, length })
        }
        _ => answer(chain, memory, STATUS_FAILED),
    }
}

/// Puts `status` where the chain has room for it: in its last writable byte.
#[inline]
pub fn put_status(chain: &Chain, memory: &impl GuestMemory, status: u8) -> Result<(), GuestFault> {
    chain.write_last(memory, status)
}

fn answer(chain: &Chain, memory: &impl GuestMemory, status: u8) -> Result<Plan, GuestFault> {
    put_status(chain, memory, status)?;
    Ok(Plan::Answered(1))
}
