//! A chain of buffers that a driver handed to its device, as a private copy.

use super::{QueueError, descriptor::Descriptor};
use vdev::{GuestAddr, GuestFault, GuestMemory};

/// The longest chain that is taken, in descriptors: 254 of data, a header and a status. A device tells its driver (for
/// a block device, with `seg_max`). What a driver may not exceed anyway, the queue's size, does not bound it further:
/// drivers with indirect tables disregard that rule when a queue is short, and a loop meets this bound as well as that.
pub const SEGMENTS_MAX: usize = 256;

/// The most bytes a chain may have (VIRTIO 1.2, 2.7.5.2).
const BYTES_MAX: u64 = 1 << 32;

/// A buffer, or a piece of one. That it is the guest's own memory is still a claim; that it ends in the address space
/// is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins.
    pub address: GuestAddr,
    /// Its length in bytes.
    pub length: u32,
}

impl Segment {
    /// No buffer.
    pub const EMPTY: Self = Self { address: GuestAddr(0), length: 0 };
}

/// What is known of a descriptor chain, but for its buffers, which lie in a room that its owner has for them
/// ([`Chain::buffers`]): nothing of either changes when the driver changes its descriptors.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The index of the chain's first descriptor, by which the driver knows it.
    pub head: u16,
    /// How many descriptors it took to find it, or that it has no room for all.
    looked_at: u16,
    extent: Extent,
    /// Where it goes on, as long as it is not whole.
    next: Next,
}

/// The descriptor with which a chain goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next {
    /// The table of indirect descriptors that it is in, if that has entries; else it is in the queue's own.
    pub(super) table: GuestAddr,
    pub(super) entries: u16,
    pub(super) index: u16,
}

impl Next {
    /// The descriptor `index` of the queue's own table.
    #[inline]
    pub(super) const fn at(index: u16) -> Self {
        Self { table: GuestAddr(0), entries: 0, index }
    }
}

/// How far a chain goes. It has no padding: it is copied for each chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// How many segments there are.
    count: u32,
    /// How many of them the device may read, once a writable descriptor has been seen; those behind it may write.
    readable: u32,
    side: Side,
    /// The bytes in all segments.
    bytes: u64,
    /// Those in what the device may read, once a writable descriptor has been seen.
    readable_bytes: u64,
}

/// What the last descriptor was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
enum Side {
    Readable,
    /// A writable descriptor has been seen, if only an empty one.
    Writable,
}

const _: () = assert!(SEGMENTS_MAX <= u16::MAX as usize, "segments are counted in sixteen bits");

impl Chain {
    /// A chain without buffers.
    pub const NONE: Self = Self { head: 0, looked_at: 0, extent: Extent::NONE, next: Next::at(0) };

    /// Its buffers, which are in `room`.
    #[must_use]
    #[inline]
    pub const fn buffers<'a>(&'a self, room: &'a [Segment]) -> Buffers<'a> {
        Buffers { extent: &self.extent, room }
    }

    /// How many descriptors it took to find it, empty ones included; also after an error.
    #[must_use]
    #[inline]
    pub fn looked_at(&self) -> u32 {
        u32::from(self.looked_at)
    }

    /// How many buffers it has.
    #[must_use]
    #[inline]
    pub fn segments(&self) -> u32 {
        self.extent.count
    }

    /// How many bytes the device may read.
    #[must_use]
    pub const fn readable_bytes(&self) -> u64 {
        self.extent.readable_bytes
    }

    /// How many bytes the device may write.
    #[must_use]
    pub const fn writable_bytes(&self) -> u64 {
        self.extent.writable_bytes()
    }

    /// How far it goes, how many descriptors were looked at, and with which it goes on, where [`Chain::go_on_at`] has
    /// said that.
    #[inline]
    pub(super) const fn so_far(&self) -> (Extent, usize, Next) {
        (self.extent, self.looked_at as usize, self.next)
    }

    /// It is not whole, and goes on with the descriptor `next`.
    #[cold]
    pub(super) const fn go_on_at(&mut self, next: Next) {
        self.next = next;
    }

    /// The buffers go as far as `extent` says, and so many descriptors were looked at.
    #[inline]
    pub(super) const fn keep(&mut self, extent: Extent, looked_at: usize) {
        self.extent = match extent.side {
            Side::Writable => extent,
            Side::Readable => extent.turn(),
        };
        self.looked_at = looked_at as u16;
    }
}

/// The buffers of a chain: a private, validated copy of its descriptors, first of those that the device may read, then
/// of those that it may write.
///
/// A buffer of length 0 is in no part of it. VIRTIO 1.2 does not forbid one, and no byte can be in it.
#[derive(Clone, Copy, Debug)]
pub struct Buffers<'a> {
    extent: &'a Extent,
    room: &'a [Segment],
}

