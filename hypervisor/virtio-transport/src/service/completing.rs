//! The way back: completions of the backend become used buffers of the frontend.

use super::super::counters::add;
use super::super::in_flight::{InFlightRequest, Next};
use super::partial::{Direction, Partial, PartialRequest, Progress, copy_in_units};
use super::{BYTES_MAX, COMPLETIONS_MAX, MemoryPair, Outcome, ProtocolError, Service, bit, offset_of};
use crate::virtqueue::{Cursor, QueueError};
use abi::io::{Completion, Request, TAIL_SIZE_MAX};
use vdev::GuestMemory;

impl Service {
    /// Takes what the backend has completed. Returns whether there is time for more: where an interrupt is pending, the
    /// frontend is told by the next call.
    pub(super) fn complete_all<M: GuestMemory>(
        &mut self,
        memories: &MemoryPair<'_, M>,
        outcome: &mut Outcome,
    ) -> Result<bool, ProtocolError> {
        let mut has_time = self.end_partial(memories)?;
        let copied = self.counters.copied;
        let mut step = 0;
        while has_time && step != COMPLETIONS_MAX && self.counters.copied.wrapping_sub(copied) < BYTES_MAX {
            let Some(completion) = self.channel.next_completion(memories.backend)? else { return Ok(true) };
            step = step.wrapping_add(1);
            if let Some((place, request)) = self.take_request(&completion) {
                self.end_piece(place, &request, &completion, None, memories)?;
            }
            has_time = self.partial.is_none() && !memories.backend.has_pending_interrupt();
        }
        outcome.again = true;
        Ok(has_time)
    }

    /// As [`Service::complete`], and ends before the frontend is told: as when the backend breaks down then.
    #[cfg(test)]
    pub(in super::super) fn take_completions_alone<M: GuestMemory>(&mut self, memories: &MemoryPair<'_, M>) {
        let _ = self.complete_all(memories, &mut Outcome::default());
    }

    /// The request that `completion` is about, with the place of the chain that waits for it. `None` where none does.
    #[inline]
    fn take_request(&mut self, completion: &Completion) -> Option<(u8, InFlightRequest)> {
        let is_current = completion.generation == self.channel.generation();
        let request = if is_current { self.in_flight.complete(completion.sequence) } else { None };
        let Some(request) = request else {
            add(&mut self.counters.stale, 1);
            return None;
        };
        self.grants_out = self.grants_out.saturating_sub(u16::from(request.is_granted));
        if request.chain.is_none() {
            self.window.give_back(request.run);
        }
        request.chain.map(|place| (place, request))
    }

    /// Goes on with the chain in `place`, whose completed request is copied in part.
    pub(super) fn copy_on<M: GuestMemory>(
        &mut self,
        place: u8,
        memories: &MemoryPair<'_, M>,
    ) -> Result<(), ProtocolError> {
        let Some(Partial::Request(PartialRequest { completion: Some(completion), .. })) = &self.partial else {
            return Ok(());
        };
        let completion = *completion;
        let Some((request, progress)) = self.take_begun(place) else { return Ok(()) };
        self.end_piece(place, &request, &completion, Some(progress), memories)
    }

