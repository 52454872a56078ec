//! When the driver domain is away: what waits for it, what it gets again when it is back, and what fails if it never
//! is.
//!
//! What this module leaves out: when it is away, and who decides that it stays so (`io::watch`).

use super::super::block;
use super::super::channel::Forged;
use super::super::counters::add;
use super::super::flights::{Flight, Waiter};
use super::super::watch::Sight;
use super::{BYTES_MAX, Broken, CHAINS_MAX, DESCRIPTORS_MAX, Outcome, Service, ServiceKind, Wires, bit};
use crate::virtqueue::QueueError;
use vdev::GuestMemory;

/// How the driver domain stands to its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Provider {
    /// It has not said that it is ready: what is out stays so, and what comes waits.
    Away,
    /// It is back, and gets again what was out when its predecessor died, as far as this sequence number by now.
    Replaying {
        /// The last request that it has got again.
        after: u64,
    },
    /// It serves.
    Serving,
    /// It serves others, and not this channel: until it starts again, as if it were gone.
    Absent,
    /// It does not come back: what is out fails, and so does what comes.
    Gone,
}

/// To the watch, the number of all that waits to go out where nothing is: lower than those of requests.
const WAITING: u64 = 1;

impl Service {
    /// The driver domain is away: what is out stays so, and what comes waits.
    pub fn suspend(&mut self) {
        if self.provider != Provider::Gone {
            self.provider = Provider::Away;
        }
    }

    /// The driver domain starts, with devices that were reset and zeroed rings: nothing that it completes is taken for
    /// the work of its predecessor.
    ///
    /// # Errors
    /// The channel is not in its memory.
    pub fn restart_channel(&mut self, memory: &impl GuestMemory) -> Result<(), Forged> {
        self.suspend();
        self.end_grants();
        self.is_attached = false;
        self.channel.restart(memory)
    }

    /// The driver domain says that there is something behind the channel, and that it will serve it.
    pub fn attach(&mut self) {
        self.is_attached = true;
    }

    /// The driver domain is ready. What was out when its predecessor died is posted again, by and by, as it calls
    /// [`Service::complete`] or the client notifies: in the order in which it first went out, and before anything else.
    /// Reading and writing are idempotent, so nobody can tell whether a request was done twice; frames and characters
    /// that may have been sent are not sent again.
    ///
    /// A channel that it has not attached it does not serve in this life: then all that is as in [`Service::abandon`].
    /// Returns, as that does, whether the client has to [`resume`](Service::resume).
    #[must_use]
    pub fn serve_again(&mut self) -> bool {
        if self.provider != Provider::Away {
            return false;
        }
        // What the driver domain was not there for does not count against it.
        self.watched = (0, 0);
        if self.is_attached {
            self.provider = Provider::Replaying { after: 0 };
            return self.late != 0;
        }
        self.provider = Provider::Absent;
        self.is_owing()
    }

    /// The driver domain does not come back. What is out, and what comes, fails from now on: I/O errors from a disk, no
    /// random numbers, frames and characters dropped. Returns whether something is to fail now, for which the client
    /// has to [`resume`](Service::resume): its own time is it, however often it asks for more.
    #[must_use]
    pub fn abandon(&mut self) -> bool {
        self.provider = Provider::Gone;
        self.is_owing()
    }

    /// Whether something is out, or waits.
    fn is_owing(&self) -> bool {
        self.stalled != 0 || self.late != 0 || self.flights.count() != 0
    }

    /// The watch looks. Gives the driver domain's heartbeat word, and in how many looks in a row the same request was
    /// the oldest that is out: of a disk or a source of random numbers, whose clients wait. Queues that wait although
    /// nothing is out count as one request. A channel that the driver domain
    /// does not serve is not held against it.
    pub fn look(&mut self, provider: &impl GuestMemory) -> Sight {
        let is_served = !matches!(self.provider, Provider::Absent | Provider::Gone);
        let waits = is_served && matches!(self.kind, ServiceKind::Block | ServiceKind::Entropy);
        let oldest = match self.flights.next_after(0) {
            Some((sequence, _)) if waits => sequence,
            // For these the driver domain has only to call, and a good one does so.
            None if waits && self.stalled != 0 => WAITING,
            Some(_) | None => 0,
        };
        let (watched, looks) = self.watched;
        let looks = match oldest {
            0 => 0,
            oldest if oldest == watched => looks.saturating_add(1),
            _ => 1,
        };
        self.watched = (oldest, looks);
        // A channel lies in its driver domain's memory, as was checked.
        Sight { beat: self.channel.heartbeat(provider).unwrap_or(0), looks }
    }

    /// Goes on with what was out when the driver domain went. Returns whether there is no more of it.
    #[cold]
    #[inline(never)]
    pub(super) fn settle<M: GuestMemory>(&mut self, wires: &Wires<'_, M>) -> Result<bool, Broken> {
        match self.provider {
            Provider::Serving | Provider::Away => Ok(true),
            Provider::Replaying { .. } => self.replay(wires),
            Provider::Absent | Provider::Gone => self.fail_flights(wires),
        }
    }

