//! Bytes that are hard to guess, and a checksum that sees each of them and its place.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
};

/// A multiplier of the golden ratio: odd, and with its bits well mixed.
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// A checksum of 64 bits, of chunks that have whole words but for the last.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Checksum(u64);

impl Checksum {
    /// Goes on with `bytes`.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks();
        let rest = rest.iter().map(|byte| u64::from(*byte) | 1 << 8);
        for word in words.iter().map(|word| u64::from_le_bytes(*word)).chain(rest) {
            // Each step can be undone, so two streams that differ in one word have two checksums.
            self.0 = (self.0 ^ word).wrapping_mul(MULTIPLIER).rotate_left(29);
        }
    }

    /// The checksum so far.
    pub(crate) const fn value(self) -> u64 {
        self.0
    }
}

/// A generator of Marsaglia's, with a start of the operating system's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// Another one each time.
    pub(crate) fn new() -> Self {
        Self(RandomState::new().build_hasher().finish() | 1)
    }

    /// Fills `bytes`, which have whole words.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.as_chunks_mut().0 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *word = self.0.to_le_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_sees_every_byte_and_its_place() {
        let of = |bytes: &[u8]| {
            let mut checksum = Checksum::default();
            checksum.add(bytes);
            checksum.value()
        };
        let mut bytes = [0; 27];
        Random::new().fill(&mut bytes[..24]);
        let whole = of(&bytes);
        for place in 0..bytes.len() {
            bytes[place] ^= 1;
            assert_ne!(of(&bytes), whole, "{place}");
            bytes[place] ^= 1;
        }
        assert_ne!(of(&bytes[..26]), whole);
        bytes.copy_within(8..16, 0);
        assert_ne!(of(&bytes), whole);
    }
}
