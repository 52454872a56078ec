//! Pages that EL2 writes and a guest reads: the registers of a virtio device, which so cost no exit to read, and what
//! reads the same for every guest.
//!
//! The guest maps such a page as device memory and does not look into caches; EL2 has it as cacheable RAM. So EL2
//! cleans what it writes to the point of coherency (Arm ARM B2.8, mismatched memory attributes).

use crate::bulk::{clean_and_invalidate, fill_page};
use crate::memory::MemoryBlock;
use core::arch::asm;
use memory::PhysAddr;
use memory::table::PAGE_SIZE;

/// The words of a page.
const WORDS: u16 = (PAGE_SIZE / 4) as u16;

/// A page that belongs to EL2 and that one guest may read.
pub struct ShadowPage {
    start: PhysAddr,
}

impl ShadowPage {
    /// Makes a page of zeroes out of `block`, which must be one page.
    pub fn new(block: MemoryBlock) -> Self {
        Self::filled(block, 0)
    }

    /// Makes a page out of `block`, which must be one page: each word of 64 bits reads as `word`.
    pub fn filled(block: MemoryBlock, word: u64) -> Self {
        assert!(block.size() == PAGE_SIZE && block.start().0.is_multiple_of(PAGE_SIZE), "a shadow page is a page");
        let start = block.start();
        // SAFETY: the block is RAM with one owner, which gives it up here.
        unsafe { fill_page(start.0, word) };
        clean_and_invalidate(start.0, PAGE_SIZE);
        Self { start }
    }

    fn word(&self, index: u16) -> *mut u32 {
        (self.start.0 as *mut u32).wrapping_add(usize::from(index))
    }

    /// Makes loads of the word at `offset`, in bytes, give `value`. An offset outside the page, or within a word, is
    /// ignored.
    #[inline]
    pub fn set(&mut self, offset: u16, value: u32) {
        if offset.is_multiple_of(4) && offset / 4 < WORDS {
            let word = self.word(offset / 4);
            // SAFETY: inside the page, which is RAM with one owner. DC CVAC changes no data; DSB is a barrier: whoever
            // is told of the new value, by an interrupt say, finds it.
            unsafe {
                word.write_volatile(value);
                asm!("dc cvac, {0}", "dsb sy", in(reg) word, options(nostack));
            }
        }
    }

    /// What a guest's stage 2 maps.
    #[must_use]
    pub fn readable(&self) -> ReadablePage {
        ReadablePage(self.start)
    }
}

/// A guest's view of a [`ShadowPage`]: it may read it.
#[derive(Clone, Copy, Debug)]
pub struct ReadablePage(PhysAddr);

impl ReadablePage {
    pub(crate) fn start(self) -> PhysAddr {
        self.0
    }
}
