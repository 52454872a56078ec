//! Memory that devices may access: one arena in the image's BSS, behind the global allocator and behind
//! `virtio-drivers`.
//!
//! A guest with a device has its RAM at the physical addresses it sees, so an address is a bus address. The arena is
//! all there is: whatever does not fit is refused, and nobody else's memory is ever lent.
//!
//! What this module leaves out: being called from an interrupt handler while the interrupted code allocates.

use alloc::alloc::{alloc_zeroed, dealloc};
use buddy_system_allocator::Heap;
use core::alloc::{GlobalAlloc, Layout};
use core::cell::UnsafeCell;
use core::ptr::{self, NonNull};
use spin::Mutex;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// The size of the arena in bytes: rings and buffers of a handful of devices.
const ARENA_BYTES: usize = 1 << 20;
/// A block of this size in bytes serves every smaller request. Lists of indirect descriptors of the crate's, one for
/// each request, fit; they come and go so often that they are kept apart from the heap.
const SMALL_BYTES: usize = 64;

#[repr(C, align(4096))]
struct Arena(UnsafeCell<[u8; ARENA_BYTES]>);

// SAFETY: only `init` takes its address, once, and gives it to the heap, which hands out each byte to one owner.
unsafe impl Sync for Arena {}

static ARENA: Arena = Arena(UnsafeCell::new([0; ARENA_BYTES]));

struct State {
    heap: Heap<32>,
    /// The first free small block, which holds the address of the next; null at the end.
    small: *mut *mut u8,
}

// SAFETY: the pointers lead to blocks that the state alone owns.
unsafe impl Send for State {}

struct Allocator(Mutex<State>);

#[global_allocator]
static ALLOCATOR: Allocator = Allocator(Mutex::new(State { heap: Heap::new(), small: ptr::null_mut() }));

const fn is_small(layout: Layout) -> bool {
    layout.size() <= SMALL_BYTES && layout.align() <= SMALL_BYTES
}

const SMALL: Layout = match Layout::from_size_align(SMALL_BYTES, SMALL_BYTES) {
    Ok(layout) => layout,
    Err(_) => panic!("64 is a power of two"),
};

// SAFETY: each block comes from the heap, which gives memory of the arena that nobody else has; a small block is on the
// free list or with one owner, and is large and aligned enough for every small layout.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let mut state = self.0.lock();
        if is_small(layout) && !state.small.is_null() {
            let block = state.small;
            // SAFETY: a block on the free list holds the address of the next.
            state.small = unsafe { *block }.cast();
            return block.cast();
        }
        let layout = if is_small(layout) { SMALL } else { layout };
        state.heap.alloc(layout).map_or(ptr::null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let mut state = self.0.lock();
        if is_small(layout) {
            let block: *mut *mut u8 = block.cast();
            // SAFETY: the block is free from here on, and its size and alignment fit a pointer.
            unsafe { *block = state.small.cast() };
            state.small = block;
        } else if let Some(block) = NonNull::new(block) {
            // SAFETY: the caller got the block from `alloc` with this layout, which was not small there either.
            unsafe { state.heap.dealloc(block, layout) };
        }
    }
}

/// Gives the arena to the heap. Called once, before anything is allocated.
pub(crate) fn init() {
    // SAFETY: the arena is zeroed BSS that nobody else takes the address of, and this is called once.
    unsafe { ALLOCATOR.0.lock().heap.init(ARENA.0.get() as usize, ARENA_BYTES) };
}

/// What `virtio-drivers` asks of its platform: an address is a bus address, and caches are coherent with devices.
pub struct Platform;

fn pages(count: usize) -> Option<Layout> {
    Layout::from_size_align(count.checked_mul(PAGE_SIZE)?, PAGE_SIZE).ok().filter(|layout| layout.size() > 0)
}

// SAFETY: pages come zeroed and page-aligned from the allocator, which gives each to one owner; sharing is the
// identity.
unsafe impl Hal for Platform {
    fn dma_alloc(count: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // SAFETY: the layout is not empty.
        let block = pages(count).and_then(|layout| NonNull::new(unsafe { alloc_zeroed(layout) }));
        // An address of zero is how the crate is told that there is no memory.
        block.map_or((0, NonNull::dangling()), |block| (block.as_ptr() as u64, block))
    }

    unsafe fn dma_dealloc(_: PhysAddr, block: NonNull<u8>, count: usize) -> i32 {
        if let Some(layout) = pages(count) {
            // SAFETY: the caller got the block from `dma_alloc` with this count.
            unsafe { dealloc(block.as_ptr(), layout) };
        }
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        // Only PCI asks, which nothing here uses.
        NonNull::new(address as *mut u8).unwrap_or(NonNull::dangling())
    }

    unsafe fn share(buffer: NonNull<[u8]>, _: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().as_ptr() as u64
    }

    unsafe fn unshare(_: PhysAddr, _: NonNull<[u8]>, _: BufferDirection) {}
}
