//! The memory that translation tables are made of.

use crate::bulk::fill_page;
use memory::PhysAddr;
use memory::table::{Table, TableMemory};

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

    fn table(&self, address: PhysAddr) -> &Table {
        let is_table = (self.start..self.next).contains(&address.0) && address.0.is_multiple_of(TABLE_SIZE);
        assert!(is_table, "the table is not of this pool");
        // SAFETY: the pool owns the page (contract of `new`), has cleared it, and reaches it in no other way.
        unsafe { &*(address.0 as *const Table) }
    }
}
