//! Which physical memory is free: the board's RAM at boot, before and while it is cut into virtual machines.
//!
//! Ranges are added as the board's device tree names them, then everything that is taken (Bulkhead itself, the bundle,
//! ranges that the manifest fixes) is reserved, then the rest is carved. It runs at boot only; nothing is ever given
//! back.

use crate::PhysAddr;
use arrayvec::ArrayVec;

/// How many separate free ranges a map can hold.
pub const RANGES_MAX: usize = 32;

/// Why a range could not be added or reserved. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RamError {
    /// The range is empty, or ends above the address space.
    BadRange,
    /// A part of the range is free already.
    Overlap,
    /// A part of the range is not free: it is not RAM, or taken.
    NotFree,
    /// More than [`RANGES_MAX`] separate free ranges would be left.
    TooManyRanges,
}

impl core::fmt::Display for RamError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(match self {
            Self::BadRange => "the range is empty, or ends above the address space",
            Self::Overlap => "the range overlaps RAM that is known already",
            Self::NotFree => "the range is not RAM of this board, or a part of it is taken",
            Self::TooManyRanges => "RAM is cut into too many separate ranges",
        })
    }
}

/// `start..end`, not empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    start: u64,
    end: u64,
}

impl Range {
    fn new(start: PhysAddr, size: u64) -> Result<Self, RamError> {
        match start.0.checked_add(size) {
            Some(end) if size != 0 => Ok(Self { start: start.0, end }),
            _ => Err(RamError::BadRange),
        }
    }

