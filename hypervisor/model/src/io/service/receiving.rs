//! What the client did not ask for: frames and characters that the driver domain has received for it.

use super::super::counters::add;
use super::super::network;
use super::outage::Provider;
use super::{Broken, Outcome, RECEIVE_QUEUE, RECEPTIONS_MAX, Service, ServiceKind, Wires, bit};
use crate::virtqueue::{Chain, QueueError, Virtqueue};
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
                    if !queue.enable_notifications(wires.client)? {
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
        let Some(place) = self.flights.take_chain() else { return Ok(Received::Dropped) };
        let Some(chain) = self.flights.chain_mut(place) else { return Ok(Received::Dropped) };
        let parcel = Parcel { receive, slot: self.channel.at(offset), header_size, takes_partial: self.takes_partial };
        let result = match queue.pop(wires.client, chain) {
            Ok(false) => Ok(Received::NoBuffer),
            Ok(true) => {
                self.used |= bit(RECEIVE_QUEUE);
                self.counters.count(RECEIVE_QUEUE, |queue| add(&mut queue.chains, 1));
                // A buffer that cannot hold it goes back empty, and the frame is lost.
                if chain.writable_bytes() < total {
                    queue.push_used(wires.client, chain.head, 0).map(|()| Received::Dropped)
                } else {
                    put(queue, chain, &parcel, wires).map(|()| Received::Delivered)
                }
            }
            Err(error) => Err(error),
        };
        self.flights.free_chain(place);
        if matches!(result, Ok(Received::Delivered)) {
            self.counters.count_copy(RECEIVE_QUEUE, length);
        }
        Ok(result?)
    }
}

/// Writes header and contents into `chain`, which has room for them, and gives it back.
#[inline]
fn put<M: GuestMemory>(
    queue: &mut Virtqueue,
    chain: &Chain,
    parcel: &Parcel<'_>,
    wires: &Wires<'_, M>,
) -> Result<(), QueueError> {
    let Parcel { receive, slot, header_size, takes_partial } = *parcel;
    if header_size != 0 {
        chain.write(wires.client, 0, &network::header(receive, takes_partial))?;
    }
    let mut from = slot;
    for segment in chain.writable_range(header_size, u64::from(receive.length)) {
        wires.provider.copy_to(from, wires.client, segment.address, segment.length)?;
        from = GuestAddr(from.0.wrapping_add(u64::from(segment.length)));
    }
    if header_size != 0 && !takes_partial && network::is_partial(receive) {
        let start = u32::from(receive.checksum_start);
        let checked = GuestAddr(slot.0.wrapping_add(u64::from(start)));
        let sum = network::checksum(wires.provider, checked, receive.length.saturating_sub(start))?;
        let at = u64::from(start).saturating_add(u64::from(receive.checksum_offset));
        chain.write(wires.client, header_size.saturating_add(at), &sum)?;
    }
    queue.push_used(wires.client, chain.head, header_size.saturating_add(u64::from(receive.length)) as u32)
}
