//! Chains of which a part is done: an interrupt was pending, and the go ended there. Whatever call comes next goes on
//! with them before anything else, so there is one at a time.

use super::super::in_flight::{InFlightRequest, Next};
use super::{MemoryPair, ProtocolError, Service};
use crate::virtqueue::{Cursor, Pieces, Popped, QueueError, Segment, Start, within_first};
use abi::io::Completion;
use vdev::{GuestAddr, GuestMemory};

/// So many bytes are copied before a look whether an interrupt is pending: some 400 instructions.
const COPY_UNIT: u32 = 4 << 10;
/// As many looks at segments.
const SEGMENTS_UNIT: u32 = 8;

/// A chain of which a part is done.
pub(super) enum Partial {
    /// Its descriptors are followed.
    Walk {
        /// The place of what is known of it.
        place: u8,
    },
    /// Its request's data are moved.
    Request(PartialRequest),
}

impl Partial {
    /// The place of its chain.
    pub(super) const fn place(&self) -> u8 {
        let (Self::Walk { place } | Self::Request(PartialRequest { place, .. })) = self;
        *place
    }
}

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
    /// Where the chain goes on.
    pub(super) cursor: Cursor,
}

/// What became of the chains that wait for something to be done with them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// None is left.
    Done,
    /// There is no room for the next, or no backend.
    NoRoom,
    /// The go is over.
    Over,
}

/// What the search for a chain has come to.
pub(super) enum Taken {
    /// The next chain of the queue is in this place.
    Chain(u8),
    /// The beginning of it is: an interrupt is pending.
    Part(u8),
    /// There is none.
    Nothing,
    /// It cannot be kept now.
    NoRoom,
}

impl Service {
    /// Takes the next chain of queue `index`, or goes on with the one whose beginning is in the place `begun`, as long
    /// as no interrupt is pending.
    #[inline(never)]
    pub(super) fn take_next<M: GuestMemory>(
        &mut self,
        index: u16,
        begun: Option<u8>,
        memories: &MemoryPair<'_, M>,
    ) -> Result<Taken, ProtocolError> {
        if let Some(place) = begun {
            return self.walk_on(index, place, memories);
        }
        let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) else { return Ok(Taken::Nothing) };
        let Some((place, kept)) = self.in_flight.take_chain(index) else { return Ok(Taken::NoRoom) };
        match queue.pop(memories.frontend, &mut kept.chain, kept.room.own(), Start::Head) {
            Ok(Popped::Whole) => {
                self.descriptors = self.descriptors.wrapping_add(kept.chain.looked_at());
                Ok(Taken::Chain(place))
            }
            Ok(Popped::Part) if memories.backend.has_pending_interrupt() => Ok(Taken::Part(place)),
            Ok(Popped::Part) => self.walk_on(index, place, memories),
            Ok(Popped::Nothing) => {
                self.in_flight.free_chain(place);
                Ok(Taken::Nothing)
            }
            Err(error) => {
                self.in_flight.free_chain(place);
                Err(error.into())
            }
        }
    }

    /// Goes on with the chain of queue `index` whose beginning is in `place`, as long as no interrupt is pending.
    #[cold]
    #[inline(never)]
    fn walk_on<M: GuestMemory>(
        &mut self,
        index: u16,
        place: u8,
        memories: &MemoryPair<'_, M>,
    ) -> Result<Taken, ProtocolError> {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) else { return Ok(Taken::Nothing) };
        loop {
            let looked_at = self.in_flight.chain(place).map_or(0, |kept| kept.chain.looked_at());
            // The longest may have nothing but empty buffers left.
            if self.in_flight.is_full(place) && self.in_flight.lengthen(place).is_err() {
                // Nothing was taken.
                self.descriptors = self.descriptors.wrapping_add(looked_at);
                return Ok(Taken::NoRoom);
            }
            let Some((kept, shared)) = self.in_flight.chain_mut(place) else { return Ok(Taken::NoRoom) };
            match queue.pop(memories.frontend, &mut kept.chain, kept.room.segments_mut(shared), Start::Part) {
                Ok(Popped::Whole) => {
                    self.descriptors = self.descriptors.wrapping_add(kept.chain.looked_at());
                    self.in_flight.feed(index as u8);
                    return Ok(Taken::Chain(place));
                }
                Ok(Popped::Part | Popped::Nothing) => {}
                Err(error) => {
                    self.in_flight.free_chain(place);
                    return Err(error.into());
                }
            }
            if memories.backend.has_pending_interrupt() {
                return Ok(Taken::Part(place));
            }
        }
    }

    /// Ends the go with `partial`: the next call goes on with it, which is first of those that wait.
    #[cold]
    #[inline(never)]
    pub(super) fn interrupt(&mut self, partial: Partial) {
        match &partial {
            Partial::Walk { place } => self.in_flight.wait_first(*place, Next::Walk),
            Partial::Request(PartialRequest { place, completion: Some(_), .. }) => {
                self.in_flight.wait_first(*place, Next::CopyIn);
            }
            Partial::Request(_) => {}
        }
        self.partial = Some(partial);
    }

    /// Goes on with what was interrupted, if anything was. Returns whether nothing is any more, and there is time for
    /// more.
    #[inline]
    pub(super) fn end_partial<M: GuestMemory>(&mut self, memories: &MemoryPair<'_, M>) -> Result<bool, ProtocolError> {
        if self.partial.is_none() {
            return Ok(true);
        }
        let mut budget = self.budget();
        Ok(self.serve_waiting(&mut budget, memories)? != Waiting::Over && self.partial.is_none())
    }

    /// The request of the chain in `place` whose data has been moved in part, if that is so, and how far.
    #[cold]
    #[inline(never)]
    pub(super) fn take_begun(&mut self, place: u8) -> Option<(InFlightRequest, Progress)> {
        match &self.partial {
            Some(Partial::Request(partial)) if partial.place == place => {
                let begun = (partial.request, partial.progress);
                self.partial = None;
                Some(begun)
            }
            Some(_) | None => None,
        }
    }

    /// Forgets what was interrupted, if it is of `queue` or (`None`) of any: a request's pages are free, and its chain
    /// is left as it is; the beginning of a chain is free. Gives the request and its chain's place, if it was
    /// completed.
    pub(super) fn forget_partial(&mut self, queue: Option<u16>) -> Option<(u8, InFlightRequest)> {
        let Self { partial, in_flight, .. } = self;
        let is_meant = |partial: &mut Partial| {
            queue.is_none() || queue == in_flight.chain(partial.place()).map(|kept| u16::from(kept.queue))
        };
        match partial.take_if(is_meant)? {
            Partial::Walk { place } => {
                in_flight.stop_waiting(place);
                in_flight.free_chain(place);
                None
            }
            Partial::Request(PartialRequest { place, request, completion, .. }) => {
                self.window.give_back(request.run);
                completion.map(|_| (place, request))
            }
        }
    }
}

