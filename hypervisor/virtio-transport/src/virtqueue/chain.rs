//! A chain of buffers that a driver handed to its device, as a private copy.

use super::{QueueError, descriptor::Descriptor};
use alloc::boxed::Box;
use alloc::vec;
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
    const EMPTY: Self = Self { address: GuestAddr(0), length: 0 };

    /// What is left of it without its first `bytes`, which it has.
    #[must_use]
    #[inline]
    pub const fn after(self, bytes: u32) -> Self {
        let address = GuestAddr(self.address.0.wrapping_add(bytes as u64));
        Self { address, length: self.length.saturating_sub(bytes) }
    }
}

/// A private, validated copy of a descriptor chain: the buffers that the device may read first, then those that it may
/// write. Nothing in it changes when the driver changes its descriptors.
///
/// A buffer of length 0 is in no part of it. VIRTIO 1.2 does not forbid one, and no byte can be in it.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The index of the chain's first descriptor, by which the driver knows it.
    pub head: u16,
    /// How many descriptors it took to find it, or that it has no room for all.
    looked_at: u16,
    extent: Extent,
    segments: Box<[Segment]>,
}

/// How far a chain goes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extent {
    /// How many segments there are.
    count: usize,
    /// How many of them the device may read, once a writable descriptor has been seen; those behind it may write.
    readable: usize,
    /// Whether a writable descriptor has been seen, if only an empty one.
    writes: bool,
    /// The bytes in all segments.
    bytes: u64,
    /// Those in what the device may read, once a writable descriptor has been seen.
    readable_bytes: u64,
}

const _: () = assert!(SEGMENTS_MAX <= u16::MAX as usize, "segments are counted in sixteen bits");

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

impl Chain {
    /// A chain without buffers, and with room for the longest there is.
    #[must_use]
    pub fn new() -> Self {
        Self::with_room(SEGMENTS_MAX)
    }

    /// A chain without buffers, and with room for `segments` of them, at most [`SEGMENTS_MAX`].
    #[must_use]
    #[inline]
    pub fn with_room(segments: usize) -> Self {
        let segments = vec![Segment::EMPTY; segments.min(SEGMENTS_MAX)].into_boxed_slice();
        Self { head: 0, looked_at: 0, extent: Extent::default(), segments }
    }

    /// How many buffers it has room for.
    #[must_use]
    #[inline]
    pub const fn room(&self) -> usize {
        self.segments.len()
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
        self.extent.count as u32
    }

    /// The buffers that the device may read, in order.
    #[must_use]
    pub fn readable(&self) -> &[Segment] {
        self.segments.get(..self.extent.readable).unwrap_or_default()
    }

    /// The buffers that the device may write, in order.
    #[must_use]
    pub fn writable(&self) -> &[Segment] {
        self.segments.get(self.extent.readable..self.extent.count).unwrap_or_default()
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

    /// Copies from the readable part, from byte `offset` on, across buffers.
    ///
    /// # Errors
    /// [`GuestFault::BadAddress`] if the readable part is too short (nothing is copied), or if a buffer is not in one
    /// region of the guest's memory (what lies before it is copied).
    pub fn read(&self, memory: &impl GuestMemory, offset: u64, buffer: &mut [u8]) -> Result<(), GuestFault> {
        if let Some(address) = within_first(self.readable(), offset, buffer.len()) {
            return memory.read(address, buffer);
        }
        let mut rest = buffer;
        for piece in within(self.readable(), self.extent.readable_bytes, offset, rest.len())? {
            let (now, later) = rest.split_at_mut_checked(piece.length as usize).ok_or(GuestFault::BadAddress)?;
            memory.read(piece.address, now)?;
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
        let mut rest = bytes;
        for piece in within(self.writable(), self.writable_bytes(), offset, rest.len())? {
            let (now, later) = rest.split_at_checked(piece.length as usize).ok_or(GuestFault::BadAddress)?;
            memory.write(piece.address, now)?;
            rest = later;
        }
        Ok(())
    }

    /// Stores the little-endian `value` at byte `offset` of the writable part.
    ///
    /// # Errors
    /// As for [`Chain::write`].
    #[inline]
    pub fn write_u16(&self, memory: &impl GuestMemory, offset: u64, value: u16) -> Result<(), GuestFault> {
        match within_first(self.writable(), offset, 2) {
            Some(address) if address.0.is_multiple_of(2) => memory.store_u16(address, value),
            Some(_) | None => self.write(memory, offset, &value.to_le_bytes()),
        }
    }

    /// The pieces of the readable part that hold `length` bytes from byte `offset` on; fewer where the part ends.
    pub fn readable_range(&self, offset: u64, length: u64) -> Pieces<'_> {
        Pieces { segments: self.readable().iter(), skip: offset, left: length }
    }

    /// The pieces of the writable part that hold `length` bytes from its byte `offset` on; fewer where the part ends.
    pub fn writable_range(&self, offset: u64, length: u64) -> Pieces<'_> {
        Pieces { segments: self.writable().iter(), skip: offset, left: length }
    }

