//! What each CPU has for itself: a block, which TPIDR_EL1 points at, and a stack.

use aarch64_cpu::registers::{Readable, TPIDR_EL1};
use core::cell::UnsafeCell;
use core::sync::atomic::AtomicUsize;

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
    /// What [`crate::cpu::start`] has it run.
    pub(crate) main: AtomicUsize,
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
