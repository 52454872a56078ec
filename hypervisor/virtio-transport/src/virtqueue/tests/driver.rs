//! The driver's side of a queue.

use crate::virtqueue::{Buffers, Chain, Features, Popped, QueueError, SEGMENTS_MAX, Segment, Start, Virtqueue};
use std::{vec, vec::Vec};
use vdev::{
    GuestAddr, GuestMemory, QueueLayout,
    testkit::{FakeMemory, MEMORY_BASE},
};

pub(super) const NEXT: u16 = 1;
pub(super) const WRITE: u16 = 2;
pub(super) const INDIRECT: u16 = 4;

/// Where the driver keeps tables of indirect descriptors, and buffers.
pub(super) const TABLE: u64 = MEMORY_BASE.0 + 0x3000;
pub(super) const BUFFERS: u64 = MEMORY_BASE.0 + 0x4000;
pub(super) const MEMORY_SIZE: usize = 0x6000;

pub(super) const NO_FEATURES: Features = Features { event_index: false, indirect: false };
pub(super) const ALL_FEATURES: Features = Features { event_index: true, indirect: true };

/// A driver with its memory and its rings.
pub(super) struct Driver {
    pub(super) memory: FakeMemory,
    pub(super) layout: QueueLayout,
    /// The available index; what the device sees once it is published.
    pub(super) available: u16,
    /// Used entries that the driver has looked at.
    seen_used: u16,
}

impl Driver {
    pub(super) fn new(size: u16) -> Self {
        let layout = QueueLayout {
            size,
            descriptors: MEMORY_BASE,
            available: GuestAddr(MEMORY_BASE.0 + 0x1000),
            used: GuestAddr(MEMORY_BASE.0 + 0x2000),
        };
        Self { memory: FakeMemory::new(MEMORY_SIZE), layout, available: 0, seen_used: 0 }
    }

    /// The device's side, as the register file makes it.
    pub(super) fn device(&self, features: Features) -> Virtqueue {
        Virtqueue::new(self.layout, features)
    }

    pub(super) fn store16(&self, address: u64, value: u16) {
        self.memory.store_u16(GuestAddr(address), value).unwrap();
    }

    pub(super) fn load16(&self, address: u64) -> u16 {
        self.memory.load_u16(GuestAddr(address)).unwrap()
    }

    /// Writes a descriptor into the table at `table`.
    pub(super) fn describe_at(&self, table: u64, index: u16, buffer: (u64, u32), flags: u16, next: u16) {
        let mut bytes = Vec::new();
        bytes.extend(buffer.0.to_le_bytes());
        bytes.extend(buffer.1.to_le_bytes());
        bytes.extend(flags.to_le_bytes());
        bytes.extend(next.to_le_bytes());
        self.memory.write(GuestAddr(table + u64::from(index) * 16), &bytes).unwrap();
    }

    /// Writes a descriptor into the queue's own table.
    pub(super) fn describe(&self, index: u16, buffer: (u64, u32), flags: u16, next: u16) {
        self.describe_at(self.layout.descriptors.0, index, buffer, flags, next);
    }

    /// Puts a head into the available ring and publishes it.
    pub(super) fn offer(&mut self, head: u16) {
        let slot = self.available % self.layout.size;
        self.store16(self.layout.available.0 + 4 + 2 * u64::from(slot), head);
        self.publish(self.available.wrapping_add(1));
    }

    pub(super) fn publish(&mut self, index: u16) {
        self.available = index;
        self.store16(self.layout.available.0 + 2, index);
    }

    /// Offers the chain of `buffers` (address, bytes, flags), in descriptors from `head` on.
    pub(super) fn offer_chain(&mut self, head: u16, buffers: &[(u64, u32, u16)]) {
        self.describe_chain(self.layout.descriptors.0, head, buffers);
        self.offer(head);
    }

