//! EL2's own translation: stage 1.

use crate::board::{Board, Range};
use crate::boot::{self, SecondaryStart};
use crate::table_pool::{TABLE_SIZE, TablePool};
use crate::{controls, panic_device, per_core};
use aarch64_cpu::registers::{MAIR_EL2, TCR_EL2, TTBR0_EL2};
use core::arch::asm;
use core::fmt;
use memory::PhysAddr;
use memory::ram::{RamError, RamMap};
use memory::table::{Attributes, MapError, Mapping, PAGE_SIZE, TableMemory, map, unmap_pages};
use tock_registers::interfaces::Writeable;

/// Tables of EL2's stage 1: root, the levels below the image, RAM and devices.
const HYP_TABLES: usize = 24;

#[repr(C, align(4096))]
struct HypTables([[u64; 512]; HYP_TABLES]);

/// Not cleared with the BSS, since the pool clears each table that it hands out.
#[unsafe(link_section = ".noinit.tables")]
static mut TABLES: HypTables = HypTables([[0; 512]; HYP_TABLES]);

/// What of the board EL2 cannot map, and why: a sentence for the person at the console.
#[derive(Clone, Copy, Debug)]
pub struct Unmappable {
    what: &'static str,
    range: Range,
    why: Why,
}

#[derive(Clone, Copy, Debug)]
enum Why {
    Ram(RamError),
    Table(MapError),
}

impl fmt::Display for Unmappable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, size } = self.range;
        write!(formatter, "Bulkhead cannot map {} at {start:#x}, {size:#x} bytes: ", self.what)?;
        match self.why {
            Why::Ram(error) => error.fmt(formatter),
            Why::Table(error) => error.fmt(formatter),
        }
    }
}

/// The pages that `range` touches.
fn whole_pages(range: Range) -> Range {
    let start = range.start & !(PAGE_SIZE - 1);
    // A range that wraps stays as it is, and is refused as too high.
    let end = range.start.checked_add(range.size).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
    end.map_or(range, |end| Range { start, size: end - start })
}

/// EL2's own address space: everything at its physical address, writable or executable but never both.
pub struct HypMap {
    pool: TablePool,
    root: PhysAddr,
}

impl HypMap {
    /// The one stage-1 map: the image (code RX, constants R, data RW, a guard page below each stack), the board's RAM,
    /// and the devices that EL2 drives itself.
    ///
    /// # Errors
    /// What the device tree describes that cannot be mapped, and why.
    ///
    /// # Panics
    /// If called twice.
    pub fn new(board: &Board) -> Result<Self, Unmappable> {
        static TAKEN: core::sync::atomic::AtomicBool = core::sync::atomic::AtomicBool::new(false);
        // No read-modify-write: before the MMU is on, exclusives need not work (Arm ARM B2.17.5).
        assert!(!TAKEN.load(core::sync::atomic::Ordering::Relaxed), "EL2 has one stage-1 map");
        TAKEN.store(true, core::sync::atomic::Ordering::Relaxed);
        // SAFETY: `TABLES` is named only here, and `TAKEN` lets this happen once.
        let mut pool = unsafe { TablePool::new(PhysAddr((&raw mut TABLES) as u64), (HYP_TABLES as u64) * TABLE_SIZE) };
        let root = pool.allocate().expect("a new pool has tables");
        let mut this = Self { pool, root };
        this.map_image()?;
        this.map_ram(board)?;
        let devices = [
            ("the UART", Some(board.uart)),
            ("the GIC's distributor", Some(board.distributor)),
            ("the GIC's redistributors", Some(board.redistributors)),
            ("QEMU's panic device", board.pcie.map(|pcie| panic_device::registers(&pcie))),
        ];
        for (what, range) in devices {
            if let Some(range) = range {
                this.map(what, whole_pages(range), Attributes::HYP_DEVICE)?;
            }
        }
        Ok(this)
    }

    fn map_image(&mut self) -> Result<(), Unmappable> {
        const WHAT: &str = "its own image";
        for (range, attributes) in [
            (boot::text(), Attributes::HYP_CODE),
            (boot::rodata(), Attributes::HYP_READ_ONLY),
            (boot::data(), Attributes::HYP_DATA),
        ] {
            self.map(WHAT, Range { start: range.start, size: range.end - range.start }, attributes)?;
        }
        for core in boot::cores() {
            let start = (boot::stack_guard(core) + boot::STACK_GUARD_SIZE) as u64;
            self.map(WHAT, Range { start, size: boot::STACK_SIZE as u64 }, Attributes::HYP_DATA)?;
        }
        Ok(())
    }

