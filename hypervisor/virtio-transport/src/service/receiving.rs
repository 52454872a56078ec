//! What the frontend did not ask for: frames and characters that the backend has received for it.

use super::super::counters::add;
use super::super::in_flight::InFlightRequests;
use super::outage::BackendState;
use super::{MERGED_MAX, MemoryPair, Outcome, ProtocolError, RECEPTIONS_MAX, Service, bit};
use crate::virtqueue::{QueueError, Virtqueue};
use abi::io::{RECEIVE_WINDOW_SIZE, Receive};
use vdev::{GuestAddr, GuestMemory};

enum Received {
    Delivered,
    Dropped,
    NoBuffer,
    /// No chain can be kept now.
    NoRoom,
}

/// Something received and how the frontend is to get it.
struct RxPacket {
    at: GuestAddr,
    length: u64,
    /// Where the number of its buffers goes.
    count_offset: Option<u8>,
}

impl Service {
    /// Moves receptions into the buffers of queue `index`, number `filled` among the filled ones, as long as there are
    /// buffers.
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
        for step in 0..=RECEPTIONS_MAX {
            let Some(receive) = self.channel.peek_reception(memories.backend, filled)? else { break };
            if step == RECEPTIONS_MAX
                || (step != 0 && (self.is_spent(&budget) || memories.backend.has_pending_interrupt()))
            {
                outcome.again = true;
                break;
            }
            match self.receive_one(index, filled, &receive, memories)? {
                Received::Delivered => {}
                Received::Dropped => self.counters.count(index, |queue| add(&mut queue.dropped, 1)),
                // What is out frees some, and brings a look here.
                Received::NoRoom => break,
                Received::NoBuffer => {
                    let Some(queue) = self.queue(index) else { break };
                    if !queue.ask_for_more(memories.frontend)? {
                        break;
                    }
                    continue;
                }
            }
            self.channel.consume_reception(filled);
        }
        Ok(outcome)
    }

    fn receive_one<M: GuestMemory>(
        &mut self,
        index: u16,
        filled: u16,
        receive: &Receive,
        memories: &MemoryPair<'_, M>,
    ) -> Result<Received, ProtocolError> {
        let Receive { session, offset, length } = *receive;
        let total = u64::from(length);
        if session != self.state.session || total == 0 || u64::from(offset).saturating_add(total) > RECEIVE_WINDOW_SIZE
        {
            return Ok(Received::Dropped);
        }
        let policy = self.policy(index);
        let merges = policy.merge_feature.is_some_and(|feature| self.state.features >> (feature & 63) & 1 != 0);
        let count_offset = policy.count_offset;
        // Nothing is used before DRIVER_OK (VIRTIO 1.2, 3.1.1): its interrupt would be lost.
        let (true, Some(Some(queue))) = (self.state.is_live, self.queues.get_mut(usize::from(index))) else {
            return Ok(Received::Dropped);
        };

        let mut places = [0; MERGED_MAX];
        let mut room = 0u64;
        let mut count = 0usize;
        while room < total {
            if count != 0 && (!merges || count == MERGED_MAX) {
                break;
            }
            let Some(place) = self.in_flight.take_chain() else {
                if !self.in_flight.is_any_out() {
                    break;
                }
                put_back(queue, &mut self.in_flight, places.get(..count).unwrap_or(&[]));
                return Ok(Received::NoRoom);
            };
            let Some(kept) = self.in_flight.chain_mut(place) else { break };
            match queue.pop(memories.frontend, &mut kept.chain) {
                Ok(true) => self.descriptors = self.descriptors.wrapping_add(kept.chain.looked_at()),
                Ok(false) => {
                    self.in_flight.free_chain(place);
                    put_back(queue, &mut self.in_flight, places.get(..count).unwrap_or(&[]));
                    return Ok(Received::NoBuffer);
                }
                Err(error) => {
                    self.in_flight.free_chain(place);
                    for place in places.iter().take(count) {
                        self.in_flight.free_chain(*place);
                    }
                    return Err(error.into());
                }
            }
            room = room.saturating_add(kept.chain.writable_bytes());
            if let Some(entry) = places.get_mut(count) {
                *entry = place;
            }
            count = count.wrapping_add(1);
        }
        let places = places.get(..count).unwrap_or(&[]);
        self.used |= bit(index);
        let result = if room < total {
            // Buffers that cannot hold it: they go back empty, and the frame is lost.
            give_back_empty(queue, &self.in_flight, places, memories.frontend).map(|()| Received::Dropped)
        } else {
            let window = self.channel.layout().receive_window(filled);
            let packet =
                RxPacket { at: self.channel.at(window.wrapping_add(u64::from(offset))), length: total, count_offset };
            spread(queue, &self.in_flight, places, &packet, memories).map(|()| Received::Delivered)
        };
        for place in places {
            self.in_flight.free_chain(*place);
        }
        self.counters.count(index, |queue| add(&mut queue.chains, count as u64));
        if matches!(result, Ok(Received::Delivered)) {
            self.counters.count_copy(index, total);
        }
        Ok(result?)
    }
}

/// Puts the chains in `places` back into their queue, the last first.
fn put_back(queue: &mut Virtqueue, in_flight: &mut InFlightRequests, places: &[u8]) {
    for place in places.iter().rev() {
        if let Some(kept) = in_flight.chain(*place) {
            queue.put_back(kept.chain.head);
        }
        in_flight.free_chain(*place);
    }
}

fn give_back_empty<M: GuestMemory>(
    queue: &mut Virtqueue,
    in_flight: &InFlightRequests,
    places: &[u8],
    frontend: &M,
) -> Result<(), QueueError> {
    for kept in places.iter().filter_map(|place| in_flight.chain(*place)) {
        queue.push_used(frontend, kept.chain.head, 0)?;
    }
    Ok(())
}

/// Writes a packet over the chains in `places`, which have room for it.
fn spread<M: GuestMemory>(
    queue: &mut Virtqueue,
    in_flight: &InFlightRequests,
    places: &[u8],
    packet: &RxPacket,
    memories: &MemoryPair<'_, M>,
) -> Result<(), QueueError> {
    let mut done = 0u64;
    for kept in places.iter().filter_map(|place| in_flight.chain(*place)) {
        let chain = &kept.chain;
        let here = chain.writable_bytes().min(packet.length.saturating_sub(done));
        let mut from = packet.at.0.wrapping_add(done);
        for segment in chain.writable_range(0, here) {
            memories.backend.copy_to(GuestAddr(from), memories.frontend, segment.address, segment.length)?;
            from = from.wrapping_add(u64::from(segment.length));
        }
        if let Some(offset) = packet.count_offset.filter(|offset| done == 0 && u64::from(*offset) + 2 <= here) {
            chain.write_u16(memories.frontend, u64::from(offset), places.len() as u16)?;
        }
        queue.push_used(memories.frontend, chain.head, here as u32)?;
        done = done.saturating_add(here);
    }
    Ok(())
}
