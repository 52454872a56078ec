//! Which device answers at this address: the register windows of one virtual machine.
//!
//! Windows are fixed when a machine is built and looked up at every trapped access. What this module leaves out: the
//! devices themselves, and the alignment of an access within a window, which its register model judges.

use crate::{GuestAddr, Width};
use arrayvec::ArrayVec;

/// Why a window could not be inserted. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InsertError {
    /// The window overlaps the window of device `id`.
    Overlap {
        /// The device whose window is in the way.
        id: u16,
    },
    /// The window is empty, or ends above the address space.
    BadRange,
    /// The bus holds as many windows as it can.
    Full,
}

impl core::fmt::Display for InsertError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Overlap { id } => write!(formatter, "the window overlaps the window of device {id}"),
            Self::BadRange => formatter.write_str("the window is empty, or ends above the address space"),
            Self::Full => formatter.write_str("the machine has more device windows than it can hold"),
        }
    }
}

/// A device's registers, `start..=last`.
#[derive(Clone, Copy, Debug)]
struct Window {
    start: u64,
    last: u64,
    id: u16,
}

/// The window that an access found last: the next one is likely to be for it too.
#[derive(Clone, Copy, Debug)]
pub struct Recent(Window);

impl Recent {
    /// No window.
    #[must_use]
    pub const fn none() -> Self {
        Self(Window { start: u64::MAX, last: 0, id: 0 })
    }

    /// The device and the offset into its window, if `address` is in that window. As for [`Bus::find_again`], the
    /// caller has checked that the access is aligned.
    #[inline(always)]
    #[must_use]
    pub const fn find(&self, address: GuestAddr) -> Option<(u16, u64)> {
        let Self(window) = self;
        if address.0 < window.start || address.0 > window.last {
            return None;
        }
        Some((window.id, address.0.wrapping_sub(window.start)))
    }
}

/// The device windows of a virtual machine, at most `N`.
#[derive(Clone, Debug, Default)]
pub struct Bus<const N: usize> {
    /// In ascending order, disjoint.
    windows: ArrayVec<Window, N>,
}

impl<const N: usize> Bus<N> {
    /// No windows.
    #[must_use]
    pub const fn new() -> Self {
        Self { windows: ArrayVec::new_const() }
    }

    /// Gives device `id` the `size` bytes at `start`. A device may have several windows.
    ///
    /// # Errors
    /// [`InsertError`].
    pub fn insert(&mut self, start: GuestAddr, size: u64, id: u16) -> Result<(), InsertError> {
        let length = size.checked_sub(1).ok_or(InsertError::BadRange)?;
        let last = start.0.checked_add(length).ok_or(InsertError::BadRange)?;
        if let Some(other) = self.windows.iter().find(|other| start.0 <= other.last && other.start <= last) {
            return Err(InsertError::Overlap { id: other.id });
        }
        let place = self.windows.partition_point(|other| other.start < start.0);
        self.windows.try_insert(place, Window { start: start.0, last, id }).map_err(|_| InsertError::Full)
    }

    /// The device at `address` and the offset into its window, looked for in `recent` first, which then holds the
    /// window.
    ///
    /// The caller has checked that the access is aligned to its width: since windows start and end at pages, one whose
    /// first byte is inside is wholly inside.
    #[inline(always)]
    #[must_use]
    pub fn find_again(&self, recent: &mut Recent, address: GuestAddr) -> Option<(u16, u64)> {
        if let Some(found) = recent.find(address) {
            return Some(found);
        }
        *recent = Recent(self.window_at(address)?);
        recent.find(address)
    }

    #[inline(never)]
    fn window_at(&self, address: GuestAddr) -> Option<Window> {
        let following = self.windows.partition_point(|window| window.start <= address.0);
        self.windows.get(following.checked_sub(1)?).filter(|window| address.0 <= window.last).copied()
    }

    /// The device that answers all bytes of an access, and the offset into the window.
    ///
    /// An access that is only partly inside a window is nobody's. One that is wholly inside need not be aligned: the
    /// caller, who knows the device's rules, refuses what is not.
    #[inline]
    #[must_use]
    pub fn find(&self, address: GuestAddr, width: Width) -> Option<(u16, u64)> {
        let following = self.windows.partition_point(|window| window.start <= address.0);
        let window = self.windows.get(following.checked_sub(1)?)?;
        let last = address.0.checked_add(width.bytes().wrapping_sub(1))?;
        (last <= window.last).then(|| (window.id, address.0.wrapping_sub(window.start)))
    }
}

