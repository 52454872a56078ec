//! How a system lies in bytes, field after field, in the order of the lists below.
//!
//! | what | bytes |
//! | --- | --- |
//! | a number | its own size, little-endian |
//! | a list or a text | its length in two bytes, then its elements, of which there are at most [`Record::COUNT_MAX`] |
//! | yes or no | 1 or 0 |
//! | what may be missing | 0; or 1 and then what it is |
//! | one of several | its place among them, from 0, in one byte |
//!
//! Flat code for a reader that runs once: nothing here fails on its own, and whoever has read everything asks
//! [`Reader::end`] whether it was all there.

use alloc::{string::String, vec::Vec};

use crate::{
    ASSIGNED_MAX, Assigned, DEVICES_MAX, Device, LOADS_MAX, Load, MemoryRegion, REGIONS_MAX, SEEDS_MAX, SILENCE_MAX,
    Seed, Service, Store, System, Trigger, VCPUS_MAX, VMS_MAX, Vcpu, Vm, Watch,
};

/// The version of the encoding; it changes with every change to the types.
pub const VERSION: u16 = 7;

/// The longest text, and the longest list of numbers.
pub(crate) const LIST_LENGTH_MAX: usize = 256;

/// What can be written and read.
pub(crate) trait Record: Sized {
    /// The most of them in one list. It bounds what a reader allocates, whatever the lengths claim.
    const COUNT_MAX: usize = LIST_LENGTH_MAX;

    /// Appends its bytes to `out`.
    fn write(&self, out: &mut Vec<u8>);
    /// Reads one. What is missing or cannot be reads as anything: [`Reader::end`] says so.
    fn read(from: &mut Reader<'_>) -> Self;
}

/// Bytes that are read from the front.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    is_sound: bool,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, is_sound: true }
    }

    /// Whether everything that was read was there, and nothing is left.
    pub(crate) fn end(&self) -> bool {
        self.is_sound && self.bytes.is_empty()
    }

    #[inline(never)]
    fn take(&mut self, count: usize) -> &'a [u8] {
        match self.bytes.split_at_checked(count) {
            Some((taken, rest)) => {
                self.bytes = rest;
                taken
            }
            None => {
                self.is_sound = false;
                &[]
            }
        }
    }

    /// A number of `size` bytes.
    #[inline(never)]
    fn number(&mut self, size: usize) -> u64 {
        self.take(size).iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// The length of a list that has no more than `most` elements.
    fn length(&mut self, most: usize) -> usize {
        let length = self.number(2) as usize;
        self.is_sound &= length <= most;
        if self.is_sound { length } else { 0 }
    }

    /// A number of one byte that is below `count`; else 0.
    fn choice(&mut self, count: u64) -> u64 {
        let choice = self.number(1);
        self.is_sound &= choice < count;
        if self.is_sound { choice } else { 0 }
    }
}

fn write_length(length: usize, out: &mut Vec<u8>) {
    // One that is too long is refused when it is read again, which `encode` does.
    let length = u16::try_from(length).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_le_bytes());
}

macro_rules! numbers {
    ($($number:ty)*) => {$(
        impl Record for $number {
            fn write(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }

            fn read(from: &mut Reader<'_>) -> Self {
                // Made of as many bytes as it has.
                from.number(size_of::<Self>()) as Self
            }
        }
    )*};
}

numbers! { u8 u16 u32 u64 }

impl Record for bool {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    fn read(from: &mut Reader<'_>) -> Self {
        from.choice(2) == 1
    }
}

impl Record for Trigger {
    fn write(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::Edge => 0,
            Self::Level => 1,
        });
    }

    fn read(from: &mut Reader<'_>) -> Self {
        if from.choice(2) == 0 { Self::Edge } else { Self::Level }
    }
}

impl<const N: usize> Record for [u8; N] {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn read(from: &mut Reader<'_>) -> Self {
        from.take(N).try_into().unwrap_or([0; N])
    }
}

impl Record for String {
    fn write(&self, out: &mut Vec<u8>) {
        write_length(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }

    #[inline(never)]
    fn read(from: &mut Reader<'_>) -> Self {
        let length = from.length(LIST_LENGTH_MAX);
        let text = core::str::from_utf8(from.take(length));
        from.is_sound &= text.is_ok();
        text.unwrap_or_default().into()
    }
}

impl<T: Record> Record for Option<T> {
    fn write(&self, out: &mut Vec<u8>) {
        self.is_some().write(out);
        if let Some(value) = self {
            value.write(out);
        }
    }

    fn read(from: &mut Reader<'_>) -> Self {
        bool::read(from).then(|| T::read(from))
    }
}

impl<T: Record> Record for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        write_length(self.len(), out);
        for element in self {
            element.write(out);
        }
    }

    fn read(from: &mut Reader<'_>) -> Self {
        let length = from.length(T::COUNT_MAX);
        let mut list = Self::with_capacity(length);
        for _ in 0..length {
            list.push(T::read(from));
            if !from.is_sound {
                break;
            }
        }
        list
    }
}