    pub(super) fn describe_chain(&self, table: u64, head: u16, buffers: &[(u64, u32, u16)]) {
        for (position, (address, length, flags)) in buffers.iter().enumerate() {
            let index = head + position as u16;
            let next = if position + 1 < buffers.len() { NEXT } else { 0 };
            self.describe_at(table, index, (*address, *length), flags | next, index + next);
        }
    }

    /// The next chain that the device has given back: head and bytes written.
    pub(super) fn used(&mut self) -> Option<(u32, u32)> {
        if self.load16(self.layout.used.0 + 2) == self.seen_used {
            return None;
        }
        let slot = self.layout.used.0 + 4 + 8 * u64::from(self.seen_used % self.layout.size);
        self.seen_used = self.seen_used.wrapping_add(1);
        let head = self.memory.load_u32(GuestAddr(slot)).unwrap();
        Some((head, self.memory.load_u32(GuestAddr(slot + 4)).unwrap()))
    }

    pub(super) fn set_flags(&self, flags: u16) {
        self.store16(self.layout.available.0, flags);
    }

    /// Asks for an interrupt when the used index goes past `index`.
    pub(super) fn set_used_event(&self, index: u16) {
        self.store16(self.layout.available.0 + 4 + 2 * u64::from(self.layout.size), index);
    }

    /// What the device wrote into `flags` of the used ring.
    pub(super) fn used_flags(&self) -> u16 {
        self.load16(self.layout.used.0)
    }

    /// The available index that the device wants to hear of.
    pub(super) fn available_event(&self) -> u16 {
        self.load16(self.layout.used.0 + 4 + 8 * u64::from(self.layout.size))
    }
}

/// A chain with a room of its own for its buffers.
#[derive(Debug)]
pub(super) struct Taken {
    chain: Chain,
    room: Vec<Segment>,
}

impl Taken {
    /// Without buffers, and with room for the longest there is.
    pub(super) fn new() -> Self {
        Self::with_room(SEGMENTS_MAX)
    }

    pub(super) fn with_room(segments: usize) -> Self {
        Self { chain: Chain::NONE, room: vec![Segment::EMPTY; segments] }
    }

    pub(super) fn buffers(&self) -> Buffers<'_> {
        self.chain.buffers(&self.room)
    }

    pub(super) fn readable(&self) -> &[Segment] {
        self.buffers().readable()
    }

    pub(super) fn writable(&self) -> &[Segment] {
        self.buffers().writable()
    }
}

impl core::ops::Deref for Taken {
    type Target = Chain;

    fn deref(&self) -> &Chain {
        &self.chain
    }
}

/// Takes the next chain, all of it. Whether there was one.
pub(super) fn pop_whole(
    device: &mut Virtqueue,
    memory: &impl GuestMemory,
    taken: &mut Taken,
) -> Result<bool, QueueError> {
    let mut start = Start::Head;
    loop {
        match device.pop(memory, &mut taken.chain, &mut taken.room, start)? {
            Popped::Part => start = Start::Part,
            Popped::Whole => return Ok(true),
            Popped::Nothing => return Ok(false),
        }
    }
}

/// What the device makes of the only chain that `driver` offers.
pub(super) fn pop_with(driver: &Driver, features: Features) -> Result<Option<Taken>, QueueError> {
    let mut taken = Taken::new();
    Ok(pop_whole(&mut driver.device(features), &driver.memory, &mut taken)?.then_some(taken))
}

/// The same, with a device that offers everything.
pub(super) fn pop(driver: &Driver) -> Result<Option<Taken>, QueueError> {
    pop_with(driver, ALL_FEATURES)
}

pub(super) fn segments(pairs: &[(u64, u32)]) -> Vec<Segment> {
    pairs.iter().map(|(address, length)| Segment { address: GuestAddr(*address), length: *length }).collect()
}

/// `length` bytes of guest memory.
pub(super) fn bytes_at(driver: &Driver, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    driver.memory.read(GuestAddr(address), &mut bytes).unwrap();
    bytes
}
