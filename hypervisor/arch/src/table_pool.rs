//! The memory that translation tables are made of.

use crate::bulk::fill_page;
use model::PhysAddr;
use model::table::{ENTRIES, TableMemory};

/// The bytes of one translation table.
pub const TABLE_SIZE: u64 = 4096;

/// A run of physical memory that translation tables are taken from.
pub(crate) struct TablePool {
    start: u64,
    next: u64,
    end: u64,
}

impl TablePool {
    /// A pool over `[start, start + size)`.
    ///
    /// # Safety
    /// The range must be RAM, a multiple of 4 KiB at both ends, used by nothing else from now on, and reachable by EL2
    /// at its physical address.
    pub(crate) unsafe fn new(start: PhysAddr, size: u64) -> Self {
        Self { start: start.0, next: start.0, end: start.0 + size }
    }

    /// The address of descriptor `index` of `table`, a table that this pool has handed out.
    fn descriptor(&self, table: PhysAddr, index: usize) -> *mut u64 {
        let is_table = (self.start..self.next).contains(&table.0) && table.0.is_multiple_of(TABLE_SIZE);
        assert!(is_table && index < ENTRIES, "the table is not of this pool");
        (table.0 as *mut u64).wrapping_add(index)
    }
}

impl TableMemory for TablePool {
    fn allocate(&mut self) -> Option<PhysAddr> {
        if self.next >= self.end {
            return None;
        }
        let table = self.next;
        self.next += TABLE_SIZE;
        // SAFETY: the pool owns this page (contract of `new`) and has given it to nobody yet.
        unsafe { fill_page(table, 0) };
        Some(PhysAddr(table))
    }

    fn read(&self, table: PhysAddr, index: usize) -> u64 {
        // SAFETY: the address is inside a page that the pool owns (contract of `new`).
        unsafe { self.descriptor(table, index).read_volatile() }
    }

    fn write(&mut self, table: PhysAddr, index: usize, descriptor: u64) {
        // SAFETY: as for `read`, and the pool is borrowed exclusively.
        unsafe { self.descriptor(table, index).write_volatile(descriptor) };
    }
}
