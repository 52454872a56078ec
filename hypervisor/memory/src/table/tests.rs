//! The walker's view of what `map` builds.

use super::{
    Attributes, ENTRIES, Leaf, MapError, Mapping, PAGE_SIZE, Table, TableMemory, map, map_page_over, map_repeated,
    unmap_pages, walk,
};
use crate::PhysAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use std::vec::Vec;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const ROOT: PhysAddr = PhysAddr(0x1000);

fn empty_table() -> Table {
    [const { AtomicU64::new(0) }; ENTRIES]
}

/// Tables on the host's heap; table `n` is at address `(n + 1) * 0x1000`.
struct HostTables {
    tables: Vec<Table>,
    limit: usize,
}

impl HostTables {
    fn new(limit: usize) -> Self {
        Self { tables: Vec::from([empty_table()]), limit }
    }

    fn descriptors(&self) -> Vec<u64> {
        self.tables.iter().flatten().map(|entry| entry.load(Ordering::Relaxed)).collect()
    }

    fn position(table: PhysAddr) -> usize {
        assert_eq!(table.0 % PAGE_SIZE, 0, "a table is aligned to its size");
        (table.0 / PAGE_SIZE) as usize - 1
    }
}

impl TableMemory for HostTables {
    fn allocate(&mut self) -> Option<PhysAddr> {
        if self.tables.len() == self.limit {
            return None;
        }
        self.tables.push(empty_table());
        Some(PhysAddr(self.tables.len() as u64 * PAGE_SIZE))
    }

    fn table(&self, address: PhysAddr) -> &Table {
        &self.tables[Self::position(address)]
    }
}

fn ram(input: u64, output: u64, size: u64) -> Mapping {
    Mapping { input, output: PhysAddr(output), size, attributes: Attributes::GUEST_MEMORY }
}

fn leaf(output: u64, level: u8, size: u64) -> Option<Leaf> {
    Some(Leaf { output: PhysAddr(output), attributes: Attributes::GUEST_MEMORY, level, size })
}

#[test]
fn aligned_gigabyte_is_one_block_in_the_root() {
    let mut memory = HostTables::new(1);
    map(&mut memory, ROOT, &ram(GIB, 4 * GIB, GIB)).unwrap();
    assert_eq!(memory.tables[0][1].load(Ordering::Relaxed), (4 * GIB) | 0x7fc | 1);
    assert_eq!(walk(&memory, ROOT, GIB), leaf(4 * GIB, 1, GIB));
    assert_eq!(walk(&memory, ROOT, 2 * GIB - 1), leaf(5 * GIB - 1, 1, GIB));
    assert_eq!(walk(&memory, ROOT, GIB - 1), None);
    assert_eq!(walk(&memory, ROOT, 2 * GIB), None);
}

#[test]
fn output_that_is_less_aligned_than_the_input_decides_the_block_size() {
    let mut memory = HostTables::new(2);
    map(&mut memory, ROOT, &ram(GIB, 4 * GIB + 2 * MIB, GIB)).unwrap();
    assert_eq!(walk(&memory, ROOT, GIB + 5), leaf(4 * GIB + 2 * MIB + 5, 2, 2 * MIB));
    assert_eq!(walk(&memory, ROOT, 2 * GIB - 1), leaf(5 * GIB + 2 * MIB - 1, 2, 2 * MIB));
    assert_eq!(memory.tables.len(), 2);
}

#[test]
fn guest_of_256_mib_needs_one_table_below_the_root() {
    let mut memory = HostTables::new(2);
    map(&mut memory, ROOT, &ram(GIB, 0x5000_0000, 256 * MIB)).unwrap();
    assert_eq!(walk(&memory, ROOT, GIB + 256 * MIB - 8), leaf(0x6000_0000 - 8, 2, 2 * MIB));
    assert_eq!(walk(&memory, ROOT, GIB + 256 * MIB), None);
}