    /// What a look at queue `index` comes to while the driver domain does not serve. Returns whether it does by now.
    #[cold]
    #[inline(never)]
    pub(super) fn catch_up<M: GuestMemory>(
        &mut self,
        index: u16,
        wires: &Wires<'_, M>,
        outcome: &mut Outcome,
    ) -> Result<bool, Broken> {
        let is_done = match self.provider {
            Provider::Serving => return Ok(true),
            Provider::Away => {
                self.stall(index);
                return Ok(false);
            }
            Provider::Replaying { .. } => {
                if self.replay(wires)? {
                    return Ok(true);
                }
                false
            }
            Provider::Absent | Provider::Gone => self.fail_flights(wires)? && self.refuse(index, wires)?,
        };
        if !is_done {
            self.late |= bit(index);
            outcome.again = true;
        }
        Ok(false)
    }

    /// Whether the request with this sequence number, if there is one, has been posted to the driver domain that there
    /// is now, and not only to its predecessor.
    #[inline]
    pub(super) const fn has_posted(&self, sequence: u64) -> bool {
        match self.provider {
            Provider::Serving => true,
            Provider::Replaying { after } => sequence <= after,
            Provider::Away | Provider::Absent | Provider::Gone => false,
        }
    }

    /// Posts again what is next of what was out. Returns whether that was all.
    #[cold]
    #[inline(never)]
    fn replay<M: GuestMemory>(&mut self, wires: &Wires<'_, M>) -> Result<bool, Broken> {
        let (copied, descriptors) = (self.counters.copied, self.descriptors);
        for _ in 0..CHAINS_MAX {
            let Provider::Replaying { after } = self.provider else { return Ok(true) };
            let Some((sequence, flight)) = self.flights.next_after(after) else {
                self.provider = Provider::Serving;
                return Ok(true);
            };
            if self.counters.copied.wrapping_sub(copied) >= u64::from(BYTES_MAX)
                || self.descriptors.wrapping_sub(descriptors) >= DESCRIPTORS_MAX
            {
                break;
            }
            // First, so that one that cannot be posted does not come again.
            self.provider = Provider::Replaying { after: sequence };
            self.post_again(sequence, &flight, wires)?;
        }
        Ok(false)
    }

    fn post_again<M: GuestMemory>(
        &mut self,
        sequence: u64,
        flight: &Flight,
        wires: &Wires<'_, M>,
    ) -> Result<(), Broken> {
        let Waiter::Chain { queue, place } = flight.waiter else {
            self.flights.land(sequence);
            self.window.give_back(flight.run);
            return Ok(());
        };
        let segments = self.lay_out(queue, place, flight, block::HEADER_SIZE, wires)?;
        self.send(sequence, flight, segments, wires)?;
        self.counters.count(queue, |queue| add(&mut queue.replays, 1));
        Ok(())
    }

    /// Ends what is next of what is out with an error. Returns whether that was all.
    fn fail_flights<M: GuestMemory>(&mut self, wires: &Wires<'_, M>) -> Result<bool, Broken> {
        for _ in 0..CHAINS_MAX {
            let Some((sequence, flight)) = self.flights.next_after(0) else { return Ok(true) };
            self.flights.land(sequence);
            self.window.give_back(flight.run);
            if let Waiter::Chain { queue, place } = flight.waiter {
                let result = self.fail(queue, place, wires);
                self.flights.free_chain(place);
                result?;
            }
        }
        Ok(self.flights.next_after(0).is_none())
    }

    /// Gives the chains of queue `index` back with an error, some of them. Returns whether these were all.
    fn refuse<M: GuestMemory>(&mut self, index: u16, wires: &Wires<'_, M>) -> Result<bool, Broken> {
        let descriptors = self.descriptors;
        for _ in 0..CHAINS_MAX {
            if self.descriptors.wrapping_sub(descriptors) >= DESCRIPTORS_MAX {
                break;
            }
            // Nothing is out, so there is a place, and one for the longest chain.
            let Some(place) = self.flights.take_longest_chain() else { return Ok(true) };
            let result = self.refuse_one(index, place, wires);
            self.flights.free_chain(place);
            if !result? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Gives the next chain of queue `index` back with an error, by way of `place`. Returns whether there may be
    /// another.
    fn refuse_one<M: GuestMemory>(&mut self, index: u16, place: u8, wires: &Wires<'_, M>) -> Result<bool, Broken> {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) else { return Ok(false) };
        let Some(chain) = self.flights.chain_mut(place) else { return Ok(false) };
        if !queue.pop(wires.client, chain)? {
            return Ok(queue.enable_notifications(wires.client)?);
        }
        self.descriptors = self.descriptors.wrapping_add(chain.looked_at());
        if matches!(self.kind, ServiceKind::Network | ServiceKind::Console) {
            self.counters.count(index, |queue| add(&mut queue.dropped, 1));
        }
        self.counters.count(index, |queue| add(&mut queue.chains, 1));
        self.fail(index, place, wires)?;
        Ok(true)
    }

    /// Gives the chain in `place` back to queue `index`: with VIRTIO_BLK_S_IOERR, or with nothing in it.
    fn fail<M: GuestMemory>(&mut self, index: u16, place: u8, wires: &Wires<'_, M>) -> Result<(), Broken> {
        let Some(chain) = self.flights.chain(place) else { return Ok(()) };
        let head = chain.head;
        let mut written = 0;
        if self.kind == ServiceKind::Block && chain.writable_bytes() != 0 {
            block::put_status(chain, wires.client, block::STATUS_FAILED).map_err(QueueError::from)?;
            written = 1;
        }
        self.used |= bit(index);
        if let Some(queue) = self.queue(index) {
            queue.push_used(wires.client, head, written)?;
        }
        Ok(())
    }
}