    fn size(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

/// The free RAM of the board.
#[derive(Clone, Debug, Default)]
pub struct RamMap {
    /// In ascending order, disjoint, and never adjacent.
    free: ArrayVec<Range, RANGES_MAX>,
}

impl RamMap {
    /// No RAM at all.
    #[must_use]
    pub const fn new() -> Self {
        Self { free: ArrayVec::new_const() }
    }

    /// Adds a range of RAM that is free. Adjacent ranges become one.
    ///
    /// # Errors
    /// [`RamError::BadRange`], [`RamError::Overlap`], [`RamError::TooManyRanges`].
    pub fn add(&mut self, start: PhysAddr, size: u64) -> Result<(), RamError> {
        let mut range = Range::new(start, size)?;
        if self.free.iter().any(|other| other.overlaps(range)) {
            return Err(RamError::Overlap);
        }
        let touches = |other: &Range| other.end == range.start || range.end == other.start;
        let neighbours = self.free.iter().filter(|other| touches(other)).count();
        if neighbours == 0 && self.free.is_full() {
            return Err(RamError::TooManyRanges);
        }
        self.free.retain(|other| {
            if other.end == range.start {
                range.start = other.start;
            } else if range.end == other.start {
                range.end = other.end;
            } else {
                return true;
            }
            false
        });
        self.insert(range)
    }

    /// Takes exactly the range `start..start + size`, all of which must be free.
    ///
    /// # Errors
    /// [`RamError::BadRange`], [`RamError::NotFree`], [`RamError::TooManyRanges`].
    pub fn reserve(&mut self, start: PhysAddr, size: u64) -> Result<(), RamError> {
        let taken = Range::new(start, size)?;
        let whole = self.free.iter_mut().find(|free| free.start <= taken.start && taken.end <= free.end);
        let whole = whole.ok_or(RamError::NotFree)?;
        let before = Range { start: whole.start, end: taken.start };
        let after = Range { start: taken.end, end: whole.end };
        match (before.size() != 0, after.size() != 0) {
            (true, true) => {
                // The range that cannot be inserted is still whole: nothing has changed.
                let old = *whole;
                *whole = before;
                if let Err(error) = self.insert(after) {
                    if let Some(whole) = self.free.iter_mut().find(|free| **free == before) {
                        *whole = old;
                    }
                    return Err(error);
                }
            }
            (true, false) => *whole = before,
            (false, true) => *whole = after,
            (false, false) => self.free.retain(|free| *free != taken),
        }
        Ok(())
    }

    /// Takes the parts of `start..start + size` that are free, if any: for ranges that something else has described,
    /// such as a device tree's memory reservations.
    ///
    /// # Errors
    /// [`RamError::BadRange`], [`RamError::TooManyRanges`]; in the latter case some parts may be taken.
    pub fn exclude(&mut self, start: PhysAddr, size: u64) -> Result<(), RamError> {
        let excluded = Range::new(start, size)?;
        while let Some(free) = self.free.iter().copied().find(|free| free.overlaps(excluded)) {
            let part = Range { start: free.start.max(excluded.start), end: free.end.min(excluded.end) };
            self.reserve(PhysAddr(part.start), part.size())?;
        }
        Ok(())
    }

    /// Takes `size` bytes at a multiple of `align`, a power of two.
    ///
    /// The result is aligned to 1 GiB, or else to 2 MiB, where the size reaches that and such a place is free: so stage
    /// 2 can use the largest blocks. Of several places it takes the highest, which leaves low memory to those that need
    /// it. Nothing is returned if no place fits, or `size` or `align` make no sense.
    #[must_use]
    pub fn allocate(&mut self, size: u64, align: u64) -> Option<PhysAddr> {
        if size == 0 || !align.is_power_of_two() {
            return None;
        }
        for preferred in [1 << 30, 1 << 21] {
            if size >= preferred
                && align < preferred
                && let Some(start) = self.carve(size, preferred)
            {
                return Some(start);
            }
        }
        self.carve(size, align)
    }

    /// Takes `size` bytes at a multiple of `align`, a power of two, from the lowest place where they fit: for what is
    /// taken before it is known which places must stay free.
    #[must_use]
    pub fn allocate_lowest(&mut self, size: u64, align: u64) -> Option<PhysAddr> {
        if size == 0 || !align.is_power_of_two() {
            return None;
        }
        let ranges = self.free.clone();
        ranges.iter().find_map(|free| {
            let start = free.start.checked_next_multiple_of(align)?;
            let fits = start.checked_add(size)? <= free.end;
            (fits && self.reserve(PhysAddr(start), size).is_ok()).then_some(PhysAddr(start))
        })
    }

    /// How many bytes are free in all.
    #[must_use]
    pub fn total_free(&self) -> u64 {
        self.free.iter().fold(0, |total, free| total.saturating_add(free.size()))
    }

    /// The free ranges in ascending order: first address, size in bytes.
    pub fn free_ranges(&self) -> impl Iterator<Item = (PhysAddr, u64)> + '_ {
        self.free.iter().map(|free| (PhysAddr(free.start), free.size()))
    }

    /// Takes `size` bytes from the highest place aligned to `align`. When free ranges run out, it goes on to a place
    /// that needs no further one.
    fn carve(&mut self, size: u64, align: u64) -> Option<PhysAddr> {
        let ranges = self.free.clone();
        ranges.iter().rev().find_map(|free| {
            let start = PhysAddr(free.end.checked_sub(size)? & !align.wrapping_sub(1));
            let fits = start.0 >= free.start;
            (fits && self.reserve(start, size).is_ok()).then_some(start)
        })
    }

    /// Inserts a range that touches no other at its place.
    fn insert(&mut self, range: Range) -> Result<(), RamError> {
        let place = self.free.partition_point(|other| other.start < range.start);
        self.free.try_insert(place, range).map_err(|_| RamError::TooManyRanges)
    }
}

#[cfg(test)]
mod tests {
    use super::{RANGES_MAX, RamError, RamMap};
    use crate::PhysAddr;
    use std::vec::Vec;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn board(start: u64, size: u64) -> RamMap {
        let mut ram = RamMap::new();
        ram.add(PhysAddr(start), size).unwrap();
        ram
    }

    fn ranges(ram: &RamMap) -> Vec<(u64, u64)> {
        ram.free_ranges().map(|(start, size)| (start.0, size)).collect()
    }

