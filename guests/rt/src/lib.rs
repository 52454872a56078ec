//! EL1 runtime for bare-metal guests: everything between the boot protocol and a guest's `main`.
//!
//! The same image runs under Bulkhead and natively on `qemu-system-aarch64 -M virt,gic-version=3`, because Bulkhead's
//! guest address map is that board's. A test that passes natively and fails under Bulkhead has found a fault of
//! Bulkhead; one that fails natively has a fault itself.
//!
//! A guest names its main function with [`entry!`]. Everything offered here is safe to call: whatever a guest does can
//! harm itself alone, which is the very claim that the test guests check.
//!
//! With the feature `virtio` it also has drivers of virtio-mmio devices ([`virtio`]), and the heap that they need.
//!
//! What only guests that test and attack need is the crate `testkit`; the registers that they probe, which takes
//! `unsafe`, are here behind the feature `probing`.
//!
//! What this crate leaves out: a heap for its guests, threads, floating point, and EL0.
#![no_std]

#[cfg(feature = "virtio")]
extern crate alloc;

pub mod boot;
pub mod console;
pub mod cpu;
#[cfg(feature = "probing")]
pub mod debug;
#[cfg(feature = "virtio")]
mod dma;
pub mod gic;
pub mod hypercall;
pub mod interrupts;
pub mod machine;
pub mod memory;
mod mmio;
pub mod mmu;
mod panic;
mod per_cpu;
pub mod probe;
pub mod psci;
pub mod register;
pub mod shared;
pub mod smccc;
#[cfg(feature = "probing")]
pub mod system_registers;
pub mod timer;
pub mod uart;
mod vectors;
#[cfg(feature = "virtio")]
pub mod virtio;

pub use machine::{Machine, machine};
pub use panic::{restart_after_panic, stay_after_panic};
pub use probe::Abort;

/// Names the guest's main function: `fn() -> !`, called on CPU 0 with the MMU on and interrupts masked.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "Rust" fn guest_main() -> ! {
            let main: fn() -> ! = $main;
            main()
        }
    };
}
