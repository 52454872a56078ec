//! Where things are in a channel.

/// Entries of each ring of a channel.
pub const RING_ENTRIES: u32 = 128;

/// Offset of the request ring.
pub const REQUEST_RING: u64 = 0x1000;
/// The size of an entry of the request ring in bytes.
pub const REQUEST_SIZE: u64 = 64;
/// Offset of the completion ring.
pub const COMPLETION_RING: u64 = 0x3000;
/// The size of an entry of the completion ring in bytes.
pub const COMPLETION_SIZE: u64 = 32;
/// Offset of the first receive ring.
const RECEIVE_RINGS: u64 = 0x4000;
/// The size of an entry of a receive ring in bytes.
pub const RECEIVE_SIZE: u64 = 32;
/// The size of a receive ring in bytes.
const RECEIVE_RING_SIZE: u64 = RING_ENTRIES as u64 * RECEIVE_SIZE;
/// The size of a receive window in bytes.
pub const RECEIVE_WINDOW_SIZE: u64 = 256 << 10;
/// The most filled queues of a device.
pub const FILLED_MAX: u16 = 8;
/// The unit in which EL2 hands out the request window, in bytes.
pub const WINDOW_PAGE_SIZE: u64 = 4096;

/// Offsets of the control words, each a `u32`.
pub mod control {
    /// Written by EL2: requests produced.
    pub const REQUESTS_PRODUCED: u64 = 0x040;
    /// Written by the backend: ring the doorbell when requests pass this count.
    pub const REQUESTS_EVENT: u64 = 0x080;
    /// Written by the backend: completions produced.
    pub const COMPLETIONS_PRODUCED: u64 = 0x0c0;
    /// Written by EL2: completions consumed.
    pub const COMPLETIONS_CONSUMED: u64 = 0x100;
    /// Written by EL2 when the backend starts: the generation that completions must carry.
    pub const GENERATION: u64 = 0x1c0;
    /// Written by the backend, in channel 0 alone: its heartbeat. EL2 rings the doorbell once in a while and wants to
    /// find another value the next time; a backend whose word stays the same, or 0, is taken for dead. It may set
    /// [`HEARTBEAT_WAITING`](super::super::HEARTBEAT_WAITING).
    pub const HEARTBEAT: u64 = 0x200;

    /// Written by EL2, with the words that follow it: the state of the device, in place of a queue of events that could
    /// overflow. This one is the session: it grows with each reset of the device by its frontend. Of a store to any of
    /// them the doorbell tells.
    pub const SESSION: u64 = 0x280;
    /// Written by EL2: 1 while the frontend's driver is ready (DRIVER_OK), else 0.
    pub const IS_LIVE: u64 = 0x284;
    /// Written by EL2: the low half of the features that the driver has accepted; 0 while it is not ready.
    pub const FEATURES: u64 = 0x288;
    /// Written by EL2: the high half.
    pub const FEATURES_HIGH: u64 = 0x28c;

    /// Written by the backend: receptions produced for filled queue `index`, counted among the filled ones.
    #[must_use]
    pub const fn receptions_produced(index: u16) -> u64 {
        0x400 + index as u64 * 0x80
    }

    /// Written by EL2: receptions of filled queue `index` consumed. The backend may use their room anew.
    #[must_use]
    pub const fn receptions_consumed(index: u16) -> u64 {
        0x440 + index as u64 * 0x80
    }
}

/// What depends on how many filled queues a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    filled: u16,
}

impl Layout {
    /// The layout of the channel of a device whose filled queues are the bits of `filled`; more than [`FILLED_MAX`] are
    /// not counted.
    #[must_use]
    pub const fn new(filled: u32) -> Self {
        let count = filled.count_ones() as u16;
        Self { filled: if count < FILLED_MAX { count } else { FILLED_MAX } }
    }

    /// How many filled queues there are.
    #[must_use]
    pub const fn filled(self) -> u16 {
        self.filled
    }

    /// Offset of the receive ring of filled queue `index`, counted among the filled ones.
    #[must_use]
    pub const fn receive_ring(self, index: u16) -> u64 {
        RECEIVE_RINGS + index as u64 * (RECEIVE_RING_SIZE + RECEIVE_WINDOW_SIZE)
    }

    /// Offset of the receive window of filled queue `index`, counted among the filled ones.
    #[must_use]
    pub const fn receive_window(self, index: u16) -> u64 {
        self.receive_ring(index) + RECEIVE_RING_SIZE
    }

    /// Offset of the request window.
    #[must_use]
    pub const fn request_window(self) -> u64 {
        self.receive_ring(self.filled)
    }
}

const _: () = {
    assert!(RING_ENTRIES as u64 * REQUEST_SIZE == COMPLETION_RING - REQUEST_RING);
    assert!(RING_ENTRIES as u64 * COMPLETION_SIZE == RECEIVE_RINGS - COMPLETION_RING);
    assert!(RING_ENTRIES.is_power_of_two(), "free-running counters are masked");
    assert!(RECEIVE_RINGS.is_multiple_of(WINDOW_PAGE_SIZE) && RECEIVE_RING_SIZE.is_multiple_of(WINDOW_PAGE_SIZE));
    assert!(RECEIVE_WINDOW_SIZE.is_multiple_of(WINDOW_PAGE_SIZE));
    assert!(control::receptions_consumed(FILLED_MAX - 1) < super::DESCRIPTION);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_filled_queues_has_its_window_at_once() {
        assert_eq!(Layout::new(0).request_window(), 0x4000);
    }

    #[test]
    fn rings_and_windows_of_filled_queues_lie_one_behind_the_other() {
        let layout = Layout::new(0b101);
        assert_eq!(layout.filled(), 2);
        assert_eq!((layout.receive_ring(0), layout.receive_window(0)), (0x4000, 0x5000));
        assert_eq!((layout.receive_ring(1), layout.receive_window(1)), (0x4_5000, 0x4_6000));
        assert_eq!(layout.request_window(), 0x8_6000);
        assert_eq!(Layout::new(u32::MAX).filled(), FILLED_MAX);
    }
}
