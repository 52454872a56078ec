//! Physical memory: who owns it, and the ways to guest bytes.
//!
//! Ownership is what keeps the `unsafe` here sound: [`PhysicalMemory`] owns the board's free RAM, [`MemoryBlock`]s are
//! taken out of it once and never overlap, and a guest's bytes are reached by copy alone.

use crate::board::{Board, Range};
use crate::boot;
use crate::bulk::{clean_and_invalidate, clear, copy};
use crate::table_pool::{TABLE_SIZE, TablePool};
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicBool, Ordering};
use memory::PhysAddr;
use memory::ram::RamMap;
use vdev::{GuestAddr, GuestFault, GuestMemory};

/// All RAM of the board that nothing uses.
pub struct PhysicalMemory {
    map: RamMap,
    bundle: &'static [u8],
}

/// A block of RAM with one owner.
#[derive(Debug, PartialEq, Eq)]
pub struct MemoryBlock {
    start: PhysAddr,
    size: u64,
}

impl MemoryBlock {
    /// The block's first address.
    #[must_use]
    pub fn start(&self) -> PhysAddr {
        self.start
    }

    /// The block's size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Makes the block a pool of translation tables; it must be a multiple of 4 KiB.
    pub(crate) fn into_tables(self) -> TablePool {
        assert!(
            self.start.0.is_multiple_of(TABLE_SIZE) && self.size.is_multiple_of(TABLE_SIZE),
            "a table fills its page"
        );
        // SAFETY: the block is RAM with one owner, which gives it up here.
        unsafe { TablePool::new(self.start, self.size) }
    }
}

impl PhysicalMemory {
    /// Takes the board's RAM, all but the image, the device tree, the bundle and what the device tree reserves.
    ///
    /// # Errors
    /// A sentence for the person at the console.
    ///
    /// # Panics
    /// If called twice.
    pub fn take(board: &Board) -> Result<Self, &'static str> {
        static TAKEN: AtomicBool = AtomicBool::new(false);
        assert!(!TAKEN.swap(true, Ordering::Relaxed), "the board's RAM has one owner");
        const FULL: &str = "the device tree describes RAM in more pieces than Bulkhead can hold";
        let mut map = RamMap::new();
        for range in board.memory.iter().filter(|range| range.size != 0) {
            map.add(PhysAddr(range.start), range.size).map_err(|_| FULL)?;
        }
        let image = boot::image();
        let image = Range { start: image.start, size: image.end - image.start };
        for range in board.reserved.iter().chain([&image, &board.device_tree]).chain(&board.bundle) {
            map.exclude(PhysAddr(range.start), range.size).map_err(|_| FULL)?;
        }
        // Compared without a sum, which may be too large for an address.
        let holds = |memory: &Range, range: &Range| {
            range.start >= memory.start && memory.size.checked_sub(range.start - memory.start) >= Some(range.size)
        };
        let inside = |range: &Range| board.memory.iter().any(|memory| holds(memory, range));
        let bundle = match &board.bundle {
            // SAFETY: the bytes are RAM, reserved above so that nobody else gets them, and nothing writes to them.
            Some(range) if inside(range) => unsafe {
                core::slice::from_raw_parts(range.start as *const u8, range.size as usize)
            },
            _ => &[],
        };
        Ok(Self { map, bundle })
    }

    /// The initrd that the boot loader left; empty if there is none.
    #[must_use]
    pub fn bundle(&self) -> &'static [u8] {
        self.bundle
    }

    /// A block of `size` bytes whose address is a multiple of `align`.
    pub fn allocate(&mut self, size: u64, align: u64) -> Option<MemoryBlock> {
        let start = self.map.allocate(size, align)?;
        Some(MemoryBlock { start, size })
    }

    /// A block of `size` bytes from the lowest place, whose address is a multiple of `align`.
    pub fn allocate_lowest(&mut self, size: u64, align: u64) -> Option<MemoryBlock> {
        let start = self.map.allocate_lowest(size, align)?;
        Some(MemoryBlock { start, size })
    }

    /// The block of `size` bytes at `start`, if all of it is free.
    pub fn allocate_at(&mut self, start: PhysAddr, size: u64) -> Option<MemoryBlock> {
        self.map.reserve(start, size).ok().map(|()| MemoryBlock { start, size })
    }

    /// Bytes that nobody owns.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.map.total_free()
    }
}

/// The most RAM regions of one guest.
pub const REGIONS_MAX: usize = 8;

struct Region {
    guest: u64,
    block: MemoryBlock,
}

