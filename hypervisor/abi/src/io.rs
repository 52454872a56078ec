//! The wire between EL2 and a driver domain: one *channel* for each para-virtual device that the driver domain serves.
//!
//! A channel is a run of the driver domain's own RAM, named by a node of its device tree. EL2 writes requests into it
//! and copies their data into its window; the driver domain writes completions, and frames or characters that arrive
//! unasked. Neither side believes an index of the other's: each keeps its own copy of what it has produced and
//! consumed, and masks with [`RING_ENTRIES`], which nothing in shared memory can change.
//!
//! ```text
//! offset     bytes
//! 0x0000      4096   control words (`control`), one to a cache line
//! 0x1000      4096   request ring:    128 x `Request`     EL2 → driver domain
//! 0x2000      4096   completion ring: 128 x `Completion`  driver domain → EL2
//! 0x3000      4096   receive ring:    128 x `Receive`     driver domain → EL2
//! 0x4000    262144   receive window:  128 x 2048 bytes, the driver domain's to fill
//! 0x44000        …   request window, EL2's to hand out in pages of 4096 bytes
//! ```
//!
//! Every number is little-endian, and the counters run freely modulo 2³². Whoever produces writes the entry, then a
//! store-release of the counter; whoever consumes loads the counter with acquire. To sleep, a consumer stores the
//! counter that it has reached into the event word, passes a full barrier, and looks once more: the producer notifies
//! if the event word lies in what it has just produced ([`is_notification_due`], as VIRTIO 1.2, 2.7.10 has it).
//!
//! The data of a large block request need not pass through the window: where the device that serves it takes *grants*
//! ([`FEATURE_GRANTS`]), the window has a list of [`Segment`]s instead, the client's own memory as that device sees it.
//! The driver domain hands them to its device and reaches none of them itself. A grant lasts from the request to its
//! completion, or until EL2 has reset the driver domain's devices.
//!
//! What this module leaves out: who checks what. EL2 treats every byte that it reads here as a claim.

/// Entries of each ring of a channel.
pub const RING_ENTRIES: u32 = 128;

/// The size of one ring entry in bytes, whichever the ring.
pub const ENTRY_SIZE: u64 = 32;

/// Offset of the request ring.
pub const REQUEST_RING: u64 = 0x1000;
/// Offset of the completion ring.
pub const COMPLETION_RING: u64 = 0x2000;
/// Offset of the receive ring.
pub const RECEIVE_RING: u64 = 0x3000;
/// Offset of the receive window.
pub const RECEIVE_WINDOW: u64 = 0x4000;
/// The size of one slot of the receive window in bytes: room for a network frame.
pub const RECEIVE_SLOT_SIZE: u64 = 2048;
/// Offset of the request window.
pub const REQUEST_WINDOW: u64 = RECEIVE_WINDOW + RECEIVE_SLOT_SIZE * RING_ENTRIES as u64;
/// The unit in which EL2 hands out the request window, in bytes.
pub const WINDOW_PAGE_SIZE: u64 = 4096;

/// Offsets of the control words, each a `u32`.
pub mod control {
    /// Written by EL2: requests produced.
    pub const REQUESTS_PRODUCED: u64 = 0x040;
    /// Written by the driver domain: ring the doorbell when requests pass this count.
    pub const REQUESTS_EVENT: u64 = 0x080;
    /// Written by the driver domain: completions produced.
    pub const COMPLETIONS_PRODUCED: u64 = 0x0c0;
    /// Written by EL2: completions consumed.
    pub const COMPLETIONS_CONSUMED: u64 = 0x100;
    /// Written by the driver domain: receptions produced.
    pub const RECEPTIONS_PRODUCED: u64 = 0x140;
    /// Written by EL2: receptions consumed. The driver domain may fill their slots anew.
    pub const RECEPTIONS_CONSUMED: u64 = 0x180;
    /// Written by EL2 when the driver domain starts: the generation that completions must carry.
    pub const GENERATION: u64 = 0x1c0;
    /// Written by the driver domain, in channel 0 alone: its heartbeat. EL2 rings the doorbell once in a while and
    /// wants to find another value the next time; a driver domain whose word stays the same, or 0, is taken for dead.
    /// It may set [`HEARTBEAT_WAITING`](super::HEARTBEAT_WAITING).
    pub const HEARTBEAT: u64 = 0x200;
}

