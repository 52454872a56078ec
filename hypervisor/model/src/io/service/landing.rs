//! The way back: completions of the driver domain become used buffers of the client.

use super::super::block;
use super::super::counters::add;
use super::super::flights::{Flight, Waiter};
use super::{BYTES_MAX, Broken, COMPLETIONS_MAX, Outcome, Service, ServiceKind, Wires, bit, offset_of};
use crate::virtqueue::QueueError;
use abi::io::{Completion, Status};
use vdev::{GuestAddr, GuestMemory};

impl Service {
    /// Takes what the driver domain has completed.
    pub(super) fn land_all<M: GuestMemory>(
        &mut self,
        wires: &Wires<'_, M>,
        outcome: &mut Outcome,
    ) -> Result<(), Broken> {
        let copied = self.counters.copied;
        for _ in 0..COMPLETIONS_MAX {
            let Some(completion) = self.channel.next_completion(wires.provider)? else { return Ok(()) };
            self.land(&completion, wires)?;
            if self.counters.copied.wrapping_sub(copied) >= u64::from(BYTES_MAX) {
                break;
            }
        }
        outcome.again = true;
        Ok(())
    }

    #[inline]
    fn land<M: GuestMemory>(&mut self, completion: &Completion, wires: &Wires<'_, M>) -> Result<(), Broken> {
        let is_current = completion.generation == self.channel.generation() && self.has_posted(completion.sequence);
        let landed = if is_current { self.flights.land(completion.sequence) } else { None };
        let Some(landed) = landed else {
            add(&mut self.counters.forged, 1);
            return Ok(());
        };
        self.grants_out = self.grants_out.saturating_sub(u16::from(landed.is_granted));
        let result = match landed.waiter {
            Waiter::Nobody => Ok(()),
            Waiter::Chain { queue, place } => {
                self.used |= bit(queue);
                let result = self.give(queue, place, &landed, completion, wires);
                self.flights.free_chain(place);
                result
            }
        };
        self.window.give_back(landed.run);
        result
    }

    /// Gives a chain back to the client, with what the driver domain put into the window.
    #[inline]
    fn give<M: GuestMemory>(
        &mut self,
        index: u16,
        place: u8,
        flight: &Flight,
        completion: &Completion,
        wires: &Wires<'_, M>,
    ) -> Result<(), Broken> {
        let Some(chain) = self.flights.chain(place) else { return Ok(()) };
        let (status, expected) = (Status::from_number(completion.status), flight.expected());
        // A short read of a disk is none: the client must not take what it did not get for data.
        let is_whole = completion.length >= expected || self.kind == ServiceKind::Entropy;
        let is_done = status == Status::Done && is_whole;
        let length = if is_done { expected.min(completion.length) } else { 0 };
        let mut at = self.channel.at(offset_of(flight.run));
        // What was granted is there already.
        let copied = if flight.is_granted { 0 } else { length };
        for segment in chain.writable_range(0, u64::from(copied)) {
            let result = wires.provider.copy_to(at, wires.client, segment.address, segment.length);
            result.map_err(QueueError::from)?;
            at = GuestAddr(at.0.wrapping_add(u64::from(segment.length)));
        }
        let mut written = length;
        if self.kind == ServiceKind::Block {
            let status = match status {
                Status::Done if is_done => block::STATUS_OK,
                Status::Unsupported => block::STATUS_UNSUPPORTED,
                Status::Done | Status::Failed => block::STATUS_FAILED,
            };
            block::put_status(chain, wires.client, status).map_err(QueueError::from)?;
            written = written.saturating_add(1);
        }
        let head = chain.head;
        if copied != 0 {
            self.counters.count_copy(index, u64::from(copied));
        }
        if let Some(queue) = self.queue(index) {
            queue.push_used(wires.client, head, written)?;
        }
        Ok(())
    }
}
