//! The entries of the rings: what they say, and the words that say it. Both sides encode and decode here.

use super::{HEADER_SIZE_MAX, TAIL_SIZE_MAX, WINDOW_PAGE_SIZE, pair};

/// An entry of the request ring: a chain of the frontend, or a piece of one.
///
/// The bytes of a chain that the device may read are a header, which travels in the entry, and data; those that it may
/// write are data and a tail, which travels in the completion. How long header and tail are is the queue's
/// [`QueueDescription`](super::QueueDescription). A chain has pieces where its data is longer than a request may be;
/// they come one after the other, each when the one before it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Names the request; the completion repeats it.
    pub sequence: u64,
    /// The session in which the frontend's driver made it.
    pub session: u32,
    /// The generation of the backend that the request was posted to; the completion repeats it.
    pub generation: u32,
    /// The queue.
    pub queue: u16,
    /// No further piece of the chain follows.
    pub is_last: bool,
    /// 0: the data is in the window. Otherwise so many [`Segment`]s are there, behind an empty entry, at most
    /// [`SEGMENTS_MAX`], which have the data's length together.
    pub segments: u16,
    /// Bytes of data that the frontend gives: at `offset`, or in the segments.
    pub readable: u32,
    /// Bytes of room for data that the frontend has: at `offset`, behind what it gives and aligned to
    /// [`Request::ALIGNMENT`], or in the segments.
    pub writable: u32,
    /// Where the data is, or the list of segments: bytes from the start of the channel; within the request window.
    pub offset: u32,
    /// How many bytes of the chain's data lie before this piece.
    pub position: u64,
    /// The header; what a queue's header does not have of it is zero.
    pub header: [u8; HEADER_SIZE_MAX],
}

impl Request {
    /// Room for data that is to come starts at a multiple of this, counted from `offset`.
    pub const ALIGNMENT: u32 = 64;

    /// Where the room for data that is to come starts, in bytes from `offset`.
    #[must_use]
    #[inline]
    pub const fn writable_offset(readable: u32) -> u32 {
        match readable.checked_next_multiple_of(Self::ALIGNMENT) {
            Some(offset) => offset,
            None => u32::MAX,
        }
    }

    /// The words of the entry.
    #[must_use]
    #[inline]
    pub const fn to_words(&self) -> [[u64; 2]; 4] {
        let header = u128::from_le_bytes(self.header);
        let flags = self.is_last as u64;
        [
            [self.sequence, pair(self.session, self.generation)],
            [self.queue as u64 | flags << 16 | (self.segments as u64) << 32, pair(self.readable, self.writable)],
            [self.offset as u64, self.position],
            [header as u64, (header >> 64) as u64],
        ]
    }

    /// The entry that these words say.
    #[must_use]
    #[inline]
    pub const fn from_words(words: [[u64; 2]; 4]) -> Self {
        let [[sequence, numbers], [place, lengths], [offset, position], [low, high]] = words;
        Self {
            sequence,
            session: numbers as u32,
            generation: (numbers >> 32) as u32,
            queue: place as u16,
            is_last: place >> 16 & 1 != 0,
            segments: (place >> 32) as u16,
            readable: lengths as u32,
            writable: (lengths >> 32) as u32,
            offset: offset as u32,
            position,
            header: (low as u128 | (high as u128) << 64).to_le_bytes(),
        }
    }
}

/// An entry of the completion ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The request's sequence number.
    pub sequence: u64,
    /// The request's generation.
    pub generation: u32,
    /// Bytes of data that were put into the request's room, at most as many as it has.
    pub written: u32,
    /// The chain ends with this piece, whatever is left of it.
    pub is_end: bool,
    /// The chain's tail, if it ends with this piece.
    pub tail: [u8; TAIL_SIZE_MAX],
}

impl Completion {
    /// The words of the entry.
    #[must_use]
    #[inline]
    pub const fn to_words(&self) -> [u64; 4] {
        let tail = u64::from_le_bytes(self.tail);
        [self.sequence, pair(self.generation, self.written), self.is_end as u64, tail]
    }

    /// The entry that these words say.
    #[must_use]
    #[inline]
    pub const fn from_words(words: [u64; 4]) -> Self {
        let [sequence, numbers, flags, tail] = words;
        Self {
            sequence,
            generation: numbers as u32,
            written: (numbers >> 32) as u32,
            is_end: flags & 1 != 0,
            tail: tail.to_le_bytes(),
        }
    }
}

