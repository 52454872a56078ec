//! A queue in memory that nothing of Rust's knows, between guard pages.

use rt::shared::Shared;
use rt::{machine, timer};
use testkit::{Failure, Outcome, ensure};

const PAGE: u64 = 4096;
/// Pages of one queue and its buffers: each that is used lies between two that nobody may touch.
const DESCRIPTORS: u64 = PAGE;
const AVAILABLE: u64 = 3 * PAGE;
const USED: u64 = 5 * PAGE;
const DATA: u64 = 7 * PAGE;
const TABLE: u64 = 9 * PAGE;
const PAGES: u64 = 11;
/// The size of all that in bytes.
const SIZE: u64 = PAGES * PAGE;

/// Descriptors of a queue.
pub const ENTRIES: u16 = 16;

/// Flags of a descriptor (VIRTIO 1.2, 2.7.5).
pub const NEXT: u16 = 1;
/// The device writes the buffer.
pub const WRITE: u16 = 2;
/// The buffer is a table of descriptors.
pub const INDIRECT: u16 = 4;

/// A descriptor, as its driver writes it.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor {
    /// Where the buffer is.
    pub address: u64,
    /// Its length in bytes.
    pub length: u32,
    /// A set of the flags.
    pub flags: u16,
    /// The descriptor that follows, with [`NEXT`].
    pub next: u16,
}

impl Descriptor {
    /// A descriptor.
    pub const fn new(address: u64, length: u32, flags: u16, next: u16) -> Self {
        Self { address, length, flags, next }
    }

    fn bytes(self) -> [u8; 16] {
        let Self { address, length, flags, next } = self;
        let all = u128::from(address) | u128::from(length) << 64 | u128::from(flags) << 96 | u128::from(next) << 112;
        all.to_le_bytes()
    }
}

/// The memory of one queue and its buffers.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    memory: Shared,
    /// The available index, as it was stored last.
    available: u16,
}

/// What a page that nobody may touch holds at `offset`.
fn pattern(offset: u64) -> [u64; 4] {
    let word = (offset ^ 0x6775_6172_6400).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    [word, !word, word.rotate_left(17), word ^ 0xffff]
}

impl Ring {
    /// Claims memory for `COUNT` of them.
    #[must_use]
    pub fn claim<const COUNT: usize>() -> Option<[Self; COUNT]> {
        let memory = machine().memory.first()?;
        let size = COUNT as u64 * SIZE;
        // From the end down, but for the last pages of all, so that a buffer that begins here and leaves RAM is large.
        let all = (2..32).find_map(|step| Shared::claim(memory.end() - step * size, size))?;
        let mut pieces = (0..COUNT as u64).map_while(|index| all.piece(index * SIZE, SIZE));
        let mut rings = [Self { memory: all, available: 0 }; COUNT];
        for ring in &mut rings {
            ring.memory = pieces.next()?;
        }
        Some(rings)
    }

    /// An empty queue, and guards and buffers as they are to be.
    pub fn clear(&mut self) {
        for offset in (0..SIZE).step_by(32) {
            self.memory.store_words(offset, pattern(offset));
        }
        for start in [DESCRIPTORS, AVAILABLE, USED] {
            if let Some(page) = self.memory.piece(start, PAGE) {
                page.clear();
            }
        }
        self.available = 0;
    }

    /// Finds out whether somebody has touched a guard.
    pub fn check_guards(&self) -> Outcome {
        for page in (0..PAGES).step_by(2) {
            for offset in (page * PAGE..(page + 1) * PAGE).step_by(32) {
                ensure!(self.memory.load_words(offset) == pattern(offset), "the guard at {offset:#x} has changed");
            }
        }
        Ok(())
    }

    /// Finds out whether somebody has touched the data, which [`Self::clear`] filled.
    pub fn is_data_untouched(&self) -> bool {
        (DATA..DATA + PAGE).step_by(32).all(|offset| self.memory.load_words(offset) == pattern(offset))
    }

    /// Puts the pattern back into the data.
    pub fn restore_data(&self) {
        for offset in (DATA..DATA + PAGE).step_by(32) {
            self.memory.store_words(offset, pattern(offset));
        }
    }

    /// Where descriptors, available ring and used ring are.
    pub fn places(&self) -> [u64; 3] {
        [DESCRIPTORS, AVAILABLE, USED].map(|offset| self.memory.address() + offset)
    }

    /// The memory of one of [`Self::places`], by its index.
    pub fn part(&self, index: usize) -> Option<Shared> {
        self.memory.piece(*[DESCRIPTORS, AVAILABLE, USED].get(index)?, PAGE)
    }

    /// The address of byte `offset` of the data, of which there are 4096.
    pub fn data(&self, offset: u64) -> u64 {
        self.memory.address() + DATA + offset
    }

    /// The address of the table for indirect descriptors.
    pub fn table(&self) -> u64 {
        self.memory.address() + TABLE
    }

    /// Writes into the data from byte `offset` on.
    pub fn write_data(&self, offset: u64, bytes: &[u8]) {
        if let Some(piece) = self.memory.piece(DATA + offset, bytes.len() as u64) {
            piece.write(bytes);
        }
    }

    /// Reads the data from byte `offset` on.
    pub fn read_data<const N: usize>(&self, offset: u64) -> [u8; N] {
        let mut bytes = [0; N];
        if let Some(piece) = self.memory.piece(DATA + offset, N as u64) {
            piece.read(&mut bytes);
        }
        bytes
    }

    /// Sets a descriptor of the queue.
    pub fn set_descriptor(&self, index: u16, descriptor: Descriptor) {
        self.set(DESCRIPTORS, index, descriptor);
    }

    /// Sets a descriptor of the table for indirect ones.
    pub fn set_indirect(&self, index: u16, descriptor: Descriptor) {
        self.set(TABLE, index, descriptor);
    }

    fn set(&self, table: u64, index: u16, descriptor: Descriptor) {
        if let Some(piece) = self.memory.piece(table + u64::from(index) * 16, 16) {
            piece.write(&descriptor.bytes());
        }
    }

    /// Makes the chain at `head` available.
    pub fn offer(&mut self, head: u16) {
        let slot = AVAILABLE + 4 + u64::from(self.available % ENTRIES) * 2;
        if let Some(piece) = self.memory.piece(slot, 2) {
            piece.write(&head.to_le_bytes());
        }
        self.set_available_index(self.available.wrapping_add(1));
    }

    /// The available index.
    pub const fn available_index(&self) -> u16 {
        self.available
    }

    /// Stores the available index; the flags beside it stay zero.
    pub fn set_available_index(&mut self, index: u16) {
        self.available = index;
        self.memory.store(AVAILABLE, u32::from(index) << 16);
    }

    /// Sets `used_event`, beyond the slots.
    pub fn set_used_event(&self, index: u16) {
        self.memory.store(AVAILABLE + 4 + 2 * u64::from(ENTRIES), u32::from(index));
    }

    /// How far the used ring has come.
    pub fn used_index(&self) -> u16 {
        (self.memory.load(USED) >> 16) as u16
    }

    /// Entry `index` of the used ring: head and length.
    pub fn used(&self, index: u16) -> (u32, u32) {
        let entry = USED + 4 + u64::from(index % ENTRIES) * 8;
        (self.memory.load(entry), self.memory.load(entry + 4))
    }

    /// Waits until `count` chains have been given back.
    pub fn wait_used(&self, count: u16, microseconds: u64) -> Result<(), Failure> {
        let came = timer::wait_until(microseconds, || self.used_index() == count);
        ensure!(came, "the used index is {} and not {count}", self.used_index());
        Ok(())
    }
}
