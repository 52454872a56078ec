//! One channel, raw: whatever is to be put into its rings is put there.

use abi::io::{
    CHANNEL_COMPATIBLE, COMPLETION_RING, Completion, DOORBELL_COMPATIBLE, ENTRY_SIZE, FUNCTION_COMPLETE, RECEIVE_RING,
    RECEIVE_SLOT_SIZE, RECEIVE_WINDOW, REQUEST_RING, RING_ENTRIES, Receive, Request, control,
};
use arrayvec::ArrayVec;
use rt::shared::Shared;
use rt::{hypercall, machine};
use services::wire;

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
    pub(crate) taken: u32,
    pub(crate) completed: u32,
    pub(crate) received: u32,
}

/// What a completion says when nothing is wrong with it.
pub(crate) const fn completion(request: &Request, length: u32) -> Completion {
    Completion { sequence: request.sequence, generation: request.generation, length, status: 0, reserved: [0; 7] }
}

const fn entry(ring: u64, counter: u32) -> u64 {
    ring + (counter % RING_ENTRIES) as u64 * ENTRY_SIZE
}

impl Port {
    /// Takes the next request, if there is one.
    pub(crate) fn next(&mut self) -> Option<Request> {
        if self.memory.load(control::REQUESTS_PRODUCED) == self.taken {
            return None;
        }
        let request = wire::request(self.memory.load_words(entry(REQUEST_RING, self.taken)));
        self.taken = self.taken.wrapping_add(1);
        Some(request)
    }

    /// Whether a request with this number is in the ring, and has not been taken.
    pub(crate) fn is_out(&self, sequence: u64) -> bool {
        let count = self.memory.load(control::REQUESTS_PRODUCED).wrapping_sub(self.taken).min(RING_ENTRIES);
        let request =
            |index| wire::request(self.memory.load_words(entry(REQUEST_RING, self.taken.wrapping_add(index))));
        (0..count).any(|index| request(index).sequence == sequence)
    }

    /// The request's data.
    pub(crate) fn data(&self, request: &Request) -> Option<Shared> {
        self.memory.piece(request.offset.into(), request.length.into())
    }

    pub(crate) fn complete(&mut self, completion: &Completion) {
        self.memory.store_words(entry(COMPLETION_RING, self.completed), wire::completion(completion));
        self.completed = self.completed.wrapping_add(1);
        self.memory.store(control::COMPLETIONS_PRODUCED, self.completed);
    }

    /// Where the bytes of the next reception go.
    pub(crate) fn slot(&self) -> Option<Shared> {
        let offset = RECEIVE_WINDOW + u64::from(self.received % RING_ENTRIES) * RECEIVE_SLOT_SIZE;
        self.memory.piece(offset, RECEIVE_SLOT_SIZE)
    }

    /// Whether EL2 has left room for another reception.
    pub(crate) fn has_slot(&self) -> bool {
        self.received.wrapping_sub(self.memory.load(control::RECEPTIONS_CONSUMED)) < RING_ENTRIES
    }

    pub(crate) fn receive(&mut self, receive: &Receive) {
        self.memory.store_words(entry(RECEIVE_RING, self.received), wire::receive(receive));
        self.received = self.received.wrapping_add(1);
        self.memory.store(control::RECEPTIONS_PRODUCED, self.received);
    }

    /// Tells Bulkhead, and gives its answer.
    pub(crate) fn tell(&self) -> u64 {
        hypercall::call(FUNCTION_COMPLETE, [self.number, 0, 0, 0])
    }

    /// Has both counters say again what Bulkhead has consumed, which it publishes whenever it is told.
    pub(crate) fn mend(&mut self) {
        let _ = self.tell();
        self.completed = self.memory.load(control::COMPLETIONS_CONSUMED);
        self.received = self.memory.load(control::RECEPTIONS_CONSUMED);
        self.memory.store(control::COMPLETIONS_PRODUCED, self.completed);
        self.memory.store(control::RECEPTIONS_PRODUCED, self.received);
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
        let number = node.property("bulkhead,channel").and_then(|number| number.as_usize());
        if let (Some(memory), Some(number), false) = (memory, number, ports.is_full()) {
            ports.push(Port { number: number as u64, kind, memory, taken: 0, completed: 0, received: 0 });
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
