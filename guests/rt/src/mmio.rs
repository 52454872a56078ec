//! Plain accesses to device registers, for drivers. They must not fault; see [`crate::probe`] for those that may.
//!
//! Written as single instructions without write-back: the compiler is free to turn a volatile access into one that
//! carries no syndrome, which a hypervisor must refuse.

use core::arch::asm;

/// Loads 32 bits from `address`.
pub(crate) fn read32(address: u64) -> u32 {
    let value: u32;
    // SAFETY: a load by address gives bits and writes nothing; callers name device registers.
    unsafe { asm!("ldr {0:w}, [{1}]", out(reg) value, in(reg) address, options(nostack, preserves_flags)) };
    value
}

/// Stores 32 bits to `address`.
pub(crate) fn write32(address: u64, value: u32) {
    // SAFETY: callers name device registers, which hold nothing of Rust's.
    unsafe { asm!("str {0:w}, [{1}]", in(reg) value, in(reg) address, options(nostack, preserves_flags)) };
}

/// Loads 64 bits from `address`.
pub(crate) fn read64(address: u64) -> u64 {
    let value: u64;
    // SAFETY: as `read32`.
    unsafe { asm!("ldr {0}, [{1}]", out(reg) value, in(reg) address, options(nostack, preserves_flags)) };
    value
}

/// Stores 64 bits to `address`.
pub(crate) fn write64(address: u64, value: u64) {
    // SAFETY: as `write32`.
    unsafe { asm!("str {0}, [{1}]", in(reg) value, in(reg) address, options(nostack, preserves_flags)) };
}

/// Loads 8 bits from `address`.
pub(crate) fn read8(address: u64) -> u8 {
    let value: u32;
    // SAFETY: as `read32`.
    unsafe { asm!("ldrb {0:w}, [{1}]", out(reg) value, in(reg) address, options(nostack, preserves_flags)) };
    value as u8
}

/// Stores 8 bits to `address`.
pub(crate) fn write8(address: u64, value: u8) {
    // SAFETY: as `write32`.
    unsafe { asm!("strb {0:w}, [{1}]", in(reg) u32::from(value), in(reg) address, options(nostack, preserves_flags)) };
}
