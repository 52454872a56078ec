//! The board's entropy: FEAT_RNG where the core has it.

use crate::registers::{ID_AA64ISAR0_EL1, RNDR};
use tock_registers::interfaces::Readable;

/// A random word from the core's own generator (Arm ARM D19.2.116, FEAT_RNG). `None` where there is no such generator.
pub fn random_word() -> Option<u64> {
    let has_generator = ID_AA64ISAR0_EL1.get() >> 60 != 0;
    has_generator.then(|| RNDR.get())
}