/// A bit of the heartbeat word: the driver domain waits for a device. The word may stay the same then for as long as a
/// request may be out.
pub const HEARTBEAT_WAITING: u32 = 1 << 31;

/// The bytes of a disk's serial number (VIRTIO 1.2, 5.2.6: VIRTIO_BLK_T_GET_ID); a shorter one ends with zeroes.
pub const SERIAL_SIZE: usize = 20;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Operation {
    /// Block: read `length` bytes at `sector` into the window.
    Read = 0,
    /// Block: write `length` bytes of the window at `sector`.
    Write = 1,
    /// Block: make everything that was completed before survive a loss of power.
    Flush = 2,
    /// Block: the content of `length / 512` sectors at `sector` is needed no more. There is no data.
    Discard = 3,
    /// Block: `length / 512` sectors at `sector` are to read as zeroes. There is no data.
    WriteZeroes = 4,
    /// Network: send the Ethernet frame in the window. `sector` carries the offload that the client asks for
    /// (`checksum_start` in bits 15:0, `checksum_offset` in bits 31:16; 0 for none).
    Transmit = 5,
    /// Console: print the bytes of the window.
    Print = 6,
    /// Entropy: fill `length` bytes of the window with random numbers.
    Random = 7,
    /// Block: fill `length` bytes of the window, [`SERIAL_SIZE`] at most, with the start of the disk's serial number.
    Identify = 8,
}

impl Operation {
    /// Every operation; the index is its number.
    pub const ALL: [Self; 9] = [
        Self::Read,
        Self::Write,
        Self::Flush,
        Self::Discard,
        Self::WriteZeroes,
        Self::Transmit,
        Self::Print,
        Self::Random,
        Self::Identify,
    ];

    /// The operation with this number, if there is one.
    #[must_use]
    pub fn from_number(number: u16) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether the driver domain fills the window (otherwise it finds it filled, or there is no data).
    #[must_use]
    pub const fn fills_window(self) -> bool {
        matches!(self, Self::Read | Self::Random | Self::Identify)
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// All of it was done.
    Done = 0,
    /// The device failed.
    Failed = 1,
    /// The device cannot do this.
    Unsupported = 2,
}

impl Status {
    /// The status with this number; whatever is not known failed.
    #[must_use]
    pub const fn from_number(number: u16) -> Self {
        match number {
            0 => Self::Done,
            2 => Self::Unsupported,
            _ => Self::Failed,
        }
    }
}

/// An entry of the request ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Request {
    /// Names the request; the completion repeats it.
    pub sequence: u64,
    /// The first sector, of 512 bytes, counted from the start of the client's disk; or what [`Operation`] says.
    pub sector: u64,
    /// The generation of the driver domain that the request was posted to; the completion repeats it.
    pub generation: u32,
    /// Where the data is, or the list of segments: bytes from the start of the channel; within the request window.
    pub offset: u32,
    /// Bytes of data.
    pub length: u32,
    /// The number of an [`Operation`].
    pub operation: u16,
    /// 0: the data is in the window. Otherwise so many [`Segment`]s are there, behind an empty entry, at most
    /// [`SEGMENTS_MAX`], which have `length` bytes together.
    pub segments: u16,
}

/// A piece of memory that is granted to the device that serves a request, and to nobody else: a descriptor as a table
/// of virtio has them (VIRTIO 1.2, 2.7.5), so that a list of them goes to a virtio disk as it is. The driver domain
/// puts its header in front of the list and its status behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Where the device finds it: a physical address.
    pub address: u64,
    /// Its length in bytes; not 0.
    pub length: u32,
    /// [`SEGMENT_NEXT`], and for a read [`SEGMENT_WRITE`].
    pub flags: u16,
    /// The index of the next entry, counted from the entry in front.
    pub next: u16,
}

