//! What the client did not ask for: frames and characters that the driver domain has received for it.

use super::super::counters::add;
use super::super::flights::Flights;
use super::super::network;
use super::outage::Provider;
use super::{Broken, MERGED_MAX, Outcome, RECEIVE_QUEUE, RECEPTIONS_MAX, Service, ServiceKind, Wires, bit};
use crate::virtqueue::{QueueError, Virtqueue};
use abi::io;
use vdev::{GuestAddr, GuestMemory};

enum Received {
    Delivered,
    Dropped,
    NoBuffer,
}

/// Something received and how the client is to get it.
struct Parcel<'a> {
    receive: &'a io::Receive,
    slot: GuestAddr,
    header_size: u64,
    takes_partial: bool,
}

impl Service {
    /// Moves what was received into the client's buffers, as far as there are any.
    pub(super) fn receive<M: GuestMemory>(&mut self, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        let mut outcome = Outcome::default();
        if self.provider != Provider::Serving {
            return Ok(outcome);
        }
        for step in 0..=RECEPTIONS_MAX {
            let Some((receive, offset)) = self.channel.peek_reception(wires.provider)? else { break };
            if step == RECEPTIONS_MAX {
                outcome.again = true;
                break;
            }
            match self.receive_one(&receive, offset, wires)? {
                Received::Delivered => {}
                Received::Dropped => self.counters.count(RECEIVE_QUEUE, |queue| add(&mut queue.dropped, 1)),
                Received::NoBuffer => {
                    let Some(queue) = self.queue(RECEIVE_QUEUE) else { break };
                    if !queue.ask_for_more(wires.client)? {
                        break;
                    }
                    continue;
                }
            }
            self.channel.consume_reception();
        }
        self.channel.publish_consumed(wires.provider)?;
        Ok(outcome)
    }

    fn receive_one<M: GuestMemory>(
        &mut self,
        receive: &io::Receive,
        offset: u64,
        wires: &Wires<'_, M>,
    ) -> Result<Received, Broken> {
        let is_network = self.kind == ServiceKind::Network;
        let length = u64::from(receive.length);
        let length_min = if is_network { network::FRAME_SIZE_MIN } else { 1 };
        if length < length_min || length > io::RECEIVE_SLOT_SIZE {
            return Ok(Received::Dropped);
        }
        let header_size = if is_network { network::HEADER_SIZE } else { 0 };
        let total = header_size.wrapping_add(length);
        // Nothing is used before DRIVER_OK (VIRTIO 1.2, 3.1.1): its interrupt would be lost.
        let (true, Some(Some(queue))) = (self.is_live, self.queues.get_mut(usize::from(RECEIVE_QUEUE))) else {
            return Ok(Received::Dropped);
        };

        let mut places = [0; MERGED_MAX];
        let mut room = 0u64;
        let mut count = 0usize;
        while room < total {
            if count != 0 && !self.merges {
                break;
            }
            let Some(place) = self.flights.take_chain() else { break };
            let Some(chain) = self.flights.chain_mut(place) else { break };
            match queue.pop(wires.client, chain) {
                Ok(true) => {}
                Ok(false) => {
                    self.flights.free_chain(place);
                    for place in places.iter().take(count).rev() {
                        if let Some(chain) = self.flights.chain(*place) {
                            queue.put_back(chain.head);
                        }
                        self.flights.free_chain(*place);
                    }
                    return Ok(Received::NoBuffer);
                }
                Err(error) => {
                    self.flights.free_chain(place);
                    for place in places.iter().take(count) {
                        self.flights.free_chain(*place);
                    }
                    return Err(error.into());
                }
            }
            room = room.saturating_add(chain.writable_bytes());
            if let Some(entry) = places.get_mut(count) {
                *entry = place;
            }
            count = count.wrapping_add(1);
        }
        let places = places.get(..count).unwrap_or(&[]);
        self.used |= bit(RECEIVE_QUEUE);
        let result = if room < total {
            // Buffers that cannot hold it: they go back empty, and the frame is lost.
            give_back_empty(queue, &self.flights, places, wires.client).map(|()| Received::Dropped)
        } else {
            let slot = self.channel.at(offset);
            let parcel = Parcel { receive, slot, header_size, takes_partial: self.takes_partial };
            spread(queue, &self.flights, places, &parcel, wires).map(|()| Received::Delivered)
        };
        for place in places {
            self.flights.free_chain(*place);
        }
        self.counters.count(RECEIVE_QUEUE, |queue| add(&mut queue.chains, count as u64));
        if matches!(result, Ok(Received::Delivered)) {
            self.counters.count_copy(RECEIVE_QUEUE, length);
        }
        Ok(result?)
    }
}

fn give_back_empty<M: GuestMemory>(
    queue: &mut Virtqueue,
    flights: &Flights,
    places: &[u8],
    client: &M,
) -> Result<(), QueueError> {
    for chain in places.iter().filter_map(|place| flights.chain(*place)) {
        queue.push_used(client, chain.head, 0)?;
    }
    Ok(())
}

/// Writes header and contents over the chains in `places`, which have room for them.
fn spread<M: GuestMemory>(
    queue: &mut Virtqueue,
    flights: &Flights,
    places: &[u8],
    parcel: &Parcel<'_>,
    wires: &Wires<'_, M>,
) -> Result<(), QueueError> {
    let receive = parcel.receive;
    let total = parcel.header_size.saturating_add(u64::from(receive.length));
    let patch = if network::is_partial(receive) && !parcel.takes_partial && parcel.header_size != 0 {
        let start = u32::from(receive.checksum_start);
        let from = GuestAddr(parcel.slot.0.wrapping_add(u64::from(start)));
        let sum = network::checksum(wires.provider, from, receive.length.saturating_sub(start))?;
        let at = u64::from(start).saturating_add(u64::from(receive.checksum_offset));
        Some((parcel.header_size.saturating_add(at), sum))
    } else {
        None
    };
    let mut done = 0u64;
    for chain in places.iter().filter_map(|place| flights.chain(*place)) {
        let here = chain.writable_bytes().min(total.saturating_sub(done));
        let header_here = if done == 0 { parcel.header_size } else { 0 };
        if header_here != 0 {
            let header = network::header(receive, places.len() as u16, parcel.takes_partial);
            chain.write(wires.client, 0, &header)?;
        }
        let mut from = done.saturating_add(header_here).saturating_sub(parcel.header_size);
        for segment in chain.writable_range(header_here, here.saturating_sub(header_here)) {
            let at = GuestAddr(parcel.slot.0.wrapping_add(from));
            wires.provider.copy_to(at, wires.client, segment.address, segment.length)?;
            from = from.saturating_add(u64::from(segment.length));
        }
        if let Some((at, sum)) = patch
            && let Some(offset) = at.checked_sub(done)
            && offset.saturating_add(2) <= here
        {
            chain.write(wires.client, offset, &sum)?;
        }
        queue.push_used(wires.client, chain.head, here as u32)?;
        done = done.saturating_add(here);
    }
    Ok(())
}
