//! Random bytes for guests: ChaCha20's key stream, whose key is the board's seed.
//!
//! The cipher makes one block of 64 bytes at a time; the crate's generator makes four, for which interrupts would wait
//! too long.

use arch::board::Board;
use chacha20::ChaCha20LegacyCore;
use chacha20::cipher::{KeyIvInit, StreamCipherCore};

/// The bytes that the cipher makes at a time.
const BLOCK: usize = 64;

/// The system's random generator.
pub struct Pool {
    cipher: ChaCha20LegacyCore,
    block: [u8; BLOCK],
    /// So many bytes of the block have been given away.
    given: usize,
    /// The board has given it something that nobody can know.
    is_seeded: bool,
}

impl Pool {
    /// Makes a key of everything the board offers: the boot loader's `rng-seed`, and FEAT_RNG.
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
        let cipher = ChaCha20LegacyCore::new(&seed.into(), &[0; 8].into());
        Self { cipher, block: [0; BLOCK], given: BLOCK, is_seeded: sources != 0 }
    }

    /// Fills `buffer` with random bytes.
    pub fn fill(&mut self, buffer: &mut [u8]) {
        let mut rest = buffer;
        while !rest.is_empty() {
            if self.given == BLOCK {
                self.given = 0;
                self.cipher.write_keystream_block((&mut self.block).into());
            }
            let made = self.block.get(self.given..).unwrap_or_default();
            let length = made.len().min(rest.len());
            let (part, others) = rest.split_at_mut(length);
            part.copy_from_slice(&made[..length]);
            self.given += length;
            rest = others;
        }
    }

    /// Three random words, for TRNG, which promises entropy (Arm DEN0098 1.2). `None` if the board gave none.
    pub fn words(&mut self) -> Option<[u64; 3]> {
        self.is_seeded.then(|| {
            [(); 3].map(|()| {
                let mut bytes = [0; 8];
                self.fill(&mut bytes);
                u64::from_le_bytes(bytes)
            })
        })
    }
}
