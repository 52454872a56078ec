//! The two sides of a service, played by hand: a frontend with a virtqueue, and a backend with a channel.

mod attaching;
mod block;
mod counters;
mod cuts;
mod grants;
mod interrupted;
mod network;
mod outage;
mod pieces;
mod room;

use super::QUEUES_MAX;
use super::policy::{Allocation, Refused};
use super::service::{MemoryPair, Outcome, ProtocolError, Service, TAKE_BACK_STEPS};
use crate::virtqueue::Features;
use abi::io::{
    self, CONFIGURATION_SIZE, Completion, Description, Layout, LongChains, QueueDescription, Receive, Request, Restart,
    control,
};
use std::vec::Vec;
use vdev::testkit::{FakeMemory, MEMORY_BASE};
use vdev::{GuestAddr, GuestMemory, QueueLayout};

const QUEUE_SIZE: u16 = 64;
const QUEUE_STRIDE: u64 = 0x1000;
/// Where the client's buffers are.
const BUFFERS: u64 = MEMORY_BASE.0 + 0x8000;
/// The size of each side's memory.
const MEMORY_SIZE: usize = 0x10_0000;
const CHANNEL: u64 = MEMORY_BASE.0;
/// The bytes of the request window.
const WINDOW: u32 = 0x4_0000;
/// In receive windows, data is put into slots of so many bytes.
const SLOT: u64 = 2048;

const DISK: Allocation = Allocation { queues: 2, filled: 0, requests: 30, chains: 30 };
/// A card or a console: queue 0 is filled.
const CARD: Allocation = Allocation { queues: 2, filled: 1, requests: 128, chains: 4 };
const ENTROPY: Allocation = Allocation { queues: 1, filled: 0, requests: 4, chains: 4 };

/// The queue of a disk.
const BLOCK: QueueDescription = QueueDescription {
    header_size: 16,
    tail_size: 1,
    long_chains: LongChains::Split,
    restart: Restart::Replay,
    is_patient: false,
    size_max: WINDOW,
    piece_unit: 4096,
    failure: [1, 0, 0, 0, 0, 0, 0, 0],
    ..QueueDescription::NONE
};
/// The same, of one that takes grants.
const GRANTED: QueueDescription = QueueDescription { grant_min: Some(16 << 10), ..BLOCK };
/// A card's two queues.
const RX: QueueDescription =
    QueueDescription { merge_feature: Some(15), count_offset: Some(10), ..QueueDescription::NONE };
const TX: QueueDescription =
    QueueDescription { header_size: 12, returns_early: true, size_max: 2048, ..QueueDescription::NONE };
/// A source of random numbers.
const RANDOM: QueueDescription = QueueDescription {
    long_chains: LongChains::Cut,
    restart: Restart::Replay,
    is_patient: false,
    size_max: 4096,
    ..QueueDescription::NONE
};

fn describe(queues: &[QueueDescription]) -> Description {
    let mut all = [QueueDescription::NONE; QUEUES_MAX];
    all[..queues.len()].copy_from_slice(queues);
    let queue_count = queues.len() as u16;
    Description { features: 0, configuration: [0; CONFIGURATION_SIZE], live_size: 0, queue_count, queues: all }
}

/// A buffer of a chain: address, length, whether the device writes it.
type Buffer = (u64, u32, bool);

/// Both sides, and the service between them.
struct Stage {
    service: Service,
    frontend: FakeMemory,
    backend: FakeMemory,
    layout: Layout,
    description: Description,
    available: [u16; 2],
    used: [u16; 2],
    requests: u32,
    completions: u32,
    receptions: [u32; 2],
}

impl Stage {
    fn new(allocation: Allocation, queues: &[QueueDescription]) -> Self {
        let layout = Layout::new(allocation.filled);
        let size = layout.request_window() + u64::from(WINDOW);
        let mut stage = Self {
            service: Service::new(allocation, CHANNEL, size, true),
            frontend: FakeMemory::new(MEMORY_SIZE),
            backend: FakeMemory::new(MEMORY_SIZE),
            layout,
            description: describe(queues),
            available: [0; 2],
            used: [0; 2],
            requests: 0,
            completions: 0,
            receptions: [0; 2],
        };
        stage.restart();
        stage.resume().unwrap();
        for queue in 0..queues.len() as u16 {
            stage.start(queue);
        }
        stage.service.negotiated(0);
        stage
    }

    fn disk() -> Self {
        Self::new(DISK, &[BLOCK])
    }

    fn granting_disk() -> Self {
        Self::new(DISK, &[GRANTED])
    }

    fn card() -> Self {
        Self::new(CARD, &[RX, TX])
    }

    fn entropy() -> Self {
        Self::new(ENTROPY, &[RANDOM])
    }

    /// The backend starts, with empty rings, and serves the channel.
    fn restart(&mut self) {
        self.restart_without_channel();
        self.attach().unwrap();
        // Whether the frontend has to go on is for those to ask that mean to find out.
        let _ = self.service.serve_again();
    }

