//! The rings of one channel, as EL2 uses them (`abi::io` has the layout).
//!
//! What this module leaves out: what the entries mean.

use abi::io::{
    self, COMPLETION_RING, COMPLETION_SIZE, Completion, DescriptionWords, FILLED_MAX, Layout, RECEIVE_SIZE,
    REQUEST_RING, REQUEST_SIZE, RING_ENTRIES, Receive, Request, control,
};
use core::sync::atomic::{Ordering, fence};
use vdev::{GuestAddr, GuestFault, GuestMemory};

/// The backend broke the protocol of the rings: a counter says more than a ring holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingCorrupt;

impl From<GuestFault> for RingCorrupt {
    /// The manifest was checked: a channel lies in its backend's RAM. So this does not happen; if it did, the
    /// channel would be as good as corrupt.
    fn from(_: GuestFault) -> Self {
        Self
    }
}

/// How far EL2 has read a receive ring.
#[derive(Clone, Copy, Default)]
struct Receptions {
    consumed: u32,
    published: u32,
}

/// What the backend is told of the state of the device (`abi::io::control`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Counts the resets of the device.
    pub session: u32,
    /// Whether the driver is ready.
    pub is_live: bool,
    /// What the driver has accepted.
    pub features: u64,
}

/// EL2's end of the rings. Its counters are its own; those in shared memory are for the other side alone.
pub struct Channel {
    base: u64,
    layout: Layout,
    requests_posted: u32,
    requests_published: u32,
    completions_consumed: u32,
    completions_published: u32,
    receptions: [Receptions; FILLED_MAX as usize],
    generation: u32,
}

impl Channel {
    /// The channel at `base` in the backend's memory.
    pub const fn new(base: u64, layout: Layout) -> Self {
        Self {
            base,
            layout,
            requests_posted: 0,
            requests_published: 0,
            completions_consumed: 0,
            completions_published: 0,
            receptions: [Receptions { consumed: 0, published: 0 }; FILLED_MAX as usize],
            generation: 0,
        }
    }

    /// Where things are in it.
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// The address `offset` bytes into the channel. It cannot wrap: a channel lies in RAM, and offsets within it.
    #[inline]
    pub fn at(&self, offset: u64) -> GuestAddr {
        GuestAddr(self.base.wrapping_add(offset))
    }

    fn entry<const SIZE: u64>(&self, ring: u64, counter: u32) -> GuestAddr {
        let index = u64::from(counter & RING_ENTRIES.wrapping_sub(1));
        self.at(ring.wrapping_add(index.wrapping_mul(SIZE)))
    }

    /// The backend's generation that requests carry.
    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// The backend starts anew, with zeroed rings.
    ///
    /// # Errors
    /// See [`RingCorrupt`].
    pub fn restart(&mut self, memory: &impl GuestMemory, state: State) -> Result<(), RingCorrupt> {
        *self = Self { generation: self.generation.wrapping_add(1), ..Self::new(self.base, self.layout) };
        memory.store_u32(self.at(control::GENERATION), self.generation)?;
        self.publish_state(memory, state)
    }

    /// The backend is away: what it has not been shown is not stored into memory that is being cleared for its next
    /// life.
    pub fn forget_unpublished(&mut self) {
        self.requests_published = self.requests_posted;
        self.completions_published = self.completions_consumed;
        self.receptions.iter_mut().for_each(|ring| ring.published = ring.consumed);
    }

    /// Shows the backend the state of the device.
    ///
    /// # Errors
    /// See [`RingCorrupt`].
    pub fn publish_state(&self, memory: &impl GuestMemory, state: State) -> Result<(), RingCorrupt> {
        let State { session, is_live, features } = state;
        memory.store_u32(self.at(control::IS_LIVE), 0)?;
        memory.store_u32(self.at(control::FEATURES), features as u32)?;
        memory.store_u32(self.at(control::FEATURES_HIGH), (features >> 32) as u32)?;
        memory.store_u32(self.at(control::SESSION), session)?;
        // A driver that is ready is one of this session, and with these features.
        fence(Ordering::Release);
        memory.store_u32(self.at(control::IS_LIVE), is_live.into())?;
        Ok(())
    }

    /// Copies what the backend says of the device into `words`.
    ///
    /// # Errors
    /// See [`RingCorrupt`].
    pub fn load_description(&self, memory: &impl GuestMemory, words: &mut DescriptionWords) -> Result<(), RingCorrupt> {
        for (offset, part) in words.parts_mut() {
            memory.load_u64_pairs(self.at(offset), part)?;
        }
        Ok(())
    }

    /// The backend's heartbeat word.
    ///
    /// # Errors
    /// See [`RingCorrupt`].
    pub fn heartbeat(&self, memory: &impl GuestMemory) -> Result<u32, RingCorrupt> {
        Ok(memory.load_u32(self.at(control::HEARTBEAT))?)
    }

    /// Writes a request into the ring; [`Channel::publish`] shows it to the backend. There is room for it as long as no
    /// more than [`RING_ENTRIES`] are out.
    ///
    /// # Errors
    /// See [`RingCorrupt`].
    #[inline]
    pub fn post(&mut self, memory: &impl GuestMemory, request: &Request) -> Result<(), RingCorrupt> {
        let entry = self.entry::<REQUEST_SIZE>(REQUEST_RING, self.requests_posted);
        memory.store_u64_pairs(entry, &request.to_words())?;
        self.requests_posted = self.requests_posted.wrapping_add(1);
        Ok(())
    }

