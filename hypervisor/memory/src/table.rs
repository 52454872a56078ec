//! Translation tables, for stage 2 and for EL2's own stage 1: which descriptors map this range?
//!
//! Both use the 4 KiB granule and a 39-bit input address, so a walk starts at level 1 in one 512-entry root (Arm ARM
//! D8.2), and a range is mapped with the largest blocks its alignment allows: 1 GiB, 2 MiB, 4 KiB. The same code builds
//! both; only the [`Attributes`] differ.
//!
//! Table memory is behind [`TableMemory`], so building runs on the host. Descriptors only ever change from invalid to
//! valid, which needs no TLB maintenance and no break-before-make (Arm ARM D8, "Using break-before-make"), or back,
//! once and for good ([`unmap_pages`]); the barriers and the TLB maintenance belong to `arch`. A virtual machine's map
//! is fixed when it is built.

mod attributes;

pub use attributes::{Attributes, MAIR_EL2};

use crate::PhysAddr;
use core::sync::atomic::{AtomicU64, Ordering};

/// How many bits an input address has: T0SZ is 64 minus this, and a walk starts at level 1.
pub const INPUT_BITS: u32 = 39;

/// How many descriptors a table has.
pub const ENTRIES: usize = 512;

/// The size of a page, and of a table: 4 KiB.
pub const PAGE_SIZE: u64 = 1 << 12;

/// One past the highest input address.
const INPUT_END: u64 = 1 << INPUT_BITS;
/// One past the highest output address: 48 bits is what a descriptor holds without FEAT_LPA2.
const OUTPUT_END: u64 = 1 << 48;

/// Descriptor bits, Arm ARM D8.3, "Translation table descriptor formats".
const VALID: u64 = 1;
/// At levels 1 and 2 this bit tells a table from a block; at level 3 it is set in a page.
const TABLE_OR_PAGE: u64 = 2;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// The first level of a walk, and the last.
const LEVEL_FIRST: u8 = 1;
const LEVEL_LAST: u8 = 3;

/// A table: descriptors that the hardware's walkers read at any time.
pub type Table = [AtomicU64; ENTRIES];

/// Where tables live.
pub trait TableMemory {
    /// Gives a new table of [`ENTRIES`] zeros, aligned to its size, or nothing when memory is exhausted.
    fn allocate(&mut self) -> Option<PhysAddr>;

    /// The table at `address`, which [`TableMemory::allocate`] returned (or is the root). A store to a linked table
    /// must not be reordered before its zeroing.
    fn table(&self, address: PhysAddr) -> &Table;
}

/// The descriptor for `input` in the table at `address`, which is one of `level`.
fn descriptor(memory: &impl TableMemory, address: PhysAddr, input: u64, level: u8) -> Option<&AtomicU64> {
    // An index has nine bits: there always is one.
    memory.table(address).get(index(input, level))
}

/// Reads the descriptor for `input` in the table at `address`.
fn read(memory: &impl TableMemory, address: PhysAddr, input: u64, level: u8) -> u64 {
    descriptor(memory, address, input, level).map_or(0, |entry| entry.load(Ordering::Relaxed))
}

/// Writes the descriptor for `input` in the table at `address`.
fn write(memory: &mut impl TableMemory, address: PhysAddr, input: u64, level: u8, value: u64) {
    if let Some(entry) = descriptor(memory, address, input, level) {
        set(entry, value);
    }
}

/// Up to `count` descriptors of `table`, from that for `input` on.
fn run(table: &Table, input: u64, level: u8, count: u64) -> &[AtomicU64] {
    let (_, rest) = table.split_at_checked(index(input, level)).unwrap_or_default();
    rest.get(..count.min(rest.len() as u64) as usize).unwrap_or_default()
}

/// Writes a descriptor.
fn set(entry: &AtomicU64, value: u64) {
    debug_assert!(
        entry.load(Ordering::Relaxed) == 0 || value == 0,
        "descriptors change from invalid to valid, or back"
    );
    entry.store(value, Ordering::Relaxed);
}

