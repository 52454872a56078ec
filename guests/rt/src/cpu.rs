//! The CPUs of the guest: their number, starting and stopping them.

use crate::machine::machine;
use crate::per_cpu::BLOCKS;
use crate::{interrupts, psci};
use aarch64_cpu::registers::{MPIDR_EL1, Readable};
use core::sync::atomic::Ordering;

pub use crate::per_cpu::{CPUS_MAX, index};

unsafe extern "C" {
    /// The code that PSCI enters; only its address is used.
    static secondary_entry: u8;
}

/// How many CPUs the guest has, at most [`CPUS_MAX`].
#[must_use]
pub fn count() -> usize {
    machine().cpus.len()
}

/// This CPU's affinity: Aff3 in bits 39:32, Aff2 to Aff0 in bits 23:0 (MPIDR_EL1, Arm ARM D17.2.101).
#[must_use]
pub fn affinity() -> u64 {
    MPIDR_EL1.get() & 0xff_00ff_ffff
}

/// The physical address at which a CPU started by PSCI enters the runtime.
#[must_use]
pub fn entry_address() -> u64 {
    &raw const secondary_entry as u64
}

/// Starts CPU `index`, which calls `main` with its index, interrupts masked; when `main` returns the CPU turns itself
/// off.
///
/// # Errors
/// What PSCI CPU_ON answers, or [`psci::Error::InvalidParameters`] for an index that is out of range.
pub fn start(index: usize, main: fn(usize)) -> Result<(), psci::Error> {
    let (Some(block), Some(&affinity)) = (BLOCKS.get(index), machine().cpus.get(index)) else {
        return Err(psci::Error::InvalidParameters);
    };
    block.main.store(main as usize, Ordering::Release);
    psci::cpu_on(affinity, entry_address(), index as u64)
}

/// Does nothing, in one instruction.
#[inline(always)]
pub fn nop() {
    // SAFETY: NOP changes nothing.
    unsafe { core::arch::asm!("nop", options(nomem, nostack, preserves_flags)) };
}

/// Tells the core that this CPU only waits (YIELD): an emulator then runs the next CPU.
#[inline(always)]
pub fn relax() {
    // SAFETY: YIELD is a hint; it changes no register and no memory.
    unsafe { core::arch::asm!("yield", options(nomem, nostack, preserves_flags)) };
}

/// Runs `3 × turns + 2` instructions, more or less: a delay without a clock.
#[inline(never)]
pub fn delay(turns: u64) {
    // SAFETY: counts a register of its own down to zero.
    unsafe {
        core::arch::asm!(
            "cbz {0}, 3f",
            "2: nop",
            "sub {0}, {0}, #1",
            "cbnz {0}, 2b",
            "3:",
            inout(reg) turns => _,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// Starts every CPU but this one.
///
/// # Errors
/// As [`start`]; CPUs started before the error go on.
pub fn start_others(main: fn(usize)) -> Result<(), psci::Error> {
    (1..count()).try_for_each(|index| start(index, main))
}

pub(crate) fn run_secondary(index: usize) -> ! {
    interrupts::mask();
    let main = BLOCKS[index].main.load(Ordering::Acquire);
    // SAFETY: `start` stored a `fn(usize)` there before it asked for this CPU, and nothing else writes the word.
    let main = unsafe { core::mem::transmute::<usize, fn(usize)>(main) };
    main(index);
    psci::cpu_off();
    interrupts::park()
}
