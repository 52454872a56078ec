//! The receive FIFO: up to 32 characters, each with its error bits.

/// The number of characters in a PL011 r1p5 FIFO (DDI0183 2.4.2).
pub(super) const DEPTH: usize = 32;

/// Positions wrap by masking.
const INDEX_MASK: usize = DEPTH - 1;
const _: () = assert!(DEPTH.is_power_of_two(), "positions wrap by masking");

/// A queue of characters as UARTDR shows them.
pub(super) struct Fifo {
    slots: [u16; DEPTH],
    /// The position of the oldest character.
    head: usize,
    length: usize,
}

impl Fifo {
    /// An empty FIFO.
    pub(super) const fn new() -> Self {
        Self { slots: [0; DEPTH], head: 0, length: 0 }
    }

    /// How many characters wait.
    pub(super) const fn len(&self) -> usize {
        self.length
    }

    /// Appends `character`; the caller has seen that there is room.
    pub(super) fn push(&mut self, character: u16) {
        let position = self.head.wrapping_add(self.length) & INDEX_MASK;
        if self.length < DEPTH
            && let Some(slot) = self.slots.get_mut(position)
        {
            *slot = character;
            self.length = self.length.saturating_add(1);
        }
    }

    /// Takes the oldest character.
    pub(super) fn pop(&mut self) -> Option<u16> {
        self.length = self.length.checked_sub(1)?;
        let character = self.slots.get(self.head).copied();
        self.head = self.head.wrapping_add(1) & INDEX_MASK;
        character
    }

    /// Drops every character.
    pub(super) fn clear(&mut self) {
        self.length = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_come_out_in_the_order_they_went_in() {
        let mut fifo = Fifo::new();
        // Rounds of 20 make the positions wrap.
        for round in 0..5 {
            for character in 0..20 {
                fifo.push(round * 20 + character);
            }
            assert_eq!(fifo.len(), 20);
            for character in 0..20 {
                assert_eq!(fifo.pop(), Some(round * 20 + character));
            }
            assert_eq!(fifo.pop(), None);
        }
    }

    #[test]
    fn a_full_fifo_keeps_what_it_has() {
        let mut fifo = Fifo::new();
        for character in 0..40 {
            fifo.push(character);
        }
        assert_eq!(fifo.len(), DEPTH);
        assert_eq!((0..40).map_while(|_| fifo.pop()).last(), Some(31));
    }
}