/// A range to map: `input..input + size` onto `output..output + size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// The first input address: an IPA at stage 2, a virtual address at EL2's stage 1. A multiple of [`PAGE_SIZE`].
    pub input: u64,
    /// The first output address. A multiple of [`PAGE_SIZE`].
    pub output: PhysAddr,
    /// The size in bytes. A multiple of [`PAGE_SIZE`], not zero.
    pub size: u64,
    /// How it may be accessed.
    pub attributes: Attributes,
}

/// Why a range could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapError {
    /// No memory for a table is left. A part of the range, from its start, may be mapped.
    OutOfTables,
    /// An address or the size is not a multiple of [`PAGE_SIZE`], or the size is zero. Nothing has changed.
    Misaligned,
    /// The range ends above the input or output address space. Nothing has changed.
    OutOfRange,
    /// A part of the range is mapped already. Nothing has changed.
    AlreadyMapped {
        /// The first input address that is.
        input: u64,
    },
}

impl core::fmt::Display for MapError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::OutOfTables => formatter.write_str("no memory is left for translation tables"),
            Self::Misaligned => formatter.write_str("a mapping must consist of whole 4 KiB pages, and at least one"),
            Self::OutOfRange => formatter.write_str("a mapping ends above the address space (39 bits in, 48 bits out)"),
            Self::AlreadyMapped { input } => write!(formatter, "address {input:#x} is mapped already"),
        }
    }
}

/// What a walk found: the block or page that maps an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The output address of the walked input address itself, its offset into the block included.
    pub output: PhysAddr,
    /// How it may be accessed.
    pub attributes: Attributes,
    /// 1 for a 1 GiB block, 2 for a 2 MiB block, 3 for a page.
    pub level: u8,
    /// The size of the block or page in bytes.
    pub size: u64,
}

/// Maps a range.
///
/// The work is bounded by the number of blocks and pages the range consists of.
///
/// # Errors
/// [`MapError`]; all but [`MapError::OutOfTables`] are found before anything changes.
pub fn map(memory: &mut impl TableMemory, root: PhysAddr, mapping: &Mapping) -> Result<(), MapError> {
    map_as(memory, root, mapping, Output::FollowsInput)
}

/// Maps a range so that each page of it shows the page at `mapping.output`.
///
/// # Errors
/// As [`map`].
pub fn map_page_over(memory: &mut impl TableMemory, root: PhysAddr, mapping: &Mapping) -> Result<(), MapError> {
    map_as(memory, root, mapping, Output::StaysTheSame)
}

/// What the pages of a mapping show.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    /// Pages that adjoin as they do.
    FollowsInput,
    /// One page.
    StaysTheSame,
}

impl Output {
    /// How far the output is from its start where the input is `done` bytes from its own.
    const fn offset(self, done: u64) -> u64 {
        match self {
            Self::FollowsInput => done,
            Self::StaysTheSame => 0,
        }
    }
}

fn map_as(memory: &mut impl TableMemory, root: PhysAddr, mapping: &Mapping, output: Output) -> Result<(), MapError> {
    if (mapping.input | mapping.output.0 | mapping.size) & PAGE_SIZE.wrapping_sub(1) != 0 || mapping.size == 0 {
        return Err(MapError::Misaligned);
    }
    let input_end = mapping.input.checked_add(mapping.size).filter(|end| *end <= INPUT_END);
    let output_end = mapping.output.0.checked_add(mapping.size).filter(|end| *end <= OUTPUT_END);
    let (Some(input_end), Some(_)) = (input_end, output_end) else { return Err(MapError::OutOfRange) };
    if let Some(input) = first_mapped(memory, root, mapping.input, input_end) {
        return Err(MapError::AlreadyMapped { input });
    }
    let mut rest = *mapping;
    while rest.size != 0 {
        let done = map_run(memory, root, &rest, output)?;
        // `done` is at most `rest.size`, and both ends were checked above.
        rest.input = rest.input.wrapping_add(done);
        rest.output = PhysAddr(rest.output.0.wrapping_add(output.offset(done)));
        rest.size = rest.size.wrapping_sub(done);
    }
    Ok(())
}

