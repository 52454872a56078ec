//! What was typed for a guest and waits to be read.

/// How many bytes wait at most.
const CAPACITY: usize = 128;

/// Positions wrap by masking.
const INDEX_MASK: usize = CAPACITY - 1;
const _: () = assert!(CAPACITY.is_power_of_two(), "positions wrap by masking");

/// A queue of bytes.
pub(super) struct Queue {
    bytes: [u8; CAPACITY],
    /// The position of the oldest byte.
    head: usize,
    length: usize,
}

impl Queue {
    /// An empty queue.
    pub(super) const fn new() -> Self {
        Self { bytes: [0; CAPACITY], head: 0, length: 0 }
    }

    /// Whether nothing waits.
    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Appends `byte`; a full queue drops it.
    pub(super) fn push(&mut self, byte: u8) {
        let position = self.head.wrapping_add(self.length) & INDEX_MASK;
        if self.length < CAPACITY
            && let Some(slot) = self.bytes.get_mut(position)
        {
            *slot = byte;
            self.length = self.length.saturating_add(1);
        }
    }

    /// Takes the oldest byte.
    pub(super) fn pop(&mut self) -> Option<u8> {
        self.length = self.length.checked_sub(1)?;
        let byte = self.bytes.get(self.head).copied();
        self.head = self.head.wrapping_add(1) & INDEX_MASK;
        byte
    }
}
