//! One register of a device, at a known address: each access is one instruction and nothing else, so that it can be
//! timed.

use crate::machine::machine;
use crate::{mmio, mmu};

/// A 32-bit register outside this guest's memory.
#[derive(Clone, Copy, Debug)]
pub struct Register(u64);

impl Register {
    /// The register at `address`; `None` where the guest's own memory is (under its second name too, see
    /// [`mmu::ALIAS_BASE`]), or where the address is not a multiple of 4.
    #[must_use]
    pub fn at(address: u64) -> Option<Self> {
        let device = address < mmu::ALIAS_BASE && machine().memory_at(address, 4).is_none();
        (device && address.is_multiple_of(4)).then_some(Self(address))
    }

    /// Reads it. Where nothing answers the guest ends with a panic.
    #[inline(always)]
    #[must_use]
    pub fn read(self) -> u32 {
        mmio::read32(self.0)
    }

    /// Writes it. Where nothing answers the guest ends with a panic.
    #[inline(always)]
    pub fn write(self, value: u32) {
        mmio::write32(self.0, value);
    }
}
