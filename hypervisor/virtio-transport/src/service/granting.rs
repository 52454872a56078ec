//! Grants: the data of a large request goes between the frontend's own memory and a device of the backend's, and nobody
//! copies it.
//!
//! From the moment at which a grant is posted until it completes, a device may write to the frontend's memory. So the
//! frontend gets nothing back in between ([`Service::has_grants`]): neither by a reset of its device, nor by a restart
//! of its own.

use super::super::in_flight::{InFlightRequest, InFlightRequests, KeptChain};
use super::partial::Progress;
use super::{MemoryPair, ProtocolError, Service, offset_of};
use crate::virtqueue::{Pieces, QueueError, SEGMENTS_MAX};
use abi::io::{self, QueueDescription, SEGMENT_NEXT, SEGMENT_SIZE, SEGMENT_WRITE};
use arrayvec::ArrayVec;
use vdev::{GuestAddr, GuestMemory};

/// The most bytes of one granted request.
const GRANT_MAX: u64 = 4 << 20;
/// So many segments are written to the window at a time.
const BATCH: usize = 16;
/// So many pieces of a chain are listed before a look whether an interrupt is pending.
const PIECES_UNIT: u32 = 8;

impl Service {
    /// Whether devices of the backend may still reach into the frontend's memory: until they may not, what was granted
    /// is not given back, cleared or used for anything else.
    pub const fn has_grants(&self) -> bool {
        self.grants_out != 0
    }

    /// The devices of the backend have been reset: none of them does anything any more.
    pub fn end_grants(&mut self) {
        self.grants_out = 0;
    }

    /// Writes the list of the memory that `request` is about, whose chain is in `place`, into the window, from where
    /// `progress` says on, which says how far that went then. Every piece is the frontend's own, and what lies side by
    /// side becomes one.
    #[inline(never)]
    pub(super) fn grant<M: GuestMemory>(
        &mut self,
        place: u8,
        request: &InFlightRequest,
        progress: &mut Progress,
        memories: &MemoryPair<'_, M>,
    ) -> Result<(), ProtocolError> {
        let Some(kept) = self.in_flight.chain(place) else { return Ok(()) };
        let left = (request.readable | request.writable).wrapping_sub(progress.bytes);
        let buffers = self.in_flight.buffers(kept);
        let (part, flags) = if request.readable == 0 {
            (buffers.writable(), SEGMENT_NEXT | SEGMENT_WRITE)
        } else {
            (buffers.readable(), SEGMENT_NEXT)
        };
        let mut pieces = Pieces::new(part, progress.cursor, u64::from(left));
        let list_at = offset_of(self.channel.layout(), request.run);
        let listed = u64::from(progress.segments).wrapping_mul(SEGMENT_SIZE);
        let mut list = List { at: self.channel.at(list_at.wrapping_add(listed)), batch: ArrayVec::new() };
        let mut count = u64::from(progress.segments);
        let mut put = |(address, length): (u64, u64)| {
            if count == u64::from(io::SEGMENTS_MAX) {
                return Err(QueueError::ChainTooLong.into());
            }
            count = count.wrapping_add(1);
            // Its own entry is number `count`, behind the one in front.
            let next = count.wrapping_add(1);
            list.put(memories.backend, [address, length | u64::from(flags) << 32 | next << 48])
        };
        let mut bytes = progress.bytes;
        let mut looked_at = 0u32;
        // What is not in the list yet, since the next piece may follow it.
        let (mut start, mut length) = (0u64, 0u64);
        while !pieces.is_done() {
            if looked_at != 0 && looked_at.is_multiple_of(PIECES_UNIT) && memories.backend.has_pending_interrupt() {
                break;
            }
            let Some(piece) = pieces.cut(u32::MAX) else { break };
            looked_at = looked_at.wrapping_add(1);
            if piece.length == 0 {
                continue;
            }
            let address = memories.frontend.bus_address(piece.address, piece.length).map_err(QueueError::from)?;
            if length != 0 && start.wrapping_add(length) != address {
                put((start, length))?;
                length = 0;
            }
            if length == 0 {
                start = address;
            }
            length = length.wrapping_add(u64::from(piece.length));
            bytes = bytes.wrapping_add(piece.length);
        }
        if length != 0 {
            put((start, length))?;
        }
        list.write(memories.backend)?;
        self.descriptors = self.descriptors.wrapping_add(looked_at);
        *progress = Progress { bytes, segments: count as u16, cursor: pieces.cursor() };
        Ok(())
    }
}

/// How many of the `rest` bytes of data of a chain one request may be granted; `None` for none. Nearly always all of
/// them: a chain has few segments more than a list has room for.
#[inline]
pub(super) fn length(
    policy: &QueueDescription,
    kept: &KeptChain,
    in_flight: &InFlightRequests,
    is_readable: bool,
    rest: u64,
) -> Option<u64> {
    let mut fits = rest;
    if kept.chain.segments() > u32::from(io::SEGMENTS_MAX) {
        let buffers = in_flight.buffers(kept);
        let (part, tail) = match is_readable {
            true => (buffers.readable(), 0),
            false => (buffers.writable(), u64::from(policy.tail_size)),
        };
        let listed = part.len().saturating_sub(kept.start.segments_before());
        let beyond = listed.saturating_sub(usize::from(io::SEGMENTS_MAX));
        let bytes = part.iter().rev().take(beyond).map(|segment| u64::from(segment.length)).fold(0, u64::wrapping_add);
        fits = rest.saturating_sub(bytes.saturating_sub(tail));
    }
    match fits.min(GRANT_MAX) {
        all if all == rest => Some(rest),
        some => Some(some & !u64::from(policy.piece_unit.wrapping_sub(1))).filter(|bytes| *bytes != 0),
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
    fn put<M: GuestMemory>(&mut self, backend: &M, entry: [u64; 2]) -> Result<(), ProtocolError> {
        if self.batch.try_push(entry).is_err() {
            self.write(backend)?;
            // There is room.
            let _ = self.batch.try_push(entry);
        }
        Ok(())
    }

    /// Writes the batch.
    #[inline(never)]
    fn write<M: GuestMemory>(&mut self, backend: &M) -> Result<(), ProtocolError> {
        let start = GuestAddr(self.at.0.wrapping_add(SEGMENT_SIZE));
        self.at = GuestAddr(self.at.0.wrapping_add((self.batch.len() as u64).wrapping_mul(SEGMENT_SIZE)));
        // A channel lies in its backend's memory, as was checked.
        let result = backend.store_u64_pairs(start, &self.batch).map_err(|_| ProtocolError::Backend);
        self.batch.clear();
        result
    }
}

const _: () = assert!(
    SEGMENTS_MAX == io::SEGMENTS_MAX as usize + io::SEGMENTS_AROUND as usize,
    "as many for data, a header and a status"
);
