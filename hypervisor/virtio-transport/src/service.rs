//! One virtio device between its frontend's queues and its channel.
//!
//! Nothing here knows what kind of device it is: what becomes of a chain is in its queue's
//! [`QueueDescription`], which the backend gave when it attached.
//!
//! Each call takes a bounded number of chains and bytes, and ends where an interrupt is pending.
//! [`Outcome::again`] says that work is left: the caller calls again. Work that a backend's call leaves is done on the
//! frontend's vCPU ([`Service::take_deferred`]).

mod attaching;
mod completing;
mod granting;
mod holdings;
mod outage;
mod partial;
mod posting;
mod receiving;
mod session;

use super::QUEUES_MAX;
use super::channel::{Channel, RingCorrupt, State};
use super::counters::{Counters, add};
pub use super::in_flight::INTERRUPT_STEPS as TAKE_BACK_STEPS;
use super::in_flight::InFlightRequests;
use super::policy::Allocation;
use super::window::{Run, Window};
use crate::virtqueue::{QueueError, Virtqueue};
use abi::io::{Layout, QueueDescription, WINDOW_PAGE_SIZE};
use attaching::Described;
pub use holdings::Holdings;
use outage::BackendState;
use partial::{Partial, Waiting};
use receiving::Reception;
use vdev::GuestMemory;

/// The most chains that are served at one go, and bytes that are copied.
const CHAINS_MAX: u32 = 24;
const BYTES_MAX: u64 = 256 << 10;
/// The most completions that are taken at one go, and receptions.
const COMPLETIONS_MAX: u32 = 64;
const RECEPTIONS_MAX: u32 = 64;
/// The most descriptors that are looked at at one go, and listed for devices, but for those of the last chain.
const DESCRIPTORS_MAX: u32 = 768;
/// The most chains that one reception is spread over.
const MERGED_MAX: usize = 4;
/// How many chains that went back early a frontend need not hear of at once.
const UNSIGNALLED_MAX: u16 = 32;

/// The memory of the two sides.
pub struct MemoryPair<'a, M> {
    /// The frontend's.
    pub frontend: &'a M,
    /// The backend's.
    pub backend: &'a M,
}

/// What the caller has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Ring the backend's doorbell.
    pub doorbell: bool,
    /// Raise the frontend's interrupt: used buffers.
    pub interrupt: bool,
    /// Call again: there is more to do.
    pub again: bool,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.doorbell |= other.doorbell;
        self.interrupt |= other.interrupt;
        self.again |= other.again;
    }
}

/// Who broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    /// The frontend: its device needs a reset.
    Frontend(QueueError),
    /// The backend.
    Backend,
}

impl From<QueueError> for ProtocolError {
    fn from(error: QueueError) -> Self {
        Self::Frontend(error)
    }
}

impl From<RingCorrupt> for ProtocolError {
    fn from(_: RingCorrupt) -> Self {
        Self::Backend
    }
}

/// What was done of one go.
#[derive(Clone, Copy)]
struct Budget {
    chains: u32,
    copied: u64,
    descriptors: u32,
}

