//! The driver, the two devices, and their memories.

use super::{BUFFERS, END, MEMORY_SIZE, TABLE, input::Input};
use bulkhead_virtio_transport::virtqueue::{
    Chain, Features, Popped, QueueError, SEGMENTS_MAX, Segment, Start, Virtqueue,
};
use devices::virtio_mmio::{Effect, Shadow, VirtioMmio, feature};
use vdev::{
    GuestAddr, GuestMemory, QueueLayout, Width,
    testkit::{FakeMemory, MEMORY_BASE},
};
use virtio_queue::{Queue, QueueOwnedT, QueueT, desc::split::Descriptor};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

const AVAILABLE: u64 = MEMORY_BASE.0 + 0x1000;
const USED: u64 = MEMORY_BASE.0 + 0x2000;

/// A page that nobody reads.
struct Unread;

impl Shadow for Unread {
    fn set(&mut self, _: u16, _: u32) {}
}

/// Has a driver set a queue up through the register file, as VIRTIO 1.2, 3.1.1 and 4.2.3.2 say: what the register file
/// makes of it is what both devices walk.
fn set_up(wanted: QueueLayout) -> QueueLayout {
    let mut device = VirtioMmio::new(4, 1);
    let mut store = |offset, value: u64| device.write(offset, Width::Word, value & 0xffff_ffff, &mut Unread);
    const FEATURES: u64 = feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC;
    for (offset, value) in [
        (0x070, 0),
        (0x070, 1),
        (0x070, 3),
        (0x024, 0),
        (0x020, FEATURES),
        (0x024, 1),
        (0x020, FEATURES >> 32),
        (0x070, 11),
    ] {
        store(offset, value).expect("a register");
    }
    let addresses = [(0x080, wanted.descriptors), (0x090, wanted.available), (0x0a0, wanted.used)];
    for (offset, value) in [(0x030, 0), (0x038, u64::from(wanted.size))] {
        store(offset, value).expect("a register");
    }
    for (offset, GuestAddr(address)) in addresses {
        store(offset, address).expect("a register");
        store(offset + 4, address >> 32).expect("a register");
    }
    assert_eq!(store(0x044, 1), Ok(Effect::QueueReady(0)));
    let layout = device.queue(0).expect("the queue is ready");
    assert_eq!(layout, wanted);
    layout
}

pub struct World {
    layout: QueueLayout,
    features: Features,
    our_memory: FakeMemory,
    our_queue: Virtqueue,
    their_memory: GuestMemoryMmap,
    their_queue: Queue,
    /// The available index as the driver published it last.
    published: u16,
    /// The published index as Bulkhead's device has seen it last: it does not look again before it got there.
    seen: u16,
    in_flight: Vec<u16>,
    /// What can be put back.
    last_popped: Option<u16>,
    /// Chains given back since the last question about the interrupt.
    pushed: u16,
    flags: u16,
}

impl World {
    pub fn new(size: u16, features: u8) -> Self {
        let features = Features { event_index: features & 1 != 0, indirect: features & 6 != 0 };
        let layout = set_up(QueueLayout {
            size,
            descriptors: MEMORY_BASE,
            available: GuestAddr(AVAILABLE),
            used: GuestAddr(USED),
        });
        let ranges = [(GuestAddress(MEMORY_BASE.0), MEMORY_SIZE)];
        Self {
            layout,
            features,
            our_memory: FakeMemory::new(MEMORY_SIZE),
            our_queue: Virtqueue::new(layout, features),
            their_memory: GuestMemoryMmap::from_ranges(&ranges).expect("memory for the reference"),
            their_queue: their_queue(layout, features),
            published: 0,
            seen: 0,
            in_flight: Vec::new(),
            last_popped: None,
            pushed: 0,
            flags: 0,
        }
    }

    pub fn size(&self) -> u16 {
        self.layout.size
    }

    pub fn descriptors(&self) -> u64 {
        self.layout.descriptors.0
    }

    // What the driver does.

    fn store(&self, address: u64, bytes: &[u8]) {
        self.our_memory.write(GuestAddr(address), bytes).expect("the driver's own memory");
        self.their_memory.write_slice(bytes, GuestAddress(address)).expect("the driver's own memory");
    }

