//! Why a flush cannot take the quick way.

use super::interrupt::mask;
use super::{LIST_REGISTERS_MAX, SPI_WORDS};

/// What a flush has to look after beside the private interrupts that are pending, in one word, so that one load tells
/// that there is nothing of the kind.
///
/// Bits 11:0 are words whose interrupts wait for a free list register; bits 31:16 list registers that hold an SPI or
/// ask for notice; what is between is below.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Detours(u32);

const LEFTOVER: u32 = 0xfff;
const SPECIAL_SHIFT: u32 = 16;

const _: () = assert!(SPI_WORDS < 12, "the private bank and each SPI word have a bit");
const _: () = assert!(LIST_REGISTERS_MAX <= 16, "each list register has a bit");

impl Detours {
    /// Nothing.
    pub(super) const NONE: Self = Self(0);
    /// The states of private interrupts in flight have been published, and have to be taken back when they end.
    pub(super) const PUBLISHED: Self = Self(1 << 12);
    /// The first list register alone holds an SPI, or asks for notice.
    pub(super) const FIRST_SPECIAL: Self = Self(1 << SPECIAL_SHIFT);
    /// Interrupts have been spilled: ends without a list register are to be counted.
    pub(super) const SPILLED: Self = Self(1 << 13);
    /// Other virtual CPUs are to be told that they have to flush.
    pub(super) const OWED: Self = Self(1 << 14);
    /// The list registers are not on the core.
    pub(super) const UNLOADED: Self = Self(1 << 15);

    /// Whether there is nothing but private interrupts to look after.
    #[inline(always)]
    pub(super) const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether `other` is among them.
    #[inline]
    pub(super) const fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Adds or removes `other`.
    #[inline]
    pub(super) const fn set(&mut self, other: Self, on: bool) {
        self.0 = if on { self.0 | other.0 } else { self.0 & !other.0 };
    }

    /// The words whose interrupts wait for a free list register: bit 0 is the private bank, bit 1 + n the SPI word n.
    #[inline]
    pub(super) const fn leftover(self) -> u32 {
        self.0 & LEFTOVER
    }

    /// Interrupts of the word `number` wait for a free list register, or are to be looked at.
    #[inline]
    pub(super) const fn waiting(number: usize) -> Self {
        Self(mask(number as u32) & LEFTOVER)
    }

    /// List register `index` holds an SPI, or asks for notice when its interrupt ends.
    #[inline]
    pub(super) const fn special(index: u32) -> Self {
        Self(mask(index) << SPECIAL_SHIFT)
    }
}
