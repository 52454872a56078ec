//! The part of a disk that one client has.
//!
//! Whatever a client asks for, the sectors that reach the disk are within its slice: [`Slice::locate`] is the only way
//! from a client's sector to a disk's.

/// Bytes of a sector, the unit in which virtio counts (VIRTIO 1.2, 5.2.4).
pub const SECTOR_SIZE: u64 = 512;

/// What is done to sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// They stay as they are.
    Read,
    /// They change.
    Write,
}

/// A run of a disk's sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    first: u64,
    sectors: u64,
    read_only: bool,
}

impl Slice {
    /// `sectors` sectors from `first` on, of a disk of `disk_sectors`; `None` where the disk does not have them.
    #[must_use]
    pub const fn new(disk_sectors: u64, first: u64, sectors: u64) -> Option<Self> {
        match first.checked_add(sectors) {
            Some(end) if end <= disk_sectors => Some(Self { first, sectors, read_only: false }),
            _ => None,
        }
    }

    /// `size` bytes from byte `start` of a disk of `disk_sectors` sectors; `None` where the disk does not have them, or
    /// they are not whole sectors.
    #[must_use]
    pub const fn of_bytes(disk_sectors: u64, start: u64, size: u64) -> Option<Self> {
        if start.is_multiple_of(SECTOR_SIZE) && size.is_multiple_of(SECTOR_SIZE) {
            return Self::new(disk_sectors, start / SECTOR_SIZE, size / SECTOR_SIZE);
        }
        None
    }

    /// The same slice, for reading alone.
    #[must_use]
    pub const fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// Whether it takes no writes.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Its size in sectors.
    #[must_use]
    pub const fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Its first sector, counted on the disk.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// Where on the disk the client's `bytes` bytes from `sector` on are. `None` where any of them is outside the
    /// slice, where they are not whole sectors or none at all, and for a write to what is read-only.
    #[inline]
    #[must_use]
    pub const fn locate(&self, sector: u64, bytes: u64, access: Access) -> Option<u64> {
        if bytes == 0 || !bytes.is_multiple_of(SECTOR_SIZE) || (self.read_only && matches!(access, Access::Write)) {
            return None;
        }
        match sector.checked_add(bytes / SECTOR_SIZE) {
            Some(end) if end <= self.sectors => self.first.checked_add(sector),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice() -> Slice {
        Slice::new(1000, 100, 50).unwrap()
    }

    #[test]
    fn a_clients_sectors_are_counted_from_the_start_of_its_slice() {
        assert_eq!(slice().locate(0, 512, Access::Read), Some(100));
        assert_eq!(slice().locate(49, 512, Access::Write), Some(149));
        assert_eq!(slice().locate(0, 50 * 512, Access::Write), Some(100));
    }

    #[test]
    fn no_request_leaves_the_slice() {
        for (sector, bytes) in
            [(50, 512), (49, 1024), (u64::MAX, 512), (u64::MAX, 1024), (0, 51 * 512), (u64::MAX - 99, 512)]
        {
            assert_eq!(slice().locate(sector, bytes, Access::Read), None, "{sector} + {bytes}");
        }
        assert_eq!(slice().locate(1, u64::MAX / 512 * 512, Access::Read), None);
    }

    #[test]
    fn only_whole_sectors_are_moved() {
        for bytes in [0, 1, 511, 513] {
            assert_eq!(slice().locate(0, bytes, Access::Read), None);
        }
    }

    #[test]
    fn what_is_read_only_takes_no_writes() {
        assert_eq!(slice().read_only().locate(0, 512, Access::Write), None);
        assert_eq!(slice().read_only().locate(0, 512, Access::Read), Some(100));
    }

    #[test]
    fn a_slice_lies_within_its_disk() {
        assert_eq!(Slice::new(1000, 990, 11), None);
        assert_eq!(Slice::new(1000, u64::MAX, 2), None);
        assert_eq!(Slice::of_bytes(1000, 512, 100), None);
        assert_eq!(Slice::of_bytes(1000, 100, 512), None);
        assert_eq!(Slice::of_bytes(1000, 51_200, 25_600), Some(slice()));
    }
}
