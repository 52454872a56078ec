//! A range of addresses, with arithmetic that cannot overflow.

use core::fmt;

/// A range of addresses: base and size. Nothing is promised about either; the questions below are safe to ask of any.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first address.
    pub base: u64,
    /// The size in bytes.
    pub size: u64,
}

impl Span {
    /// The range of `size` bytes that starts at `base`.
    #[must_use]
    pub const fn new(base: u64, size: u64) -> Self {
        Self { base, size }
    }

    /// The first address after the range, or `None` where that is beyond 64 bits.
    #[must_use]
    pub const fn end(self) -> Option<u64> {
        self.base.checked_add(self.size)
    }

    /// Whether the two ranges have a byte in common. A range that wraps counts as reaching the end of the address
    /// space.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.size != 0 && other.size != 0 && self.base <= other.last() && other.base <= self.last()
    }

    /// Whether every byte of `inner` lies in this range. An empty `inner` lies inside if its address does; a range that
    /// wraps lies nowhere.
    #[must_use]
    pub const fn contains(self, inner: Self) -> bool {
        match (self.end(), inner.end()) {
            (Some(end), Some(inner_end)) => self.base <= inner.base && inner.base < end && inner_end <= end,
            (None, _) | (_, None) => false,
        }
    }

    const fn last(self) -> u64 {
        self.base.saturating_add(self.size.saturating_sub(1))
    }
}

/// As `0x4000_0000–0x4fff_ffff`: first and last address, which is how memory maps are written.
impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}–{}", Address(self.base), Address(self.last()))
    }
}

/// Shows an address as it is written in a manual: eight digits at least, in groups of four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address(pub u64);

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (high, middle, low) = (self.0 >> 32, (self.0 >> 16) & 0xffff, self.0 & 0xffff);
        if high == 0 {
            write!(formatter, "0x{middle:04x}_{low:04x}")
        } else {
            write!(formatter, "0x{high:x}_{middle:04x}_{low:04x}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn neighbours_do_not_overlap() {
        let low = Span::new(0x1000, 0x1000);
        assert!(!low.overlaps(Span::new(0x2000, 0x1000)));
        assert!(!Span::new(0x2000, 0x1000).overlaps(low));
        assert!(low.overlaps(Span::new(0x1fff, 1)));
        assert!(low.overlaps(Span::new(0, u64::MAX)));
    }

    #[test]
    fn an_empty_range_overlaps_nothing() {
        assert!(!Span::new(0x1000, 0).overlaps(Span::new(0, u64::MAX)));
    }

    #[test]
    fn a_range_that_wraps_overlaps_what_is_above_it_and_lies_nowhere() {
        let wrapping = Span::new(u64::MAX - 1, 16);
        assert!(wrapping.overlaps(Span::new(u64::MAX, 1)));
        assert!(!Span::new(0, u64::MAX).contains(wrapping));
    }

    #[test]
    fn the_last_byte_is_inside_and_the_next_is_not() {
        let ram = Span::new(0x4000_0000, 0x20_0000);
        assert!(ram.contains(Span::new(0x401f_ffff, 1)));
        assert!(!ram.contains(Span::new(0x401f_ffff, 2)));
        assert!(!ram.contains(Span::new(0x4020_0000, 0)));
        assert!(!ram.contains(Span::new(0x3fff_ffff, 1)));
    }

    #[test]
    fn it_is_written_as_manuals_write_it() {
        assert_eq!(Span::new(0x0900_0000, 0x1000).to_string(), "0x0900_0000–0x0900_0fff");
        assert_eq!(Span::new(0x40_1000_0000, 0x1000).to_string(), "0x40_1000_0000–0x40_1000_0fff");
    }
}
