//! Grants: the data of a large block request goes between the client's own memory and a device of the driver domain's,
//! and nobody copies it.
//!
//! From the moment at which a grant is posted until it lands, a device may write to the client's memory. So the client
//! gets nothing back in between ([`Service::has_grants`]): neither by a reset of its device, nor by a restart of its
//! own.

use super::super::block;
use super::super::flights::Flight;
use super::{Broken, Service, Wires, offset_of};
use crate::virtqueue::QueueError;
use crate::virtqueue::SEGMENTS_MAX;
use abi::io::{self, Operation, SEGMENT_NEXT, SEGMENT_SIZE, SEGMENT_WRITE, WINDOW_PAGE_SIZE};
use arrayvec::ArrayVec;
use vdev::{GuestAddr, GuestFault, GuestMemory};

/// From this length on, a request is granted rather than copied, in bytes. A grant costs about as many instructions as
/// two copied pages, EL2's and the driver domain's; what is more, a client that resets its device waits for the grants
/// that are out, so it should be rare for what is done a thousand times a second.
pub const GRANT_SIZE_MIN: u32 = 16 << 10;

/// The largest segment of a block request where it is granted, in bytes.
const GRANTED_SEGMENT_SIZE_MAX: u32 = 16 << 10;
/// The most segments of one where it is copied.
const COPIED_SEGMENTS_MAX: u32 = 64;
/// So many segments are written to the window at a time.
const BATCH: usize = 16;

impl Service {
    /// Whether devices of the driver domain may still reach into the client's memory: until they may not, what was
    /// granted is not given back, cleared or used for anything else.
    pub const fn has_grants(&self) -> bool {
        self.grants_out != 0
    }

    /// The most segments of a block request, and the most bytes of each. No request that keeps to both is longer than
    /// it may be: drivers know of no other limit.
    pub const fn segment_limits(&self) -> (u32, u32) {
        if self.disk.takes_grants() {
            (io::SEGMENTS_MAX as u32, GRANTED_SEGMENT_SIZE_MAX)
        } else {
            (COPIED_SEGMENTS_MAX, WINDOW_PAGE_SIZE as u32)
        }
    }

    /// The devices of the driver domain have been reset: none of them does anything any more.
    pub fn end_grants(&mut self) {
        self.grants_out = 0;
    }

    /// Whether such a request is granted.
    #[inline]
    pub(super) fn is_grant(&self, operation: Operation, length: u32) -> bool {
        length >= GRANT_SIZE_MIN && matches!(operation, Operation::Read | Operation::Write) && self.disk.takes_grants()
    }

    /// Writes the list of the memory that `flight` is about, whose chain is in `place`, into the window, and gives its
    /// length. Every piece is the client's own, and what lies side by side becomes one.
    #[inline(never)]
    pub(super) fn grant<M: GuestMemory>(
        &mut self,
        place: u8,
        flight: &Flight,
        skip: u64,
        wires: &Wires<'_, M>,
    ) -> Result<u16, Broken> {
        let Some(chain) = self.flights.chain(place) else { return Ok(0) };
        let length = u64::from(flight.length);
        let (pieces, flags) = if flight.operation == Operation::Read {
            (chain.writable_range(0, length), SEGMENT_NEXT | SEGMENT_WRITE)
        } else {
            (chain.readable_range(skip, length), SEGMENT_NEXT)
        };
        let mut list = List { at: self.channel.at(offset_of(flight.run)), batch: ArrayVec::new() };
        let mut count = 0;
        let mut put = |(address, length): (u64, u64)| {
            if count == u64::from(io::SEGMENTS_MAX) {
                return Err(QueueError::ChainTooLong.into());
            }
            count = count.wrapping_add(1);
            // Its own entry is number `count`, behind the one in front.
            let next = count.wrapping_add(1);
            list.put(wires.provider, [address, length | u64::from(flags) << 32 | next << 48])
        };
        let mut pieces = pieces.map(|piece| {
            let start = wires.client.bus_address(piece.address, piece.length)?;
            Ok((start, u64::from(piece.length)))
        });
        if let Some(first) = pieces.next() {
            let (mut start, mut bytes) = first.map_err(|fault: GuestFault| QueueError::from(fault))?;
            for piece in pieces {
                let (address, length) = piece.map_err(QueueError::from)?;
                if start.wrapping_add(bytes) == address {
                    bytes = bytes.wrapping_add(length);
                } else {
                    put((start, bytes))?;
                    (start, bytes) = (address, length);
                }
            }
            put((start, bytes))?;
        }
        list.write(wires.provider)?;
        self.descriptors = self.descriptors.wrapping_add(chain.segments());
        Ok(count as u16)
    }
}

/// A list of segments in the window, while it is written.
struct List {
    /// Where the entry before the next batch is.
    at: GuestAddr,
    batch: ArrayVec<[u64; 2], BATCH>,
}

impl List {
    /// Adds an entry.
    #[inline]
    fn put<M: GuestMemory>(&mut self, provider: &M, entry: [u64; 2]) -> Result<(), Broken> {
        if self.batch.try_push(entry).is_err() {
            self.write(provider)?;
            // There is room.
            let _ = self.batch.try_push(entry);
        }
        Ok(())
    }

    /// Writes the batch.
    #[inline(never)]
    fn write<M: GuestMemory>(&mut self, provider: &M) -> Result<(), Broken> {
        let start = GuestAddr(self.at.0.wrapping_add(SEGMENT_SIZE));
        self.at = GuestAddr(self.at.0.wrapping_add((self.batch.len() as u64).wrapping_mul(SEGMENT_SIZE)));
        // A channel lies in its driver domain's memory, as was checked.
        let result = provider.store_u64_pairs(start, &self.batch).map_err(|_| Broken::Provider);
        self.batch.clear();
        result
    }
}

const _: () = assert!(SEGMENTS_MAX == io::SEGMENTS_MAX as usize + 2, "as many for data, a header and a status");
const _: () = assert!(io::SEGMENTS_MAX as u64 * GRANTED_SEGMENT_SIZE_MAX as u64 <= block::GRANT_SIZE_MAX);
const _: () = assert!(COPIED_SEGMENTS_MAX as u64 * WINDOW_PAGE_SIZE <= block::DATA_SIZE_MAX);
