//! Loads of the registers that running systems read, in as few instructions as there can be.
//!
//! What this answers it answers as [`Vgic::distributor_read`] and [`Vgic::redistributor_read`] do; what it does not
//! answer is theirs. It calls nothing, so that the exit path can answer before it makes a stack frame.

use core::sync::atomic::Ordering::Relaxed;

use super::Vgic;
use super::bank::Bank;
use super::distributor::CONTROL_FIXED;
use super::registers::SGI_BASE;

impl Vgic {
    /// The word at `offset` of the distributor: GICD_CTLR, and groups and enables of SPIs.
    #[inline(always)]
    #[must_use]
    pub fn distributor_quick_read(&self, offset: u64) -> Option<u32> {
        if offset == 0 {
            return Some(self.control.load(Relaxed) | CONTROL_FIXED);
        }
        let number = ((offset & 0x7f) >> 2) as usize;
        if number == 0 {
            return None;
        }
        quick_bitmap(self.word(0, number)?.bank, offset)
    }

    /// The word at `offset` of the frames of the redistributor of `vcpu_of_frame`: groups and enables of SGIs and PPIs.
    #[inline(always)]
    #[must_use]
    pub fn redistributor_quick_read(&self, vcpu_of_frame: usize, offset: u64) -> Option<u32> {
        if offset & 0x7f != 0 {
            return None;
        }
        quick_bitmap(&self.private(vcpu_of_frame)?.bank, offset.wrapping_sub(SGI_BASE))
    }
}

#[inline(always)]
fn quick_bitmap(bank: &Bank, offset: u64) -> Option<u32> {
    match offset >> 7 {
        1 => Some(bank.group.load(Relaxed)),
        2 | 3 => Some(bank.enabled.load(Relaxed)),
        _ => None,
    }
}
