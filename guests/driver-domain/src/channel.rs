//! One channel: the rings and the window that this domain shares with EL2 for one client's device.
//!
//! Each side believes its own counters alone. What EL2 writes is checked here again, although EL2 is trusted: a fault
//! of one side must not become a fault of the other.

use abi::io::{
    COMPLETE_AGAIN, COMPLETION_RING, Completion, ENTRY_SIZE, FUNCTION_COMPLETE, RECEIVE_RING, RECEIVE_SLOT_SIZE,
    RECEIVE_WINDOW, REQUEST_RING, REQUEST_WINDOW, RING_ENTRIES, Receive, Request, SEGMENT_SIZE, SEGMENTS_AROUND,
    Status, control,
};
use rt::hypercall;
use rt::shared::Shared;
use services::wire;

/// Who asked, and what a completion must repeat.
#[derive(Clone, Copy, Debug)]
pub struct Ticket {
    sequence: u64,
    generation: u32,
}

impl Ticket {
    /// The ticket of `request`.
    pub const fn of(request: &Request) -> Self {
        Self { sequence: request.sequence, generation: request.generation }
    }
}

/// One channel.
#[derive(Debug)]
pub struct Channel {
    number: u32,
    memory: Shared,
    /// Requests taken; each is completed once, so this many completions are promised.
    taken: u32,
    /// What the event word says: told when requests pass this count.
    announced: u32,
    completed: u32,
    received: u32,
    /// EL2 is to be told of what was completed and received.
    is_dirty: bool,
    /// Completions that nobody waits for, and that EL2 has not been told of.
    quiet: u32,
}

/// How many completions that nobody waits for EL2 is not told of: the window has room for many times that.
const QUIET_MAX: u32 = 16;

/// The offset of entry `counter` of a ring.
const fn entry(ring: u64, counter: u32) -> u64 {
    ring + (counter % RING_ENTRIES) as u64 * ENTRY_SIZE
}

impl Channel {
    /// Channel `number` in `memory`, with zeroed rings; `None` where that is too small.
    pub fn new(number: u32, memory: Shared) -> Option<Self> {
        let is_large_enough = memory.size() > REQUEST_WINDOW && memory.address().is_multiple_of(ENTRY_SIZE);
        is_large_enough.then_some(Self {
            number,
            memory,
            taken: 0,
            announced: 0,
            completed: 0,
            received: 0,
            // "Complete" is what brings the requests that an earlier start of this domain has left.
            is_dirty: true,
            quiet: 0,
        })
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
        (owed < RING_ENTRIES).then(|| wire::request(self.memory.load_words(entry(REQUEST_RING, self.taken))))
    }

    /// Takes the request that [`Self::peek`] showed.
    pub const fn take(&mut self) {
        self.taken = self.taken.wrapping_add(1);
    }

    /// The data of `request`, or the list of its segments; `None` where that is not all within the request window.
    #[inline]
    pub fn data(&self, request: &Request) -> Option<Shared> {
        let is_in_window = u64::from(request.offset) >= REQUEST_WINDOW;
        let size = match request.segments {
            0 => u64::from(request.length),
            segments => u64::from(segments.saturating_add(SEGMENTS_AROUND)) * SEGMENT_SIZE,
        };
        is_in_window.then(|| self.memory.piece(u64::from(request.offset), size)).flatten()
    }

    /// Completes a request that was taken, with `length` bytes put into the window.
    #[inline]
    pub fn complete(&mut self, ticket: Ticket, status: Status, length: u32) {
        let Ticket { sequence, generation } = ticket;
        let completion = Completion { sequence, generation, length, status: status as u16, reserved: [0; 7] };
        self.memory.store_words(entry(COMPLETION_RING, self.completed), wire::completion(&completion));
        self.completed = self.completed.wrapping_add(1);
        self.memory.store(control::COMPLETIONS_PRODUCED, self.completed);
        self.is_dirty = true;
    }

    /// Completes a request that was taken, and that nobody waits for. EL2 is told with whatever comes next, or when
    /// there are many, or when [`Self::hasten`] says so.
    #[inline]
    pub fn complete_quietly(&mut self, ticket: Ticket, status: Status) {
        let was_dirty = self.is_dirty;
        self.complete(ticket, status, 0);
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

    /// The slot for the next reception; `None` while EL2 has consumed none of those there are.
    #[inline]
    pub fn receive_slot(&self) -> Option<Shared> {
        let waiting = self.received.wrapping_sub(self.memory.load(control::RECEPTIONS_CONSUMED));
        let offset = RECEIVE_WINDOW + u64::from(self.received % RING_ENTRIES) * RECEIVE_SLOT_SIZE;
        (waiting < RING_ENTRIES).then(|| self.memory.piece(offset, RECEIVE_SLOT_SIZE)).flatten()
    }

    /// Publishes what was put into the slot that [`Self::receive_slot`] gave.
    #[inline]
    pub fn receive(&mut self, reception: &Receive) {
        self.memory.store_words(entry(RECEIVE_RING, self.received), wire::receive(reception));
        self.received = self.received.wrapping_add(1);
        self.memory.store(control::RECEPTIONS_PRODUCED, self.received);
        self.is_dirty = true;
    }

    /// Tells EL2 of what was completed and received, if there is anything to tell.
    #[inline]
    pub fn tell(&mut self) {
        if self.is_dirty {
            let answer = hypercall::call(FUNCTION_COMPLETE, [u64::from(self.number), 0, 0, 0]);
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
