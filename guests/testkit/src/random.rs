//! Random numbers that a seed replays.

use rt::{machine, println};

/// Marsaglia's xorshift64* generator: small, and good enough to choose addresses and values.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that gives the same numbers for the same seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        // Zero would stay zero for ever.
        Self(seed ^ 0x9e37_79b9_7f4a_7c15 | 1)
    }

    /// A generator seeded by the parameter `seed=` (1 where it is absent); prints the seed, so that a run can be
    /// replayed.
    #[must_use]
    pub fn from_parameter() -> Self {
        let seed = machine().number("seed", 1);
        println!("seed={seed}");
        Self::new(seed)
    }

    /// The next word, all 64 bits random.
    pub fn word(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(bound)) >> 64) as u64
    }
}