impl<'a> Buffers<'a> {
    /// The buffers that the device may read, in order.
    #[must_use]
    #[inline]
    pub fn readable(&self) -> &'a [Segment] {
        self.room.get(..self.extent.readable as usize).unwrap_or_default()
    }

    /// The buffers that the device may write, in order.
    #[must_use]
    #[inline]
    pub fn writable(&self) -> &'a [Segment] {
        self.room.get(self.extent.readable as usize..self.extent.count as usize).unwrap_or_default()
    }

    /// Copies from the readable part, from byte `offset` on, across buffers.
    ///
    /// # Errors
    /// [`GuestFault::BadAddress`] if the readable part is too short (nothing is copied), or if a buffer is not in one
    /// region of the guest's memory (what lies before it is copied).
    pub fn read(&self, memory: &impl GuestMemory, offset: u64, buffer: &mut [u8]) -> Result<(), GuestFault> {
        if let Some(address) = within_first(self.readable(), offset, buffer.len()) {
            return memory.read(address, buffer);
        }
        self.read_across(memory, offset, buffer)
    }

    #[cold]
    #[inline(never)]
    fn read_across(&self, memory: &impl GuestMemory, offset: u64, buffer: &mut [u8]) -> Result<(), GuestFault> {
        holds(self.extent.readable_bytes, offset, buffer.len())?;
        let mut pieces = Pieces::new(self.readable(), Cursor::at(offset), buffer.len() as u64);
        let mut rest = buffer;
        while !rest.is_empty() {
            let piece = pieces.cut(u32::MAX).ok_or(GuestFault::BadAddress)?;
            let (now, later) = rest.split_at_mut_checked(piece.length as usize).ok_or(GuestFault::BadAddress)?;
            if !now.is_empty() {
                memory.read(piece.address, now)?;
            }
            rest = later;
        }
        Ok(())
    }

    /// Copies `bytes` into the writable part, from its byte `offset` on, across buffers.
    ///
    /// # Errors
    /// [`GuestFault::BadAddress`] if the writable part is too short (nothing is copied), or if a buffer is not in one
    /// region of the guest's memory (what lies before it is copied).
    pub fn write(&self, memory: &impl GuestMemory, offset: u64, bytes: &[u8]) -> Result<(), GuestFault> {
        if let Some(address) = within_first(self.writable(), offset, bytes.len()) {
            return memory.write(address, bytes);
        }
        self.write_across(memory, offset, bytes)
    }

    #[cold]
    #[inline(never)]
    fn write_across(&self, memory: &impl GuestMemory, offset: u64, bytes: &[u8]) -> Result<(), GuestFault> {
        holds(self.extent.writable_bytes(), offset, bytes.len())?;
        let mut pieces = Pieces::new(self.writable(), Cursor::at(offset), bytes.len() as u64);
        let mut rest = bytes;
        while !rest.is_empty() {
            let piece = pieces.cut(u32::MAX).ok_or(GuestFault::BadAddress)?;
            let (now, later) = rest.split_at_checked(piece.length as usize).ok_or(GuestFault::BadAddress)?;
            if !now.is_empty() {
                memory.write(piece.address, now)?;
            }
            rest = later;
        }
        Ok(())
    }

    /// Stores the little-endian `value` at byte `offset` of the writable part.
    ///
    /// # Errors
    /// As for [`Buffers::write`].
    #[inline]
    pub fn write_u16(&self, memory: &impl GuestMemory, offset: u64, value: u16) -> Result<(), GuestFault> {
        match within_first(self.writable(), offset, 2) {
            Some(address) if address.0.is_multiple_of(2) => memory.store_u16(address, value),
            Some(_) | None => self.write(memory, offset, &value.to_le_bytes()),
        }
    }

    /// Puts `bytes` at the end of the writable part.
    ///
    /// # Errors
    /// [`GuestFault::BadAddress`] if the writable part is too short, or if that is not in the guest's memory.
    #[inline(never)]
    pub fn write_end(&self, memory: &impl GuestMemory, bytes: &[u8]) -> Result<(), GuestFault> {
        let mut rest = bytes;
        // Nearly always they lie in one buffer. From the end on: those before it need not be looked at.
        for Segment { address, length } in self.writable().iter().rev() {
            let here = rest.len().min(*length as usize);
            let (before, now) = rest.split_at_checked(rest.len().wrapping_sub(here)).ok_or(GuestFault::BadAddress)?;
            // No segment ends above the address space.
            memory.write(GuestAddr(address.0.wrapping_add(u64::from(*length)).wrapping_sub(here as u64)), now)?;
            if before.is_empty() {
                return Ok(());
            }
            rest = before;
        }
        Err(GuestFault::BadAddress)
    }
}

impl Extent {
    /// How many segments there are.
    #[inline]
    pub(super) const fn segments(&self) -> usize {
        self.count as usize
    }

    pub(super) const NONE: Self = Self { count: 0, readable: 0, side: Side::Readable, bytes: 0, readable_bytes: 0 };

