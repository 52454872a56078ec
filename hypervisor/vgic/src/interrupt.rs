//! The name of an interrupt, and the bits of a 32-bit word.

/// An interrupt identifier (INTID) as the guest knows it: SGIs 0–15, PPIs 16–31, SPIs from 32 (IHI0069, "INTIDs").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntId(u32);

impl IntId {
    /// The interrupt with INTID `raw`. One that the virtual machine does not have is accepted and ignored everywhere.
    #[must_use]
    pub const fn new(raw: u32) -> Self {
        Self(raw)
    }

    /// The INTID.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// Whether every virtual CPU has its own copy of this interrupt (SGIs and PPIs).
    #[must_use]
    pub const fn is_private(self) -> bool {
        self.0 < 32
    }

    /// The word of 32 interrupts that holds this one: 0 is the private bank, 1 + n is the SPI word n.
    #[inline]
    pub(super) const fn word(self) -> usize {
        (self.0 >> 5) as usize
    }

    /// This interrupt's bit number in its word.
    #[inline]
    pub(super) const fn bit(self) -> u32 {
        self.0 & 31
    }

    /// This interrupt's bit in its word.
    #[inline]
    pub(super) const fn mask(self) -> u32 {
        mask(self.bit())
    }
}

/// The word with only bit `bit` (0–31) set.
#[inline]
pub(super) const fn mask(bit: u32) -> u32 {
    1u32.wrapping_shl(bit)
}

/// The numbers of the set bits of a word, lowest first: at most 32 steps.
#[derive(Clone, Copy)]
pub(super) struct Bits(pub(super) u32);

impl Iterator for Bits {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros();
        self.0 &= self.0.wrapping_sub(1);
        Some(bit)
    }
}
