//! Where the buffers of chains are written down: those of a short one in a place of its own, those of a long one in a
//! room that all chains of a device share. Alone, the longest chain has room; several have to wait for one another.
//!
//! Nothing here knows what of the room is taken: what the chains that are kept have ([`Units`]). So none can be lost.

use crate::virtqueue::{SEGMENTS_MAX, Segment};
use alloc::boxed::Box;

/// So many buffers of a chain need none of the shared room. A request of one page has three.
pub const OWN_SEGMENTS: usize = 4;
/// The shared room is taken in units of so many segments: as many as one step of the walk along a chain finds.
const UNIT: usize = 8;
/// The units that there are.
pub const UNITS: u8 = (SEGMENTS_MAX / UNIT) as u8;
const _: () = assert!(UNITS as u32 == u32::BITS, "a set of units is a word");

/// The room that the chains of a device share.
pub type SharedRoom = Box<[Segment; SEGMENTS_MAX]>;

/// Where the buffers of one chain are.
pub struct Room {
    own: Box<[Segment; OWN_SEGMENTS]>,
    /// The units of the shared room that it has instead, if it has any.
    first: u8,
    count: u8,
}

/// Units of the shared room that are free, a bit each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Units(u32);

impl Units {
    /// All that there are.
    pub const ALL: Self = Self(u32::MAX);

    /// Those that `room` has not.
    #[must_use]
    pub const fn without(self, room: &Room) -> Self {
        let taken = if room.count == UNITS { u32::MAX } else { !u32::MAX.wrapping_shl(room.count as u32) };
        Self(self.0 & !taken.wrapping_shl(room.first as u32))
    }

    /// The longest run of them: its first, and how many there are.
    #[must_use]
    pub fn longest(self) -> (u8, u8) {
        let (mut longest, mut first) = ((0, 0), 0);
        while first < UNITS {
            let count = self.0.wrapping_shr(first.into()).trailing_ones() as u8;
            if count > longest.1 {
                longest = (first, count);
            }
            first = first.wrapping_add(count).wrapping_add(1);
        }
        longest
    }
}

impl Room {
    /// A room for few buffers.
    pub(crate) fn new() -> Self {
        Self { own: Box::new([Segment::EMPTY; OWN_SEGMENTS]), first: 0, count: 0 }
    }

    /// Its own segments, without any of the shared room.
    #[inline]
    pub fn own(&mut self) -> &mut [Segment; OWN_SEGMENTS] {
        self.count = 0;
        &mut self.own
    }

    /// How many units of the shared room it has.
    pub const fn units(&self) -> u8 {
        self.count
    }

    /// Takes one more of the units that are `free`: the next one, or, where it has none, the first of the longest run,
    /// if that has more than `least`. So no chain would find more elsewhere. Returns whether there is one. The longest
    /// room stays as it is.
    pub fn lengthen(&mut self, shared: &mut SharedRoom, free: Units, least: u8) -> bool {
        if self.count == UNITS {
            return true;
        }
        if self.count == 0 {
            let (first, count) = free.longest();
            if count <= least {
                return false;
            }
            self.first = first;
        }
        let next = self.first.wrapping_add(self.count);
        if next >= UNITS || free.0.wrapping_shr(next.into()) & 1 == 0 {
            return false;
        }
        self.count = self.count.wrapping_add(1);
        if self.count == 1
            && let Some(segments) = self.shared_segments_mut(shared).get_mut(..OWN_SEGMENTS)
        {
            segments.copy_from_slice(&*self.own);
        }
        true
    }

    /// Its segments.
    #[inline]
    pub fn segments<'a>(&'a self, shared: &'a SharedRoom) -> &'a [Segment] {
        if self.count == 0 { &*self.own } else { self.shared_segments(shared) }
    }

    #[cold]
    #[inline(never)]
    fn shared_segments<'a>(&self, shared: &'a SharedRoom) -> &'a [Segment] {
        shared.get(self.range()).unwrap_or_default()
    }

    /// Its segments, to be written.
    #[inline]
    pub fn segments_mut<'a>(&'a mut self, shared: &'a mut SharedRoom) -> &'a mut [Segment] {
        if self.count == 0 { &mut *self.own } else { self.shared_segments_mut(shared) }
    }

    #[cold]
    #[inline(never)]
    fn shared_segments_mut<'a>(&self, shared: &'a mut SharedRoom) -> &'a mut [Segment] {
        shared.get_mut(self.range()).unwrap_or_default()
    }

    fn range(&self) -> core::ops::Range<usize> {
        let start = usize::from(self.first).wrapping_mul(UNIT);
        start..start.wrapping_add(usize::from(self.count).wrapping_mul(UNIT))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// Lengthens `room` as long as there are units beside those of `others`. Returns how many it has then.
    fn fill(room: &mut Room, shared: &mut SharedRoom, others: &[&Room]) -> u8 {
        let free = others.iter().fold(Units::ALL, |free, other| free.without(other));
        while room.units() < UNITS && room.lengthen(shared, free, 0) {}
        room.units()
    }

    fn room(first: u8, count: u8) -> Room {
        Room { first, count, ..Room::new() }
    }

    #[test]
    fn alone_a_room_becomes_as_long_as_the_longest_chain_and_keeps_what_is_in_it() {
        let mut shared: SharedRoom = Box::new([Segment::EMPTY; SEGMENTS_MAX]);
        let mut room = Room::new();
        for length in 0.. {
            let segments = room.segments_mut(&mut shared);
            let Some(last) = segments.len().checked_sub(1) else { panic!("there is always some") };
            assert_eq!(segments[..last.min(OWN_SEGMENTS - 1)].iter().map(|segment| segment.length).max(), Some(length));
            segments[0].length = length + 1;
            segments[1].length = length + 1;
            if segments.len() == SEGMENTS_MAX {
                break;
            }
            assert!(room.lengthen(&mut shared, Units::ALL, 0));
        }
        assert!(room.lengthen(&mut shared, Units(0), 0), "there is no longer one");
        assert_eq!((room.segments(&shared).len(), Units::ALL.without(&room)), (SEGMENTS_MAX, Units(0)));
        assert_eq!(room.own().len(), OWN_SEGMENTS);
        assert_eq!(room.segments(&shared).len(), OWN_SEGMENTS);
    }

    #[test]
    fn a_room_is_where_the_longest_hole_is_and_none_overlaps_another() {
        let mut shared: SharedRoom = Box::new([Segment::EMPTY; SEGMENTS_MAX]);
        let others = [room(3, 1), room(10, 2), room(31, 1)];
        let others: Vec<_> = others.iter().collect();
        let mut long = Room::new();
        assert_eq!(fill(&mut long, &mut shared, &others), 19);
        assert_eq!(long.first, 12);
        let mut next = Room::new();
        assert_eq!(fill(&mut next, &mut shared, &[&others[..], &[&long]].concat()), 6);
        assert_eq!(next.first, 4);
        assert!(!next.lengthen(&mut shared, Units(0), 0));
    }

    #[test]
    fn the_longest_run_of_units_is_found() {
        for (free, longest) in
            [(0, (0, 0)), (u32::MAX, (0, 32)), (1, (0, 1)), (1 << 31, (31, 1)), (0xf0f3, (4, 4)), (0xff00_00ff, (0, 8))]
        {
            assert_eq!(Units(free).longest(), longest, "{free:#x}");
        }
    }
}
