//! What each core has for itself at EL2. TPIDR_EL2 holds its address from the core's first instructions on.

use aarch64_cpu::registers::MPIDR_EL1;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::AtomicU64;
use device_tree::CORES_MAX;
use tock_registers::interfaces::Readable;

/// The size of a core's emergency stack, in bytes.
pub(crate) const EMERGENCY_STACK_SIZE: usize = 4096;

/// One core's own part of EL2's memory.
#[repr(C, align(16))]
pub(crate) struct PerCore {
    /// Where the core handles EL2's own exceptions: its other stack may be what is broken. Only the vectors name it.
    emergency_stack: UnsafeCell<[u8; EMERGENCY_STACK_SIZE]>,
    /// The identity of the virtual CPU whose registers the core holds, or 0.
    pub(crate) loaded: AtomicU64,
}

// SAFETY: no reference into an emergency stack is ever made; each is used by its core alone.
unsafe impl Sync for PerCore {}

impl PerCore {
    const fn new() -> Self {
        Self { emergency_stack: UnsafeCell::new([0; EMERGENCY_STACK_SIZE]), loaded: AtomicU64::new(0) }
    }
}

/// The primary core's comes first.
pub(crate) static PER_CORE: [PerCore; CORES_MAX] = [const { PerCore::new() }; CORES_MAX];

/// What TPIDR_EL2 is on core `core`.
pub(crate) fn address(core: usize) -> u64 {
    &raw const PER_CORE[core] as u64
}

fn own_address() -> usize {
    let address;
    // SAFETY: reads a register that is constant from the core's first instructions on.
    unsafe { asm!("mrs {0}, tpidr_el2", out(reg) address, options(pure, nomem, nostack, preserves_flags)) };
    address
}

/// What belongs to the core that runs this.
pub(crate) fn this() -> &'static PerCore {
    // SAFETY: the boot code set TPIDR_EL2 to the address of one of `PER_CORE`, and nothing changes it.
    unsafe { &*(own_address() as *const PerCore) }
}

/// The number of the core that runs this.
pub(crate) fn this_core() -> usize {
    (own_address() - &raw const PER_CORE as usize) / size_of::<PerCore>()
}

/// This core's affinity: MPIDR_EL1 without its flags.
pub(crate) fn affinity() -> u64 {
    MPIDR_EL1.get() & 0xff_00ff_ffff
}
