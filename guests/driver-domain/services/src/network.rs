//! The header in front of a frame, `struct virtio_net_hdr` (VIRTIO 1.2, 5.1.6), and the checksum that a sender may
//! leave to the device.

use abi::io::{RECEIVE_WINDOW_SIZE, RING_ENTRIES, Request};

/// Bytes of the header.
pub const HEADER_SIZE: u8 = 12;
/// Bytes of the receive window for one frame and its header.
pub const SLOT_SIZE: u64 = RECEIVE_WINDOW_SIZE / RING_ENTRIES as u64;
/// The shortest frame: two addresses and a type.
pub const FRAME_SIZE_MIN: u32 = 14;
/// The largest payload of a frame in bytes, which clients are told.
pub const MTU: u16 = 1500;
/// The longest frame of a client.
const SENT_SIZE_MAX: u32 = FRAME_SIZE_MIN + MTU as u32;
/// Bytes of a VLAN tag, which a frame may have beside (IEEE 802.1Q, 9.6), and the type that begins one.
const TAG_SIZE: u32 = 4;
const TAGGED: [u8; 2] = [0x81, 0x00];
/// The longest that fits a slot, with its header.
pub const FRAME_SIZE_MAX: u32 = SLOT_SIZE as u32 - HEADER_SIZE as u32;

/// VIRTIO_NET_F_GUEST_CSUM: the driver takes frames whose checksum is partial.
pub const GUEST_CSUM: u64 = 1 << 1;

/// VIRTIO_NET_HDR_F_NEEDS_CSUM, a flag of the header.
const NEEDS_CSUM: u8 = 1 << 0;
/// VIRTIO_NET_HDR_GSO_NONE: segmentation was not offered.
const GSO_NONE: u8 = 0;

/// A checksum that the sender has left partial: the sum of the pseudo-header stands where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partial {
    /// Where the summed part starts, in bytes from the start of the frame.
    pub start: u16,
    /// Where the checksum goes, in bytes from there.
    pub offset: u16,
}

/// A frame that a driver sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Bytes, the header not counted.
    pub length: u32,
    /// The checksum that is left to do; it lies within the frame.
    pub partial: Option<Partial>,
}

/// The frame that `request` sends, whose Ethernet header is `ethernet`; `None` if there is none that can be sent.
#[inline]
#[must_use]
pub fn frame(request: &Request, ethernet: &[u8; FRAME_SIZE_MIN as usize]) -> Option<Frame> {
    let length = request.readable;
    if !(FRAME_SIZE_MIN..=SENT_SIZE_MAX).contains(&length) && !is_long_for_its_tag(length, ethernet) {
        return None;
    }
    let header = u128::from_le_bytes(request.header);
    let [flags, gso_type, ..] = request.header;
    if gso_type != GSO_NONE {
        return None;
    }
    if flags & NEEDS_CSUM == 0 {
        return Some(Frame { length, partial: None });
    }
    let partial = Partial { start: (header >> 48) as u16, offset: (header >> 64) as u16 };
    let end = u32::from(partial.start).saturating_add(u32::from(partial.offset)).saturating_add(2);
    (end <= length).then_some(Frame { length, partial: Some(partial) })
}

/// Whether a frame is longer than others by its VLAN tag alone.
#[cold]
fn is_long_for_its_tag(length: u32, ethernet: &[u8; FRAME_SIZE_MIN as usize]) -> bool {
    (SENT_SIZE_MAX..=SENT_SIZE_MAX + TAG_SIZE).contains(&length) && ethernet.ends_with(&TAGGED)
}

/// The header of a frame that a driver receives, in little-endian words of which [`HEADER_SIZE`] bytes count. The
/// number of buffers is EL2's to write.
#[inline]
#[must_use]
pub const fn header(partial: Option<Partial>) -> [u64; 2] {
    match partial {
        Some(Partial { start, offset }) => [NEEDS_CSUM as u64 | (start as u64) << 48, offset as u64],
        None => [0; 2],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a driver sends with this header: flags, type of segmentation, start and offset of the checksum.
    fn sent(length: u32, flags: u8, gso_type: u8, start: u16, offset: u16) -> Option<Frame> {
        sent_as([8, 0], length, flags, gso_type, start, offset)
    }

    /// The same with a type.
    fn sent_as(kind: [u8; 2], length: u32, flags: u8, gso_type: u8, start: u16, offset: u16) -> Option<Frame> {
        let mut ethernet = [0; 14];
        ethernet[12..].copy_from_slice(&kind);
        let mut header = [0; 16];
        header[..2].copy_from_slice(&[flags, gso_type]);
        header[6..8].copy_from_slice(&start.to_le_bytes());
        header[8..10].copy_from_slice(&offset.to_le_bytes());
        let request = Request {
            sequence: 1,
            session: 1,
            generation: 1,
            queue: 1,
            is_last: true,
            segments: 0,
            readable: length,
            writable: 0,
            offset: 0x4_5000,
            position: 0,
            header,
        };
        frame(&request, &ethernet)
    }

    #[test]
    fn a_frame_is_as_long_as_its_chain_without_the_header() {
        assert_eq!(sent(60, 0, 0, 0, 0), Some(Frame { length: 60, partial: None }));
        assert!(sent(14, 0, 0, 0, 0).is_some() && sent(1514, 0, 0, 0, 0).is_some());
    }

    #[test]
    fn frames_that_are_too_short_or_too_long_are_dropped() {
        for length in [0, 1, 13, 1515, 1518, 2036, 2048, 4096, u32::MAX] {
            assert_eq!(sent(length, 0, 0, 0, 0), None, "{length}");
        }
    }

    #[test]
    fn a_frame_is_longer_than_the_mtu_by_a_vlan_tag_alone() {
        let tagged = |length| sent_as([0x81, 0], length, 0, 0, 0, 0);
        assert!(tagged(60).is_some() && tagged(1514).is_some() && tagged(1518).is_some());
        for length in [13, 1519, 2036, u32::MAX] {
            assert_eq!(tagged(length), None, "{length}");
        }
    }

    #[test]
    fn segmentation_was_not_offered() {
        for gso_type in [1, 3, 4, 0x80, 0xff] {
            assert_eq!(sent(60, 0, gso_type, 0, 0), None, "{gso_type}");
        }
    }

    #[test]
    fn a_partial_checksum_lies_within_its_frame() {
        let partial = Partial { start: 34, offset: 16 };
        assert_eq!(sent(60, 1, 0, 34, 16), Some(Frame { length: 60, partial: Some(partial) }));
        assert!(sent(60, 1, 0, 42, 16).is_some());
        for (start, offset) in [(43, 16), (70, 0), (0, 59), (u16::MAX, u16::MAX)] {
            assert_eq!(sent(60, 1, 0, start, offset), None, "{start} + {offset}");
            // Without the flag these fields say nothing.
            assert!(sent(60, 0, 0, start, offset).is_some(), "{start} + {offset}");
        }
    }

    #[test]
    fn a_receiver_is_told_where_a_partial_checksum_is() {
        let bytes = |partial| {
            let words = header(partial).map(u64::to_le_bytes);
            let mut bytes = [0; 12];
            bytes.iter_mut().zip(words.as_flattened()).for_each(|(to, from)| *to = *from);
            bytes
        };
        assert_eq!(bytes(Some(Partial { start: 34, offset: 16 })), [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 0, 0]);
        assert_eq!(bytes(None), [0; 12]);
    }
}
