//! The CPUs of the guest: their number, their blocks and stacks, starting and stopping them.

use crate::machine::machine;
use crate::{interrupts, psci};
use aarch64_cpu::registers::{MPIDR_EL1, Readable, TPIDR_EL1};
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicUsize, Ordering};

/// The most CPUs that the runtime starts; more in the device tree stay off.
pub const CPUS_MAX: usize = 8;
pub(crate) const STACK_BYTES: usize = 64 * 1024;

/// What one CPU keeps for itself; TPIDR_EL1 points at it. The vectors know the layout of its first four words.
#[repr(C, align(64))]
pub struct Block {
    /// Where to go on after a fault, while a probe runs; zero otherwise.
    pub(crate) resume: UnsafeCell<u64>,
    /// ESR_EL1 of the last fault that a probe met.
    pub(crate) syndrome: UnsafeCell<u64>,
    /// FAR_EL1 of it.
    pub(crate) fault_address: UnsafeCell<u64>,
    /// ELR_EL1 of it.
    pub(crate) fault_pc: UnsafeCell<u64>,
    main: AtomicUsize,
}

// SAFETY: the cells are touched only by the CPU that owns the block (`current` is the one way to reach them, and it
// follows that CPU's TPIDR_EL1) and by its own vectors; `main` is atomic.
unsafe impl Sync for Block {}

/// A stack for each CPU.
#[repr(C, align(16))]
pub struct Stacks(UnsafeCell<[[u8; STACK_BYTES]; CPUS_MAX]>);

// SAFETY: each CPU's stack pointer starts at the top of its own array, and no code takes a reference to another's.
unsafe impl Sync for Stacks {}

pub(crate) static STACKS: Stacks = Stacks(UnsafeCell::new([[0; STACK_BYTES]; CPUS_MAX]));
pub(crate) static BLOCKS: [Block; CPUS_MAX] = [const {
    Block {
        resume: UnsafeCell::new(0),
        syndrome: UnsafeCell::new(0),
        fault_address: UnsafeCell::new(0),
        fault_pc: UnsafeCell::new(0),
        main: AtomicUsize::new(0),
    }
}; CPUS_MAX];

unsafe extern "C" {
    /// The code that PSCI enters; only its address is used.
    static secondary_entry: u8;
}

/// This CPU's block.
pub(crate) fn current() -> &'static Block {
    let block = TPIDR_EL1.get() as *const Block;
    // SAFETY: start-up code sets TPIDR_EL1 to an element of `BLOCKS` on every CPU before any Rust code runs.
    unsafe { &*block }
}

/// This CPU's index: 0 for the one that booted, then in the order of the device tree.
#[must_use]
pub fn index() -> usize {
    (TPIDR_EL1.get() as usize - BLOCKS.as_ptr() as usize) / size_of::<Block>()
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