    /// Maps the board's RAM for reading and writing, but for what must not be mapped, and for the image, which is.
    fn map_ram(&mut self, board: &Board) -> Result<(), Unmappable> {
        const WHAT: &str = "the RAM";
        let mut ram = RamMap::new();
        for range in &board.memory {
            // A page that is RAM in part only is left out.
            let start = range.start.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX);
            let end = range.start.saturating_add(range.size) & !(PAGE_SIZE - 1);
            if start < end {
                ram.add(PhysAddr(start), end - start).map_err(|error| Unmappable {
                    what: WHAT,
                    range: *range,
                    why: Why::Ram(error),
                })?;
            }
        }
        let image = boot::image();
        let image = Range { start: image.start, size: image.end - image.start };
        for range in board.no_map.iter().filter(|range| range.size != 0).chain([&image]) {
            let pages = whole_pages(*range);
            ram.exclude(PhysAddr(pages.start), pages.size).map_err(|error| Unmappable {
                what: WHAT,
                range: *range,
                why: Why::Ram(error),
            })?;
        }
        for (start, size) in ram.free_ranges() {
            self.map(WHAT, Range { start: start.0, size }, Attributes::HYP_DATA)?;
        }
        Ok(())
    }

    fn map(&mut self, what: &'static str, range: Range, attributes: Attributes) -> Result<(), Unmappable> {
        let Range { start, size } = range;
        map(&mut self.pool, self.root, &Mapping { input: start, output: PhysAddr(start), size, attributes })
            .map_err(|error| Unmappable { what, range, why: Why::Table(error) })
    }

    /// Adds the registers at `range`.
    pub(crate) fn map_registers(&mut self, range: Range) -> Result<(), Unmappable> {
        self.map("registers of a device", range, Attributes::HYP_DEVICE)?;
        // From invalid to valid: nothing to invalidate, but the walker has to see it.
        // SAFETY: barriers.
        unsafe { asm!("dsb ishst", "isb", options(nostack)) };
        Ok(())
    }

    /// Turns this core's MMU and caches on.
    pub fn enable(&self) {
        let settings = self.settings();
        MAIR_EL2.set(settings.mair);
        TCR_EL2.set(settings.tcr);
        TTBR0_EL2.set(settings.ttbr0);
        // SAFETY: the tables map the running code, its stack and its data at the addresses they have now, so execution
        // goes on at the next instruction. Everything written so far went to memory with the caches off.
        unsafe {
            asm!("dsb sy", "isb", "tlbi alle2", "ic iallu", "dsb nsh", "isb", options(nostack));
            asm!("msr sctlr_el2, {0}", "isb", in(reg) settings.sctlr, options(nostack));
        }
    }

    /// What a secondary core `core` needs to come up in this map.
    pub(crate) fn settings_for(&self, core: usize) -> SecondaryStart {
        SecondaryStart {
            stack_top: boot::stack_top(core) as u64,
            core: core as u64,
            per_core: per_core::address(core),
            ..self.settings()
        }
    }

    fn settings(&self) -> SecondaryStart {
        let mair = memory::table::MAIR_EL2;
        let (tcr, sctlr) = (controls::tcr(), controls::SCTLR);
        SecondaryStart { stack_top: 0, core: 0, mair, tcr, ttbr0: self.root.0, sctlr, per_core: 0 }
    }
}

/// Takes the code that only the boot needs out of EL2's map: a jump there is an epitaph from now on. Its pages stay
/// unused, since nobody allocates any more.
///
/// Every core must have left it for good. To run it all the same is no undefined behaviour: it faults.
// Not a method: all of those are boot code themselves.
#[inline(never)]
pub fn remove_boot_code(map: &mut HypMap) {
    let range = boot::boot_code();
    unmap_pages(&mut map.pool, map.root, range.start, range.end - range.start);
    // SAFETY: barriers and TLB maintenance, so that no core goes on using what was mapped (Arm ARM D8.16).
    unsafe { asm!("dsb ishst", "tlbi alle2is", "dsb ish", "isb", options(nostack)) };
}
