//! EL2's heap: used while the virtual machines are built, and not after.
//!
//! It has no memory of its own: how much a system takes says its manifest, and the boot code gives as much.

use crate::epitaph;
use crate::memory::MemoryBlock;
use buddy_system_allocator::LockedHeap;
use core::alloc::{GlobalAlloc, Layout};

/// Blocks of up to 2^31 bytes.
struct Heap(LockedHeap<32>);

#[global_allocator]
static HEAP: Heap = Heap(LockedHeap::empty());

// SAFETY: what it hands out is the inner allocator's, which keeps the contract; where that has none left, it does not
// return.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the contract.
        let block = unsafe { self.0.alloc(layout) };
        if block.is_null() {
            epitaph::refuse_to_boot(format_args!(
                "EL2's heap of {} KiB has no room for {} bytes more; the system takes more than Bulkhead's sum says, which \
                 is a defect of Bulkhead",
                size() >> 10,
                layout.size()
            ));
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { self.0.dealloc(block, layout) }
    }
}

/// Gives `block` to the heap, for good. After the MMU is on: the heap's lock needs exclusives to work.
#[expect(clippy::needless_pass_by_value, reason = "the block's owner gives it up")]
pub fn add(block: MemoryBlock) {
    let start = block.start().0 as usize;
    // SAFETY: the block is RAM with one owner, which gives it up here; EL2 maps all RAM at its physical address.
    unsafe { HEAP.0.lock().add_to_heap(start, start + block.size() as usize) };
}

/// The bytes of the heap in use.
pub fn used() -> usize {
    HEAP.0.lock().stats_alloc_actual()
}

/// The bytes of the heap.
pub fn size() -> usize {
    HEAP.0.lock().stats_total_bytes()
}
