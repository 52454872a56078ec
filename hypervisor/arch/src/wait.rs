//! How a core waits: for a lock, for others to go on, and for ever.

use core::arch::asm;

/// How a core waits for a lock: with YIELD, which costs a core nothing, and lets an emulator that runs one core at a
/// time turn to the one that has the lock.
#[derive(Debug)]
pub struct InTurn;

impl spin::RelaxStrategy for InTurn {
    #[inline(always)]
    fn relax() {
        let_others_run();
    }
}

/// YIELD: a core with nobody beside it goes on at once; an emulator that runs one core at a time turns to the next.
#[inline(always)]
pub fn let_others_run() {
    // SAFETY: YIELD is a hint that changes no register and no memory.
    unsafe { asm!("yield", options(nomem, nostack, preserves_flags)) };
}

/// Stops this core for good.
pub fn park() -> ! {
    loop {
        // SAFETY: a hint.
        unsafe { asm!("wfi", options(nomem, nostack)) };
    }
}