/// How many there are in one list at most, and the fields of each type, in the order in which they are written. One
/// that is forgotten does not compile.
macro_rules! records {
    ($($record:ident[$most:expr] { $($field:ident)* })*) => {$(
        impl Record for $record {
            const COUNT_MAX: usize = $most;

            fn write(&self, out: &mut Vec<u8>) {
                let Self { $($field),* } = self;
                $($field.write(out);)*
            }

            fn read(from: &mut Reader<'_>) -> Self {
                Self { $($field: Record::read(from)),* }
            }
        }
    )*};
}

records! {
    System[1] { name cores vms }
    Vm[VMS_MAX] { name memory vcpus loads entry device_tree seeds devices assigned doorbell watch }
    MemoryRegion[REGIONS_MAX] { guest size physical }
    Vcpu[VCPUS_MAX] { core }
    Load[LOADS_MAX] { file address }
    Seed[SEEDS_MAX] { address size }
    Device[DEVICES_MAX] { kind address size interrupt service configuration }
    Service[1] { provider channel address size device_id queues filled requests chains }
    Assigned[ASSIGNED_MAX] { name address size instance_size interrupts trigger dma silence }
    Store[SILENCE_MAX] { offset value }
    Watch[1] { heartbeat_ms request_ms startup_ms restart_limit restart_window_ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn read_all<T: Record>(bytes: &[u8]) -> Option<T> {
        let mut reader = Reader::new(bytes);
        let value = T::read(&mut reader);
        reader.end().then_some(value)
    }

    #[test]
    fn a_record_lies_in_bytes_as_the_table_says() {
        let mut bytes = Vec::new();
        MemoryRegion { guest: 0x1122_3344_5566_7788, size: 2, physical: Some(3) }.write(&mut bytes);
        let expected = [[0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11], [2, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(bytes, [&expected[..], &[1, 3, 0, 0, 0, 0, 0, 0, 0]].concat());
        bytes.clear();
        Load { file: "dtb".into(), address: 1 }.write(&mut bytes);
        assert_eq!(bytes, [3, 0, b'd', b't', b'b', 1, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn what_is_cut_short_or_too_long_is_refused() {
        assert_eq!(read_all::<u32>(&[1, 2, 3, 4]), Some(0x0403_0201));
        assert_eq!(read_all::<u32>(&[1, 2, 3]), None);
        assert_eq!(read_all::<u32>(&[1, 2, 3, 4, 5]), None);
        assert_eq!(read_all::<[u8; 6]>(&[1; 5]), None);
        assert_eq!(read_all::<Vec<u16>>(&[2, 0, 1, 0, 2]), None);
    }

    #[test]
    fn a_choice_is_one_that_there_is() {
        assert_eq!(read_all::<Option<u8>>(&[0]), Some(None));
        assert_eq!(read_all::<Option<u8>>(&[1, 7]), Some(Some(7)));
        assert_eq!(read_all::<Option<u8>>(&[2, 7]), None);
        assert_eq!(read_all::<Option<u8>>(&[2]), None);
        assert_eq!(read_all::<Trigger>(&[1]), Some(Trigger::Level));
        assert_eq!(read_all::<Trigger>(&[2]), None);
    }

    #[test]
    fn a_text_is_unicode() {
        assert_eq!(read_all::<String>(&[2, 0, 0xc3, 0xa4]), Some("ä".into()));
        assert_eq!(read_all::<String>(&[1, 0, 0xc3]), None);
    }

    #[test]
    fn a_list_is_no_longer_than_the_longest() {
        let mut bytes = vec![0; 2 + LIST_LENGTH_MAX + 1];
        bytes[..2].copy_from_slice(&(LIST_LENGTH_MAX as u16 + 1).to_le_bytes());
        assert_eq!(read_all::<Vec<u8>>(&bytes), None);
        bytes[..2].copy_from_slice(&(LIST_LENGTH_MAX as u16).to_le_bytes());
        assert_eq!(read_all::<Vec<u8>>(&bytes[..2 + LIST_LENGTH_MAX]), Some(vec![0; LIST_LENGTH_MAX]));
    }

    #[test]
    fn more_of_a_kind_than_there_can_be_are_refused_before_they_are_read() {
        // Nothing follows the length: had it been believed, what is missing would be the fault.
        for (length, is_sound) in [(VMS_MAX, true), (VMS_MAX + 1, false), (LIST_LENGTH_MAX, false)] {
            let bytes = (length as u16).to_le_bytes();
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.length(Vm::COUNT_MAX), if is_sound { length } else { 0 });
            assert_eq!(reader.end(), is_sound);
        }
        let mut bytes = (DEVICES_MAX as u16 + 1).to_le_bytes().to_vec();
        bytes.resize(1 << 12, 0);
        assert_eq!(Vec::<Device>::read(&mut Reader::new(&bytes)).capacity(), 0);
    }
}
