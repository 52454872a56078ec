//! Grants: the data of a large request goes between the frontend's own memory and a device of the backend's, and nobody
//! copies it.
//!
//! From the moment at which a grant is posted until it completes, a device may write to the frontend's memory. So the
//! frontend gets nothing back in between ([`Service::has_grants`]): neither by a reset of its device, nor by a restart
//! of its own.

use super::super::in_flight::{InFlightRequest, KeptChain};
use super::{MemoryPair, ProtocolError, Service, offset_of};
use crate::virtqueue::QueueError;
use crate::virtqueue::SEGMENTS_MAX;
use abi::io::{self, QueueDescription, SEGMENT_NEXT, SEGMENT_SIZE, SEGMENT_WRITE};
use arrayvec::ArrayVec;
use vdev::{GuestAddr, GuestFault, GuestMemory};

/// The most bytes of one granted request.
const GRANT_MAX: u64 = 4 << 20;
/// So many segments are written to the window at a time.
const BATCH: usize = 16;

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

    /// Writes the list of the memory that `request` is about, whose chain is in `place`, into the window, and gives its
    /// length. Every piece is the frontend's own, and what lies side by side becomes one.
    #[inline(never)]
    pub(super) fn grant<M: GuestMemory>(
        &mut self,
        place: u8,
        request: &InFlightRequest,
        memories: &MemoryPair<'_, M>,
    ) -> Result<u16, ProtocolError> {
        let skip = u64::from(self.policy(u16::from(request.queue)).header_size);
        let Some(kept) = self.in_flight.chain(place) else { return Ok(0) };
        let (pieces, flags) = if request.readable == 0 {
            (kept.chain.writable_range(kept.position, u64::from(request.writable)), SEGMENT_NEXT | SEGMENT_WRITE)
        } else {
            let from = skip.wrapping_add(kept.position);
            (kept.chain.readable_range(from, u64::from(request.readable)), SEGMENT_NEXT)
        };
        let at = self.channel.at(offset_of(self.channel.layout(), request.run));
        let mut list = List { at, batch: ArrayVec::new() };
        let mut count = 0;
        let mut put = |(address, length): (u64, u64)| {
            if count == u64::from(io::SEGMENTS_MAX) {
                return Err(QueueError::ChainTooLong.into());
            }
            count = count.wrapping_add(1);
            // Its own entry is number `count`, behind the one in front.
            let next = count.wrapping_add(1);
            list.put(memories.backend, [address, length | u64::from(flags) << 32 | next << 48])
        };
        let mut pieces = pieces.map(|piece| {
            let start = memories.frontend.bus_address(piece.address, piece.length)?;
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
        list.write(memories.backend)?;
        self.descriptors = self.descriptors.wrapping_add(kept.chain.segments());
        Ok(count as u16)
    }
}

/// How many of the `rest` bytes of data of a chain one request may be granted; `None` for none. Nearly always all of
/// them: a chain has few segments more than a list has room for.
#[inline]
pub(super) fn length(policy: &QueueDescription, kept: &KeptChain, is_readable: bool, rest: u64) -> Option<u64> {
    let wanted = rest.min(GRANT_MAX);
    let fits = if kept.chain.segments() <= u32::from(io::SEGMENTS_MAX) {
        wanted
    } else {
        let pieces = match is_readable {
            true => kept.chain.readable_range(kept.position.wrapping_add(u64::from(policy.header_size)), wanted),
            false => kept.chain.writable_range(kept.position, wanted),
        };
        pieces.take(usize::from(io::SEGMENTS_MAX)).map(|piece| u64::from(piece.length)).fold(0, u64::wrapping_add)
    };
    match fits == rest {
        true => Some(rest),
        false => Some(fits & !u64::from(policy.piece_unit.wrapping_sub(1))).filter(|bytes| *bytes != 0),
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
