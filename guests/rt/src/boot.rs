//! From the first instruction to `main`: exception level, MMU, relocation, BSS, stack.
//!
//! The arm64 boot protocol (Linux `Documentation/arch/arm64/booting.rst`) enters with the MMU off and the device tree
//! in `x0`. Nothing is written before the MMU and the caches are on, so that no stale cache line can hide a store.

use crate::{console, cpu, interrupts, machine, mmu, per_cpu};
use core::arch::global_asm;

global_asm!(
    include_str!("boot.s"),
    STACK_BYTES = const per_cpu::STACK_BYTES,
    BLOCK_BYTES = const size_of::<per_cpu::Block>(),
    TCR = const mmu::TCR_WITHOUT_SIZE,
    MAIR = const mmu::MAIR,
    SCTLR_RESET = const mmu::SCTLR_RESERVED_ONES,
    SCTLR = const mmu::SCTLR_ON,
    stacks = sym per_cpu::STACKS,
    blocks = sym per_cpu::BLOCKS,
    start_primary = sym start_primary,
    start_secondary = sym start_secondary,
);

unsafe extern "Rust" {
    /// The guest's main function, which `entry!` defines.
    safe fn guest_main() -> !;
}

extern "C" fn start_primary(device_tree: usize) -> ! {
    machine::discover(device_tree);
    mmu::install();
    #[cfg(feature = "virtio")]
    crate::dma::init();
    console::init();
    interrupts::mask();
    guest_main()
}

extern "C" fn start_secondary(index: usize) -> ! {
    mmu::adopt();
    cpu::run_secondary(index)
}
