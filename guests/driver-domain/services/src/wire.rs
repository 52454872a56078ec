//! Ring entries of [`abi::io`] as the words that are loaded and stored.

use abi::io::{Completion, Receive, Request};

/// The request in four little-endian words.
#[inline]
#[must_use]
pub const fn request(words: [u64; 4]) -> Request {
    let [sequence, sector, generation_offset, length_operation] = words;
    Request {
        sequence,
        sector,
        generation: generation_offset as u32,
        offset: (generation_offset >> 32) as u32,
        length: length_operation as u32,
        operation: (length_operation >> 32) as u16,
        segments: (length_operation >> 48) as u16,
    }
}

/// `low` and, above it, `high`.
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// The words of a completion.
#[inline]
#[must_use]
pub const fn completion(completion: &Completion) -> [u64; 4] {
    [completion.sequence, pair(completion.generation, completion.length), completion.status as u64, 0]
}

/// The words of a reception.
#[inline]
#[must_use]
pub const fn receive(receive: &Receive) -> [u64; 4] {
    let checksum = receive.checksum_start as u64 | (receive.checksum_offset as u64) << 16;
    [pair(receive.length, receive.flags), checksum, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    /// The bytes as the other side reads them.
    fn bytes(words: [u64; 4]) -> std::vec::Vec<u8> {
        words.into_iter().flat_map(u64::to_le_bytes).collect()
    }

    #[test]
    fn a_request_is_read_as_it_is_laid_out() {
        let request = request([1, 2, pair(3, 4), 5 | 6 << 32 | 7 << 48]);
        let expected =
            Request { sequence: 1, sector: 2, generation: 3, offset: 4, length: 5, operation: 6, segments: 7 };
        assert_eq!(request, expected);
        assert_eq!((offset_of!(Request, generation), offset_of!(Request, offset)), (16, 20));
        assert_eq!((offset_of!(Request, length), offset_of!(Request, operation)), (24, 28));
    }

    #[test]
    fn a_completion_is_written_as_it_is_laid_out() {
        let entry = Completion { sequence: 0x0102, generation: 3, length: 4, status: 2, reserved: [0; 7] };
        let bytes = bytes(completion(&entry));
        assert_eq!(bytes[offset_of!(Completion, sequence)..][..2], [2, 1]);
        assert_eq!(bytes[offset_of!(Completion, generation)], 3);
        assert_eq!(bytes[offset_of!(Completion, length)], 4);
        assert_eq!(bytes[offset_of!(Completion, status)], 2);
    }

    #[test]
    fn a_reception_is_written_as_it_is_laid_out() {
        let entry = Receive { length: 60, flags: 2, checksum_start: 34, checksum_offset: 16, reserved: [0; 5] };
        let bytes = bytes(receive(&entry));
        assert_eq!(bytes[offset_of!(Receive, length)], 60);
        assert_eq!(bytes[offset_of!(Receive, flags)], 2);
        assert_eq!(bytes[offset_of!(Receive, checksum_start)], 34);
        assert_eq!(bytes[offset_of!(Receive, checksum_offset)], 16);
    }
}
