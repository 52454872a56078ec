//! When the backend is away: what waits for it, what it gets again when it is back, and what fails if it never is.
//!
//! What this module leaves out: when it is away, and who decides that it stays so (`vm-lifecycle`).

use super::super::channel::RingCorrupt;
use super::super::counters::add;
use super::super::in_flight::{InFlightRequest, Next};
use super::partial::{Partial, Taken, Waiting};
use super::{Budget, MemoryPair, Outcome, ProtocolError, Service, bit};
use abi::io::{QueueDescription, Restart};
use vdev::GuestMemory;
use vm_lifecycle::watch::Sight;

/// How the backend stands to its channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackendState {
    /// It has not said that it is ready: what is out stays so, and what comes waits.
    Away,
    /// It serves.
    Serving,
    /// It serves others, and not this channel: until it starts again, as if it were gone.
    Absent,
    /// It does not come back: what is out fails, and so does what comes.
    Gone,
}

/// To the watchdog, the number of all that waits to go out where nothing is: lower than those of requests.
const WAITING: u64 = 1;

impl Service {
    /// The backend is away: what is out stays so, and what comes waits.
    pub fn suspend(&mut self) {
        if self.backend != BackendState::Gone {
            self.backend = BackendState::Away;
            self.channel.forget_unpublished();
        }
    }

    /// Takes back what is out, after [`Service::suspend`]: all of it in `TAKE_BACK_STEPS` steps from 0, each of them
    /// short. What was interrupted is forgotten. What becomes of either is as the queues say or, if the backend
    /// `is_lost`, an error.
    pub fn take_back(&mut self, step: usize, is_lost: bool) {
        let completed = self.forget_interrupted();
        let Self { in_flight, window, policies, .. } = self;
        let next = |request: &InFlightRequest| match policies.get(usize::from(request.queue)) {
            _ if is_lost => Next::Fail,
            Some(QueueDescription { restart: Restart::Replay, .. }) => Next::Replay,
            Some(QueueDescription { restart: Restart::Fail, .. }) => Next::Fail,
            Some(QueueDescription { restart: Restart::Drop, .. }) | None => Next::Drop,
        };
        if let Some((place, request)) = completed {
            in_flight.wait_first(place, next(&request));
        }
        in_flight.interrupt(step, |request| {
            window.give_back(request.run);
            next(request)
        });
    }

    /// The backend starts, with devices that were reset and zeroed rings: nothing that it completes is taken for the
    /// work of its predecessor, from which all was taken back. What was out waits for it.
    ///
    /// # Errors
    /// The channel is not in its memory.
    pub fn restart_channel(&mut self, memory: &impl GuestMemory) -> Result<(), RingCorrupt> {
        self.is_attached = false;
        self.described.forget();
        self.is_state_new = false;
        self.channel.restart(memory, self.state)
    }

    /// The backend is ready. What was out when its predecessor died is posted again, by and by, as it calls
    /// [`Service::complete`] or the frontend notifies: in the order in which it first went out, and before anything
    /// else. A queue whose requests may be done twice says so (`abi::io::Restart`); what a frontend has back already,
    /// and may have been sent, is not sent again.
    ///
    /// A channel that it has not attached it does not serve in this life: then all that is as in [`Service::abandon`].
    /// Returns, as that does, whether the frontend has to [`resume`](Service::resume).
    #[must_use]
    pub fn serve_again(&mut self) -> bool {
        if self.backend != BackendState::Away {
            return false;
        }
        // What the backend was not there for does not count against it.
        self.oldest = (0, 0);
        if self.is_attached {
            self.backend = BackendState::Serving;
            return self.deferred != 0 || self.used != 0;
        }
        self.backend = BackendState::Absent;
        self.is_owing()
    }

    /// The backend does not come back: all that was out was taken back. That, and what comes, fails from now on.
    /// Returns whether something is to fail, for which the frontend's vCPU has to [`resume`](Service::resume).
    #[must_use]
    pub fn abandon(&mut self) -> bool {
        self.backend = BackendState::Gone;
        self.is_owing()
    }