#[test]
fn range_with_ragged_ends_uses_every_size_once_it_fits() {
    let mut memory = HostTables::new(16);
    // Page-aligned start, then 2 MiB blocks, a 1 GiB block, 2 MiB blocks, pages.
    let start = GIB - 2 * MIB - PAGE_SIZE;
    let end = 2 * GIB + 2 * MIB + PAGE_SIZE;
    map(&mut memory, ROOT, &ram(start, start, end - start)).unwrap();
    for (input, level, size) in [
        (start, 3, PAGE_SIZE),
        (GIB - 2 * MIB, 2, 2 * MIB),
        (GIB, 1, GIB),
        (2 * GIB, 2, 2 * MIB),
        (2 * GIB + 2 * MIB, 3, PAGE_SIZE),
    ] {
        assert_eq!(walk(&memory, ROOT, input), leaf(input, level, size));
    }
    assert_eq!(walk(&memory, ROOT, start - 1), None);
    assert_eq!(walk(&memory, ROOT, end), None);
}

#[test]
fn every_page_of_a_region_walks_back_to_its_own_page_and_none_outside_it() {
    let mut memory = HostTables::new(16);
    let (input, output, pages) = (GIB + 2 * MIB - 3 * PAGE_SIZE, 0x7654_3000, 516);
    map(&mut memory, ROOT, &ram(input, output, pages * PAGE_SIZE)).unwrap();
    for page in 0..pages {
        let found = walk(&memory, ROOT, input + page * PAGE_SIZE + 0xabc).expect("the page is mapped");
        assert_eq!(found.output, PhysAddr(output + page * PAGE_SIZE + 0xabc));
        assert_eq!(found.attributes, Attributes::GUEST_MEMORY);
    }
    assert_eq!(walk(&memory, ROOT, input - 1), None);
    assert_eq!(walk(&memory, ROOT, input + pages * PAGE_SIZE), None);
}

#[test]
fn attributes_are_those_of_the_mapping_that_covers_the_address() {
    let mut memory = HostTables::new(16);
    let device = Mapping { attributes: Attributes::GUEST_DEVICE, ..ram(0x0900_0000, 0x0900_0000, PAGE_SIZE) };
    let shadow = Mapping { attributes: Attributes::GUEST_MEMORY_READ_ONLY, ..ram(0x0a00_0000, 0x4000, PAGE_SIZE) };
    map(&mut memory, ROOT, &device).unwrap();
    map(&mut memory, ROOT, &shadow).unwrap();
    assert_eq!(walk(&memory, ROOT, 0x0900_0000).map(|leaf| leaf.attributes), Some(Attributes::GUEST_DEVICE));
    assert_eq!(walk(&memory, ROOT, 0x0a00_0000).map(|leaf| leaf.attributes), Some(Attributes::GUEST_MEMORY_READ_ONLY));
}

#[test]
fn a_page_over_a_range_is_its_every_page_and_takes_nobodys_place() {
    let (mut memory, start, page) = (HostTables::new(6), 0x0a00_4000, 0x4020_0000);
    map_page_over(&mut memory, ROOT, &ram(start, page, 28 * PAGE_SIZE)).unwrap();
    for number in 0..28 {
        let leaf = walk(&memory, ROOT, start + number * PAGE_SIZE + 8).unwrap();
        assert_eq!((leaf.output, leaf.level), (PhysAddr(page + 8), 3), "page {number}");
    }
    assert_eq!(walk(&memory, ROOT, start - 1), None);
    assert_eq!(walk(&memory, ROOT, start + 28 * PAGE_SIZE), None);
    // A range as large and as aligned as a block is pages, too.
    map_page_over(&mut memory, ROOT, &ram(0x4000_0000, page, 512 * PAGE_SIZE)).unwrap();
    assert_eq!(walk(&memory, ROOT, 0x401f_f000).unwrap().output, PhysAddr(page));
    let input = start + 27 * PAGE_SIZE;
    let again = map_page_over(&mut memory, ROOT, &ram(input, page, PAGE_SIZE));
    assert_eq!(again, Err(MapError::AlreadyMapped { input }));
}

