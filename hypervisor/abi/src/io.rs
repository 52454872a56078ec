//! The wire between EL2 and a backend VM: one *channel* for each virtio device that the backend serves.
//!
//! EL2 has the device's registers and walks its queues, and knows no kind of device. The backend *describes* the device
//! when it attaches ([`Description`]): its features, its configuration space, and what EL2 does with the chains of each
//! queue. From then on a chain becomes one or more [`Request`]s, a [`Completion`] ends each of them, and what arrives
//! unasked is a [`Receive`].
//!
//! A channel is a run of the backend's own RAM, named by a node of its device tree. EL2 writes requests into it and
//! copies their data into its window; the backend writes completions, and frames or characters that arrive unasked.
//! Neither side believes an index of the other's: each keeps its own copy of what it has produced and consumed, and
//! masks with [`RING_ENTRIES`], which nothing in shared memory can change.
//!
//! ```text
//! offset     bytes
//! 0x0000      2048   control words (`control`), one to a cache line
//! 0x0800      2048   the description, the backend's to write before it attaches
//! 0x1000      8192   request ring:    128 x `Request`     EL2 → backend
//! 0x3000      4096   completion ring: 128 x `Completion`  backend → EL2
//! 0x4000             for each filled queue, in the order of the queues (`Layout`):
//!             4096     receive ring:  128 x `Receive`     backend → EL2
//!           262144     receive window, the backend's to fill
//! …                  request window, EL2's to hand out in pages of 4096 bytes
//! ```
//!
//! Every number is little-endian, and the counters run freely modulo 2³². Whoever produces writes the entry, then a
//! store-release of the counter; whoever consumes loads the counter with acquire. To sleep, a consumer stores the
//! counter that it has reached into the event word, passes a full barrier, and looks once more: the producer notifies
//! if the event word lies in what it has just produced ([`is_notification_due`], as VIRTIO 1.2, 2.7.10 has it).
//!
//! The data of a large request need not pass through the window: a queue may take *grants*
//! ([`QueueDescription::grant_min`]). The window then has a list of [`Segment`]s, the frontend's own memory as the
//! backend's device sees it. The backend hands them to its device and reaches none of them itself. A grant lasts from
//! the request to its completion, or until EL2 has reset the backend's devices.
//!
//! Each reset of the device by its frontend begins a new *session*. Requests carry its number, and receptions must:
//! EL2 drops those of another session, and what was out when it ended is given to nobody.
//!
//! What this module leaves out: who checks what. EL2 treats every byte that it reads here as a claim.

mod call;
mod description;
mod entry;
mod layout;

pub use call::{
    CALLS_COMPATIBLE, CALLS_KIND, CALLS_SIZE, Call, FUNCTION_ATTACH, FUNCTION_COMPLETE, FUNCTION_READY,
    channel_of_result, result_register,
};
pub use description::{
    CONFIGURATION_SIZE, DESCRIPTION, Description, DescriptionWords, HEADER_SIZE_MAX, LongChains, QUEUES_MAX,
    QueueDescription, Restart, TAIL_SIZE_MAX,
};
pub use entry::{
    Completion, Receive, Request, SEGMENT_NEXT, SEGMENT_SIZE, SEGMENT_WRITE, SEGMENTS_AROUND, SEGMENTS_MAX, Segment,
};
pub use layout::{
    COMPLETION_RING, COMPLETION_SIZE, FILLED_MAX, Layout, RECEIVE_SIZE, RECEIVE_WINDOW_SIZE, REQUEST_RING,
    REQUEST_SIZE, RING_ENTRIES, WINDOW_PAGE_SIZE, control,
};

/// A bit of the heartbeat word: the backend waits for a device. The word may stay the same then for as long as a
/// request may be out.
pub const HEARTBEAT_WAITING: u32 = 1 << 31;

/// What these calls return for a channel that does not exist: SMCCC's INVALID_PARAMETER, -3 (DEN0028 7.1).
pub const INVALID_PARAMETER: u64 = 0xffff_ffff_ffff_fffd;

/// What [`FUNCTION_COMPLETE`] and [`FUNCTION_ATTACH`] return when there is more to do.
pub const COMPLETE_AGAIN: u64 = 1;

/// The `compatible` string of a channel's node in the backend's device tree.
///
/// Its properties: `reg` (address and size of the channel), `bulkhead,channel` (its number, a cell),
/// `bulkhead,filled-queues` (a cell: a bit for each filled queue), `bulkhead,queues` (a cell: how many the device has),
/// `bulkhead,client` (the frontend's name). What kind of device it is, and what is behind it, is between the backend
/// and whoever makes its device tree.
pub const CHANNEL_COMPATIBLE: &str = "bulkhead,channel";

/// The `compatible` string of the node that gives the doorbell: an edge-triggered interrupt (`interrupts`), raised when
/// a channel has requests that the backend asked to be told of, and when the state of a device has changed
/// ([`control::SESSION`]).
pub const DOORBELL_COMPATIBLE: &str = "bulkhead,doorbell";

/// Whether a producer that has gone from `old` to `new` entries notifies a consumer that waits for `event` to be passed
/// (VIRTIO 1.2, 2.7.10, `vring_need_event`, with counters of 32 bits).
#[must_use]
pub const fn is_notification_due(event: u32, old: u32, new: u32) -> bool {
    new.wrapping_sub(event).wrapping_sub(1) < new.wrapping_sub(old)
}

/// Two numbers of 32 bits in one word, the first at the lower address.
const fn pair(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_consumer_is_told_of_the_first_entry() {
        assert!(is_notification_due(5, 5, 6));
        assert!(is_notification_due(5, 4, 7));
    }

    #[test]
    fn a_busy_consumer_is_left_alone() {
        // It last said that it had reached 3, and that was passed long ago.
        assert!(!is_notification_due(3, 5, 6));
        assert!(!is_notification_due(9, 5, 6));
    }

    #[test]
    fn counters_wrap() {
        assert!(is_notification_due(u32::MAX, u32::MAX, 0));
        assert!(!is_notification_due(0, u32::MAX, 0));
    }
}
