//! A virtio socket device (VIRTIO 1.2, 5.10).

use super::{copy_size_max, description};
use crate::vsock::HEADER_SIZE;
use abi::io::{Description, LongChains, QueueDescription};

/// The most bytes of data of a packet that a client sends; Linux sends no more (VIRTIO_VSOCK_MAX_PKT_BUF_SIZE).
const DATA_SIZE_MAX: u32 = 64 << 10;
/// So many bytes of the configuration space follow a change while there is a driver, which looks at them again when it
/// hears that the transport was reset: `guest_cid`.
const LIVE_SIZE: u16 = 8;

/// Describes the device of the client with this CID, with a request window of `window_size` bytes; `None` where that
/// does not hold a packet.
///
/// No feature is offered: without VIRTIO_VSOCK_F_STREAM and F_SEQPACKET there are streams (VIRTIO 1.2, 5.10.3).
#[must_use]
pub fn describe(cid: u32, window_size: u64) -> Option<Description> {
    // A header is data like any other here: it is longer than what travels in a request.
    let size_max = (HEADER_SIZE as u32).saturating_add(DATA_SIZE_MAX);
    if copy_size_max(window_size) < size_max {
        return None;
    }
    // After a restart of the backend all streams are at their end, so nothing is sent again. A packet stays out as long
    // as its receiver has no room.
    // One that is too long arrives cut, and ends its stream: it must not vanish from the middle of it.
    let long_chains = LongChains::Cut;
    let sent = QueueDescription { returns_early: true, size_max, long_chains, ..QueueDescription::NONE };
    // VIRTIO 1.2, 5.10.2: rx, tx, event. 5.10.4: `guest_cid`, whose upper half is zero.
    Some(description(0, &[cid, 0], LIVE_SIZE, [QueueDescription::NONE, sent, QueueDescription::NONE]))
}

#[cfg(test)]
mod tests {
    use super::super::tests::word;
    use super::*;
    use abi::io::Restart;

    #[test]
    fn a_socket_device_states_its_cid() {
        let device = describe(0x1234_5678, 512 << 10).unwrap();
        assert_eq!((word(&device, 0), word(&device, 4)), (0x1234_5678, 0));
        assert_eq!((device.features, device.live_size, device.queue_count), (0, 8, 3));
    }

    #[test]
    fn packets_of_a_stream_are_not_sent_again_after_a_restart() {
        let [received, sent, events, ..] = describe(3, 512 << 10).unwrap().queues;
        assert_eq!((received, events), (QueueDescription::NONE, QueueDescription::NONE));
        assert_eq!((sent.header_size, sent.tail_size, sent.size_max), (0, 0, 65_580));
        assert_eq!((sent.restart, sent.long_chains), (Restart::Drop, LongChains::Cut));
        assert!(sent.returns_early && sent.is_patient);
    }

    #[test]
    fn the_window_holds_a_packet() {
        assert!(describe(3, 0x1_1000).is_some());
        assert_eq!(describe(3, 0x1_0fff), None);
    }
}
