//! What the frontend did not ask for: frames and characters that the backend has received for it.
//!
//! A reception that is given in part, since an interrupt was pending, is first of those of its device.

use super::super::counters::add;
use super::outage::BackendState;
use super::partial::{Direction, Progress, Taken, copy};
use super::{MERGED_MAX, MemoryPair, Outcome, ProtocolError, RECEPTIONS_MAX, Service, bit};
use crate::virtqueue::QueueError;
use abi::io::{RECEIVE_WINDOW_SIZE, Receive};
use arrayvec::ArrayVec;
use vdev::{GuestAddr, GuestMemory};

enum Received {
    Delivered,
    Dropped,
    NoBuffer,
    /// No chain can be kept now.
    NoRoom,
    /// It is given in part.
    Interrupted,
}

/// Something received, and how far it has come on its way to the frontend.
#[derive(Default)]
pub(super) struct Reception {
    /// Its bytes; 0 where there is none.
    length: u64,
    at: u64,
    /// Its queue, and the number of that among the filled ones.
    pub(super) index: u16,
    filled: u16,
    /// The most chains it is spread over.
    chains_max: u8,
    /// Where the number of its buffers goes.
    count_offset: Option<u8>,
    /// The places of its chains.
    places: ArrayVec<u8, MERGED_MAX>,
    /// The place of the beginning of a further one.
    begun: Option<u8>,
    /// The bytes that they have room for.
    room: u64,
    /// So many of them are full, with so many bytes; and what was copied into the next one.
    full: u8,
    given: u64,
    progress: Progress,
    /// It has held places for chains across calls: queues of the device may have found none.
    was_interrupted: bool,
}

impl Service {
    /// Moves receptions into the buffers of queue `index`, number `filled` among the filled ones, as long as there are
    /// buffers. One that was given in part comes first, whichever queue it is for.
    pub(super) fn receive<M: GuestMemory>(
        &mut self,
        index: u16,
        filled: u16,
        memories: &MemoryPair<'_, M>,
    ) -> Result<Outcome, ProtocolError> {
        let mut outcome = Outcome::default();
        if self.backend != BackendState::Serving {
            return Ok(outcome);
        }
        let budget = self.budget();
        // What is published from here on has a call of its own.
        let produced = self.channel.receptions_produced(memories.backend, filled)?;
        for step in 0..=RECEPTIONS_MAX {
            if self.reception.length == 0 {
                let Some(receive) = self.channel.peek_reception(memories.backend, filled, produced)? else { break };
                if step == RECEPTIONS_MAX
                    || (step != 0 && (self.is_spent(&budget) || memories.backend.has_pending_interrupt()))
                {
                    outcome.again = true;
                    break;
                }
                if !self.begin_reception(index, filled, &receive) {
                    self.counters.count(index, |queue| add(&mut queue.dropped, 1));
                    self.channel.consume_reception(filled);
                    continue;
                }
            }
            let Reception { index: target, filled: ring, .. } = self.reception;
            let received = self.give(memories)?;
            match received {
                Received::Delivered => {}
                Received::Dropped => self.counters.count(target, |queue| add(&mut queue.dropped, 1)),
                Received::Interrupted => {
                    self.reception.was_interrupted = true;
                    outcome.again = true;
                    break;
                }
                // What is out, or waits, frees some, and brings a look here.
                Received::NoRoom => {
                    outcome.again |= self.give_up();
                    if ring == filled {
                        break;
                    }
                    continue;
                }
                Received::NoBuffer => {
                    outcome.again |= self.give_up();
                    let has_more = match self.queue(target) {
                        Some(queue) => queue.ask_for_more(memories.frontend)?,
                        None => false,
                    };
                    if ring == filled && !has_more {
                        break;
                    }
                    continue;
                }
            }
            self.reception.length = 0;
            self.channel.consume_reception(ring);
            outcome.again |= self.reception.was_interrupted && self.blocked != 0;
        }
        Ok(outcome)
    }

    /// Begins with what `receive` says was received for queue `index`, if the frontend is to have it. Returns whether.
    #[inline]
    fn begin_reception(&mut self, index: u16, filled: u16, receive: &Receive) -> bool {
        let Receive { session, offset, length } = *receive;
        let length = u64::from(length);
        let is_in_window = u64::from(offset).saturating_add(length) <= RECEIVE_WINDOW_SIZE;
        // Nothing is used before DRIVER_OK (VIRTIO 1.2, 3.1.1): its interrupt would be lost.
        let is_live = self.state.is_live && self.queue(index).is_some();
        if session != self.state.session || length == 0 || !is_in_window || !is_live {
            return false;
        }
        let policy = self.policy(index);
        let merges = policy.merge_feature.is_some_and(|feature| self.state.features >> (feature & 63) & 1 != 0);
        let window = self.channel.layout().receive_window(filled);
        self.reception = Reception {
            index,
            filled,
            at: self.channel.at(window.wrapping_add(u64::from(offset))).0,
            length,
            chains_max: if merges { MERGED_MAX as u8 } else { 1 },
            count_offset: policy.count_offset,
            ..Reception::default()
        };
        true
    }