    /// Gives the chain in `place` what the backend put into the window, from where `progress` says on; and gives the
    /// chain back, or has it wait for its next piece, or to be copied on.
    /// But for the last, the request's pages are free then.
    #[inline]
    fn end_piece<M: GuestMemory>(
        &mut self,
        place: u8,
        request: &InFlightRequest,
        completion: &Completion,
        progress: Option<Progress>,
        memories: &MemoryPair<'_, M>,
    ) -> Result<(), ProtocolError> {
        let Some((kept, shared)) = self.in_flight.chain_mut(place) else { return Ok(()) };
        let written = completion.written.min(request.writable);
        // What was granted is there already.
        if !request.is_granted && written != 0 {
            let from = offset_of(self.channel.layout(), request.run);
            let from = from.wrapping_add(u64::from(Request::writable_offset(request.readable)));
            let at = self.channel.at(from);
            // Where there are data to be read, too, the piece is the first.
            let start = if request.readable == 0 { kept.start } else { Cursor::default() };
            let mut progress = progress.unwrap_or(Progress { cursor: start, ..Progress::default() });
            let before = progress.bytes;
            let part = kept.chain.buffers(kept.room.segments(shared)).writable();
            if let Err(error) = copy_in_units(part, &mut progress, written, at, Direction::In, memories) {
                self.window.give_back(request.run);
                self.in_flight.free_chain(place);
                return Err(error.into());
            }
            let more = u64::from(progress.bytes.wrapping_sub(before));
            if progress.bytes < written {
                self.counters.count_part(u16::from(request.queue), more);
                let (request, completion) = (*request, Some(*completion));
                self.interrupt(Partial::Request(PartialRequest { place, request, progress, completion }));
                return Ok(());
            }
            self.counters.count_copy(u16::from(request.queue), more);
        }
        self.window.give_back(request.run);
        kept.written = kept.written.wrapping_add(written);
        if !request.is_last && !completion.is_end {
            // One of the two is zero: a chain with both has one piece.
            let bytes = u64::from(request.readable | request.writable);
            (kept.position, kept.start) = (kept.position.wrapping_add(bytes), kept.start.after(bytes));
            self.in_flight.wait(place, Next::Post);
            return Ok(());
        }
        let result = self.finish(place, &completion.tail, memories);
        self.in_flight.free_chain(place);
        result
    }

    /// Gives the chain in `place` back with `tail` and what was written into it.
    #[inline(never)]
    fn finish<M: GuestMemory>(
        &mut self,
        place: u8,
        tail: &[u8; TAIL_SIZE_MAX],
        memories: &MemoryPair<'_, M>,
    ) -> Result<(), ProtocolError> {
        let Some(kept) = self.in_flight.chain(place) else { return Ok(()) };
        let (index, head, written) = (u16::from(kept.queue), kept.chain.head, kept.written);
        let tail_size = self.policy(index).tail_size;
        if let Some(tail) = tail.get(..usize::from(tail_size)).filter(|tail| !tail.is_empty()) {
            self.in_flight.buffers(kept).write_end(memories.frontend, tail).map_err(QueueError::from)?;
        }
        self.used |= bit(index);
        if let Some(queue) = self.queue(index) {
            queue.push_used(memories.frontend, head, written.wrapping_add(u32::from(tail_size)))?;
        }
        Ok(())
    }

    /// Gives the chain in `place` back with nothing written.
    pub(super) fn give_back<M: GuestMemory>(
        &mut self,
        place: u8,
        memories: &MemoryPair<'_, M>,
    ) -> Result<(), ProtocolError> {
        let Some(kept) = self.in_flight.chain(place) else { return Ok(()) };
        let (index, head) = (u16::from(kept.queue), kept.chain.head);
        self.used |= bit(index);
        if let Some(queue) = self.queue(index) {
            queue.push_used(memories.frontend, head, 0)?;
        }
        Ok(())
    }

    /// Has the chain in `place` fail, which is free then.
    pub(super) fn fail_and_free<M: GuestMemory>(
        &mut self,
        place: u8,
        memories: &MemoryPair<'_, M>,
    ) -> Result<(), ProtocolError> {
        let result = self.fail(place, memories);
        self.in_flight.free_chain(place);
        result
    }

    /// Gives the chain in `place` back with the tail of one that fails, if it has room for that.
    pub(super) fn fail<M: GuestMemory>(
        &mut self,
        place: u8,
        memories: &MemoryPair<'_, M>,
    ) -> Result<(), ProtocolError> {
        let Some((kept, _)) = self.in_flight.chain_mut(place) else { return Ok(()) };
        kept.written = 0;
        let (index, room) = (u16::from(kept.queue), kept.chain.writable_bytes());
        let policy = self.policy(index);
        let (tail, tail_size) = (policy.failure, policy.tail_size);
        if tail_size == 0 {
            self.counters.count(index, |queue| add(&mut queue.dropped, 1));
        }
        if room < u64::from(tail_size) { self.give_back(place, memories) } else { self.finish(place, &tail, memories) }
    }
}