/// A guest's RAM: the only way for EL2 to touch a guest's bytes.
///
/// Guests run at the same time and may change any byte at any moment, so no reference into this memory ever exists;
/// copies use volatile accesses and whatever they find is a claim.
pub struct GuestRam {
    /// The first region, apart: nearly every guest has but one, and it is asked for some thirty times for each request.
    first: Range,
    /// Where the first region is, less where the guest has it.
    first_offset: u64,
    regions: ArrayVec<Region, REGIONS_MAX>,
}

impl Default for GuestRam {
    fn default() -> Self {
        Self::new()
    }
}

impl GuestRam {
    /// No RAM.
    #[must_use]
    pub const fn new() -> Self {
        Self { first: Range { start: 0, size: 0 }, first_offset: 0, regions: ArrayVec::new_const() }
    }

    /// Adds `block` at guest address `guest`.
    ///
    /// # Errors
    /// Gives the block back if the guest has [`REGIONS_MAX`] regions.
    pub fn add(&mut self, guest: u64, block: MemoryBlock) -> Result<(), MemoryBlock> {
        self.regions.try_push(Region { guest, block }).map_err(|full| full.element().block)?;
        if let Some(region) = self.regions.first() {
            self.first = Range { start: region.guest, size: region.block.size };
            self.first_offset = region.block.start.0.wrapping_sub(region.guest);
        }
        Ok(())
    }

    /// The regions: guest address, physical address, bytes.
    pub fn regions(&self) -> impl Iterator<Item = (u64, PhysAddr, u64)> + '_ {
        self.regions.iter().map(|region| (region.guest, region.block.start, region.block.size))
    }

    /// The number of bytes in all regions.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.regions.iter().map(|region| region.block.size).sum()
    }

    /// Whether `address` is in this RAM.
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        self.find(address, 1).is_some()
    }

    #[inline]
    fn find(&self, address: u64, size: usize) -> Option<*mut u8> {
        let offset = address.wrapping_sub(self.first.start);
        if offset < self.first.size && size as u64 <= self.first.size - offset {
            return Some(address.wrapping_add(self.first_offset) as *mut u8);
        }
        self.find_in_all(address, size as u64)
    }

    #[cold]
    #[inline(never)]
    fn find_in_all(&self, address: u64, size: u64) -> Option<*mut u8> {
        self.regions.iter().find_map(|region| {
            let offset = address.checked_sub(region.guest)?;
            let end = offset.checked_add(size)?;
            (end <= region.block.size).then_some((region.block.start.0 + offset) as *mut u8)
        })
    }

    /// Clears `size` bytes at `offset`, counted through all regions, and cleans them from the caches, since a guest
    /// starts with its caches off. Both must be multiples of 4 KiB. Returns the bytes cleared, fewer at the end of a
    /// region.
    pub fn clear(&self, mut offset: u64, size: u64) -> u64 {
        assert!(offset.is_multiple_of(TABLE_SIZE) && size.is_multiple_of(TABLE_SIZE), "memory is cleared in pages");
        for region in &self.regions {
            if offset < region.block.size {
                let size = size.min(region.block.size - offset);
                let start = region.block.start.0 + offset;
                // SAFETY: inside a block that this guest owns, and no reference into it exists.
                unsafe { clear(start, size) };
                return size;
            }
            offset -= region.block.size;
        }
        0
    }

    /// Copies `bytes` to guest address `address` and cleans them from the caches, as for code that a guest will run
    /// with its caches off.
    ///
    /// # Errors
    /// As for [`GuestMemory::write`].
    pub fn load_image(&self, address: u64, bytes: &[u8]) -> Result<(), GuestFault> {
        let target = self.find(address, bytes.len()).ok_or(GuestFault::BadAddress)?;
        // SAFETY: `find` checked that the whole range is this guest's, and no reference into it exists.
        unsafe { copy(bytes.as_ptr(), target, bytes.len()) };
        clean_and_invalidate(target as u64, bytes.len() as u64);
        Ok(())
    }

    /// Loads a number, in one access (or two, for a pair) if `address` is aligned.
    #[inline]
    fn load<T: Number>(&self, address: GuestAddr) -> Result<T, GuestFault> {
        let source = self.find(address.0, size_of::<T>()).ok_or(GuestFault::BadAddress)?.cast::<T>();
        if !source.is_aligned() {
            return Err(GuestFault::BadAddress);
        }
        // SAFETY: `find` checked that the range is this guest's RAM, it is aligned, and any bits are a `T`.
        Ok(unsafe { source.read_volatile() })
    }

    /// Stores a number, as [`GuestRam::load`] loads it.
    #[inline]
    fn store<T: Number>(&self, address: GuestAddr, value: T) -> Result<(), GuestFault> {
        let target = self.find(address.0, size_of::<T>()).ok_or(GuestFault::BadAddress)?.cast::<T>();
        if !target.is_aligned() {
            return Err(GuestFault::BadAddress);
        }
        // SAFETY: as for `load`, and no reference into it exists.
        unsafe { target.write_volatile(value) };
        Ok(())
    }
}