    /// Forgets what was interrupted, as [`Service::forget_partial`]. A chain that was found in part is its queue's
    /// still.
    fn forget_interrupted(&mut self) -> Option<(u8, InFlightRequest)> {
        self.put_back();
        if let Some(Partial::Walk { place }) = &self.partial
            && let Some(index) = self.in_flight.chain(*place).map(|kept| u16::from(kept.queue))
        {
            self.block(index);
        }
        self.forget_partial(None)
    }

    /// Whether something is out, or waits, or is used and the frontend has not been told.
    fn is_owing(&self) -> bool {
        self.used != 0 || self.blocked != 0 || self.deferred != 0 || self.in_flight.count() != 0
    }

    /// The watchdog checks, `ticks` that count after its last check. Gives the backend's heartbeat word, and for how
    /// many such ticks the same request has been the oldest that is out, of those that count, from the first check that
    /// found it on. Queues that wait although nothing is out count as one request. A channel that the backend does not
    /// serve is not held against it.
    pub fn look(&mut self, backend: &impl GuestMemory, ticks: u64) -> Sight {
        let is_served = !matches!(self.backend, BackendState::Absent | BackendState::Gone);
        let oldest = match self.in_flight.oldest(self.watched) {
            Some(sequence) if is_served => sequence,
            // For these the backend has only to call, and a good one does so.
            None if is_served && !self.in_flight.is_any_out() && self.is_watched_blocked() => WAITING,
            // Nor has it more to do for what is used and the frontend has not been told of.
            None if is_served && self.used & self.watched & !self.early != 0 => WAITING,
            Some(_) | None => 0,
        };
        let (known, age_ticks) = self.oldest;
        let age_ticks = if oldest != 0 && oldest == known { age_ticks.saturating_add(ticks) } else { 0 };
        self.oldest = (oldest, age_ticks);
        // A channel lies in its backend's memory, as was checked.
        Sight { beat: self.channel.heartbeat(backend).unwrap_or(0), age_ticks }
    }

    fn is_watched_blocked(&self) -> bool {
        self.blocked & self.watched != 0 || (self.watched != 0 && self.in_flight.is_any_waiting())
    }

    /// Handles queue `index` while the backend does not serve or chains wait. Returns whether new chains may be taken.
    #[cold]
    #[inline(never)]
    pub(super) fn catch_up<M: GuestMemory>(
        &mut self,
        index: u16,
        budget: &mut Budget,
        memories: &MemoryPair<'_, M>,
        outcome: &mut Outcome,
    ) -> Result<bool, ProtocolError> {
        if self.backend == BackendState::Away {
            self.block(index);
            return Ok(false);
        }
        let waiting = self.serve_waiting(budget, memories)?;
        if self.backend == BackendState::Serving && waiting != Waiting::Over {
            if waiting == Waiting::NoRoom {
                self.block(index);
            }
            return Ok(waiting == Waiting::Done);
        }
        if waiting != Waiting::Done || !self.refuse(index, budget, memories)? {
            self.deferred |= bit(index);
            outcome.again = true;
        }
        Ok(false)
    }

    /// Gives the chains of queue `index` back with an error, some of them. Returns whether these were all.
    fn refuse<M: GuestMemory>(
        &mut self,
        index: u16,
        budget: &mut Budget,
        memories: &MemoryPair<'_, M>,
    ) -> Result<bool, ProtocolError> {
        while !self.is_over(budget, memories) {
            budget.chains = budget.chains.wrapping_add(1);
            let place = match self.take_next(index, None, memories)? {
                Taken::Chain(place) => place,
                Taken::Part(place) => {
                    self.interrupt(Partial::Walk { place });
                    return Ok(false);
                }
                // Nothing is out, so there is room.
                Taken::Nothing | Taken::NoRoom => {
                    let Some(queue) = self.queue(index) else { return Ok(true) };
                    match queue.enable_notifications(memories.frontend)? {
                        true => continue,
                        false => return Ok(true),
                    }
                }
            };
            self.counters.count(index, |queue| add(&mut queue.chains, 1));
            self.fail_and_free(place, memories)?;
        }
        Ok(false)
    }
}