/// A virtio device.
pub struct Service {
    allocation: Allocation,
    channel: Channel,
    window: Window,
    /// The size of the request window in bytes.
    window_size: u64,
    in_flight: InFlightRequests,
    /// The chain of which a part is done.
    partial: Option<Partial>,
    /// What was received, as long as it is given to the frontend.
    reception: Reception,
    /// Requests that are out with the frontend's own memory, which devices may write to.
    grants_out: u16,
    /// Whether the backend's devices can be reset: a grant that nobody could end would be for ever.
    may_grant: bool,
    /// Descriptors that were looked at or listed, modulo 2³².
    descriptors: u32,
    queues: [Option<Virtqueue>; QUEUES_MAX],
    policies: [QueueDescription; QUEUES_MAX],
    /// What the backend has said that it will serve.
    described: Described,
    /// Queues whose chains go back early, and those whose requests count against the backend, a bit each.
    early: u8,
    watched: u8,
    /// Queues that wait for a request to complete, or for the backend, a bit each.
    blocked: u8,
    /// Queues that the last go had no time for, a bit each: the frontend comes back to them.
    deferred: u8,
    /// The frontend does not know yet that it has to come back to some.
    has_deferred: bool,
    /// Queues with used chains of which the frontend has not been told, a bit each. They outlive a call that ends
    /// early.
    used: u8,
    /// The state of the device as the backend sees it.
    state: State,
    /// The backend has not been shown the state.
    is_state_new: bool,
    /// The backend has said in this life of it what is behind the channel.
    is_attached: bool,
    /// How the backend stands to the channel.
    backend: BackendState,
    /// The oldest request at the watchdog's last check, and for how many ticks that count it has been that.
    oldest: (u64, u64),
    counters: Counters,
}

impl Service {
    /// A device whose channel lies at `base` in the backend's memory, `size` bytes of it. `may_grant` says whether the
    /// backend's devices can be reset, and may hence be granted memory.
    pub fn new(allocation: Allocation, base: u64, size: u64, may_grant: bool) -> Self {
        let layout = Layout::new(allocation.filled);
        let window_size = size.saturating_sub(layout.request_window());
        let pages = window_size / WINDOW_PAGE_SIZE;
        Self {
            allocation,
            channel: Channel::new(base, layout),
            window: Window::new(usize::try_from(pages).unwrap_or(usize::MAX)),
            window_size,
            in_flight: InFlightRequests::new(allocation.requests, allocation.chains),
            partial: None,
            reception: Reception::default(),
            grants_out: 0,
            may_grant,
            descriptors: 0,
            queues: [const { None }; QUEUES_MAX],
            policies: [QueueDescription::NONE; QUEUES_MAX],
            described: Described::NOTHING,
            early: 0,
            watched: 0,
            blocked: 0,
            deferred: 0,
            has_deferred: false,
            used: 0,
            state: State { session: 0, is_live: false, features: 0 },
            is_state_new: false,
            is_attached: false,
            backend: BackendState::Away,
            oldest: (0, 0),
            counters: Counters::NONE,
        }
    }

    /// What happened so far.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Requests that are out, and chains that wait to go on.
    pub const fn out(&self) -> usize {
        self.in_flight.count()
    }

    /// The frontend has notified queue `index`.
    ///
    /// # Errors
    /// Who broke the protocol. The device needs a reset, or the backend does.
    #[inline]
    pub fn notify<M: GuestMemory>(
        &mut self,
        index: u16,
        memories: &MemoryPair<'_, M>,
    ) -> Result<Outcome, ProtocolError> {
        self.counters.count(index, |queue| add(&mut queue.kicks, 1));
        let outcome = match self.filled_index(index) {
            Some(filled) => {
                let outcome = self.receive(index, filled, memories);
                self.channel.publish_consumed(memories.backend)?;
                outcome?
            }
            None => self.serve(index, memories)?,
        };
        if self.used & !self.early == 0 && self.may_signal_later() {
            return self.ring(outcome, memories);
        }
        self.conclude(outcome, memories)
    }

    /// Whether the frontend has nothing to hear of but chains that went back early, which it minds little: when it
    /// sends again it looks by itself, and what it receives interrupts it for both. The backend calls soon after each
    /// request, and brings that about even if nothing comes.
    fn may_signal_later(&mut self) -> bool {
        self.in_flight.is_any_out()
            && bits(self.used).all(|index| self.queue(index).is_some_and(|queue| queue.untold() < UNSIGNALLED_MAX))
    }