/// Which way data go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the frontend's buffers into the window.
    Out,
    /// From the window into the frontend's buffers.
    In,
}

/// As [`copy_in_units`], and the short way for what is no more than a unit, in the first segment.
#[inline(always)]
pub(super) fn copy<M: GuestMemory>(
    part: &[Segment],
    progress: &mut Progress,
    end: u32,
    at: GuestAddr,
    direction: Direction,
    memories: &MemoryPair<'_, M>,
) -> Result<(), QueueError> {
    let offset = progress.cursor.offset_in_first().filter(|_| progress.bytes == 0 && end <= COPY_UNIT);
    let Some(place) = offset.and_then(|offset| within_first(part, offset, end as usize)) else {
        return copy_in_units(part, progress, end, at, direction, memories);
    };
    match direction {
        Direction::Out => memories.frontend.copy_to(place, memories.backend, at, end)?,
        Direction::In => memories.backend.copy_to(at, memories.frontend, place, end)?,
    }
    // Nothing goes on behind it.
    progress.bytes = end;
    Ok(())
}

/// Copies between the segments of `part` and the window, where their data begin at `at`, up to byte `end` of them, and
/// stops between two units where an interrupt is pending. `progress` says how far all of it has come.
#[inline(never)]
pub(super) fn copy_in_units<M: GuestMemory>(
    part: &[Segment],
    progress: &mut Progress,
    end: u32,
    at: GuestAddr,
    direction: Direction,
    memories: &MemoryPair<'_, M>,
) -> Result<(), QueueError> {
    let MemoryPair { frontend, backend } = *memories;
    let (mut done, mut unit, mut looked_at) = (progress.bytes, COPY_UNIT, 0u32);
    let mut pieces = Pieces::new(part, progress.cursor, u64::from(end.saturating_sub(done)));
    while let Some(piece) = pieces.cut(unit) {
        if piece.length != 0 {
            let there = GuestAddr(at.0.wrapping_add(u64::from(done)));
            let (from, source, to, target) = match direction {
                Direction::Out => (frontend, piece.address, backend, there),
                Direction::In => (backend, there, frontend, piece.address),
            };
            from.copy_to(source, to, target, piece.length)?;
            done = done.wrapping_add(piece.length);
            unit = unit.wrapping_sub(piece.length);
        }
        if pieces.is_done() {
            break;
        }
        looked_at = looked_at.wrapping_add(1);
        if unit == 0 || looked_at == SEGMENTS_UNIT {
            if backend.has_pending_interrupt() {
                break;
            }
            (unit, looked_at) = (COPY_UNIT, 0);
        }
    }
    (progress.bytes, progress.cursor) = (done, pieces.cursor());
    Ok(())
}
