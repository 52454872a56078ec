//! The board's entropy: FEAT_RNG where the core has it.

use crate::registers::ID_AA64ISAR0_EL1;
use core::arch::asm;
use tock_registers::interfaces::Readable;

/// How often the generator is asked for one word.
const TRIES_MAX: u32 = 8;

/// A random word from the core's own generator (Arm ARM, RNDR, FEAT_RNG). `None` where there is no such generator, or
/// it has no entropy for the time being.
pub fn random_word() -> Option<u64> {
    // ID_AA64ISAR0_EL1.RNDR.
    let has_generator = ID_AA64ISAR0_EL1.get() >> 60 != 0;
    if !has_generator {
        return None;
    }
    (0..TRIES_MAX).find_map(|_| {
        let (word, is_random): (u64, u64);
        // SAFETY: FEAT_RNG exists. RNDR sets PSTATE.Z, and gives 0, when it has no random number in time.
        unsafe {
            asm!("mrs {0}, s3_3_c2_c4_0", "cset {1}, ne", out(reg) word, out(reg) is_random, options(nomem, nostack));
        }
        (is_random != 0).then_some(word)
    })
}