    pub fn describe(&self, table: u64, index: u16, buffer: (u64, u32), flags: u16, next: u16) {
        let number =
            u128::from(buffer.0) | u128::from(buffer.1) << 64 | u128::from(flags) << 96 | u128::from(next) << 112;
        self.store(table + 16 * u64::from(index), &number.to_le_bytes());
    }

    /// Writes a chain of `count` descriptors, of which those from `writable` on may be written, as a good driver would,
    /// except that a buffer may be bad, and that a chain may go round the table.
    pub fn describe_chain(&self, table: u64, head: u16, count: u8, writable: u8, input: &mut Input<'_>) {
        let entries = if table == TABLE { 64 } else { self.size() };
        for position in 0..count {
            let index = (head + u16::from(position)) % entries;
            let next = (index + 1) % entries;
            let flags = if position + 1 < count { NEXT } else { 0 };
            let flags = if position >= writable % 8 { flags | WRITE } else { flags };
            self.describe(table, index, input.buffer(), flags, next);
        }
    }

    /// Makes a descriptor of the queue an indirect one, with any table.
    pub fn describe_indirect(&self, input: &mut Input<'_>) {
        let index = u16::from(input.byte()) % self.size();
        let flags = INDIRECT | input.flags() & (NEXT | WRITE);
        let next = u16::from(input.byte());
        self.describe(self.descriptors(), index, input.table(), flags, next);
    }

    /// Whether the driver may move its index anywhere. An index that takes back what Bulkhead's device has seen already
    /// is noticed later by it than by the reference, which looks each time.
    fn is_drained(&self) -> bool {
        self.seen == self.their_queue.next_avail()
    }

    /// Whether the driver may go on by `step`.
    fn may_publish(&self, step: u16) -> bool {
        let waiting = self.published.wrapping_sub(self.their_queue.next_avail());
        self.is_drained() || (step == 1 && waiting < self.size())
    }

    pub fn offer(&mut self, head: u16) {
        if self.may_publish(1) {
            let slot = u64::from(self.published % self.size());
            self.store(AVAILABLE + 4 + 2 * slot, &head.to_le_bytes());
            self.publish_by(1);
        }
    }

    pub fn publish_by(&mut self, step: u16) {
        if self.may_publish(step) {
            self.published = self.published.wrapping_add(step);
            self.store(AVAILABLE + 2, &self.published.to_le_bytes());
        }
    }

    pub fn set_used_event_by(&mut self, step: u16) {
        let event = self.their_queue.next_used().wrapping_add(step);
        self.store(AVAILABLE + 4 + 2 * u64::from(self.size()), &event.to_le_bytes());
    }

    pub fn set_flags(&mut self, flags: u16) {
        self.flags = flags;
        self.store(AVAILABLE, &flags.to_le_bytes());
    }

    /// The driver resets its device, which told it that it needs it.
    fn reset(&mut self) {
        self.store(AVAILABLE, &[0; 0x800]);
        self.store(USED, &[0; 0x900]);
        self.our_queue = Virtqueue::new(self.layout, self.features);
        self.their_queue = their_queue(self.layout, self.features);
        (self.published, self.seen, self.pushed, self.flags) = (0, 0, 0, 0);
        self.in_flight.clear();
        self.last_popped = None;
    }

    // What the devices do.

    /// Whether the published index is one that Bulkhead's device refuses when it looks.
    fn is_index_bad(&self) -> bool {
        self.published.wrapping_sub(self.their_queue.next_avail()) > self.size()
    }

    pub fn pop(&mut self) {
        let drained = self.is_drained();
        let waits = if drained && self.is_index_bad() {
            Err(QueueError::AvailableIndex)
        } else {
            Ok(self.published != self.their_queue.next_avail())
        };
        assert_eq!(self.our_queue.has_available(&self.our_memory), waits);
        let (mut chain, mut room) = (Chain::NONE, [Segment::EMPTY; SEGMENTS_MAX]);
        let mut ours = self.our_queue.pop(&self.our_memory, &mut chain, &mut room, Start::Head);
        while ours == Ok(Popped::Part) {
            ours = self.our_queue.pop(&self.our_memory, &mut chain, &mut room, Start::Part);
        }
        if drained {
            self.seen = self.published;
        }
        let theirs = self.their_queue.iter(&self.their_memory).map(|mut chains| chains.next());
        let Ok(theirs) = theirs else {
            assert_eq!(ours, Err(QueueError::AvailableIndex), "only the reference refuses the index");
            return self.reset();
        };
        let Some(theirs) = theirs else {
            assert_eq!(ours, Ok(Popped::Nothing), "only one device finds a chain");
            return;
        };
        let head = theirs.head_index();
        // More than a chain that both take can have: a longer one is judged by its length alone.
        let theirs: Vec<Descriptor> = theirs.take(70_000).collect();
        match ours {
            Ok(Popped::Whole) => {
                assert_eq!(chain.head, head);
                self.compare_chains(&chain, &room, &theirs);
                self.fill(&chain, &room, &theirs);
                self.in_flight.push(head);
                self.last_popped = Some(head);
            }
            Ok(Popped::Nothing | Popped::Part) => panic!("only the reference finds a chain"),
            Err(error) => {
                self.judge_refusal(error, head, &theirs);
                self.reset();
            }
        }
    }