/// Maps whole 2 MiB blocks so that each page of them shows the page at `mapping.output`. One table serves all of them:
/// no other mapping can be added to these blocks.
///
/// # Errors
/// As [`map`]; [`MapError::Misaligned`] also where `mapping` is no whole number of blocks.
pub fn map_repeated(memory: &mut impl TableMemory, root: PhysAddr, mapping: &Mapping) -> Result<(), MapError> {
    const LEVEL_BLOCK: u8 = LEVEL_LAST - 1;
    let block = entry_size(LEVEL_BLOCK);
    if (mapping.input | mapping.size) & block.wrapping_sub(1) != 0
        || mapping.output.0 & PAGE_SIZE.wrapping_sub(1) != 0
        || mapping.size == 0
    {
        return Err(MapError::Misaligned);
    }
    let end = mapping.input.checked_add(mapping.size).filter(|end| *end <= INPUT_END);
    let Some(end) = end.filter(|_| mapping.output.0 < OUTPUT_END) else { return Err(MapError::OutOfRange) };
    if let Some(input) = first_mapped(memory, root, mapping.input, end) {
        return Err(MapError::AlreadyMapped { input });
    }
    let pages = memory.allocate().ok_or(MapError::OutOfTables)?;
    for entry in memory.table(pages) {
        set(entry, mapping.output.0 | mapping.attributes.bits() | VALID | TABLE_OR_PAGE);
    }
    let mut input = mapping.input;
    while input < end {
        let (mut table, level) = descend(memory, root, input);
        if level < LEVEL_BLOCK {
            let next = memory.allocate().ok_or(MapError::OutOfTables)?;
            write(memory, table, input, level, next.0 & ADDRESS | VALID | TABLE_OR_PAGE);
            table = next;
        } else if level != LEVEL_BLOCK {
            // A table of pages, none of which is mapped.
            return Err(MapError::AlreadyMapped { input });
        }
        write(memory, table, input, LEVEL_BLOCK, pages.0 & ADDRESS | VALID | TABLE_OR_PAGE);
        // Below `INPUT_END`.
        input = input.wrapping_add(block);
    }
    Ok(())
}

/// Unmaps those pages of `input..input + size` that are mapped as pages: what a larger block covers stays mapped. The
/// walkers may use what they have cached until their TLBs are invalidated.
pub fn unmap_pages(memory: &mut impl TableMemory, root: PhysAddr, input: u64, size: u64) {
    let end = input.saturating_add(size).min(INPUT_END);
    let mut input = input & !PAGE_SIZE.wrapping_sub(1);
    while input < end {
        let (table, level) = descend(memory, root, input);
        if level == LEVEL_LAST {
            write(memory, table, input, level, 0);
        }
        // Below `INPUT_END`.
        input = input.wrapping_add(PAGE_SIZE);
    }
}

/// Finds the block or page that maps `input`, if one does.
#[must_use]
pub fn walk(memory: &impl TableMemory, root: PhysAddr, input: u64) -> Option<Leaf> {
    if input >= INPUT_END {
        return None;
    }
    let (table, level) = descend(memory, root, input);
    let descriptor = read(memory, table, input, level);
    is_leaf(descriptor, level).then(|| leaf(descriptor, input, level))
}

/// The table in which the walk for `input` ends, and its level: the descriptor there is no table's.
fn descend(memory: &impl TableMemory, root: PhysAddr, input: u64) -> (PhysAddr, u8) {
    let mut table = root;
    for level in LEVEL_FIRST..LEVEL_LAST {
        let descriptor = read(memory, table, input, level);
        if descriptor & (VALID | TABLE_OR_PAGE) != VALID | TABLE_OR_PAGE {
            return (table, level);
        }
        table = PhysAddr(descriptor & ADDRESS);
    }
    (table, LEVEL_LAST)
}