    /// Adds the buffer of `descriptor` to `segments`, which go so far.
    #[inline]
    pub(super) fn add(&mut self, segments: &mut [Segment], descriptor: Descriptor) -> Result<(), QueueError> {
        let Descriptor { address, length, .. } = descriptor;
        if address.0.checked_add(u64::from(length)).is_none() {
            return Err(QueueError::AddressWraps);
        }
        match (self.side, descriptor.is_writable()) {
            (Side::Readable, false) | (Side::Writable, true) => {}
            (Side::Readable, true) => *self = Self { side: Side::Writable, ..self.turn() },
            (Side::Writable, false) => return Err(QueueError::ReadableAfterWritable),
        }
        if length == 0 {
            return Ok(());
        }
        let place = segments.get_mut(self.count as usize).ok_or(QueueError::ChainTooLong)?;
        *place = Segment { address, length };
        // Neither the count nor the sum of at most SEGMENTS_MAX lengths can overflow.
        self.count = self.count.wrapping_add(1);
        self.bytes = self.bytes.wrapping_add(u64::from(length));
        if self.bytes > BYTES_MAX {
            return Err(QueueError::TooManyBytes);
        }
        Ok(())
    }

    /// All that there is so far is to be read.
    #[inline]
    const fn turn(self) -> Self {
        Self { readable: self.count, readable_bytes: self.bytes, ..self }
    }

    #[inline]
    const fn writable_bytes(&self) -> u64 {
        self.bytes.wrapping_sub(self.readable_bytes)
    }
}

/// Where the `length` bytes from `offset` on are, if the first of `segments` holds them: there headers are.
#[inline]
pub(crate) fn within_first(segments: &[Segment], offset: u64, length: usize) -> Option<GuestAddr> {
    let first = segments.first()?;
    let end = offset.checked_add(length as u64)?;
    // No segment ends above the address space.
    (end <= u64::from(first.length)).then(|| GuestAddr(first.address.0.wrapping_add(offset)))
}

/// Whether a part of `total` bytes has `length` bytes from `offset` on.
fn holds(total: u64, offset: u64, length: usize) -> Result<(), GuestFault> {
    let end = offset.checked_add(length as u64).filter(|end| *end <= total);
    end.map(|_| ()).ok_or(GuestFault::BadAddress)
}

/// A place in one part of a chain: so many bytes behind the start of a segment, or of what follows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    segment: u16,
    skip: u64,
}

impl Cursor {
    /// The place `offset` bytes behind the start of the part.
    #[must_use]
    #[inline]
    pub const fn at(offset: u64) -> Self {
        Self { segment: 0, skip: offset }
    }

    /// The place `bytes` further.
    #[must_use]
    #[inline]
    pub const fn after(self, bytes: u64) -> Self {
        Self { skip: self.skip.saturating_add(bytes), ..self }
    }

    /// How many bytes it lies behind the start of the part, as far as it is known not to be in a later segment.
    #[must_use]
    #[inline]
    pub const fn offset_in_first(self) -> Option<u64> {
        if self.segment == 0 { Some(self.skip) } else { None }
    }

    /// How many segments lie before it for certain.
    #[must_use]
    pub const fn segments_before(self) -> usize {
        self.segment as usize
    }
}

/// Cuts a run of bytes out of segments, one look at a segment after the other.
pub struct Pieces<'a> {
    segments: &'a [Segment],
    cursor: Cursor,
    /// Bytes of the run that are still to come.
    left: u64,
}

impl<'a> Pieces<'a> {
    /// The run of `length` bytes of `part` from `start` on; it is shorter where the part ends.
    #[must_use]
    #[inline]
    pub const fn new(part: &'a [Segment], start: Cursor, length: u64) -> Self {
        Self { segments: part, cursor: start, left: length }
    }

    /// What comes next of the run, of one segment and at most `most` bytes. It is empty where the whole segment lies
    /// before the run; `None` where there is no more.
    #[inline]
    pub fn cut(&mut self, most: u32) -> Option<Segment> {
        if self.left == 0 {
            return None;
        }
        let segment = self.segments.get(usize::from(self.cursor.segment))?;
        let whole = u64::from(segment.length);
        let skip = self.cursor.skip;
        let rest = whole.saturating_sub(skip);
        let length = rest.min(self.left).min(u64::from(most));
        self.left = self.left.saturating_sub(length);
        if length == rest {
            // There are at most SEGMENTS_MAX.
            self.cursor = Cursor { segment: self.cursor.segment.wrapping_add(1), skip: skip.saturating_sub(whole) };
        } else {
            self.cursor.skip = skip.wrapping_add(length);
        }
        // The chain holds no segment that ends above the address space.
        Some(Segment { address: GuestAddr(segment.address.0.wrapping_add(skip)), length: length as u32 })
    }

    /// Where what comes next begins.
    #[must_use]
    #[inline]
    pub const fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Whether nothing of the run is left.
    #[must_use]
    #[inline]
    pub const fn is_done(&self) -> bool {
        self.left == 0
    }
}