    /// Goes on with the reception.
    #[inline]
    fn give<M: GuestMemory>(&mut self, memories: &MemoryPair<'_, M>) -> Result<Received, ProtocolError> {
        let Reception { index, length, chains_max, .. } = self.reception;
        while self.reception.room < length && self.reception.places.len() != usize::from(chains_max) {
            let begun = self.reception.begun.take();
            // A mistake resets the device, and frees all chains.
            match self.take_next(index, begun, memories)? {
                Taken::Chain(place) => {
                    let bytes = self.in_flight.chain(place).map_or(0, |kept| kept.chain.writable_bytes());
                    self.reception.room = self.reception.room.saturating_add(bytes);
                    // There is room.
                    let _ = self.reception.places.try_push(place);
                }
                Taken::Part(place) => {
                    self.reception.begun = Some(place);
                    return Ok(Received::Interrupted);
                }
                Taken::NoRoom if !self.in_flight.is_any_out() && !self.in_flight.is_any_waiting() => break,
                Taken::NoRoom => return Ok(Received::NoRoom),
                Taken::Nothing => return Ok(Received::NoBuffer),
            }
            if self.reception.room < length && memories.backend.has_pending_interrupt() {
                return Ok(Received::Interrupted);
            }
        }
        let is_held = self.reception.room >= length;
        // Where the buffers cannot hold it they go back empty, and the frame is lost.
        if is_held && !self.fill(memories)? {
            return Ok(Received::Interrupted);
        }
        self.used |= bit(index);
        let Self { in_flight, queues, reception, .. } = self;
        let count = reception.places.len();
        let mut left = if is_held { length } else { 0 };
        let Some(Some(queue)) = queues.get_mut(usize::from(index)) else { return Ok(Received::Dropped) };
        for (number, place) in (1..).zip(&reception.places) {
            let Some(kept) = in_flight.chain(*place) else { continue };
            let chain = &kept.chain;
            let here = chain.writable_bytes().min(left);
            if let Some(offset) = reception.count_offset.take().filter(|offset| u64::from(*offset) + 2 <= here) {
                let buffers = in_flight.buffers(kept);
                buffers.write_u16(memories.frontend, u64::from(offset), count as u16).map_err(QueueError::from)?;
            }
            // All at once: a driver that finds some of them takes the packet for damaged.
            match number == count {
                true => queue.push_used(memories.frontend, chain.head, here as u32)?,
                false => queue.push_used_unseen(memories.frontend, chain.head, here as u32)?,
            }
            left = left.saturating_sub(here);
            in_flight.free_chain(*place);
        }
        self.counters.count(index, |queue| add(&mut queue.chains, count as u64));
        if !is_held {
            return Ok(Received::Dropped);
        }
        self.counters.count_copy(index, length);
        Ok(Received::Delivered)
    }

    /// Goes on with copying the reception to its chains, which have room for it. Returns whether all of it is there.
    #[inline]
    fn fill<M: GuestMemory>(&mut self, memories: &MemoryPair<'_, M>) -> Result<bool, QueueError> {
        let Self { reception, in_flight, .. } = self;
        let Reception { length, .. } = *reception;
        while let Some(kept) =
            reception.places.get(usize::from(reception.full)).and_then(|place| in_flight.chain(*place))
        {
            let here = kept.chain.writable_bytes().min(length.saturating_sub(reception.given));
            let from = GuestAddr(reception.at.wrapping_add(reception.given));
            let part = in_flight.buffers(kept).writable();
            copy(part, &mut reception.progress, here as u32, from, Direction::In, memories)?;
            if u64::from(reception.progress.bytes) < here {
                return Ok(false);
            }
            reception.given = reception.given.saturating_add(here);
            if reception.given == length {
                break;
            }
            (reception.full, reception.progress) = (reception.full.wrapping_add(1), Progress::default());
            if memories.backend.has_pending_interrupt() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Has the reception wait in its ring again. Returns whether its queues may have found none of the places that it
    /// held across calls, and are to be looked at.
    #[cold]
    #[inline(never)]
    fn give_up(&mut self) -> bool {
        self.put_back();
        self.reception.was_interrupted && self.blocked != 0
    }

    /// Forgets the reception that is given in part, if one is: its chains, of which the last comes first, are their
    /// queue's again.
    #[cold]
    #[inline(never)]
    pub(super) fn put_back(&mut self) {
        let Self { in_flight, queues, reception, .. } = self;
        if core::mem::take(&mut reception.length) == 0 {
            return;
        }
        if let Some(place) = reception.begun.take() {
            in_flight.free_chain(place);
        }
        let mut queue = queues.get_mut(usize::from(reception.index)).and_then(Option::as_mut);
        while let Some(place) = reception.places.pop() {
            if let (Some(queue), Some(kept)) = (&mut queue, in_flight.chain(place)) {
                queue.put_back(kept.chain.head);
            }
            in_flight.free_chain(place);
        }
    }
}
