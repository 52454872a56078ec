//! Memory that a device may reach and this program may not: another guest's, granted for one request.
//!
//! `virtio-drivers` names memory by slices, and a slice must be memory of this program's. So each segment goes by a
//! *stand-in* of the same length: a piece of RAM that was lent for this and that nobody ever loads from or stores to. When the
//! crate asks for the bus address of a stand-in, it gets that of the segment ([`bus_address`]).

use crate::memory;
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicU64, Ordering};
use spin::{Mutex, Once};

use super::block::SEGMENTS_MAX;

/// The most bytes of one request.
const BYTES_MAX: u64 = 1 << 20;

/// Where the stand-ins are; [`NOWHERE`] while there are none.
static START: AtomicU64 = AtomicU64::new(NOWHERE);
/// No buffer lies so high that it is within [`BYTES_MAX`] of this.
const NOWHERE: u64 = u64::MAX - BYTES_MAX;

/// Held while slices of the stand-ins exist, so that no two of them overlap.
static IN_USE: Mutex<()> = Mutex::new(());
/// The bus addresses of the segments whose stand-ins are in use; the one that is asked for next comes last.
static ADDRESSES: Mutex<ArrayVec<u64, SEGMENTS_MAX>> = Mutex::new(ArrayVec::new_const());

/// A piece of memory that was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its bus address.
    pub address: u64,
    /// Its length in bytes.
    pub length: u32,
}

/// Lends memory for stand-ins, once; `false` where there is not enough.
#[must_use]
pub fn prepare() -> bool {
    static LENT: Once<bool> = Once::new();
    *LENT.call_once(|| {
        let Some(words) = memory::take((BYTES_MAX / 8) as usize) else { return false };
        START.store(words.as_mut_ptr() as u64, Ordering::Release);
        true
    })
}

/// The bus address of `buffer`, of which the crate has asked.
#[inline]
pub fn bus_address(buffer: u64) -> u64 {
    if buffer.wrapping_sub(START.load(Ordering::Relaxed)) < BYTES_MAX {
        // The crate asks for each buffer once, in order. Were there one too many, the device would get the stand-in itself,
        // which is nobody's.
        return ADDRESSES.lock().pop().unwrap_or(buffer);
    }
    buffer
}

/// What was granted for one request.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    bytes: u32,
    count: u8,
}

impl Granted {
    /// All of `segments`; `None` where they are none, too many, empty or too large, or where nothing can stand in for them.
    pub(super) fn new(segments: &[Segment]) -> Option<Self> {
        let mut bytes = 0u64;
        for segment in segments {
            bytes += u64::from(segment.length);
            if segment.length == 0 || bytes > BYTES_MAX {
                return None;
            }
        }
        let is_fit = !segments.is_empty() && segments.len() <= SEGMENTS_MAX && prepare();
        is_fit.then_some(Self { bytes: bytes as u32, count: segments.len() as u8 })
    }

    /// The bytes in all segments.
    pub(super) const fn bytes(self) -> u64 {
        self.bytes as u64
    }

    /// Calls `body` with the stand-ins of `segments`, which are those of [`Self::new`] when the request is added; when it is
    /// taken back, and the segments are known no more, with as many stand-ins of one byte.
    pub(super) fn stand_in<R>(self, segments: &[Segment], body: impl FnOnce(StandIns<'_>) -> R) -> R {
        let _in_use = IN_USE.lock();
        let mut addresses = ADDRESSES.lock();
        addresses.clear();
        addresses.extend(segments.iter().rev().map(|segment| segment.address).take(SEGMENTS_MAX));
        drop(addresses);
        body(StandIns { segments, left: self.count, next: START.load(Ordering::Acquire) })
    }
}

/// Stand-ins, one after the other.
pub(super) struct StandIns<'a> {
    segments: &'a [Segment],
    left: u8,
    next: u64,
}

impl<'a> Iterator for StandIns<'a> {
    type Item = &'a mut [u8];

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let length = match self.segments.split_first() {
            Some((segment, rest)) => {
                self.segments = rest;
                u64::from(segment.length)
            }
            None => 1,
        };
        let start = self.next;
        self.next += length;
        // SAFETY: all segments of a request have at most `BYTES_MAX` bytes (`Granted::new`, which also saw to it that so many
        // were lent, for good), so this is a piece of what was lent; it is initialized RAM; pieces do not overlap, and no two
        // lists of them exist at a time (`IN_USE`, which is held for longer than `'a`).
        Some(unsafe { core::slice::from_raw_parts_mut(start as *mut u8, length as usize) })
    }
}
