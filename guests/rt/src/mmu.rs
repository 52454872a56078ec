//! EL1 stage 1: one identity map of the whole 39-bit address space.
//!
//! The guest's own RAM is normal write-back memory, everything else Device-nGnRE, so that only what the guest asks for
//! is accessed. Above it lies an *alias* of the first 4 GiB as normal, executable memory: through it a hostile guest
//! can fetch instructions from, or do cache maintenance on, addresses that hold no memory. A second alias is EL0's.
//!
//! What this module leaves out: permissions. A test guest's RAM is readable, writable and executable.

use crate::machine::machine;
use core::arch::asm;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

/// Bits of an address that the tables translate.
pub const ADDRESS_BITS: u32 = 39;
/// Where the normal-memory alias of addresses 0 to 4 GiB begins.
pub const ALIAS_BASE: u64 = 64 * GIGABYTE;
/// The size of either alias in bytes.
pub const ALIAS_BYTES: u64 = 4 * GIGABYTE;
/// Where the same addresses are EL0's to read, write and execute, as normal memory too.
pub const USER_ALIAS_BASE: u64 = 72 * GIGABYTE;

const GIGABYTE: u64 = 1 << 30;
const BLOCK: u64 = 2 << 20;
const ENTRIES: usize = 512;
const TABLES: usize = 8;

/// MAIR_EL1: attribute 0 is Device-nGnRE, attribute 1 normal write-back (Arm ARM D17.2.97).
pub(crate) const MAIR: u64 = 0xff04;
/// TCR_EL1 but for the physical address size: 39 bits, 4 KiB granule, walks are cacheable and inner shareable, and no
/// upper half (EPD1).
pub(crate) const TCR_WITHOUT_SIZE: u64 = TOP_HALF_OFF | (0b10 << 30) | (25 << 16) | (0b11 << 12) | (0b0101 << 8) | 25;
const TOP_HALF_OFF: u64 = 1 << 23;
/// SCTLR_EL1's bits that read as one in Armv8.0.
pub(crate) const SCTLR_RESERVED_ONES: u64 = 0x30d0_0800;
/// SCTLR_EL1 with MMU, data and instruction caches on.
pub(crate) const SCTLR_ON: u64 = SCTLR_RESERVED_ONES | (1 << 12) | (1 << 2) | 1;

const VALID_BLOCK: u64 = 0b01;
const VALID_TABLE: u64 = 0b11;
const ATTRIBUTE_NORMAL: u64 = 1 << 2;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const ACCESSED: u64 = 1 << 10;
const NOT_GLOBAL: u64 = 1 << 11;
/// AP[1]: EL0 has what EL1 has.
const USER: u64 = 1 << 6;
const EXECUTE_NEVER: u64 = 0b11 << 53;

const NORMAL: u64 = VALID_BLOCK | ATTRIBUTE_NORMAL | INNER_SHAREABLE | ACCESSED | NOT_GLOBAL;
const DEVICE: u64 = VALID_BLOCK | ACCESSED | NOT_GLOBAL | EXECUTE_NEVER;
/// The final tables run as address space 1 (see the boot table).
const ADDRESS_SPACE: u64 = 1 << 48;

#[repr(C, align(4096))]
struct Table(UnsafeCell<[u64; ENTRIES]>);

// SAFETY: written by CPU 0 alone, in `install`, before any other CPU runs; afterwards only table walks read it.
unsafe impl Sync for Table {}

static ROOT: Table = Table(UnsafeCell::new([0; ENTRIES]));
static MIDDLE: [Table; TABLES] = [const { Table(UnsafeCell::new([0; ENTRIES])) }; TABLES];
static ROOT_REGISTER: AtomicU64 = AtomicU64::new(0);

fn write(table: &Table, index: usize, descriptor: u64) {
    // SAFETY: no other CPU runs yet (see `Sync` above), and these tables are not in use before `adopt`.
    unsafe { (*table.0.get())[index] = descriptor };
}

/// Builds the final tables from the device tree and adopts them. Called once, by CPU 0.
pub(crate) fn install() {
    let machine = machine();
    let mut free = MIDDLE.iter();
    for gigabyte in 0..ENTRIES {
        let start = gigabyte as u64 * GIGABYTE;
        let holds_memory = machine.memory.iter().any(|region| region.overlaps(start, GIGABYTE));
        let descriptor = match holds_memory.then(|| free.next()).flatten() {
            None => start | DEVICE,
            Some(table) => {
                for block in 0..ENTRIES {
                    let address = start + block as u64 * BLOCK;
                    let kind = if machine.memory.iter().any(|region| region.overlaps(address, BLOCK)) {
                        NORMAL
                    } else {
                        DEVICE
                    };
                    write(table, block, address | kind);
                }
                table.0.get() as u64 | VALID_TABLE
            }
        };
        let alias = |base| start.checked_sub(base).filter(|physical| *physical < ALIAS_BYTES);
        let descriptor = match (alias(ALIAS_BASE), alias(USER_ALIAS_BASE)) {
            (Some(physical), _) => physical | NORMAL,
            (_, Some(physical)) => physical | NORMAL | USER,
            _ => descriptor,
        };
        write(&ROOT, gigabyte, descriptor);
    }
    ROOT_REGISTER.store(ROOT.0.get() as u64 | ADDRESS_SPACE, Ordering::Release);
    adopt();
}

/// Switches this CPU from the boot tables to the final ones.
pub(crate) fn adopt() {
    let root = ROOT_REGISTER.load(Ordering::Acquire);
    // SAFETY: `install` filled the tables with an identity map that includes all RAM, so code, stack and data stay
    // where they are; the barrier makes the tables visible to the walker first.
    unsafe { asm!("dsb ishst", "msr ttbr0_el1, {0}", "isb", in(reg) root) };
}

/// Points the translation table base of the upper half at `root`, a physical address, and returns an address whose
/// translation walks it; [`close_top_half`] undoes it.
pub fn open_top_half(root: u64) -> u64 {
    // SAFETY: the runtime has nothing in the upper half; what a walk there does can fault only the access that asks.
    unsafe {
        asm!(
            "msr ttbr1_el1, {root}",
            "mrs {tcr}, tcr_el1",
            "bic {tcr}, {tcr}, {off}",
            "msr tcr_el1, {tcr}",
            "isb",
            "tlbi vmalle1",
            "dsb nsh",
            "isb",
            root = in(reg) root,
            off = in(reg) TOP_HALF_OFF,
            tcr = out(reg) _,
        );
    }
    !((1 << ADDRESS_BITS) - 1)
}

/// Undoes [`open_top_half`].
pub fn close_top_half() {
    // SAFETY: as for `open_top_half`: nothing lives in the upper half.
    unsafe {
        asm!(
            "mrs {tcr}, tcr_el1",
            "orr {tcr}, {tcr}, {off}",
            "msr tcr_el1, {tcr}",
            "isb",
            "msr ttbr1_el1, xzr",
            "tlbi vmalle1",
            "dsb nsh",
            "isb",
            off = in(reg) TOP_HALF_OFF,
            tcr = out(reg) _,
        );
    }
}

/// Points the translation tables at `root`, where there are none: from the next instruction on everything faults.
pub fn lose_tables(root: u64) -> ! {
    // SAFETY: nothing runs after this: no fetch translates, the vectors' neither, so no state is left to be broken.
    unsafe {
        asm!(
            "msr ttbr0_el1, {root}",
            "isb",
            "tlbi vmalle1",
            "dsb nsh",
            "isb",
            "b .",
            root = in(reg) root,
            options(noreturn, nostack),
        );
    }
}