/// Whether a descriptor in a table at `level` maps a block or page. At level 3 one without [`TABLE_OR_PAGE`] is
/// reserved, and faults.
fn is_leaf(descriptor: u64, level: u8) -> bool {
    let kind = if level == LEVEL_LAST { VALID | TABLE_OR_PAGE } else { VALID };
    descriptor & (VALID | TABLE_OR_PAGE) == kind
}

fn leaf(descriptor: u64, input: u64, level: u8) -> Leaf {
    let size = entry_size(level);
    let offset = size.wrapping_sub(1);
    Leaf {
        output: PhysAddr(descriptor & ADDRESS & !offset | input & offset),
        attributes: Attributes::from_descriptor(descriptor),
        level,
        size,
    }
}

/// The first address in `start..end` that something maps. Goes down once for each table, not for each descriptor.
fn first_mapped(memory: &impl TableMemory, root: PhysAddr, start: u64, end: u64) -> Option<u64> {
    let mut input = start;
    while input < end {
        let (table, level) = descend(memory, root, input);
        let size = entry_size(level);
        // Of the descriptor at which this table is entered, and of those that the range touches.
        let first = input & !size.wrapping_sub(1);
        let entries = run(memory.table(table), input, level, end.wrapping_sub(first).div_ceil(size));
        let valid = entries.iter().position(|entry| entry.load(Ordering::Relaxed) & VALID != 0);
        // Below 2^39 + 2^30, so that this cannot wrap.
        let at = |count: usize| first.wrapping_add((count as u64).wrapping_mul(size)).max(input);
        let Some(count) = valid else {
            input = at(entries.len());
            continue;
        };
        input = at(count);
        // A descriptor that is valid maps something, or leads to a table, which is looked at next.
        if level == LEVEL_LAST || is_leaf(read(memory, table, input, level), level) {
            return Some(input);
        }
    }
    None
}

/// Maps the start of `mapping`: blocks or pages of one size, the largest that fits, in one table, as many as there are.
/// Returns their size in all.
fn map_run(memory: &mut impl TableMemory, root: PhysAddr, mapping: &Mapping, advance: Output) -> Result<u64, MapError> {
    let (mut table, mut level) = descend(memory, root, mapping.input);
    let is_aligned =
        |size: u64| advance == Output::FollowsInput && (mapping.input | mapping.output.0) & size.wrapping_sub(1) == 0;
    while level != LEVEL_LAST && !(is_aligned(entry_size(level)) && mapping.size >= entry_size(level)) {
        let next = memory.allocate().ok_or(MapError::OutOfTables)?;
        write(memory, table, mapping.input, level, next.0 & ADDRESS | VALID | TABLE_OR_PAGE);
        table = next;
        // Below LEVEL_LAST.
        level = level.wrapping_add(1);
    }
    let size = entry_size(level);
    let kind = if level == LEVEL_LAST { VALID | TABLE_OR_PAGE } else { VALID };
    let step = advance.offset(size);
    let (mut output, mut count) = (mapping.output.0 | mapping.attributes.bits() | kind, 0_u64);
    // `size` is not zero.
    for entry in run(memory.table(table), mapping.input, level, mapping.size.div_euclid(size)) {
        // A table that is there already ends the run: the mapping becomes smaller blocks within it.
        if entry.load(Ordering::Relaxed) & VALID != 0 {
            break;
        }
        set(entry, output);
        // Both ends were checked by `map`; no address has a bit of the attributes.
        output = output.wrapping_add(step);
        count = count.wrapping_add(1);
    }
    // At most `mapping.size`.
    let done = count.wrapping_mul(size);
    if done == 0 { Err(MapError::AlreadyMapped { input: mapping.input }) } else { Ok(done) }
}

/// The number of bytes one descriptor covers at `level`.
fn entry_size(level: u8) -> u64 {
    match level {
        1 => 1 << 30,
        2 => 1 << 21,
        _ => PAGE_SIZE,
    }
}

/// The index of the descriptor for `input` in a table at `level`: nine bits.
fn index(input: u64, level: u8) -> usize {
    let shift = match level {
        1 => 30,
        2 => 21,
        _ => 12,
    };
    (input >> shift & 0x1ff) as usize
}

#[cfg(test)]
mod tests;
