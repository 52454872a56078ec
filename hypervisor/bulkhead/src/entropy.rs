//! Random bytes for guests: a ChaCha20 generator seeded from the board.

use arch::board::Board;
use chacha20::ChaCha20Rng;
use chacha20::rand_core::{Rng, SeedableRng};

/// The system's random generator.
pub struct Pool {
    generator: ChaCha20Rng,
    /// The board has given it something that nobody can know.
    is_seeded: bool,
}

impl Pool {
    /// Seeds the generator with everything the board offers: the boot loader's `rng-seed`, and FEAT_RNG.
    pub fn new(board: &Board) -> Self {
        let mut seed = board.seed.unwrap_or([0; 32]);
        let mut sources = u32::from(board.seed.is_some());
        for chunk in seed.chunks_exact_mut(8) {
            if let Some(word) = arch::entropy::random_word() {
                sources += 1;
                for (byte, random) in chunk.iter_mut().zip(word.to_le_bytes()) {
                    *byte ^= random;
                }
            }
        }
        if sources == 0 {
            log::warn!(
                "the board gives no entropy (no rng-seed in its device tree, no FEAT_RNG): the guests' seeds are the same at \
                 every start, and TRNG has none for them"
            );
        }
        Self { generator: ChaCha20Rng::from_seed(seed), is_seeded: sources != 0 }
    }

    /// Fills `buffer` with random bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        self.generator.fill_bytes(buffer);
    }

    /// Three random words, for TRNG, which promises entropy (Arm DEN0098 1.2). `None` if the board gave none.
    pub fn words(&mut self) -> Option<[u64; 3]> {
        self.is_seeded.then(|| [(); 3].map(|()| self.generator.next_u64()))
    }
}
