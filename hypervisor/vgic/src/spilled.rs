//! Interrupts that left their list registers while active, and the best of those of a word.

use core::sync::atomic::Ordering::SeqCst;

use super::bank::Word;
use super::interrupt::IntId;
use super::{Vgic, WORDS};

/// Interrupts that are active for the guest and have had to leave their list registers, as a bitmap for each word.
/// Since no register holds them, the guest's end of one is only counted (ICH_HCR_EL2.EOIcount); it is the one of the
/// highest priority, because a guest ends what it acknowledged last. With EOImode = 1 a guest may deactivate in any
/// order, and ICC_DIR_EL1 traps while there are spilled interrupts.
pub(super) struct Spilled {
    words: [u32; WORDS],
    count: u32,
}

impl Spilled {
    pub(super) const fn new() -> Self {
        Self { words: [0; WORDS], count: 0 }
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn clear(&mut self) {
        if !self.is_empty() {
            *self = Self::new();
        }
    }

    pub(super) fn put(&mut self, intid: IntId) {
        if let Some(word) = self.words.get_mut(intid.word())
            && *word & intid.mask() == 0
        {
            *word |= intid.mask();
            self.count = self.count.wrapping_add(1);
        }
    }

    /// Takes out `intid`. Returns whether it was there.
    pub(super) fn take(&mut self, intid: IntId) -> bool {
        let Some(word) = self.words.get_mut(intid.word()).filter(|word| **word & intid.mask() != 0) else {
            return false;
        };
        *word &= !intid.mask();
        self.count = self.count.wrapping_sub(1);
        true
    }

    /// Takes out the interrupt of the highest priority.
    pub(super) fn take_best(&mut self, vgic: &Vgic, vcpu: usize) -> Option<IntId> {
        let bests = (0..).zip(&self.words).filter_map(|(number, bits)| Best::of(vgic.word(vcpu, number)?, *bits));
        let best = bests.min_by_key(|best| best.priority)?;
        let intid = best.word.intid(best.bits.trailing_zeros());
        self.take(intid);
        Some(intid)
    }

    /// Forgets those that the guest has deactivated through GICx_ICACTIVER.
    pub(super) fn forget_inactive(&mut self, vgic: &Vgic, vcpu: usize) {
        self.count = 0;
        for (number, bits) in (0..).zip(&mut self.words) {
            if *bits != 0 {
                *bits &= vgic.word(vcpu, number).map_or(0, |word| word.bank.active.load(SeqCst));
                self.count = self.count.wrapping_add(bits.count_ones());
            }
        }
    }
}

/// The best of some interrupts of a word.
pub(super) struct Best<'a> {
    pub(super) word: Word<'a>,
    /// All of them that have this priority; one at least.
    pub(super) bits: u32,
    pub(super) priority: u8,
}

impl<'a> Best<'a> {
    /// The best of the interrupts `bits` of `word`, if there is one.
    pub(super) fn of(word: Word<'a>, bits: u32) -> Option<Self> {
        if bits == 0 {
            return None;
        }
        let bits = word.bank.best_of(bits);
        Some(Self { word, bits, priority: word.bank.priority(bits.trailing_zeros()) })
    }
}
