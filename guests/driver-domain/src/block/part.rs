//! Which part of a disk a client has.

use core::fmt;
use rt::machine::Region;

/// Which part of a disk a client has.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// All of it.
    Whole,
    /// A partition by its name.
    Partition(&'static str),
    /// Bytes.
    Range(Region),
}

impl fmt::Display for Part {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => formatter.write_str("all of it"),
            Self::Partition(name) => write!(formatter, "partition {name:?}"),
            Self::Range(Region { start, size }) => write!(formatter, "{size} bytes from {start}"),
        }
    }
}