#[test]
fn blocks_that_repeat_a_page_share_one_table() {
    // The root, a table of blocks for each GiB, and the one of pages.
    let mut memory = HostTables::new(4);
    let (start, size) = (GIB - 4 * MIB, 8 * MIB);
    map_repeated(&mut memory, ROOT, &ram(start, 0x7654_3000, size)).unwrap();
    for input in (start..start + size).step_by(if cfg!(miri) { 2 * MIB as usize } else { PAGE_SIZE as usize }) {
        assert_eq!(walk(&memory, ROOT, input + 0xabc), leaf(0x7654_3abc, 3, PAGE_SIZE), "{input:#x}");
    }
    assert_eq!([walk(&memory, ROOT, start - 1), walk(&memory, ROOT, start + size)], [None, None]);
    let inside = map(&mut memory, ROOT, &ram(start + 2 * MIB, 0x1000, PAGE_SIZE));
    assert_eq!(inside, Err(MapError::AlreadyMapped { input: start + 2 * MIB }));
}

#[test]
fn a_page_is_repeated_over_whole_blocks_where_nothing_else_is() {
    let mut memory = HostTables::new(16);
    let repeat = |memory: &mut HostTables, input, size| map_repeated(memory, ROOT, &ram(input, 0x1000, size));
    for (input, size) in [(PAGE_SIZE, 2 * MIB), (0, 2 * MIB + PAGE_SIZE), (0, 0)] {
        assert_eq!(repeat(&mut memory, input, size), Err(MapError::Misaligned));
    }
    for (input, size) in [(1 << 39, 2 * MIB), (0, u64::MAX - (2 * MIB - 1)), (2 * MIB, u64::MAX - (2 * MIB - 1))] {
        assert_eq!(repeat(&mut memory, input, size), Err(MapError::OutOfRange));
    }
    map(&mut memory, ROOT, &ram(2 * MIB + PAGE_SIZE, 0x1000, PAGE_SIZE)).unwrap();
    let taken = MapError::AlreadyMapped { input: 2 * MIB + PAGE_SIZE };
    assert_eq!(repeat(&mut memory, 0, 4 * MIB), Err(taken));
    unmap_pages(&mut memory, ROOT, 2 * MIB, 2 * MIB);
    assert_eq!(repeat(&mut memory, 2 * MIB, 2 * MIB), Err(MapError::AlreadyMapped { input: 2 * MIB }));
    repeat(&mut memory, 4 * MIB, 2 * MIB).unwrap();
    assert_eq!(repeat(&mut HostTables::new(1), 0, 2 * MIB), Err(MapError::OutOfTables));
    assert_eq!(repeat(&mut HostTables::new(2), 0, 2 * MIB), Err(MapError::OutOfTables));
}

#[test]
fn page_beside_a_page_shares_its_table() {
    let mut memory = HostTables::new(3);
    map(&mut memory, ROOT, &ram(0, 0, PAGE_SIZE)).unwrap();
    map(&mut memory, ROOT, &ram(PAGE_SIZE, 0x8000, PAGE_SIZE)).unwrap();
    assert_eq!(memory.tables.len(), 3);
}

#[test]
fn overlap_is_refused_where_it_begins_and_changes_nothing() {
    let mut memory = HostTables::new(16);
    map(&mut memory, ROOT, &ram(GIB + 4 * MIB, 0, 2 * MIB)).unwrap();
    let before = memory.descriptors();
    let refused = |memory: &mut HostTables, mapping, input| {
        assert_eq!(map(memory, ROOT, &mapping), Err(MapError::AlreadyMapped { input }));
        assert!(memory.descriptors() == before, "a refused mapping leaves the tables alone");
    };
    refused(&mut memory, ram(GIB, 0, GIB), GIB + 4 * MIB);
    refused(&mut memory, ram(GIB + 4 * MIB, 0, PAGE_SIZE), GIB + 4 * MIB);
    refused(&mut memory, ram(GIB + 6 * MIB - PAGE_SIZE, 0, 2 * PAGE_SIZE), GIB + 6 * MIB - PAGE_SIZE);
    refused(&mut memory, ram(0, 0, 4 * GIB), GIB + 4 * MIB);
    // Its neighbours on both sides are free.
    map(&mut memory, ROOT, &ram(GIB + 2 * MIB, 0, 2 * MIB)).unwrap();
    map(&mut memory, ROOT, &ram(GIB + 6 * MIB, 0, 2 * MIB)).unwrap();
}

#[test]
fn same_output_may_be_mapped_twice() {
    let mut memory = HostTables::new(16);
    map(&mut memory, ROOT, &ram(0, GIB, 2 * MIB)).unwrap();
    map(&mut memory, ROOT, &ram(2 * MIB, GIB, 2 * MIB)).unwrap();
}