    /// Both have taken the chain: it must be the same. The reference leaves out nothing but what lies behind an error,
    /// and Bulkhead nothing but what is empty.
    fn compare_chains(&self, ours: &Chain, room: &[Segment], theirs: &[Descriptor]) {
        let buffers = ours.buffers(room);
        let bytes = ours.readable_bytes() + ours.writable_bytes();
        if bytes > u64::from(u32::MAX) {
            // 2³² bytes are allowed; the reference stops one byte short of it.
            assert_eq!(bytes, 1 << 32);
            return;
        }
        assert!(is_complete(theirs), "only the reference refuses the chain: {ours:?}");
        let part = |writable: bool| -> Vec<Segment> {
            let descriptors = theirs.iter().filter(|it| it.is_write_only() == writable && it.len() != 0);
            descriptors.map(|it| Segment { address: GuestAddr(it.addr().0), length: it.len() }).collect()
        };
        assert_eq!(buffers.readable(), part(false));
        assert_eq!(buffers.writable(), part(true));
        let length = |part: &[Segment]| part.iter().map(|segment| u64::from(segment.length)).sum::<u64>();
        assert_eq!(ours.readable_bytes(), length(buffers.readable()));
        assert_eq!(ours.writable_bytes(), length(buffers.writable()));
    }

    /// Bulkhead has refused the chain: so has the reference, or here is why not.
    fn judge_refusal(&self, error: QueueError, head: u16, theirs: &[Descriptor]) {
        let wraps = |it: &Descriptor| it.addr().0.checked_add(u64::from(it.len())).is_none();
        let bytes: u64 = theirs.iter().map(|it| u64::from(it.len())).sum();
        let stricter = match error {
            QueueError::HeadInFlight => self.in_flight.contains(&head),
            QueueError::ReadableAfterWritable => !theirs.is_sorted_by_key(|it| it.is_write_only()),
            QueueError::AddressWraps => theirs.iter().any(wraps),
            QueueError::ChainTooLong => theirs.len() > SEGMENTS_MAX,
            QueueError::TooManyBytes => bytes > 1 << 32,
            QueueError::IndirectNotNegotiated => !self.features.indirect,
            QueueError::IndirectAndNext => self.features.indirect,
            QueueError::Head => head >= self.size() && theirs.is_empty(),
            QueueError::Memory | QueueError::Next | QueueError::IndirectNested | QueueError::IndirectLength => false,
            QueueError::AvailableIndex | QueueError::NotInFlight => panic!("{error}, says one device alone"),
        };
        assert!(stricter || !is_complete(theirs), "only Bulkhead refuses, because {error}: {theirs:?}");
    }

    /// Writes the chain full through Bulkhead's copy, and through the reference's descriptors.
    fn fill(&self, ours: &Chain, room: &[Segment], theirs: &[Descriptor]) {
        let buffers = ours.buffers(room);
        let is_buffer = |it: &Segment| it.address.0 >= BUFFERS && it.address.0 + u64::from(it.length) <= END;
        if ours.writable_bytes() > 0x1000 || !buffers.writable().iter().all(is_buffer) {
            return;
        }
        let bytes: Vec<u8> = (0..ours.writable_bytes()).map(|index| (index % 251) as u8 ^ ours.head as u8).collect();
        // In two parts, so that the second begins anywhere.
        let middle = bytes.len() / 3;
        buffers.write(&self.our_memory, 0, &bytes[..middle]).expect("these buffers are the guest's");
        buffers.write(&self.our_memory, middle as u64, &bytes[middle..]).expect("these buffers are the guest's");
        let mut rest = &bytes[..];
        for descriptor in theirs.iter().filter(|it| it.is_write_only()) {
            let (now, later) = rest.split_at(descriptor.len() as usize);
            self.their_memory.write_slice(now, descriptor.addr()).expect("these buffers are the guest's");
            rest = later;
        }
    }

