//! EL2's heap: used while the virtual machines are built, and not after.

use buddy_system_allocator::LockedHeap;
use core::sync::atomic::{AtomicBool, Ordering};

/// The heap's size in bytes.
pub const HEAP_SIZE: usize = 384 * 1024;

#[repr(C, align(4096))]
struct HeapMemory([u8; HEAP_SIZE]);

#[unsafe(link_section = ".noinit.heap")]
static mut MEMORY: HeapMemory = HeapMemory([0; HEAP_SIZE]);

#[global_allocator]
static HEAP: LockedHeap<20> = LockedHeap::empty();

/// Gives the heap its memory. Once, after the MMU is on: the heap's lock needs exclusives to work.
///
/// # Panics
/// If called twice.
pub fn configure() {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    assert!(!TAKEN.swap(true, Ordering::Relaxed), "the heap is configured once");
    // SAFETY: `MEMORY` is named only here, and `TAKEN` lets this happen once.
    unsafe { HEAP.lock().init((&raw mut MEMORY) as usize, HEAP_SIZE) };
}

/// The bytes of the heap in use.
pub fn used() -> usize {
    HEAP.lock().stats_alloc_actual()
}