/// A flag of [`Segment`]: the list goes on.
pub const SEGMENT_NEXT: u16 = 1 << 0;
/// A flag of [`Segment`]: the device writes to the memory.
pub const SEGMENT_WRITE: u16 = 1 << 1;
/// The size of a [`Segment`] in bytes.
pub const SEGMENT_SIZE: u64 = 16;
/// The entries of a list that are the driver domain's: one in front, one behind.
pub const SEGMENTS_AROUND: u16 = 2;
/// The most segments of one request: a page of the window holds them, with an entry in front and one behind.
pub const SEGMENTS_MAX: u16 = (WINDOW_PAGE_SIZE / SEGMENT_SIZE) as u16 - SEGMENTS_AROUND;

/// An entry of the completion ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Completion {
    /// The request's sequence number.
    pub sequence: u64,
    /// The request's generation.
    pub generation: u32,
    /// Bytes that were put into the window, at most the request's length.
    pub length: u32,
    /// The number of a [`Status`].
    pub status: u16,
    /// Zero.
    pub reserved: [u16; 7],
}

/// An entry of the receive ring: something for the client that it did not ask for, in slot `entry mod 128` of the
/// receive window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Receive {
    /// Bytes in the slot, at most [`RECEIVE_SLOT_SIZE`].
    pub length: u32,
    /// Bit 0: checksums in it are known to be right ([`RECEIVE_CHECKED`]). Bit 1: the checksum at `checksum_start +
    /// checksum_offset` is partial, as a client left it ([`RECEIVE_PARTIAL`]).
    pub flags: u32,
    /// With [`RECEIVE_PARTIAL`]: where the checksummed part starts, bytes from the start of the frame.
    pub checksum_start: u16,
    /// With [`RECEIVE_PARTIAL`]: where the checksum goes, bytes from `checksum_start`.
    pub checksum_offset: u16,
    /// Zero.
    pub reserved: [u32; 5],
}

/// A flag of [`Receive`]: the checksums of the frame are known to be right.
pub const RECEIVE_CHECKED: u32 = 1 << 0;
/// A flag of [`Receive`]: the frame's transport checksum is still partial.
pub const RECEIVE_PARTIAL: u32 = 1 << 1;

const _: () = {
    assert!(size_of::<Request>() as u64 == ENTRY_SIZE);
    assert!(size_of::<Completion>() as u64 == ENTRY_SIZE);
    assert!(size_of::<Receive>() as u64 == ENTRY_SIZE);
    assert!(size_of::<Segment>() as u64 == SEGMENT_SIZE);
    assert!(RING_ENTRIES as u64 * ENTRY_SIZE == COMPLETION_RING - REQUEST_RING);
    assert!(RING_ENTRIES.is_power_of_two(), "free-running counters are masked");
    assert!(REQUEST_WINDOW.is_multiple_of(WINDOW_PAGE_SIZE));
};

/// The function id of "attach": the driver domain says what stands behind channel `x1`. `x2` is the capacity in sectors
/// of 512 bytes (block) or the MTU in bytes (network), `x3` a set of the `FEATURE_` bits, `x4` the logical block size
/// in bytes (block): a power of two from 512 to 4096. Returns 0, or -3 (invalid parameter), and then nothing has
/// changed. It may be repeated: clients of a block device that has changed its size are told.
pub const FUNCTION_ATTACH: u32 = 0xc600_0010;

/// The function id of "ready": every channel is attached, and clients may start. Returns 0. "Complete" for each channel
/// follows, until it returns 0: what was out when an earlier start of the driver domain ended is posted again by that.
pub const FUNCTION_READY: u32 = 0xc600_0011;

/// The function id of "complete": channel `x1` has completions or receptions. Returns 0, -3 (no such channel), or 1 if
/// there was more than EL2 does at one go: call again.
pub const FUNCTION_COMPLETE: u32 = 0xc600_0012;

