//! One channel, raw: whatever is to be put into its rings is put there.

use abi::io::{
    CHANNEL_COMPATIBLE, COMPLETE_AGAIN, COMPLETION_RING, COMPLETION_SIZE, Completion, DESCRIPTION, DOORBELL_COMPATIBLE,
    Description, FUNCTION_ATTACH, FUNCTION_COMPLETE, Layout, RECEIVE_SIZE, REQUEST_RING, REQUEST_SIZE, RING_ENTRIES,
    Receive, Request, TAIL_SIZE_MAX, control,
};
use arrayvec::ArrayVec;
use rt::shared::Shared;
use rt::{hypercall, machine};
use services::network::SLOT_SIZE;

/// The most channels.
pub(crate) const PORTS_MAX: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Block,
    Network,
    Console,
    Entropy,
}

/// A channel.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u64,
    pub(crate) kind: Kind,
    pub(crate) memory: Shared,
    pub(crate) layout: Layout,
    /// How many queues the device has.
    pub(crate) queues: u16,
    pub(crate) taken: u32,
    pub(crate) completed: u32,
    /// Receptions of the only filled queue, where there is one.
    pub(crate) received: u32,
}

/// The filled queue.
const FILLED: u16 = 0;

/// What a completion says when nothing is wrong with it.
pub(crate) const fn completion(request: &Request, written: u32) -> Completion {
    let Request { sequence, generation, .. } = *request;
    Completion { sequence, generation, written, is_end: false, tail: [0; TAIL_SIZE_MAX] }
}

const fn entry(ring: u64, counter: u32, size: u64) -> u64 {
    ring + (counter % RING_ENTRIES) as u64 * size
}

impl Port {
    /// Takes the next request, if there is one.
    pub(crate) fn next(&mut self) -> Option<Request> {
        if self.memory.load(control::REQUESTS_PRODUCED) == self.taken {
            return None;
        }
        let request = self.request(self.taken);
        self.taken = self.taken.wrapping_add(1);
        Some(request)
    }

    fn request(&self, counter: u32) -> Request {
        Request::from_words(self.memory.load_line(entry(REQUEST_RING, counter, REQUEST_SIZE)))
    }

    /// Whether a request with this number is in the ring, and has not been taken.
    pub(crate) fn is_out(&self, sequence: u64) -> bool {
        let count = self.memory.load(control::REQUESTS_PRODUCED).wrapping_sub(self.taken).min(RING_ENTRIES);
        (0..count).any(|index| self.request(self.taken.wrapping_add(index)).sequence == sequence)
    }

    /// The data that the request gives.
    pub(crate) fn given(&self, request: &Request) -> Option<Shared> {
        self.memory.piece(request.offset.into(), request.readable.into())
    }

    /// The room that the request has.
    pub(crate) fn room(&self, request: &Request) -> Option<Shared> {
        let offset = u64::from(request.offset) + u64::from(Request::writable_offset(request.readable));
        self.memory.piece(offset, request.writable.into())
    }

    /// Puts a description where Bulkhead looks for it.
    pub(crate) fn describe(&self, words: &[u64; Description::WORDS]) {
        for (offset, pair) in (DESCRIPTION..).step_by(16).zip(words.as_chunks().0) {
            self.memory.store_pair(offset, *pair);
        }
    }

    /// Attaches the device whose description is there, and gives Bulkhead's answer.
    pub(crate) fn attach_described(&self) -> u64 {
        loop {
            let answer = hypercall::call(FUNCTION_ATTACH, [self.number, 0, 0, 0]);
            if answer != COMPLETE_AGAIN {
                return answer;
            }
        }
    }

    /// Attaches a device, and gives Bulkhead's answer.
    pub(crate) fn attach(&self, description: &Description) -> u64 {
        self.describe(&description.to_words());
        self.attach_described()
    }

    /// The size of the request window in bytes.
    pub(crate) fn window_size(&self) -> u64 {
        self.memory.size().saturating_sub(self.layout.request_window())
    }

    /// The session of the client's driver.
    pub(crate) fn session(&self) -> u32 {
        self.memory.load(control::SESSION)
    }