/// An entry of a receive ring: something for the frontend that it did not ask for. The data begins with the device's
/// own header, if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receive {
    /// The session that it is for.
    pub session: u32,
    /// Where it starts, in bytes from the start of the queue's receive window.
    pub offset: u32,
    /// Its bytes; all of them lie in the window.
    pub length: u32,
}

impl Receive {
    /// The words of the entry.
    #[must_use]
    #[inline]
    pub const fn to_words(&self) -> [u64; 4] {
        [pair(self.session, self.offset), self.length as u64, 0, 0]
    }

    /// The entry that the first two of its words say; the others are zero.
    #[must_use]
    #[inline]
    pub const fn from_words(words: [u64; 2]) -> Self {
        let [place, length] = words;
        Self { session: place as u32, offset: (place >> 32) as u32, length: length as u32 }
    }
}

/// A piece of memory that is granted to the device that serves a request, and to nobody else: a descriptor as a table
/// of virtio has them (VIRTIO 1.2, 2.7.5), so that a list of them goes to a virtio disk as it is. The backend puts its
/// header in front of the list and its status behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Where the device finds it: a bus address that EL2 chose.
    pub address: u64,
    /// Its length in bytes; not 0.
    pub length: u32,
    /// [`SEGMENT_NEXT`], and where the device writes [`SEGMENT_WRITE`].
    pub flags: u16,
    /// The index of the next entry, counted from the entry in front.
    pub next: u16,
}

/// A flag of [`Segment`]: the list goes on.
pub const SEGMENT_NEXT: u16 = 1 << 0;
/// A flag of [`Segment`]: the device writes to the memory.
pub const SEGMENT_WRITE: u16 = 1 << 1;
/// The size of a [`Segment`] in bytes.
pub const SEGMENT_SIZE: u64 = 16;
/// The entries of a list that are the backend's: one in front, one behind.
pub const SEGMENTS_AROUND: u16 = 2;
/// The most segments of one request: a page of the window holds them, with an entry in front and one behind.
pub const SEGMENTS_MAX: u16 = (WINDOW_PAGE_SIZE / SEGMENT_SIZE) as u16 - SEGMENTS_AROUND;

const _: () = assert!(size_of::<Segment>() as u64 == SEGMENT_SIZE);

#[cfg(test)]
mod tests {
    use super::super::{COMPLETION_SIZE, RECEIVE_SIZE, REQUEST_SIZE};
    use super::*;

    #[test]
    fn a_request_reads_back_as_it_was_written() {
        let request = Request {
            sequence: 0x0102_0304_0506_0708,
            session: 9,
            generation: 10,
            queue: 11,
            is_last: true,
            segments: 12,
            readable: 13,
            writable: 14,
            offset: 15,
            position: 16 << 40,
            header: core::array::from_fn(|index| index as u8 + 17),
        };
        let words = request.to_words();
        assert_eq!(size_of_val(&words) as u64, REQUEST_SIZE);
        assert_eq!(Request::from_words(words), request);
        let whole = Request { is_last: false, ..request };
        assert_eq!(Request::from_words(whole.to_words()), whole);
    }

    #[test]
    fn a_completion_reads_back_as_it_was_written() {
        let completion =
            Completion { sequence: 1 << 60, generation: 2, written: u32::MAX, is_end: true, tail: *b"12345678" };
        let words = completion.to_words();
        assert_eq!(size_of_val(&words) as u64, COMPLETION_SIZE);
        assert_eq!(Completion::from_words(words), completion);
        let middle = Completion { is_end: false, ..completion };
        assert_eq!(Completion::from_words(middle.to_words()), middle);
    }

    #[test]
    fn a_reception_reads_back_as_it_was_written() {
        let receive = Receive { session: 3, offset: 4096, length: 1526 };
        let words = receive.to_words();
        assert_eq!(size_of_val(&words) as u64, RECEIVE_SIZE);
        assert_eq!(Receive::from_words([words[0], words[1]]), receive);
    }

    #[test]
    fn room_starts_behind_what_is_given() {
        for (readable, offset) in [(0, 0), (1, 64), (64, 64), (65, 128), (u32::MAX, u32::MAX)] {
            assert_eq!(Request::writable_offset(readable), offset, "{readable}");
        }
    }
}
