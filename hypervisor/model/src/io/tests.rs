//! The two sides of a service, played by hand: a client with a virtqueue, and a driver domain with a channel.

mod block;
mod counters;
mod grants;
mod network;
mod outage;

use super::service::{Broken, Outcome, Service, ServiceKind, Wires};
use crate::virtqueue::Features;
use abi::io::{self, Completion, Request, control};
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
const CHANNEL_SIZE: u64 = io::REQUEST_WINDOW + 0x4_0000;

/// A buffer of a chain: address, length, whether the device writes it.
type Buffer = (u64, u32, bool);

/// Both sides, and the service between them.
struct Stage {
    service: Service,
    client: FakeMemory,
    provider: FakeMemory,
    available: [u16; 2],
    used: [u16; 2],
    requests: u32,
    completions: u32,
    receptions: u32,
}

impl Stage {
    fn new(kind: ServiceKind) -> Self {
        let mut stage = Self {
            service: Service::new(kind, CHANNEL, CHANNEL_SIZE),
            client: FakeMemory::new(MEMORY_SIZE),
            provider: FakeMemory::new(MEMORY_SIZE),
            available: [0; 2],
            used: [0; 2],
            requests: 0,
            completions: 0,
            receptions: 0,
        };
        stage.service.restart_channel(&stage.provider).unwrap();
        stage.service.attach();
        assert!(!stage.service.serve_again());
        stage.resume().unwrap();
        stage.start(0);
        if matches!(kind, ServiceKind::Network | ServiceKind::Console) {
            stage.start(1);
        }
        stage.service.negotiated(false, false);
        stage
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
            self.client.write(GuestAddr(base + u64::from(index) * 16), &descriptor.to_le_bytes()).unwrap();
        }
        self.publish(queue, head);
    }

    /// Puts a head into the available ring.
    fn publish(&mut self, queue: u16, head: u16) {
        let base = MEMORY_BASE.0 + u64::from(queue) * QUEUE_STRIDE * 2;
        let available = &mut self.available[usize::from(queue)];
        let slot = base + 0x804 + u64::from(*available % QUEUE_SIZE) * 2;
        self.client.store_u16(GuestAddr(slot), head).unwrap();
        *available = available.wrapping_add(1);
        self.client.store_u16(GuestAddr(base + 0x802), *available).unwrap();
    }

    /// The next used chain: head, bytes written.
    fn used(&mut self, queue: u16) -> Option<(u32, u32)> {
        let base = MEMORY_BASE.0 + u64::from(queue) * QUEUE_STRIDE * 2 + QUEUE_STRIDE;
        let used = &mut self.used[usize::from(queue)];
        if self.client.load_u16(GuestAddr(base + 2)).unwrap() == *used {
            return None;
        }
        let entry = base + 4 + u64::from(*used % QUEUE_SIZE) * 8;
        *used = used.wrapping_add(1);
        Some((self.client.load_u32(GuestAddr(entry)).unwrap(), self.client.load_u32(GuestAddr(entry + 4)).unwrap()))
    }

    fn notify(&mut self, queue: u16) -> Result<Outcome, Broken> {
        self.service.notify(queue, &Wires { client: &self.client, provider: &self.provider })
    }

    fn resume(&mut self) -> Result<Outcome, Broken> {
        self.service.resume(&Wires { client: &self.client, provider: &self.provider })
    }

    fn complete(&mut self) -> Result<Outcome, Broken> {
        self.service.complete(&Wires { client: &self.client, provider: &self.provider })
    }

    /// The next request, as the driver domain reads it.
    fn request(&mut self) -> Option<Request> {
        if self.provider.load_u32(GuestAddr(CHANNEL + control::REQUESTS_PRODUCED)).unwrap() == self.requests {
            return None;
        }
        let entry = CHANNEL + io::REQUEST_RING + u64::from(self.requests % io::RING_ENTRIES) * io::ENTRY_SIZE;
        self.requests += 1;
        let [sequence, sector] = self.provider.load_u64_pair(GuestAddr(entry)).unwrap();
        let [first, second] = self.provider.load_u64_pair(GuestAddr(entry + 16)).unwrap();
        Some(Request {
            sequence,
            sector,
            generation: first as u32,
            offset: (first >> 32) as u32,
            length: second as u32,
            operation: (second >> 32) as u16,
            segments: (second >> 48) as u16,
        })
    }

    /// Puts a completion into the ring.
    fn reply(&mut self, completion: &Completion) {
        let entry = CHANNEL + io::COMPLETION_RING + u64::from(self.completions % io::RING_ENTRIES) * io::ENTRY_SIZE;
        let mut bytes = Vec::new();
        bytes.extend(completion.sequence.to_le_bytes());
        bytes.extend(completion.generation.to_le_bytes());
        bytes.extend(completion.length.to_le_bytes());
        bytes.extend(completion.status.to_le_bytes());
        self.provider.write(GuestAddr(entry), &bytes).unwrap();
        self.completions += 1;
        self.provider.store_u32(GuestAddr(CHANNEL + control::COMPLETIONS_PRODUCED), self.completions).unwrap();
    }

    /// Does what a good driver domain does with `request`.
    fn finish(&mut self, request: &Request, data: &[u8]) {
        if !data.is_empty() {
            self.provider.write(GuestAddr(CHANNEL + u64::from(request.offset)), data).unwrap();
        }
        self.reply(&completion_of(request, data.len() as u32));
    }

    /// Puts something received into the ring.
    fn deliver(&mut self, data: &[u8], flags: u32, checksum: (u16, u16)) {
        let slot = u64::from(self.receptions % io::RING_ENTRIES);
        let window = CHANNEL + io::RECEIVE_WINDOW + slot * io::RECEIVE_SLOT_SIZE;
        self.provider.write(GuestAddr(window), data).unwrap();
        let entry = CHANNEL + io::RECEIVE_RING + slot * io::ENTRY_SIZE;
        let first = u128::from(data.len() as u32)
            | u128::from(flags) << 32
            | u128::from(checksum.0) << 64
            | u128::from(checksum.1) << 80;
        self.provider.write(GuestAddr(entry), &first.to_le_bytes()).unwrap();
        self.receptions += 1;
        self.provider.store_u32(GuestAddr(CHANNEL + control::RECEPTIONS_PRODUCED), self.receptions).unwrap();
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.client.write(GuestAddr(address), bytes).unwrap();
    }

    fn get(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = std::vec![0; length];
        self.client.read(GuestAddr(address), &mut bytes).unwrap();
        bytes
    }
}

fn completion_of(request: &Request, length: u32) -> Completion {
    Completion { sequence: request.sequence, generation: request.generation, length, status: 0, reserved: [0; 7] }
}