    /// The backend starts, with empty rings.
    fn restart_without_channel(&mut self) {
        self.service.suspend();
        self.service.end_grants();
        self.backend = FakeMemory::new(MEMORY_SIZE);
        (self.requests, self.completions, self.receptions) = (0, 0, [0; 2]);
        (0..TAKE_BACK_STEPS).for_each(|step| self.service.take_back(step, false));
        self.service.restart_channel(&self.backend).unwrap();
    }

    /// The backend does not come back.
    fn abandon(&mut self) -> bool {
        self.service.suspend();
        (0..TAKE_BACK_STEPS).for_each(|step| self.service.take_back(step, true));
        self.service.abandon()
    }

    /// The backend describes its device.
    fn attach(&mut self) -> Result<(), Refused> {
        self.describe();
        let words = self.service.description(&self.backend)?.expect("no interrupt is pending");
        assert_eq!((words.features(), words.live_size()), (self.description.features, self.description.live_size));
        self.service.attach();
        Ok(())
    }

    fn state(&self, word: u64) -> u32 {
        self.backend.load_u32(GuestAddr(CHANNEL + word)).unwrap()
    }

    fn start(&mut self, queue: u16) {
        let base = MEMORY_BASE.0 + u64::from(queue) * QUEUE_STRIDE * 2;
        let layout = QueueLayout {
            size: QUEUE_SIZE,
            descriptors: GuestAddr(base),
            available: GuestAddr(base + 0x800),
            used: GuestAddr(base + QUEUE_STRIDE),
        };
        self.service.start_queue(queue, layout, Features { event_index: false, indirect: true });
    }

    /// Offers a chain of `buffers` from descriptor `head` on.
    fn offer(&mut self, queue: u16, head: u16, buffers: &[Buffer]) {
        let base = MEMORY_BASE.0 + u64::from(queue) * QUEUE_STRIDE * 2;
        for (step, (address, length, is_written)) in buffers.iter().enumerate() {
            let index = head + step as u16;
            let flags = u16::from(step + 1 < buffers.len()) | u16::from(*is_written) << 1;
            let descriptor = u128::from(*address)
                | u128::from(*length) << 64
                | u128::from(flags) << 96
                | u128::from(index + 1) << 112;
            self.frontend.write(GuestAddr(base + u64::from(index) * 16), &descriptor.to_le_bytes()).unwrap();
        }
        self.publish(queue, head);
    }

    /// Offers a chain of `buffers` in a table of its own; `head` is its one descriptor.
    fn offer_indirect(&mut self, queue: u16, head: u16, buffers: &[Buffer]) {
        const TABLES: u64 = BUFFERS + 0x8_0000;
        let table = TABLES + u64::from(head) * 0x2000;
        for (next, (address, length, is_written)) in (1u16..).zip(buffers) {
            let flags = u16::from(usize::from(next) < buffers.len()) | u16::from(*is_written) << 1;
            let descriptor =
                u128::from(*address) | u128::from(*length) << 64 | u128::from(flags) << 96 | u128::from(next) << 112;
            self.frontend.write(GuestAddr(table + u64::from(next - 1) * 16), &descriptor.to_le_bytes()).unwrap();
        }
        let indirect = u128::from(table) | (buffers.len() as u128 * 16) << 64 | 4 << 96;
        let base = MEMORY_BASE.0 + u64::from(queue) * QUEUE_STRIDE * 2;
        self.frontend.write(GuestAddr(base + u64::from(head) * 16), &indirect.to_le_bytes()).unwrap();
        self.publish(queue, head);
    }

    /// Puts a head into the available ring.
    fn publish(&mut self, queue: u16, head: u16) {
        let base = MEMORY_BASE.0 + u64::from(queue) * QUEUE_STRIDE * 2;
        let available = &mut self.available[usize::from(queue)];
        let slot = base + 0x804 + u64::from(*available % QUEUE_SIZE) * 2;
        self.frontend.store_u16(GuestAddr(slot), head).unwrap();
        *available = available.wrapping_add(1);
        self.frontend.store_u16(GuestAddr(base + 0x802), *available).unwrap();
    }

    /// The next used chain: head, bytes written.
    fn used(&mut self, queue: u16) -> Option<(u32, u32)> {
        let base = MEMORY_BASE.0 + u64::from(queue) * QUEUE_STRIDE * 2 + QUEUE_STRIDE;
        let used = &mut self.used[usize::from(queue)];
        if self.frontend.load_u16(GuestAddr(base + 2)).unwrap() == *used {
            return None;
        }
        let entry = base + 4 + u64::from(*used % QUEUE_SIZE) * 8;
        *used = used.wrapping_add(1);
        Some((self.frontend.load_u32(GuestAddr(entry)).unwrap(), self.frontend.load_u32(GuestAddr(entry + 4)).unwrap()))
    }