    /// Puts `bytes` at the end of the writable part.
    ///
    /// # Errors
    /// [`GuestFault::BadAddress`] if the writable part is too short, or if that is not in the guest's memory.
    #[inline(never)]
    pub fn write_end(&self, memory: &impl GuestMemory, bytes: &[u8]) -> Result<(), GuestFault> {
        let length = bytes.len() as u64;
        let Some(Segment { address, length: room }) = self.writable().last() else {
            return Err(GuestFault::BadAddress);
        };
        // Nearly always they lie in one buffer, and the others need not be looked at.
        if let Some(before) = u64::from(*room).checked_sub(length) {
            // No segment ends above the address space.
            return memory.write(GuestAddr(address.0.wrapping_add(before)), bytes);
        }
        let offset = self.writable_bytes().checked_sub(length).ok_or(GuestFault::BadAddress)?;
        self.write(memory, offset, bytes)
    }

    /// Forgets the buffers, and lends the room for others. [`Chain::keep`] says how far they go.
    #[inline]
    pub(super) fn begin(&mut self, head: u16) -> &mut [Segment] {
        self.head = head;
        self.extent = Extent::default();
        &mut self.segments
    }

    /// The buffers go as far as `extent` says, and so many descriptors were looked at.
    #[inline]
    pub(super) const fn keep(&mut self, extent: Extent, looked_at: usize) {
        self.extent = if extent.writes { extent } else { extent.turn() };
        self.looked_at = looked_at as u16;
    }
}

impl Extent {
    /// Adds the buffer of `descriptor` to `segments`, which go so far.
    #[inline]
    pub(super) fn add(&mut self, segments: &mut [Segment], descriptor: Descriptor) -> Result<(), QueueError> {
        let Descriptor { address, length, .. } = descriptor;
        if address.0.checked_add(u64::from(length)).is_none() {
            return Err(QueueError::AddressWraps);
        }
        if descriptor.is_writable() != self.writes {
            if self.writes {
                return Err(QueueError::ReadableAfterWritable);
            }
            *self = Self { writes: true, ..self.turn() };
        }
        if length == 0 {
            return Ok(());
        }
        let place = segments.get_mut(self.count).ok_or(QueueError::ChainTooLong)?;
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
fn within_first(segments: &[Segment], offset: u64, length: usize) -> Option<GuestAddr> {
    let first = segments.first()?;
    let end = offset.checked_add(length as u64)?;
    // No segment ends above the address space.
    (end <= u64::from(first.length)).then(|| GuestAddr(first.address.0.wrapping_add(offset)))
}

/// The pieces of `segments`, which have `total` bytes, that hold `length` bytes from `offset` on, if they all are
/// there.
fn within(segments: &[Segment], total: u64, offset: u64, length: usize) -> Result<Pieces<'_>, GuestFault> {
    let left = length as u64;
    let end = offset.checked_add(left).ok_or(GuestFault::BadAddress)?;
    if end > total {
        return Err(GuestFault::BadAddress);
    }
    Ok(Pieces { segments: segments.iter(), skip: offset, left })
}

/// Cuts a run of bytes out of segments.
pub struct Pieces<'a> {
    segments: core::slice::Iter<'a, Segment>,
    /// Bytes before the run that are still to be skipped.
    skip: u64,
    /// Bytes of the run that are still to come.
    left: u64,
}

impl Iterator for Pieces<'_> {
    type Item = Segment;

    #[inline]
    fn next(&mut self) -> Option<Segment> {
        while self.left != 0 {
            let segment = self.segments.next()?;
            let Some(rest) = u64::from(segment.length).checked_sub(self.skip).filter(|rest| *rest != 0) else {
                self.skip = self.skip.saturating_sub(u64::from(segment.length));
                continue;
            };
            let length = rest.min(self.left);
            // The chain holds no segment that ends above the address space.
            let address = GuestAddr(segment.address.0.wrapping_add(self.skip));
            self.skip = 0;
            self.left = self.left.saturating_sub(length);
            return Some(Segment { address, length: length as u32 });
        }
        None
    }
}