    /// Shows the backend what was posted. Returns whether it wants its doorbell rung.
    ///
    /// # Errors
    /// See [`RingCorrupt`].
    #[inline]
    pub fn publish(&mut self, memory: &impl GuestMemory) -> Result<bool, RingCorrupt> {
        let (old, new) = (self.requests_published, self.requests_posted);
        if old == new {
            return Ok(false);
        }
        // The entries before the counter.
        fence(Ordering::Release);
        memory.store_u32(self.at(control::REQUESTS_PRODUCED), new)?;
        self.requests_published = new;
        // The counter before the look at the event word: the other side does it the other way round, so that one of the
        // two sees the other's store.
        fence(Ordering::SeqCst);
        let event = memory.load_u32(self.at(control::REQUESTS_EVENT))?;
        Ok(io::is_notification_due(event, old, new))
    }

    /// Whether there is another completion.
    ///
    /// # Errors
    /// The counter is beyond the ring.
    #[inline]
    pub fn has_completion(&self, memory: &impl GuestMemory) -> Result<bool, RingCorrupt> {
        let consumed = self.completions_consumed;
        Ok(produced(memory, self.at(control::COMPLETIONS_PRODUCED), consumed)? != consumed)
    }

    /// The next completion, if there is one.
    ///
    /// # Errors
    /// The counter is beyond the ring.
    #[inline]
    pub fn next_completion(&mut self, memory: &impl GuestMemory) -> Result<Option<Completion>, RingCorrupt> {
        if !self.has_completion(memory)? {
            return Ok(None);
        }
        let entry = self.entry::<COMPLETION_SIZE>(COMPLETION_RING, self.completions_consumed);
        let [sequence, numbers] = memory.load_u64_pair(entry)?;
        let [flags, tail] = memory.load_u64_pair(GuestAddr(entry.0.wrapping_add(16)))?;
        self.completions_consumed = self.completions_consumed.wrapping_add(1);
        Ok(Some(Completion::from_words([sequence, numbers, flags, tail])))
    }

    /// How many receptions for filled queue `index` the backend has published, modulo 2³².
    ///
    /// # Errors
    /// The counter is beyond the ring.
    #[inline]
    pub fn receptions_produced(&self, memory: &impl GuestMemory, index: u16) -> Result<u32, RingCorrupt> {
        let consumed = self.receptions.get(usize::from(index)).map_or(0, |receptions| receptions.consumed);
        produced(memory, self.at(control::receptions_produced(index)), consumed)
    }

    /// The next reception for filled queue `index`, of which the backend has published `produced`. It stays until
    /// [`Channel::consume_reception`].
    ///
    /// # Errors
    /// The ring is not in the backend's memory.
    #[inline]
    pub fn peek_reception(
        &self,
        memory: &impl GuestMemory,
        index: u16,
        produced: u32,
    ) -> Result<Option<Receive>, RingCorrupt> {
        let Some(receptions) = self.receptions.get(usize::from(index)) else { return Ok(None) };
        if produced == receptions.consumed {
            return Ok(None);
        }
        let entry = self.entry::<RECEIVE_SIZE>(self.layout.receive_ring(index), receptions.consumed);
        Ok(Some(Receive::from_words(memory.load_u64_pair(entry)?)))
    }

    /// Ends the reception that [`Channel::peek_reception`] gave.
    pub fn consume_reception(&mut self, index: u16) {
        if let Some(receptions) = self.receptions.get_mut(usize::from(index)) {
            receptions.consumed = receptions.consumed.wrapping_add(1);
        }
    }

    /// Tells the backend how far EL2 has read.
    ///
    /// # Errors
    /// See [`RingCorrupt`].
    #[inline]
    pub fn publish_consumed(&mut self, memory: &impl GuestMemory) -> Result<(), RingCorrupt> {
        // What was read before the counter that lets it be overwritten.
        fence(Ordering::Release);
        if self.completions_published != self.completions_consumed {
            self.completions_published = self.completions_consumed;
            memory.store_u32(self.at(control::COMPLETIONS_CONSUMED), self.completions_consumed)?;
        }
        let filled = usize::from(self.layout.filled());
        for (index, receptions) in (0..).zip(self.receptions.iter_mut().take(filled)) {
            if receptions.published != receptions.consumed {
                receptions.published = receptions.consumed;
                let at = GuestAddr(self.base.wrapping_add(control::receptions_consumed(index)));
                memory.store_u32(at, receptions.consumed)?;
            }
        }
        Ok(())
    }
}

/// The counter at `address`, which the backend writes; it may be ahead of `consumed` by as much as a ring holds.
#[inline]
fn produced(memory: &impl GuestMemory, address: GuestAddr, consumed: u32) -> Result<u32, RingCorrupt> {
    let produced = memory.load_u32(address)?;
    match produced.wrapping_sub(consumed) {
        0 => Ok(produced),
        1..=RING_ENTRIES => {
            // The counter before the entries.
            fence(Ordering::Acquire);
            Ok(produced)
        }
        _ => Err(RingCorrupt),
    }
}