    fn notify(&mut self, queue: u16) -> Result<Outcome, ProtocolError> {
        self.service.notify(queue, &MemoryPair { frontend: &self.frontend, backend: &self.backend })
    }

    fn resume(&mut self) -> Result<Outcome, ProtocolError> {
        self.service.resume(&MemoryPair { frontend: &self.frontend, backend: &self.backend })
    }

    fn complete(&mut self) -> Result<Outcome, ProtocolError> {
        self.service.complete(&MemoryPair { frontend: &self.frontend, backend: &self.backend })
    }

    /// The next request, as the backend reads it.
    fn request(&mut self) -> Option<Request> {
        if self.backend.load_u32(GuestAddr(CHANNEL + control::REQUESTS_PRODUCED)).unwrap() == self.requests {
            return None;
        }
        let entry = CHANNEL + io::REQUEST_RING + u64::from(self.requests % io::RING_ENTRIES) * io::REQUEST_SIZE;
        self.requests += 1;
        let mut words = [[0; 2]; 4];
        self.backend.load_u64_pairs(GuestAddr(entry), &mut words).unwrap();
        Some(Request::from_words(words))
    }

    /// What a request gives, as the backend reads it.
    fn given(&self, request: &Request) -> Vec<u8> {
        let mut bytes = std::vec![0; request.readable as usize];
        self.backend.read(GuestAddr(CHANNEL + u64::from(request.offset)), &mut bytes).unwrap();
        bytes
    }

    /// Puts a completion into the ring.
    fn reply(&mut self, completion: &Completion) {
        let entry =
            CHANNEL + io::COMPLETION_RING + u64::from(self.completions % io::RING_ENTRIES) * io::COMPLETION_SIZE;
        let bytes: Vec<u8> = completion.to_words().into_iter().flat_map(u64::to_le_bytes).collect();
        self.backend.write(GuestAddr(entry), &bytes).unwrap();
        self.completions += 1;
        self.backend.store_u32(GuestAddr(CHANNEL + control::COMPLETIONS_PRODUCED), self.completions).unwrap();
    }

    /// Does what a good backend does with `request`.
    fn finish(&mut self, request: &Request, data: &[u8]) {
        if !data.is_empty() {
            let at = u64::from(request.offset) + u64::from(Request::writable_offset(request.readable));
            self.backend.write(GuestAddr(CHANNEL + at), data).unwrap();
        }
        self.reply(&completion_of(request, data.len() as u32));
    }

    /// Puts something received into the ring of the first filled queue.
    fn deliver(&mut self, data: &[u8]) {
        self.deliver_to(0, data);
    }

    /// Puts something received into the ring of filled queue `filled`.
    fn deliver_to(&mut self, filled: u16, data: &[u8]) {
        let offset = u64::from(self.receptions[usize::from(filled)] % io::RING_ENTRIES) * SLOT;
        let session = self.state(control::SESSION);
        self.backend.write(GuestAddr(CHANNEL + self.layout.receive_window(filled) + offset), data).unwrap();
        self.receive_in(filled, &Receive { session, offset: offset as u32, length: data.len() as u32 });
    }

    fn receive(&mut self, receive: &Receive) {
        self.receive_in(0, receive);
    }

    fn receive_in(&mut self, filled: u16, receive: &Receive) {
        let count = &mut self.receptions[usize::from(filled)];
        let slot = u64::from(*count % io::RING_ENTRIES);
        let entry = CHANNEL + self.layout.receive_ring(filled) + slot * io::RECEIVE_SIZE;
        let bytes: Vec<u8> = receive.to_words().into_iter().flat_map(u64::to_le_bytes).collect();
        self.backend.write(GuestAddr(entry), &bytes).unwrap();
        *count += 1;
        self.backend.store_u32(GuestAddr(CHANNEL + control::receptions_produced(filled)), *count).unwrap();
    }

    /// The driver resets the device, and brings it up again with queue 0.
    fn reset(&mut self) {
        self.service.reset();
        (self.available, self.used) = ([0; 2], [0; 2]);
        self.put(MEMORY_BASE.0 + 0x802, &[0; 2]);
        self.put(MEMORY_BASE.0 + QUEUE_STRIDE + 2, &[0; 2]);
        self.start(0);
        self.service.negotiated(0);
    }

    /// Whether a request for all of the window finds room.
    fn window_is_whole(&mut self) -> bool {
        self.backend.has_pending_interrupt.set(false);
        self.ask(9, block::IN, 0, WINDOW);
        self.notify(0).unwrap();
        self.request().is_some_and(|request| request.writable == WINDOW && request.is_last)
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.frontend.write(GuestAddr(address), bytes).unwrap();
    }

    fn get(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = std::vec![0; length];
        self.frontend.read(GuestAddr(address), &mut bytes).unwrap();
        bytes
    }
}

fn completion_of(request: &Request, written: u32) -> Completion {
    Completion { sequence: request.sequence, generation: request.generation, written, is_end: false, tail: [0; 8] }
}
