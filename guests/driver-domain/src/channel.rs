//! One channel: the rings and the windows that this domain shares with EL2 for one client's device.
//!
//! Each side believes its own counters alone. What EL2 writes is checked here again, although EL2 is trusted: a fault
//! of one side must not become a fault of the other.

use crate::calls::Calls;
use abi::io::{
    COMPLETE_AGAIN, COMPLETION_RING, COMPLETION_SIZE, Call, Completion, DESCRIPTION, Description, FILLED_MAX, Layout,
    RECEIVE_SIZE, REQUEST_RING, REQUEST_SIZE, RING_ENTRIES, Receive, Request, SEGMENT_SIZE, SEGMENTS_AROUND,
    TAIL_SIZE_MAX, control,
};
use rt::shared::Shared;
use services::network::SLOT_SIZE;

/// Who asked, and what a completion must repeat.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    sequence: u64,
    generation: u32,
}

impl Ticket {
    /// The ticket of `request`.
    #[inline]
    pub const fn of(request: &Request) -> Self {
        Self { sequence: request.sequence, generation: request.generation }
    }

    /// The completion of that request, with `written` bytes put into its room.
    #[inline]
    pub const fn completion(self, written: u32) -> Completion {
        let Self { sequence, generation } = self;
        Completion { sequence, generation, written, is_end: false, tail: [0; TAIL_SIZE_MAX] }
    }
}

/// One channel.
#[derive(Debug)]
pub struct Channel {
    number: u32,
    calls: Calls,
    memory: Shared,
    layout: Layout,
    /// Where the request window starts.
    window: u64,
    /// Requests taken; each is completed once, so this many completions are promised.
    taken: u32,
    /// What the event word says: told when requests pass this count.
    announced: u32,
    completed: u32,
    /// Of each filled queue.
    received: [u32; FILLED_MAX as usize],
    /// EL2 is to be told of what was completed and received.
    is_dirty: bool,
    /// Completions that nobody waits for, and that EL2 has not been told of.
    quiet: u32,
}

/// How many completions that nobody waits for EL2 is not told of: the window has room for many times that.
const QUIET_MAX: u32 = 16;

/// The offset of entry `counter` of a ring, whose entries have `size` bytes.
#[inline]
const fn entry(ring: u64, counter: u32, size: u64) -> u64 {
    ring + (counter % RING_ENTRIES) as u64 * size
}

impl Channel {
    /// Channel `number` in `memory`, with zeroed rings, of which EL2 is told by `calls`; `None` where `memory` is too
    /// small.
    pub fn new(number: u32, calls: Calls, memory: Shared, layout: Layout) -> Option<Self> {
        let window = layout.request_window();
        let is_large_enough = memory.size() > window && memory.address().is_multiple_of(REQUEST_SIZE);
        is_large_enough.then_some(Self {
            number,
            calls,
            memory,
            layout,
            window,
            taken: 0,
            announced: 0,
            completed: 0,
            received: [0; FILLED_MAX as usize],
            // "Complete" is what brings the requests that an earlier start of this domain has left.
            is_dirty: true,
            quiet: 0,
        })
    }

    /// The size of the request window in bytes.
    pub const fn window_size(&self) -> u64 {
        self.memory.size() - self.window
    }

    /// Says what the device is, and gives EL2's answer: 0 if it is one.
    #[inline(never)]
    pub fn attach(&self, description: &Description) -> u64 {
        let words = description.to_words();
        for (offset, pair) in (DESCRIPTION..).step_by(16).zip(words.as_chunks().0) {
            self.memory.store_pair(offset, *pair);
        }
        loop {
            let answer = self.calls.make(Call::Attach, self.number);
            if answer != COMPLETE_AGAIN {
                return answer;
            }
        }
    }

    /// The next request, which stays where it is until [`Self::take`]. `None` also while EL2 has left no room for its
    /// completion.
    #[inline]
    pub fn peek(&self) -> Option<Request> {
        let waiting = self.memory.load(control::REQUESTS_PRODUCED).wrapping_sub(self.taken);
        // More than the ring holds is nonsense.
        if waiting == 0 || waiting > RING_ENTRIES {
            return None;
        }
        let owed = self.taken.wrapping_sub(self.memory.load(control::COMPLETIONS_CONSUMED));
        let request = || self.memory.load_line(entry(REQUEST_RING, self.taken, REQUEST_SIZE));
        (owed < RING_ENTRIES).then(|| Request::from_words(request()))
    }

    /// Takes the request that [`Self::peek`] showed.
    #[inline]
    pub const fn take(&mut self) {
        self.taken = self.taken.wrapping_add(1);
    }

    /// The data that `request` gives; `None` where it is not in the request window.
    #[inline]
    pub fn readable(&self, request: &Request) -> Option<Shared> {
        if request.segments == 0 { self.in_window(request.offset.into(), request.readable.into()) } else { None }
    }

    /// The room for data that `request` has; `None` where it is not in the request window.
    #[inline]
    pub fn writable(&self, request: &Request) -> Option<Shared> {
        let offset = u64::from(request.offset) + u64::from(Request::writable_offset(request.readable));
        if request.segments == 0 { self.in_window(offset, request.writable.into()) } else { None }
    }