    pub fn put_back(&mut self) {
        if self.published.wrapping_sub(self.their_queue.next_avail()) >= self.size() {
            // The driver has offered more chains than it can have; as in `is_drained`, the reference notices first.
            return;
        }
        if let Some(head) = self.last_popped.take() {
            self.our_queue.put_back(head);
            self.their_queue.go_to_previous_position();
            self.in_flight.retain(|other| *other != head);
        }
        assert_eq!(usize::from(self.our_queue.in_flight()), self.in_flight.len());
    }

    pub fn push_used(&mut self, choice: u8, written: u32) {
        if self.in_flight.is_empty() {
            let error = self.our_queue.push_used(&self.our_memory, u16::from(choice), written);
            assert_eq!(error, Err(QueueError::NotInFlight));
            return;
        }
        let head = self.in_flight.swap_remove(usize::from(choice) % self.in_flight.len());
        assert_eq!(self.our_queue.push_used(&self.our_memory, head, written), Ok(()));
        self.their_queue.add_used(&self.their_memory, head, written).expect("the reference takes it back");
        self.last_popped = self.last_popped.filter(|last| *last != head);
        self.pushed += 1;
        self.compare_used();
    }

    pub fn take_interrupt(&mut self) {
        let ours = self.our_queue.take_interrupt(&self.our_memory);
        let theirs = self.their_queue.needs_notification(&self.their_memory).expect("the ring is there");
        // The reference does not know the flag.
        let expected = if self.features.event_index { theirs } else { self.pushed != 0 && self.flags & 1 == 0 };
        assert_eq!(ours, Ok(expected));
        self.pushed = 0;
    }

    pub fn enable_notifications(&mut self) {
        let ours = self.our_queue.enable_notifications(&self.our_memory);
        let theirs = self.their_queue.enable_notification(&self.their_memory).expect("the ring is there");
        // The reference does not look at how far the index has gone.
        let expected = if self.is_index_bad() { Err(QueueError::AvailableIndex) } else { Ok(theirs) };
        assert_eq!(ours, expected);
        self.compare_used();
    }

    pub fn disable_notifications(&mut self) {
        assert_eq!(self.our_queue.disable_notifications(&self.our_memory), Ok(()));
        self.their_queue.disable_notification(&self.their_memory).expect("the ring is there");
        self.compare_used();
    }

    fn compare_used(&self) {
        self.compare(USED, 6 + 8 * usize::from(self.size()));
    }

    /// Compares every byte.
    pub fn compare_memory(&self) {
        self.compare(MEMORY_BASE.0, MEMORY_SIZE);
    }

    fn compare(&self, start: u64, length: usize) {
        let (mut ours, mut theirs) = (vec![0; length], vec![0; length]);
        self.our_memory.read(GuestAddr(start), &mut ours).expect("the driver's own memory");
        self.their_memory.read_slice(&mut theirs, GuestAddress(start)).expect("the driver's own memory");
        let differs = ours.iter().zip(&theirs).position(|(one, other)| one != other);
        assert_eq!(differs, None, "byte of the first difference, from {start:#x} on");
    }
}

fn their_queue(layout: QueueLayout, features: Features) -> Queue {
    let mut queue = Queue::new(256).expect("a queue of the reference");
    let halves = |address: GuestAddr| (Some(address.0 as u32), Some((address.0 >> 32) as u32));
    queue.set_size(layout.size);
    let (low, high) = halves(layout.descriptors);
    queue.set_desc_table_address(low, high);
    let (low, high) = halves(layout.available);
    queue.set_avail_ring_address(low, high);
    let (low, high) = halves(layout.used);
    queue.set_used_ring_address(low, high);
    queue.set_event_idx(features.event_index);
    queue.set_ready(true);
    queue
}

/// Whether the reference went through the chain to its end: it leaves out what lies behind an error, and says nothing.
fn is_complete(chain: &[Descriptor]) -> bool {
    chain.last().is_some_and(|last| !last.has_next())
}