    #[test]
    fn ranges_are_kept_in_order_and_neighbours_become_one() {
        let mut ram = board(4 * GIB, GIB);
        ram.add(PhysAddr(GIB), GIB).unwrap();
        ram.add(PhysAddr(3 * GIB), GIB).unwrap();
        assert_eq!(ranges(&ram), [(GIB, GIB), (3 * GIB, 2 * GIB)]);
        ram.add(PhysAddr(2 * GIB), GIB).unwrap();
        assert_eq!(ranges(&ram), [(GIB, 4 * GIB)]);
    }

    #[test]
    fn ram_that_is_named_twice_is_refused() {
        let mut ram = board(GIB, GIB);
        assert_eq!(ram.add(PhysAddr(GIB + MIB), MIB), Err(RamError::Overlap));
        assert_eq!(ram.add(PhysAddr(0), GIB + 1), Err(RamError::Overlap));
        assert_eq!(ram.total_free(), GIB);
    }

    #[test]
    fn empty_and_wrapping_ranges_are_refused() {
        let mut ram = board(GIB, GIB);
        assert_eq!(ram.add(PhysAddr(0), 0), Err(RamError::BadRange));
        assert_eq!(ram.add(PhysAddr(u64::MAX), 2), Err(RamError::BadRange));
        assert_eq!(ram.reserve(PhysAddr(GIB), 0), Err(RamError::BadRange));
        assert_eq!(ram.reserve(PhysAddr(GIB), u64::MAX), Err(RamError::BadRange));
        assert_eq!(ram.exclude(PhysAddr(u64::MAX), u64::MAX), Err(RamError::BadRange));
    }

    #[test]
    fn reserved_range_is_gone_and_the_rest_stays() {
        let mut ram = board(GIB, GIB);
        ram.reserve(PhysAddr(GIB + 16 * MIB), MIB).unwrap();
        assert_eq!(ranges(&ram), [(GIB, 16 * MIB), (GIB + 17 * MIB, GIB - 17 * MIB)]);
        ram.reserve(PhysAddr(GIB), 16 * MIB).unwrap();
        ram.reserve(PhysAddr(2 * GIB - MIB), MIB).unwrap();
        assert_eq!(ranges(&ram), [(GIB + 17 * MIB, GIB - 18 * MIB)]);
        assert_eq!(ram.reserve(PhysAddr(GIB), MIB), Err(RamError::NotFree));
        assert_eq!(ram.reserve(PhysAddr(2 * GIB - 2 * MIB), 2 * MIB), Err(RamError::NotFree));
        ram.reserve(PhysAddr(GIB + 17 * MIB), GIB - 18 * MIB).unwrap();
        assert_eq!(ram.total_free(), 0);
        assert_eq!(ranges(&ram), []);
    }

    #[test]
    fn exclusion_takes_only_what_is_there() {
        let mut ram = board(GIB, GIB);
        ram.reserve(PhysAddr(GIB + 4 * MIB), MIB).unwrap();
        ram.exclude(PhysAddr(GIB + 2 * MIB), 8 * MIB).unwrap();
        assert_eq!(ranges(&ram), [(GIB, 2 * MIB), (GIB + 10 * MIB, GIB - 10 * MIB)]);
        ram.exclude(PhysAddr(0), MIB).unwrap();
        ram.exclude(PhysAddr(0), 8 * GIB).unwrap();
        assert_eq!(ram.total_free(), 0);
    }

    #[test]
    fn guest_gets_the_highest_place_with_the_largest_alignment_its_size_can_use() {
        let mut ram = board(GIB, 3 * GIB + 512 * MIB);
        // At the very top only 512 MiB alignment would fit.
        assert_eq!(ram.allocate(GIB, 4096), Some(PhysAddr(3 * GIB)));
        assert_eq!(ram.allocate(256 * MIB + 4096, 4096), Some(PhysAddr(4 * GIB + 254 * MIB)));
        assert_eq!(ram.allocate(4096, 4096), Some(PhysAddr(4 * GIB + 512 * MIB - 4096)));
    }

