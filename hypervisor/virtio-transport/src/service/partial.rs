//! Requests whose data has been moved in part: an interrupt was pending, and the go ended there. Whatever call comes
//! next goes on with them before anything else, so there is one at a time.

use super::super::in_flight::{InFlightRequest, Next};
use super::{MemoryPair, ProtocolError, Service};
use crate::virtqueue::{Pieces, QueueError};
use abi::io::Completion;
use vdev::{GuestAddr, GuestFault, GuestMemory};

/// So many bytes are copied before a look whether an interrupt is pending: some 400 instructions.
const COPY_UNIT: u32 = 4 << 10;

/// A request whose data has been moved in part. It has its pages of the window, and is not out.
pub(super) struct PartialRequest {
    /// Its chain's place.
    pub(super) place: u8,
    pub(super) request: InFlightRequest,
    pub(super) progress: Progress,
    /// How it was completed; `None` where it has not been posted yet.
    pub(super) completion: Option<Completion>,
}

/// How far the data of a request has been moved.
#[derive(Clone, Copy, Default)]
pub(super) struct Progress {
    /// Bytes that were copied, or listed for a device.
    pub(super) bytes: u32,
    /// Entries of the list.
    pub(super) segments: u16,
}

impl Service {
    /// Ends the go with `partial`: the next call goes on with it, which is first of those that wait.
    #[cold]
    #[inline(never)]
    pub(super) fn interrupt(&mut self, partial: PartialRequest) {
        if partial.completion.is_some() {
            self.in_flight.wait_first(partial.place, Next::CopyIn);
        }
        self.partial = Some(partial);
    }

    /// Goes on with the request that was interrupted, if one was, and says whether none is any more.
    #[inline]
    pub(super) fn end_partial<M: GuestMemory>(&mut self, memories: &MemoryPair<'_, M>) -> Result<bool, ProtocolError> {
        if self.partial.is_some() {
            let mut budget = self.budget();
            self.serve_waiting(&mut budget, memories)?;
        }
        Ok(self.partial.is_none())
    }

    /// Forgets the request that was interrupted, if it is of `queue` or (`None`) of any: its pages are free. Its chain
    /// is left as it is. Gives the request and its chain's place, if it was completed.
    pub(super) fn forget_partial(&mut self, queue: Option<u16>) -> Option<(u8, InFlightRequest)> {
        let is_meant =
            |partial: &mut PartialRequest| queue.is_none_or(|queue| queue == u16::from(partial.request.queue));
        let PartialRequest { place, request, completion, .. } = self.partial.take_if(is_meant)?;
        self.window.give_back(request.run);
        completion.map(|_| (place, request))
    }
}

/// Has `copy` copy `pieces`, and stops between two units where an interrupt is pending. `copy` gets an address, how
/// many bytes were copied before, and how many are to be. Gives the bytes that were copied.
#[inline(always)]
pub(super) fn copy_in_units(
    pieces: Pieces<'_>,
    memory: &impl GuestMemory,
    mut copy: impl FnMut(GuestAddr, u64, u32) -> Result<(), GuestFault>,
) -> Result<u32, QueueError> {
    let (mut done, mut unit) = (0u32, COPY_UNIT);
    for mut piece in pieces {
        while piece.length > unit {
            if unit != 0 {
                copy(piece.address, u64::from(done), unit)?;
                done = done.wrapping_add(unit);
                piece = piece.after(unit);
            }
            if memory.has_pending_interrupt() {
                return Ok(done);
            }
            unit = COPY_UNIT;
        }
        copy(piece.address, u64::from(done), piece.length)?;
        done = done.wrapping_add(piece.length);
        unit = unit.wrapping_sub(piece.length);
    }
    Ok(done)
}