/// What these calls return for a channel that does not exist: SMCCC's INVALID_PARAMETER, -3 (DEN0028 7.1).
pub const INVALID_PARAMETER: u64 = 0xffff_ffff_ffff_fffd;

/// What [`FUNCTION_COMPLETE`] returns when there is more to do.
pub const COMPLETE_AGAIN: u64 = 1;

/// A bit of [`FUNCTION_ATTACH`]: the device takes no writes.
pub const FEATURE_READ_ONLY: u64 = 1 << 0;
/// A bit of [`FUNCTION_ATTACH`]: the device has a volatile cache, which [`Operation::Flush`] empties.
pub const FEATURE_FLUSH: u64 = 1 << 1;
/// A bit of [`FUNCTION_ATTACH`]: the device does [`Operation::Discard`].
pub const FEATURE_DISCARD: u64 = 1 << 2;
/// A bit of [`FUNCTION_ATTACH`]: the device does [`Operation::WriteZeroes`].
pub const FEATURE_WRITE_ZEROES: u64 = 1 << 3;
/// A bit of [`FUNCTION_ATTACH`]: the device moves data itself, and takes grants. EL2 gives them to a driver domain
/// whose devices it can reset, and ignores the bit elsewhere.
pub const FEATURE_GRANTS: u64 = 1 << 4;
/// Every bit that there is; a call with others is refused.
pub const FEATURES: u64 = FEATURE_READ_ONLY | FEATURE_FLUSH | FEATURE_DISCARD | FEATURE_WRITE_ZEROES | FEATURE_GRANTS;

/// The `compatible` string of a channel's node in the driver domain's device tree.
///
/// Its properties: `reg` (address and size of the channel), `bulkhead,channel` (its number, a cell), `bulkhead,kind`
/// (`"block"`, `"network"`, `"console"` or `"entropy"`), `bulkhead,client` (the client's name), and by kind:
///
/// - block: `bulkhead,disk` (a cell: the number of the virtio disk in the order of the slots; absent for a RAM disk),
///   `bulkhead,ram-disk` (two cells: address; two cells: size), `bulkhead,partition` (the name of a GPT partition) or
///   `bulkhead,range` (two cells: first byte; two cells: bytes) or neither (the whole disk),
///   `bulkhead,read-only` (empty);
/// - network: `local-mac-address` (6 bytes), `bulkhead,rate-limit` (a cell: bytes a second, absent for none).
pub const CHANNEL_COMPATIBLE: &str = "bulkhead,channel";

/// The `compatible` string of the node that gives the doorbell: an edge-triggered interrupt (`interrupts`), raised when
/// a channel has requests that the driver domain asked to be told of.
pub const DOORBELL_COMPATIBLE: &str = "bulkhead,doorbell";

/// Whether a producer that has gone from `old` to `new` entries notifies a consumer that waits for `event` to be passed
/// (VIRTIO 1.2, 2.7.10, `vring_need_event`, with counters of 32 bits).
#[must_use]
pub const fn is_notification_due(event: u32, old: u32, new: u32) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_consumer_is_told_of_the_first_entry() {
        assert!(is_notification_due(5, 5, 6));
        assert!(is_notification_due(5, 4, 7));
    }

    #[test]
    fn a_busy_consumer_is_left_alone() {
        // It last said that it had reached 3, and that was passed long ago.
        assert!(!is_notification_due(3, 5, 6));
        assert!(!is_notification_due(9, 5, 6));
    }

    #[test]
    fn counters_wrap() {
        assert!(is_notification_due(u32::MAX, u32::MAX, 0));
        assert!(!is_notification_due(0, u32::MAX, 0));
    }

    #[test]
    fn operations_are_found_by_their_numbers() {
        for operation in Operation::ALL {
            assert_eq!(Operation::from_number(operation as u16), Some(operation));
        }
        assert_eq!(Operation::from_number(9), None);
    }
}
