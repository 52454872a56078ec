//! A network card (VIRTIO 1.2, 5.1).

use super::{description, optional, pair};
use crate::network::{FRAME_SIZE_MAX, FRAME_SIZE_MIN, GUEST_CSUM, HEADER_SIZE};
use abi::io::{Description, QueueDescription};

/// Features (VIRTIO 1.2, 5.1.3): VIRTIO_NET_F_CSUM and so on.
mod feature {
    pub const CSUM: u64 = 1 << 0;
    pub const MTU: u64 = 1 << 3;
    pub const MAC: u64 = 1 << 5;
    pub const MRG_RXBUF: u8 = 15;
    pub const STATUS: u64 = 1 << 16;
}

/// VIRTIO_NET_S_LINK_UP, a bit of `status` (VIRTIO 1.2, 5.1.4).
const LINK_UP: u16 = 1 << 0;
/// So many bytes of the configuration space follow a change while there is a driver: the address, the link's state.
const LIVE_SIZE: u16 = 8;
/// Where `num_buffers` is in the header of a received frame (VIRTIO 1.2, 5.1.6).
const COUNT_OFFSET: u8 = 10;

/// The least MTU in bytes (VIRTIO 1.2, 5.1.4.1).
const MTU_MIN: u16 = 68;
/// The most: a frame of it, with addresses and type, fits a slot of the receive window.
const MTU_MAX: u16 = (FRAME_SIZE_MAX - FRAME_SIZE_MIN) as u16;

/// A card, as its driver sees it. Its cable is always in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    /// Its address; all zeroes for none.
    pub mac: [u8; 6],
    /// The largest packet in bytes, without the Ethernet header.
    pub mtu: u16,
}

impl Card {
    /// Describes the card; `None` for one with an MTU that no card may state, or whose frames do not fit.
    #[must_use]
    pub fn describe(&self) -> Option<Description> {
        let Self { mac, mtu } = *self;
        if !(MTU_MIN..=MTU_MAX).contains(&mtu) {
            return None;
        }
        let features = feature::CSUM
            | GUEST_CSUM
            | feature::MTU
            | feature::STATUS
            | 1 << feature::MRG_RXBUF
            | optional(feature::MAC, mac != [0; 6]);
        // VIRTIO 1.2, 5.1.4: `mac`, `status`, `max_virtqueue_pairs` (which needs a feature), `mtu`.
        let [a, b, c, d, e, f] = mac;
        let configuration = [u32::from_le_bytes([a, b, c, d]), pair(u16::from_le_bytes([e, f]), LINK_UP), pair(0, mtu)];
        let received = QueueDescription {
            merge_feature: Some(feature::MRG_RXBUF),
            count_offset: Some(COUNT_OFFSET),
            ..QueueDescription::NONE
        };
        // Frames may be lost, and those that were sent are not sent again.
        let sent = QueueDescription {
            header_size: HEADER_SIZE,
            returns_early: true,
            size_max: FRAME_SIZE_MAX,
            ..QueueDescription::NONE
        };
        Some(description(features, &configuration, LIVE_SIZE, [received, sent]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::half;
    use super::*;
    use abi::io::{LongChains, Restart};

    const MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];

    #[test]
    fn a_network_card_describes_itself() {
        let card = Card { mac: MAC, mtu: 1500 }.describe().unwrap();
        assert_eq!(card.features, 1 << 0 | 1 << 1 | 1 << 3 | 1 << 5 | 1 << 15 | 1 << 16);
        assert_eq!(card.configuration[..6], MAC);
        assert_eq!((half(&card, 6), half(&card, 8), half(&card, 10)), (1, 0, 1500));
        assert_eq!(card.live_size, 8);
        let anonymous = Card { mac: [0; 6], mtu: 1500 }.describe().unwrap();
        assert_eq!(anonymous.features & feature::MAC, 0);
    }

    #[test]
    fn a_card_has_an_mtu_whose_frames_fit() {
        let card = |mtu| Card { mac: MAC, mtu }.describe();
        assert!(card(MTU_MIN).is_some() && card(MTU_MAX).is_some());
        assert_eq!(MTU_MAX, 2048 - 12 - 14);
        for mtu in [0, 67, MTU_MAX + 1, u16::MAX] {
            assert_eq!(card(mtu), None, "{mtu}");
        }
    }

    #[test]
    fn frames_that_are_sent_come_back_at_once_and_are_not_sent_again() {
        let card = Card { mac: MAC, mtu: 1500 }.describe().unwrap();
        assert_eq!(card.queue_count, 2);
        let [received, sent, ..] = card.queues;
        assert_eq!((received.merge_feature, received.count_offset), (Some(15), Some(10)));
        assert_eq!((sent.header_size, sent.tail_size, sent.size_max), (12, 0, FRAME_SIZE_MAX));
        assert_eq!((sent.long_chains, sent.restart), (LongChains::Refuse, Restart::Drop));
        assert!(sent.returns_early && sent.is_patient && received.is_patient);
        assert_eq!(sent.grant_min, None);
    }
}
