//! The guests' translation: stage 2.

use crate::board::Range;
use crate::controls;
use crate::device_window::DeviceWindow;
use crate::memory::{GuestRam, MemoryBlock};
use crate::shadow::ReadablePage;
use crate::table_pool::TABLE_SIZE;
use aarch64_cpu::registers::{VTCR_EL2, VTTBR_EL2};
use core::arch::asm;
use memory::PhysAddr;
use memory::table::{Attributes, MapError, Mapping, TableMemory, map, map_page_over, map_repeated};
use tock_registers::interfaces::{Readable, Writeable};

/// Sets this core up for stage 2: one level-1 root, 4 KiB granule, 8-bit VMIDs (every core has those).
pub(crate) fn configure_stage2() {
    VTCR_EL2.set(controls::vtcr());
    VTTBR_EL2.set(0);
    // SAFETY: TLB maintenance changes no mapping. What ran here before may have left entries of VMIDs that are ours
    // now.
    unsafe { asm!("isb", "tlbi alle1", "dsb nsh", "isb", options(nostack)) };
}

/// What a guest can reach beside its RAM.
pub struct Windows<'a> {
    /// Pages that it may read, each with its guest address.
    pub pages: &'a [(u64, ReadablePage)],
    /// Pages that it may read as a device's, all of which show one page.
    pub vacant: (&'a [Range], ReadablePage),
    /// Memory that it may read, and a page of which all of it is a repetition.
    pub flash: Option<(Range, ReadablePage)>,
    /// Registers of physical devices, at their physical addresses.
    pub registers: &'a [DeviceWindow],
}

/// A VM's stage 2: the value of VTTBR_EL2. It maps nothing but what is a guest's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stage2(u64);

impl Stage2 {
    /// Builds a stage 2 in `tables` that gives a guest its `ram`, its `windows`, and nothing else; its TLB entries
    /// carry `vmid`, which no other guest may have.
    ///
    /// # Errors
    /// `tables` is too small, or two parts overlap or lie above the guest's address space.
    pub fn build(tables: MemoryBlock, vmid: u8, ram: &GuestRam, windows: &Windows<'_>) -> Result<Self, MapError> {
        let mut pool = tables.into_tables();
        let root = pool.allocate().ok_or(MapError::OutOfTables)?;
        for (input, output, size) in ram.regions() {
            map(&mut pool, root, &Mapping { input, output, size, attributes: Attributes::GUEST_MEMORY })?;
        }
        for (input, page) in windows.pages {
            let attributes = Attributes::GUEST_DEVICE_READ_ONLY;
            map(&mut pool, root, &Mapping { input: *input, output: page.start(), size: TABLE_SIZE, attributes })?;
        }
        let (vacant, page) = windows.vacant;
        for Range { start, size } in vacant {
            let attributes = Attributes::GUEST_DEVICE_READ_ONLY;
            map_page_over(&mut pool, root, &Mapping { input: *start, output: page.start(), size: *size, attributes })?;
        }
        if let Some((Range { start, size }, page)) = windows.flash {
            let attributes = Attributes::GUEST_MEMORY_READ_ONLY;
            map_repeated(&mut pool, root, &Mapping { input: start, output: page.start(), size, attributes })?;
        }
        for Range { start, size } in windows.registers.iter().map(DeviceWindow::range) {
            let (output, attributes) = (PhysAddr(start), Attributes::GUEST_DEVICE);
            map(&mut pool, root, &Mapping { input: start, output, size, attributes })?;
        }
        Ok(Self(root.0 | (u64::from(vmid) << 48)))
    }

    pub(crate) fn vttbr(self) -> u64 {
        self.0
    }

    /// Drops every TLB entry of this VM, stages 1 and 2, on all cores: before its memory is used anew.
    pub fn invalidate(self) {
        let before = VTTBR_EL2.get();
        VTTBR_EL2.set(self.0);
        // SAFETY: TLB maintenance changes no mapping. It acts on the VMID in VTTBR_EL2 (Arm ARM D8.16), hence the ISB.
        unsafe { asm!("isb", "dsb ishst", "tlbi vmalls12e1is", "dsb ish", "isb", options(nostack)) };
        VTTBR_EL2.set(before);
    }
}