    /// The backend has completed requests, or received something.
    ///
    /// # Errors
    /// As for [`Service::notify`].
    #[inline]
    pub fn complete<M: GuestMemory>(&mut self, memories: &MemoryPair<'_, M>) -> Result<Outcome, ProtocolError> {
        add(&mut self.counters.calls, 1);
        let mut outcome = Outcome::default();
        let result = match self.complete_all(memories, &mut outcome) {
            Ok(true) => self.go_on(outcome, 1, memories),
            Ok(false) => Ok(outcome),
            Err(error) => Err(error),
        };
        // Whatever went wrong: what was taken is taken.
        self.channel.publish_consumed(memories.backend)?;
        result
    }

    /// Goes on where the last call left off, in the frontend's time.
    ///
    /// # Errors
    /// As for [`Service::notify`].
    pub fn resume<M: GuestMemory>(&mut self, memories: &MemoryPair<'_, M>) -> Result<Outcome, ProtocolError> {
        self.blocked |= core::mem::take(&mut self.deferred);
        let result = self.go_on(Outcome::default(), 0, memories);
        self.channel.publish_consumed(memories.backend)?;
        let mut outcome = result?;
        outcome.again |= self.take_deferred();
        Ok(outcome)
    }

    /// After a call of the backend's: whether the frontend has to [`resume`](Service::resume), since there is more to
    /// do for it than its backend should have to.
    #[inline]
    pub fn take_deferred(&mut self) -> bool {
        // A plain load first: it is nearly always false.
        self.has_deferred && core::mem::take(&mut self.has_deferred)
    }

    /// Goes on with what waits, in a call that has done `steps` already: an interrupt that is pending comes first where
    /// that is any.
    #[inline]
    fn go_on<M: GuestMemory>(
        &mut self,
        outcome: Outcome,
        steps: u32,
        memories: &MemoryPair<'_, M>,
    ) -> Result<Outcome, ProtocolError> {
        let mut outcome = outcome;
        if self.blocked != 0 || self.in_flight.is_any_waiting() {
            self.serve_blocked(steps, memories)?;
        }
        let mut filled = self.allocation.filled;
        let mut place = 0;
        // A queue that has had a whole go leaves the others to the next one.
        while filled != 0 && !outcome.again {
            outcome.add(self.receive(filled.trailing_zeros() as u16, place, memories)?);
            filled &= filled.wrapping_sub(1);
            place = place.wrapping_add(1);
        }
        self.conclude(outcome, memories)
    }

    /// Goes on with chains that wait for their next piece, and looks into the queues that wait for room, until they
    /// have had one go together; what is left then is deferred.
    #[inline(never)]
    fn serve_blocked<M: GuestMemory>(&mut self, steps: u32, memories: &MemoryPair<'_, M>) -> Result<(), ProtocolError> {
        let mut budget = Budget { chains: steps, ..self.budget() };
        let waiting = self.serve_waiting(&mut budget, memories)?;
        if waiting != Waiting::Done {
            self.has_deferred |= waiting == Waiting::Over;
            return Ok(());
        }
        let blocked = core::mem::take(&mut self.blocked);
        let first = blocked & self.in_flight.starved();
        for index in bits(first).chain(bits(blocked & !first)) {
            if self.is_over(&budget, memories) {
                self.deferred |= bit(index);
                self.has_deferred = true;
                continue;
            }
            let before = self.counters.queue(index).chains;
            self.has_deferred |= self.serve(index, memories)?.again;
            let chains = self.counters.queue(index).chains.wrapping_sub(before);
            budget.chains = budget.chains.saturating_add(chains as u32);
        }
        Ok(())
    }

    /// A go begins.
    #[inline]
    const fn budget(&self) -> Budget {
        Budget { chains: 0, copied: self.counters.copied, descriptors: self.descriptors }
    }

    /// Whether a go is to end: it has done something, and as much as it may, or an interrupt is pending.
    #[inline(always)]
    fn is_over<M: GuestMemory>(&self, budget: &Budget, memories: &MemoryPair<'_, M>) -> bool {
        budget.chains != 0 && self.may_not_go_on(budget, memories)
    }

