//! EL2's own translation (stage 1) and the guests' (stage 2): turning them on and keeping TLBs honest.
//!
//! Leaves out the table format: `model::table` builds both.

use crate::board::{Board, Range};
use crate::boot::{self, SecondaryStart};
use crate::bulk::fill_page;
use crate::device_window::DeviceWindow;
use crate::memory::{GuestRam, MemoryBlock};
use crate::registers::ID_AA64MMFR0_EL1;
use crate::shadow::ReadablePage;
use crate::{firmware, per_core};
use aarch64_cpu::registers::{MAIR_EL2, TCR_EL2, TTBR0_EL2, VTCR_EL2, VTTBR_EL2};
use core::arch::asm;
use core::fmt;
use model::PhysAddr;
use model::ram::{RamError, RamMap};
use model::table::{
    Attributes, ENTRIES, MapError, Mapping, PAGE_SIZE, TableMemory, map, map_page_over, map_repeated, unmap_pages,
};
use tock_registers::interfaces::{Readable, Writeable};

/// Bits of input address that stage 1 at EL2 and every stage 2 translate: one 512-entry level-1 table, 512 GiB.
pub const INPUT_ADDRESS_BITS: u64 = 39;

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
            ("QEMU's panic device", board.pcie.map(|pcie| firmware::panic_device_registers(&pcie))),
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
        let mair = model::table::MAIR_EL2;
        // Arm ARM D19.2.138: RES1 bits 31 and 23; 4 KiB granule, write-back, inner shareable.
        let tcr = (1 << 31)
            | (1 << 23)
            | (physical_size_code() << 16)
            | (0b11 << 12)
            | (0b01 << 10)
            | (0b01 << 8)
            | (64 - INPUT_ADDRESS_BITS);
        // Arm ARM D19.2.119: the RES1 bits; M, C, SA, I; WXN makes writable memory never executable.
        let sctlr = 0x30c5_0830 | 1 | (1 << 2) | (1 << 3) | (1 << 12) | (1 << 19);
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

/// ID_AA64MMFR0_EL1.PARange, capped to what a 4 KiB granule's tables can say without LPA2 (48 bits).
fn physical_size_code() -> u64 {
    (ID_AA64MMFR0_EL1.get() & 0xf).min(5)
}

/// Sets this core up for stage 2: one level-1 root, 4 KiB granule, 8-bit VMIDs (every core has those).
pub(crate) fn configure_stage2() {
    // The output size must not exceed the core's, and a level-1 start allows no more than 40 bits here.
    let size = physical_size_code();
    VTCR_EL2.set(
        (1 << 31) | (size << 16) | (0b11 << 12) | (0b01 << 10) | (0b01 << 8) | (0b01 << 6) | (64 - INPUT_ADDRESS_BITS),
    );
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

/// Drops this core's EL1 TLB entries of the current VMID: two virtual CPUs of one VM on one core may use the same ASID
/// for different tables. The caller's ISB, or the ERET to the guest, completes it.
pub(crate) fn invalidate_local_el1() {
    // SAFETY: TLB maintenance changes no mapping.
    unsafe { asm!("isb", "tlbi vmalle1", "dsb nsh", options(nostack)) };
}

/// Translates by an AT instruction (Arm ARM C5.5).
macro_rules! translate {
    ($form:literal, $virtual_address:expr) => {{
        let (before, result): (u64, u64);
        // SAFETY: AT reads tables and reports in PAR_EL1, which is the guest's and is put back.
        unsafe {
            asm!("mrs {0}, par_el1", concat!("at ", $form, ", {2}"), "isb", "mrs {1}, par_el1", "msr par_el1, {0}",
                out(reg) before, out(reg) result, in(reg) $virtual_address, options(nostack));
        }
        let _ = before;
        if result & 1 != 0 { None } else { Some((result & 0x000f_ffff_ffff_f000) | ($virtual_address & 0xfff)) }
    }};
}

/// Asks the MMU what intermediate physical address a guest's virtual address has, as EL1 would see it. `None` if the
/// guest's own stage 1 does not translate it.
///
/// The exit path needs this for permission faults, where HPFAR_EL2 is not valid (Arm ARM D19.2.62).
pub fn translate_stage1(virtual_address: u64) -> Option<u64> {
    translate!("s1e1r", virtual_address)
}

/// The same, as EL0 would see it.
pub(crate) fn translate_stage1_at_el0(virtual_address: u64) -> Option<u64> {
    translate!("s1e0r", virtual_address)
}