    #[test]
    fn guest_larger_than_any_aligned_place_still_gets_memory() {
        let mut ram = board(GIB + 512 * MIB, GIB + 256 * MIB);
        // From 2.5 GiB down no multiple of 1 GiB is low enough to leave 1 GiB above it, so 2 MiB must do.
        assert_eq!(ram.allocate(GIB, 4096), Some(PhysAddr(GIB + 768 * MIB)));
        let mut odd = board(GIB + 4096, 3 * MIB);
        assert_eq!(odd.allocate(2 * MIB, 4096), Some(PhysAddr(GIB + 4096 + MIB)));
    }

    #[test]
    fn allocation_never_overlaps_and_never_leaves_ram() {
        let mut ram = board(GIB + 0x3000, 64 * MIB);
        ram.reserve(PhysAddr(GIB + 20 * MIB), 0x5000).unwrap();
        let mut taken: Vec<(u64, u64)> = Vec::new();
        for step in 0..if cfg!(miri) { 160 } else { 400_u64 } {
            let size = (step % 7 + 1) * 0x9000;
            let Some(start) = ram.allocate(size, 0x1000 << (step % 4)) else { continue };
            assert_eq!(start.0 % (0x1000 << (step % 4)), 0);
            assert!(start.0 >= GIB + 0x3000 && start.0 + size <= GIB + 0x3000 + 64 * MIB);
            assert!(start.0 + size <= GIB + 20 * MIB || start.0 >= GIB + 20 * MIB + 0x5000);
            assert!(taken.iter().all(|(other, length)| start.0 + size <= *other || other + length <= start.0));
            taken.push((start.0, size));
        }
        assert!(taken.len() > 100, "only {} were taken", taken.len());
    }

    #[test]
    fn nonsense_is_answered_with_nothing() {
        let mut ram = board(GIB, GIB);
        for (size, align) in [(0, 4096), (4096, 0), (4096, 3), (GIB + 1, 1), (u64::MAX, 1), (4096, 1 << 63)] {
            assert_eq!(ram.allocate(size, align), None);
        }
        assert_eq!(ram.total_free(), GIB);
    }

    #[test]
    fn too_many_holes_are_refused_and_change_nothing() {
        let mut ram = board(0, GIB);
        for hole in 1..RANGES_MAX as u64 {
            ram.reserve(PhysAddr(hole * MIB), 4096).unwrap();
        }
        let before = ranges(&ram);
        assert_eq!(before.len(), RANGES_MAX);
        assert_eq!(ram.reserve(PhysAddr(500 * MIB), 4096), Err(RamError::TooManyRanges));
        assert_eq!(ram.add(PhysAddr(2 * GIB), MIB), Err(RamError::TooManyRanges));
        assert_eq!(ranges(&ram), before);
        // What needs no further range still works.
        ram.add(PhysAddr(GIB), MIB).unwrap();
        assert_eq!(ram.allocate(MIB, 4096), Some(PhysAddr(GIB)));
    }

    #[test]
    fn what_is_taken_early_comes_from_the_lowest_place_where_it_fits() {
        let mut ram = RamMap::new();
        ram.add(PhysAddr(0x1000), 0x2000).unwrap();
        ram.add(PhysAddr(0x4_0000), 0x4_0000).unwrap();
        assert_eq!(ram.allocate_lowest(0x1000, 0x1000), Some(PhysAddr(0x1000)));
        assert_eq!(ram.allocate_lowest(0x3000, 0x2000), Some(PhysAddr(0x4_0000)));
        assert_eq!(ram.allocate_lowest(0x1000, 0x1_0000), Some(PhysAddr(0x5_0000)));
        assert_eq!(ram.allocate_lowest(0x1000, 0x1000), Some(PhysAddr(0x2000)));
        for (size, align) in [(0x4_0000, 1), (0, 1), (0x1000, 3), (u64::MAX, 1), (1, 1 << 63)] {
            assert_eq!(ram.allocate_lowest(size, align), None, "{size:#x} at {align:#x}");
        }
    }
}
