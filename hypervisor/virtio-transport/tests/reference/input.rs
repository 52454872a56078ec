//! Bytes that somebody, or chance, has written.

use super::{BUFFERS, END, TABLE};
use vdev::testkit::MEMORY_BASE;

/// What is left of the input. Where it ends, zeroes follow.
pub struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    /// A small step, forward or back.
    pub fn signed(&mut self) -> u16 {
        i16::from(self.byte().cast_signed()).cast_unsigned()
    }

    /// A buffer, more often a good one than not.
    pub fn buffer(&mut self) -> (u64, u32) {
        let (place, length) = (self.byte(), self.byte());
        let address = match place % 16 {
            0..=11 => BUFFERS + 16 * u64::from(place),
            12 => END - 8,
            13 => u64::MAX - 15,
            14 => MEMORY_BASE.0,
            _ => 0x0800_0000,
        };
        let length = match length % 16 {
            0 => 0,
            1 => u32::MAX,
            2 => 1 << 31,
            _ => u32::from(length),
        };
        (address, length)
    }

    /// The flags of a descriptor: the three that mean something, and sometimes others.
    pub fn flags(&mut self) -> u16 {
        let byte = u16::from(self.byte());
        if byte & 0x80 == 0 { byte & 7 } else { byte << 3 | byte & 7 }
    }

    /// A table of indirect descriptors: place and length.
    pub fn table(&mut self) -> (u64, u32) {
        let (place, length) = (self.byte(), u32::from(self.byte()));
        let address = match place % 8 {
            0..=3 => TABLE,
            4 => TABLE + u64::from(place),
            5 => END - 20,
            6 => u64::MAX - 15,
            _ => 0x0800_0000,
        };
        let length = match length % 8 {
            0..=4 => 16 * length,
            5 => length,
            6 => 0xffff_fff0,
            _ => 16 << (length / 8),
        };
        (address, length)
    }
}
