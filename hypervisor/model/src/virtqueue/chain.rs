//! A chain of buffers that a driver handed to its device, as a private copy.

use super::{QueueError, descriptor::Descriptor};
use vdev::{GuestAddr, GuestFault, GuestMemory};

/// The longest chain that is taken, in descriptors: 64 of data, a header and a status. A device tells its driver (for a
/// block device, with `seg_max`). What a driver may not exceed anyway, the queue's size, does not bound it further: drivers
/// with indirect tables disregard that rule when a queue is short, and a loop meets this bound as well as that.
pub const SEGMENTS_MAX: usize = 66;

/// The most bytes a chain may have (VIRTIO 1.2, 2.7.5.2).
const BYTES_MAX: u64 = 1 << 32;

/// A buffer, or a piece of one. That it is the guest's own memory is still a claim; that it ends in the address space is
/// not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins.
    pub address: GuestAddr,
    /// Its length in bytes.
    pub length: u32,
}

impl Segment {
    const EMPTY: Self = Self { address: GuestAddr(0), length: 0 };
}

/// A private, validated copy of a descriptor chain: the buffers that the device may read first, then those that it may
/// write. Nothing in it changes when the driver changes its descriptors.
///
/// A buffer of length 0 is in no part of it. VIRTIO 1.2 does not forbid one, and no byte can be in it.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The index of the chain's first descriptor, by which the driver knows it.
    pub head: u16,
    /// How many of the segments the device may read; those behind it may write.
    readable: u8,
    /// How many segments there are.
    count: u8,
    /// Whether a writable descriptor has been seen, if only an empty one.
    writes: bool,
    readable_bytes: u64,
    writable_bytes: u64,
    segments: [Segment; SEGMENTS_MAX],
}

const _: () = assert!(SEGMENTS_MAX <= u8::MAX as usize, "segments are counted in eight bits");

impl Default for Chain {
    fn default() -> Self {
        Self::new()
    }
}

impl Chain {
    /// A chain without buffers.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            head: 0,
            readable: 0,
            count: 0,
            writes: false,
            readable_bytes: 0,
            writable_bytes: 0,
            segments: [Segment::EMPTY; SEGMENTS_MAX],
        }
    }

    /// The buffers that the device may read, in order.
    #[must_use]
    pub fn readable(&self) -> &[Segment] {
        self.segments.get(..usize::from(self.readable)).unwrap_or_default()
    }

    /// The buffers that the device may write, in order.
    #[must_use]
    pub fn writable(&self) -> &[Segment] {
        self.segments.get(usize::from(self.readable)..usize::from(self.count)).unwrap_or_default()
    }

    /// How many bytes the device may read.
    #[must_use]
    pub const fn readable_bytes(&self) -> u64 {
        self.readable_bytes
    }

    /// How many bytes the device may write.
    #[must_use]
    pub const fn writable_bytes(&self) -> u64 {
        self.writable_bytes
    }

    /// Copies from the readable part, from byte `offset` on, across buffers.
    ///
    /// # Errors
    /// [`GuestFault::BadAddress`] if the readable part is too short (nothing is copied), or if a buffer is not in one region
    /// of the guest's memory (what lies before it is copied).
    pub fn read(&self, memory: &impl GuestMemory, offset: u64, buffer: &mut [u8]) -> Result<(), GuestFault> {
        let mut rest = buffer;
        for piece in within(self.readable(), self.readable_bytes, offset, rest.len())? {
            let (now, later) = rest.split_at_mut_checked(piece.length as usize).ok_or(GuestFault::BadAddress)?;
            memory.read(piece.address, now)?;
            rest = later;
        }
        Ok(())
    }

    /// Copies `bytes` into the writable part, from its byte `offset` on, across buffers.
    ///
    /// # Errors
    /// [`GuestFault::BadAddress`] if the writable part is too short (nothing is copied), or if a buffer is not in one region
    /// of the guest's memory (what lies before it is copied).
    pub fn write(&self, memory: &impl GuestMemory, offset: u64, bytes: &[u8]) -> Result<(), GuestFault> {
        let mut rest = bytes;
        for piece in within(self.writable(), self.writable_bytes, offset, rest.len())? {
            let (now, later) = rest.split_at_checked(piece.length as usize).ok_or(GuestFault::BadAddress)?;
            memory.write(piece.address, now)?;
            rest = later;
        }
        Ok(())
    }

    /// The pieces of the readable part that hold `length` bytes from byte `offset` on; fewer where the part ends.
    pub fn readable_range(&self, offset: u64, length: u64) -> Pieces<'_> {
        Pieces { segments: self.readable().iter(), skip: offset, left: length }
    }

    /// The pieces of the writable part that hold `length` bytes from its byte `offset` on; fewer where the part ends.
    pub fn writable_range(&self, offset: u64, length: u64) -> Pieces<'_> {
        Pieces { segments: self.writable().iter(), skip: offset, left: length }
    }

    /// Forgets the buffers.
    #[inline]
    pub(super) const fn begin(&mut self, head: u16) {
        self.head = head;
        self.readable = 0;
        self.count = 0;
        self.writes = false;
        self.readable_bytes = 0;
        self.writable_bytes = 0;
    }

    /// Adds the buffer of `descriptor`.
    #[inline]
    pub(super) fn add(&mut self, descriptor: Descriptor) -> Result<(), QueueError> {
        let Descriptor { address, length, .. } = descriptor;
        if address.0.checked_add(u64::from(length)).is_none() {
            return Err(QueueError::AddressWraps);
        }
        if self.writes && !descriptor.is_writable() {
            return Err(QueueError::ReadableAfterWritable);
        }
        self.writes = descriptor.is_writable();
        if length == 0 {
            return Ok(());
        }
        let place = self.segments.get_mut(usize::from(self.count)).ok_or(QueueError::ChainTooLong)?;
        *place = Segment { address, length };
        // Neither the counts nor the sums of at most SEGMENTS_MAX lengths can overflow.
        self.count = self.count.saturating_add(1);
        if self.writes {
            self.writable_bytes = self.writable_bytes.saturating_add(u64::from(length));
        } else {
            self.readable = self.count;
            self.readable_bytes = self.readable_bytes.saturating_add(u64::from(length));
        }
        if self.readable_bytes.saturating_add(self.writable_bytes) > BYTES_MAX {
            return Err(QueueError::TooManyBytes);
        }
        Ok(())
    }
}

/// The pieces of `segments`, which have `total` bytes, that hold `length` bytes from `offset` on, if they all are there.
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