    #[inline(never)]
    fn may_not_go_on<M: GuestMemory>(&self, budget: &Budget, memories: &MemoryPair<'_, M>) -> bool {
        // The look first, so that there always is one.
        memories.backend.has_pending_interrupt()
            || budget.chains >= CHAINS_MAX
            || self.partial.is_some()
            || self.is_spent(budget)
    }

    /// Whether a go has copied, or looked at, as much as it may.
    #[inline]
    const fn is_spent(&self, budget: &Budget) -> bool {
        self.counters.copied.wrapping_sub(budget.copied) >= BYTES_MAX
            || self.descriptors.wrapping_sub(budget.descriptors) >= DESCRIPTORS_MAX
    }

    /// Remembers to look into queue `index` when there is time again.
    #[cold]
    #[inline(never)]
    fn defer(&mut self, index: u16) -> Outcome {
        self.deferred |= bit(index);
        Outcome { again: true, ..Outcome::default() }
    }

    /// Remembers to look into queue `index` when there is room again.
    fn block(&mut self, index: u16) {
        self.blocked |= bit(index);
    }

    /// Tells the frontend of used chains, and the backend of requests.
    fn conclude<M: GuestMemory>(
        &mut self,
        outcome: Outcome,
        memories: &MemoryPair<'_, M>,
    ) -> Result<Outcome, ProtocolError> {
        let mut outcome = outcome;
        for index in bits(core::mem::take(&mut self.used)) {
            let Some(queue) = self.queue(index) else { continue };
            let used = u64::from(queue.untold());
            let interrupt = queue.take_interrupt(memories.frontend)?;
            outcome.interrupt |= interrupt;
            self.counters.count(index, |queue| {
                add(&mut queue.used, used);
                add(&mut queue.interrupts, u64::from(interrupt));
            });
        }
        self.ring(outcome, memories)
    }

    /// Tells the backend of requests.
    #[inline]
    fn ring<M: GuestMemory>(
        &mut self,
        outcome: Outcome,
        memories: &MemoryPair<'_, M>,
    ) -> Result<Outcome, ProtocolError> {
        let mut outcome = outcome;
        outcome.doorbell = self.channel.publish(memories.backend)?;
        add(&mut self.counters.doorbells, u64::from(outcome.doorbell));
        Ok(outcome)
    }

    /// The place of queue `index` among the filled ones, if it is one.
    #[inline]
    fn filled_index(&self, index: u16) -> Option<u16> {
        let filled = self.allocation.filled;
        let below = !u32::MAX.wrapping_shl(u32::from(index));
        (filled.wrapping_shr(u32::from(index)) & 1 != 0).then(|| (filled & below).count_ones() as u16)
    }

    #[inline]
    fn queue(&mut self, index: u16) -> Option<&mut Virtqueue> {
        self.queues.get_mut(usize::from(index))?.as_mut()
    }

    #[inline]
    fn policy(&self, index: u16) -> &QueueDescription {
        // Masked, so that the compiler sees that the place exists.
        self.policies.get(usize::from(index) & QUEUES_MAX.wrapping_sub(1)).unwrap_or(&QueueDescription::NONE)
    }
}

/// Where a run of window pages starts, in bytes from the start of the channel.
fn offset_of(layout: Layout, run: Run) -> u64 {
    layout.request_window().wrapping_add(u64::from(run.first).wrapping_mul(WINDOW_PAGE_SIZE))
}

/// The numbers of the bits that are set.
fn bits(mut set: u8) -> impl Iterator<Item = u16> {
    core::iter::from_fn(move || {
        let lowest = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (lowest < u8::BITS).then_some(lowest as u16)
    })
}

/// The bit of queue `index`.
const fn bit(index: u16) -> u8 {
    1u8.wrapping_shl(index as u32)
}

const _: () = assert!(QUEUES_MAX == u8::BITS as usize, "sets of queues are bytes");