    /// Whether the device has a filled queue.
    pub(crate) fn receives(&self) -> bool {
        self.layout.filled() != 0
    }

    pub(crate) fn complete(&mut self, completion: &Completion) {
        self.memory.store_words(entry(COMPLETION_RING, self.completed, COMPLETION_SIZE), completion.to_words());
        self.completed = self.completed.wrapping_add(1);
        self.memory.store(control::COMPLETIONS_PRODUCED, self.completed);
    }

    /// Where the bytes of the next reception go.
    pub(crate) fn slot(&self) -> Option<Shared> {
        self.memory.piece(entry(self.layout.receive_window(FILLED), self.received, SLOT_SIZE), SLOT_SIZE)
    }

    /// What a reception of `length` bytes in [`Self::slot`] says when nothing is wrong with it.
    pub(crate) fn reception(&self, length: u32) -> Receive {
        Receive { session: self.session(), offset: entry(0, self.received, SLOT_SIZE) as u32, length }
    }

    /// Whether EL2 has left room for another reception.
    pub(crate) fn has_slot(&self) -> bool {
        self.received.wrapping_sub(self.memory.load(control::receptions_consumed(FILLED))) < RING_ENTRIES
    }

    pub(crate) fn receive(&mut self, receive: &Receive) {
        let at = entry(self.layout.receive_ring(FILLED), self.received, RECEIVE_SIZE);
        self.memory.store_words(at, receive.to_words());
        self.received = self.received.wrapping_add(1);
        self.memory.store(control::receptions_produced(FILLED), self.received);
    }

    /// Tells Bulkhead, and gives its answer.
    pub(crate) fn tell(&self) -> u64 {
        hypercall::call(FUNCTION_COMPLETE, [self.number, 0, 0, 0])
    }

    /// Has both counters say again what Bulkhead has consumed, which it publishes whenever it is told.
    pub(crate) fn mend(&mut self) {
        let _ = self.tell();
        self.completed = self.memory.load(control::COMPLETIONS_CONSUMED);
        self.received = self.memory.load(control::receptions_consumed(FILLED));
        self.memory.store(control::COMPLETIONS_PRODUCED, self.completed);
        self.memory.store(control::receptions_produced(FILLED), self.received);
    }
}

/// The channels, in the order of their numbers.
pub(crate) fn all() -> ArrayVec<Port, PORTS_MAX> {
    let mut ports = ArrayVec::new();
    let Some(tree) = machine().tree() else { return ports };
    for node in tree.all_nodes() {
        let is_channel = node.compatible().is_some_and(|names| names.all().any(|name| name == CHANNEL_COMPATIBLE));
        let Some(window) = node.reg().and_then(|mut windows| windows.next()).filter(|_| is_channel) else { continue };
        let memory = Shared::claim(window.starting_address as u64, window.size.unwrap_or(0) as u64);
        let kind = match node.property("bulkhead,kind").and_then(|kind| kind.as_str()) {
            Some("block") => Kind::Block,
            Some("network") => Kind::Network,
            Some("console") => Kind::Console,
            _ => Kind::Entropy,
        };
        let cell = |name| node.property(name).and_then(|cell| cell.as_usize());
        let (number, queues, filled) =
            (cell("bulkhead,channel"), cell("bulkhead,queues"), cell("bulkhead,filled-queues"));
        let (Some(memory), Some(number), Some(queues), Some(filled)) = (memory, number, queues, filled) else {
            continue;
        };
        let (layout, queues) = (Layout::new(filled as u32), queues as u16);
        let port = Port { number: number as u64, kind, memory, layout, queues, taken: 0, completed: 0, received: 0 };
        if ports.try_push(port).is_err() {
            break;
        }
    }
    ports.sort_unstable_by_key(|port| port.number);
    ports
}

/// The INTID of the doorbell.
pub(crate) fn doorbell() -> Option<u32> {
    let tree = machine().tree()?;
    let node = tree.find_compatible(&[DOORBELL_COMPATIBLE])?;
    let (_, rest) = node.property("interrupts")?.value.split_first_chunk::<4>()?;
    Some(u32::from_be_bytes(*rest.first_chunk()?) + 32)
}