#[cfg(test)]
mod tests {
    use super::{Bus, InsertError, Recent};
    use crate::{GuestAddr, Width};

    fn machine() -> Bus<4> {
        let mut bus = Bus::new();
        // Inserted out of order, as a manifest may list them.
        bus.insert(GuestAddr(0x0a00_0000), 0x1000, 3).unwrap();
        bus.insert(GuestAddr(0x0800_0000), 0x1_0000, 1).unwrap();
        bus.insert(GuestAddr(0x0900_0000), 0x1000, 2).unwrap();
        bus
    }

    #[test]
    fn recent_window_changes_nothing_but_the_way_to_it() {
        let bus = machine();
        let mut recent = Recent::none();
        for address in [0x0900_0018, 0x0900_0fff, 0x0900_1000, 0x0a00_0000, 0, 0x0800_ffff, u64::MAX, 0x0900_0000] {
            let address = GuestAddr(address);
            let found = bus.find(address, Width::Byte);
            assert!(recent.find(address).is_none_or(|again| Some(again) == found), "{address:#x}");
            assert_eq!(bus.find_again(&mut recent, address), bus.find(address, Width::Byte), "{address:#x}");
        }
    }

    #[test]
    fn access_finds_its_device_and_offset() {
        let bus = machine();
        assert_eq!(bus.find(GuestAddr(0x0800_0000), Width::Word), Some((1, 0)));
        assert_eq!(bus.find(GuestAddr(0x0800_fff8), Width::DoubleWord), Some((1, 0xfff8)));
        assert_eq!(bus.find(GuestAddr(0x0900_0018), Width::HalfWord), Some((2, 0x18)));
        assert_eq!(bus.find(GuestAddr(0x0a00_0fff), Width::Byte), Some((3, 0xfff)));
    }

    #[test]
    fn access_to_nothing_finds_nothing() {
        let bus = machine();
        for address in [0, 0x07ff_ffff, 0x0801_0000, 0x0900_1000, 0x0a00_1000, u64::MAX] {
            assert_eq!(bus.find(GuestAddr(address), Width::Byte), None, "{address:#x}");
        }
        assert_eq!(Bus::<4>::new().find(GuestAddr(0), Width::Byte), None);
    }

    #[test]
    fn access_across_the_edge_of_a_window_is_nobodys() {
        let mut bus = machine();
        assert_eq!(bus.find(GuestAddr(0x0900_0ffd), Width::Word), None);
        assert_eq!(bus.find(GuestAddr(0x08ff_ffff), Width::HalfWord), None);
        // Even when the next byte belongs to another device.
        bus.insert(GuestAddr(0x0900_1000), 0x1000, 4).unwrap();
        assert_eq!(bus.find(GuestAddr(0x0900_0fff), Width::HalfWord), None);
    }

    #[test]
    fn window_at_the_very_top_is_usable_and_an_access_past_it_is_not() {
        let mut bus = Bus::<1>::new();
        bus.insert(GuestAddr(u64::MAX - 0xfff), 0x1000, 9).unwrap();
        assert_eq!(bus.find(GuestAddr(u64::MAX), Width::Byte), Some((9, 0xfff)));
        assert_eq!(bus.find(GuestAddr(u64::MAX), Width::HalfWord), None);
    }

    #[test]
    fn overlap_is_refused_and_names_who_is_there() {
        let mut bus = machine();
        for (start, size) in [(0x0900_0000, 1), (0x08ff_f000, 0x1001), (0x0900_0fff, 1), (0x0900_0100, 0x10)] {
            assert_eq!(bus.insert(GuestAddr(start), size, 7), Err(InsertError::Overlap { id: 2 }), "{start:#x}");
        }
        assert_eq!(bus.insert(GuestAddr(0), u64::MAX, 7), Err(InsertError::Overlap { id: 1 }));
        bus.insert(GuestAddr(0x08ff_f000), 0x1000, 7).unwrap();
    }

    #[test]
    fn empty_wrapping_and_surplus_windows_are_refused() {
        let mut bus = machine();
        assert_eq!(bus.insert(GuestAddr(0), 0, 7), Err(InsertError::BadRange));
        assert_eq!(bus.insert(GuestAddr(u64::MAX), 2, 7), Err(InsertError::BadRange));
        bus.insert(GuestAddr(0), 1, 7).unwrap();
        assert_eq!(bus.insert(GuestAddr(0x10), 1, 8), Err(InsertError::Full));
    }
}