/// What [`GuestRam::load`] loads: any bits are one.
trait Number: Copy {}
impl Number for u16 {}
impl Number for u32 {}
impl Number for [u64; 2] {}

impl GuestMemory for GuestRam {
    fn read(&self, address: GuestAddr, buffer: &mut [u8]) -> Result<(), GuestFault> {
        let source = self.find(address.0, buffer.len()).ok_or(GuestFault::BadAddress)?;
        // SAFETY: `find` checked that the whole range is this guest's RAM, which is mapped at EL2.
        unsafe { copy(source, buffer.as_mut_ptr(), buffer.len()) };
        Ok(())
    }

    fn write(&self, address: GuestAddr, bytes: &[u8]) -> Result<(), GuestFault> {
        let target = self.find(address.0, bytes.len()).ok_or(GuestFault::BadAddress)?;
        // SAFETY: `find` checked that the whole range is this guest's, and no reference into it exists.
        unsafe { copy(bytes.as_ptr(), target, bytes.len()) };
        Ok(())
    }

    #[inline]
    fn load_u16(&self, address: GuestAddr) -> Result<u16, GuestFault> {
        self.load(address)
    }

    #[inline]
    fn load_u32(&self, address: GuestAddr) -> Result<u32, GuestFault> {
        self.load(address)
    }

    #[inline]
    fn load_u64_pair(&self, address: GuestAddr) -> Result<[u64; 2], GuestFault> {
        self.load(address)
    }

    #[inline]
    fn store_u16(&self, address: GuestAddr, value: u16) -> Result<(), GuestFault> {
        self.store(address, value)
    }

    #[inline]
    fn store_u32(&self, address: GuestAddr, value: u32) -> Result<(), GuestFault> {
        self.store(address, value)
    }

    #[inline]
    fn store_u64_pair(&self, address: GuestAddr, pair: [u64; 2]) -> Result<(), GuestFault> {
        self.store(address, pair)
    }

    fn load_u64_pairs(&self, address: GuestAddr, pairs: &mut [[u64; 2]]) -> Result<(), GuestFault> {
        let source = self.find(address.0, size_of_val(pairs)).ok_or(GuestFault::BadAddress)?;
        // SAFETY: `find` checked that the whole range is this guest's RAM; any bits are numbers.
        unsafe { copy(source, pairs.as_mut_ptr().cast(), size_of_val(pairs)) };
        Ok(())
    }

    #[inline]
    fn store_u64_pairs(&self, address: GuestAddr, pairs: &[[u64; 2]]) -> Result<(), GuestFault> {
        let target = self.find(address.0, size_of_val(pairs)).ok_or(GuestFault::BadAddress)?.cast::<[u64; 2]>();
        if !target.is_aligned() {
            return Err(GuestFault::BadAddress);
        }
        for (index, pair) in pairs.iter().enumerate() {
            // SAFETY: `find` checked that room for all pairs is this guest's, it is aligned, and no reference into it
            // exists.
            unsafe { target.add(index).write_volatile(*pair) };
        }
        Ok(())
    }

    #[inline(always)]
    fn has_pending_interrupt(&self) -> bool {
        crate::pending::has_pending_interrupt()
    }

    #[inline]
    fn bus_address(&self, address: GuestAddr, length: u32) -> Result<u64, GuestFault> {
        // EL2 has all RAM at its physical address, and there is no SMMU in between.
        self.find(address.0, length as usize).map(|start| start as u64).ok_or(GuestFault::BadAddress)
    }

    #[inline]
    fn copy_to(&self, from: GuestAddr, target: &Self, to: GuestAddr, length: u32) -> Result<(), GuestFault> {
        let source = self.find(from.0, length as usize).ok_or(GuestFault::BadAddress)?;
        let target = target.find(to.0, length as usize).ok_or(GuestFault::BadAddress)?;
        // SAFETY: `find` checked both ranges, and no reference into either exists.
        unsafe { copy(source, target, length as usize) };
        Ok(())
    }
}