    /// The list of the segments of `request`, with an entry in front and one behind; `None` where it has none, or they
    /// are not in the request window.
    #[inline]
    pub fn segments(&self, request: &Request) -> Option<Shared> {
        let size = u64::from(request.segments.saturating_add(SEGMENTS_AROUND)) * SEGMENT_SIZE;
        if request.segments == 0 { None } else { self.in_window(request.offset.into(), size) }
    }

    #[inline]
    fn in_window(&self, offset: u64, size: u64) -> Option<Shared> {
        if offset >= self.window { self.memory.piece(offset, size) } else { None }
    }

    /// Completes a request that was taken.
    #[inline]
    pub fn complete(&mut self, completion: &Completion) {
        let at = entry(COMPLETION_RING, self.completed, COMPLETION_SIZE);
        self.memory.store_words(at, completion.to_words());
        self.completed = self.completed.wrapping_add(1);
        self.memory.store(control::COMPLETIONS_PRODUCED, self.completed);
        self.is_dirty = true;
    }

    /// Completes a request that was taken, and that nobody waits for. EL2 is told with whatever comes next, or when
    /// there are many, or when [`Self::hasten`] says so.
    #[inline]
    pub fn complete_quietly(&mut self, completion: &Completion) {
        let was_dirty = self.is_dirty;
        self.complete(completion);
        self.quiet += 1;
        self.is_dirty = was_dirty || self.quiet >= QUIET_MAX;
    }

    /// Whether EL2 has to be told of completions some time.
    #[inline]
    pub const fn is_quiet(&self) -> bool {
        self.quiet != 0
    }

    /// Lets EL2 be told of all completions.
    pub const fn hasten(&mut self) {
        self.is_dirty |= self.is_quiet();
    }

    /// The session of the client's driver; `None` while none is ready.
    #[inline]
    pub fn session(&self) -> Option<u32> {
        // First of all: what is read after it may be that of a later session, and then EL2 drops what carries this one.
        let session = self.memory.load(control::SESSION);
        (self.memory.load(control::IS_LIVE) != 0).then_some(session)
    }

    /// Whether the driver has accepted `feature`, one of those below bit 32. What is decided by it carries a session
    /// that was read before.
    #[inline]
    pub fn has_accepted(&self, feature: u64) -> bool {
        u64::from(self.memory.load(control::FEATURES)) & feature != 0
    }

    /// Where the next reception of filled queue `index` goes, a slot of the receive window; `None` where there is no
    /// such queue, and while EL2 has consumed none of those there are.
    #[inline]
    pub fn receive_slot(&self, index: u16) -> Option<Shared> {
        let received = *self.received.get(usize::from(index)).filter(|_| index < self.layout.filled())?;
        let waiting = received.wrapping_sub(self.memory.load(control::receptions_consumed(index)));
        let offset = entry(self.layout.receive_window(index), received, SLOT_SIZE);
        if waiting < RING_ENTRIES { self.memory.piece(offset, SLOT_SIZE) } else { None }
    }

    /// How many receptions of filled queue `index` EL2 has consumed, modulo 2³².
    pub fn consumed(&self, index: u16) -> u32 {
        self.memory.load(control::receptions_consumed(index))
    }

    /// How many receptions of filled queue `index` EL2 has not consumed yet.
    #[inline]
    fn unconsumed(&self, index: u16) -> u32 {
        let received = self.received.get(usize::from(index)).copied().unwrap_or(0);
        received.wrapping_sub(self.consumed(index))
    }

    /// Whether EL2 has consumed all receptions of filled queue `index`.
    pub fn is_consumed(&self, index: u16) -> bool {
        self.unconsumed(index) == 0
    }

    /// Whether EL2 has consumed at least half of what filled queue `index` can hold.
    pub fn has_drained(&self, index: u16) -> bool {
        self.unconsumed(index) <= RING_ENTRIES / 2
    }

    /// Publishes the `length` bytes that were put into the slot that [`Self::receive_slot`] gave, for `session`.
    #[inline]
    pub fn receive(&mut self, index: u16, session: u32, length: u32) {
        let Some(received) = self.received.get_mut(usize::from(index)) else { return };
        let receive = Receive { session, offset: entry(0, *received, SLOT_SIZE) as u32, length };
        let at = entry(self.layout.receive_ring(index), *received, RECEIVE_SIZE);
        self.memory.store_words(at, receive.to_words());
        *received = received.wrapping_add(1);
        self.memory.store(control::receptions_produced(index), *received);
        self.is_dirty = true;
    }

    /// Tells EL2 of what was completed and received, if there is anything to tell.
    #[inline]
    pub fn tell(&mut self) {
        if self.is_dirty {
            let answer = self.calls.make(Call::Complete, self.number);
            self.quiet = 0;
            // EL2 does so much at one go; the next round goes on.
            self.is_dirty = answer == COMPLETE_AGAIN;
        }
    }

    /// Whether EL2 has more to do than it did at one go.
    pub const fn is_untold(&self) -> bool {
        self.is_dirty
    }

    /// Asks for the doorbell at the next request. The caller passes a full barrier and looks once more before it
    /// sleeps. Says whether there was anything to ask.
    #[inline]
    pub fn announce(&mut self) -> bool {
        let is_news = self.announced != self.taken;
        if is_news {
            self.memory.store(control::REQUESTS_EVENT, self.taken);
            self.announced = self.taken;
        }
        is_news
    }
}
