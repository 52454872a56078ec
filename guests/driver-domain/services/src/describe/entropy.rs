//! A source of random numbers (VIRTIO 1.2, 5.4). It has neither features nor a configuration space.

use super::description;
use crate::entropy::POOL_SIZE;
use abi::io::{Description, LongChains, QueueDescription, Restart};

/// The most bytes of one request: a device may give less than it is asked for (VIRTIO 1.2, 5.4.6.2), and the others
/// wait meanwhile.
pub const RANDOM_SIZE_MAX: u32 = POOL_SIZE as u32;

/// Describes the source.
#[must_use]
pub fn describe() -> Description {
    // Any bytes do, so another request does for one that was lost.
    let filled = QueueDescription {
        long_chains: LongChains::Cut,
        restart: Restart::Replay,
        is_patient: false,
        size_max: RANDOM_SIZE_MAX,
        ..QueueDescription::NONE
    };
    description(0, &[], 0, [filled])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entropy_has_nothing_to_state() {
        let source = describe();
        assert_eq!((source.features, source.live_size, source.queue_count), (0, 0, 1));
        assert!(source.configuration.iter().all(|byte| *byte == 0));
    }

    #[test]
    fn any_amount_of_random_numbers_is_asked_for_and_some_are_given() {
        let [queue, ..] = describe().queues;
        assert_eq!((queue.long_chains, queue.size_max, queue.restart), (LongChains::Cut, 1024, Restart::Replay));
        assert_eq!((queue.header_size, queue.tail_size, queue.failure), (0, 0, [0; 8]));
        assert!(!queue.returns_early && !queue.is_patient);
    }
}