#[test]
fn misaligned_and_empty_ranges_are_refused() {
    let mut memory = HostTables::new(16);
    for mapping in [ram(1, 0, PAGE_SIZE), ram(0, 0x800, PAGE_SIZE), ram(0, 0, PAGE_SIZE + 1), ram(0, 0, 0)] {
        assert_eq!(map(&mut memory, ROOT, &mapping), Err(MapError::Misaligned));
    }
    assert_eq!(memory.tables.len(), 1);
}

#[test]
fn range_may_end_at_the_top_of_the_address_space_but_not_above() {
    let mut memory = HostTables::new(16);
    let top = 1 << 39;
    map(&mut memory, ROOT, &ram(top - GIB, 0, GIB)).unwrap();
    assert_eq!(walk(&memory, ROOT, top - 1), leaf(GIB - 1, 1, GIB));
    assert_eq!(walk(&memory, ROOT, top), None);
    assert_eq!(walk(&memory, ROOT, u64::MAX), None);
    for mapping in [
        ram(top, 0, GIB),
        ram(0, 0, top + GIB),
        ram(u64::MAX - 0xfff, 0, PAGE_SIZE),
        ram(0, u64::MAX - 0xfff, PAGE_SIZE),
        ram(0, 1 << 48, PAGE_SIZE),
        ram(0, (1 << 48) - PAGE_SIZE, 2 * PAGE_SIZE),
    ] {
        assert_eq!(map(&mut memory, ROOT, &mapping), Err(MapError::OutOfRange));
    }
}

#[test]
fn exhaustion_of_table_memory_is_reported_and_what_was_mapped_stays_walkable() {
    let mut memory = HostTables::new(2);
    // Blocks fit into the one table left; the trailing page would need another.
    assert_eq!(map(&mut memory, ROOT, &ram(0, 0, 4 * MIB + PAGE_SIZE)), Err(MapError::OutOfTables));
    assert_eq!(walk(&memory, ROOT, 2 * MIB), leaf(2 * MIB, 2, 2 * MIB));
    assert_eq!(walk(&memory, ROOT, 4 * MIB), None);
}

#[test]
fn empty_table_left_by_exhaustion_does_not_block_a_later_mapping() {
    let mut memory = HostTables::new(2);
    assert_eq!(map(&mut memory, ROOT, &ram(0, 0, PAGE_SIZE)), Err(MapError::OutOfTables));
    map(&mut memory, ROOT, &ram(0, 0, 2 * MIB)).unwrap();
    assert_eq!(walk(&memory, ROOT, 0), leaf(0, 2, 2 * MIB));
}

#[test]
fn pages_that_are_unmapped_are_gone_and_their_neighbours_stay() {
    let mut memory = HostTables::new(4);
    map(&mut memory, ROOT, &ram(GIB, GIB, 2 * MIB + 4 * PAGE_SIZE)).unwrap();
    unmap_pages(&mut memory, ROOT, GIB + 2 * MIB + PAGE_SIZE, 2 * PAGE_SIZE);
    let at = |input| walk(&memory, ROOT, input);
    assert_eq!(at(GIB), leaf(GIB, 2, 2 * MIB));
    for page in 0..4 {
        let input = GIB + 2 * MIB + page * PAGE_SIZE;
        assert_eq!(at(input), if page == 0 || page == 3 { leaf(input, 3, PAGE_SIZE) } else { None });
    }
}

#[test]
fn unmapping_leaves_blocks_and_what_is_not_mapped_alone() {
    let mut memory = HostTables::new(2);
    map(&mut memory, ROOT, &ram(GIB, GIB, 2 * MIB)).unwrap();
    unmap_pages(&mut memory, ROOT, GIB + PAGE_SIZE, PAGE_SIZE);
    unmap_pages(&mut memory, ROOT, 4 * GIB, PAGE_SIZE);
    unmap_pages(&mut memory, ROOT, u64::MAX - PAGE_SIZE + 1, u64::MAX);
    assert_eq!(walk(&memory, ROOT, GIB), leaf(GIB, 2, 2 * MIB));
}
