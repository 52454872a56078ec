//! The header in front of a packet, `struct virtio_vsock_hdr` (VIRTIO 1.2, 5.10.6).

use crate::network::SLOT_SIZE;

/// Bytes of the header.
pub const HEADER_SIZE: usize = 44;
/// The most bytes of data of one packet that a client receives: with its header it fits a slot of the receive window,
/// and the buffers of Linux, of 3776 bytes and more, have room for a slot. What a client sends is cut to such pieces;
/// to the receiver of a stream they are as good as the whole.
pub const PIECE_SIZE_MAX: u32 = SLOT_SIZE as u32 - HEADER_SIZE as u32;
/// VIRTIO_VSOCK_TYPE_STREAM, the only type that was offered (VIRTIO 1.2, 5.10.6).
pub const STREAM: u16 = 1;
/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET: all connections are gone; an event that a client receives (VIRTIO 1.2,
/// 5.10.6.7).
pub const TRANSPORT_RESET: u32 = 0;

/// What a packet is (VIRTIO 1.2, 5.10.6: VIRTIO_VSOCK_OP_REQUEST and so on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// It asks for a connection.
    Request,
    /// It accepts one.
    Response,
    /// It ends one, or refuses it.
    Reset,
    /// Its sender sends, or receives, no more.
    Shutdown,
    /// It has data.
    Data,
    /// It says how much room its sender has.
    CreditUpdate,
    /// It asks for that.
    CreditRequest,
}

impl Operation {
    /// The operation with this number, if there is one.
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

/// VIRTIO_VSOCK_OP_RST.
const RESET: u16 = 3;

/// A header, as its sender wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The sender's CID.
    pub source_cid: u64,
    /// The receiver's CID.
    pub destination_cid: u64,
    /// The sender's port.
    pub source_port: u32,
    /// The receiver's port.
    pub destination_port: u32,
    /// Bytes of data behind the header.
    pub length: u32,
    /// The type of socket: [`STREAM`].
    pub kind: u16,
    /// The number of the [`Operation`].
    pub operation: u16,
    /// What the operation has of flags.
    pub flags: u32,
    /// The sender's room for this stream in bytes.
    pub buffer_size: u32,
    /// Bytes of the stream that the sender has taken out of that room, modulo 2³².
    pub forwarded: u32,
}

impl Header {
    /// The header that these bytes say.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; HEADER_SIZE]) -> Self {
        let (words, _) = bytes.as_chunks::<4>();
        let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
        let mut word = || words.next().unwrap_or(0);
        let mut long = || u64::from(word()) | u64::from(word()) << 32;
        let (source_cid, destination_cid) = (long(), long());
        let (source_port, destination_port, length, kinds) = (word(), word(), word(), word());
        Self {
            source_cid,
            destination_cid,
            source_port,
            destination_port,
            length,
            kind: kinds as u16,
            operation: (kinds >> 16) as u16,
            flags: word(),
            buffer_size: word(),
            forwarded: word(),
        }
    }

    /// The bytes that say it.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_SIZE] {
        let halves = |long: u64| [long as u32, (long >> 32) as u32];
        let ([a, b], [c, d]) = (halves(self.source_cid), halves(self.destination_cid));
        let kinds = u32::from(self.kind) | u32::from(self.operation) << 16;
        let [e, f] = [self.source_port, self.destination_port];
        let words = [a, b, c, d, e, f, self.length, kinds, self.flags, self.buffer_size, self.forwarded];
        let mut bytes = [0; HEADER_SIZE];
        let (chunks, _) = bytes.as_chunks_mut();
        chunks.iter_mut().zip(words).for_each(|(chunk, word)| *chunk = word.to_le_bytes());
        bytes
    }

    /// The packet that tells the sender of this one that there is no such connection.
    #[must_use]
    pub const fn refusal(&self) -> Self {
        let [source_port, destination_port] = [self.destination_port, self.source_port];
        Self {
            kind: self.kind,
            ..Self::reset((self.destination_cid, source_port), (self.source_cid, destination_port))
        }
    }

    /// The packet that tells `to`, a CID and a port, that its connection with `from` has ended.
    #[must_use]
    pub const fn reset(from: (u64, u32), to: (u64, u32)) -> Self {
        Self {
            source_cid: from.0,
            destination_cid: to.0,
            source_port: from.1,
            destination_port: to.1,
            length: 0,
            kind: STREAM,
            operation: RESET,
            flags: 0,
            buffer_size: 0,
            forwarded: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_44_bytes_in_the_order_of_the_specification() {
        let header = Header {
            source_cid: 3,
            destination_cid: 4,
            source_port: 0x0102_0304,
            destination_port: 1024,
            length: 5,
            kind: 1,
            operation: 5,
            flags: 6,
            buffer_size: 0x4_0000,
            forwarded: 7,
        };
        let bytes = header.to_bytes();
        assert_eq!(bytes[..20], [3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1]);
        assert_eq!(bytes[20..36], [0, 4, 0, 0, 5, 0, 0, 0, 1, 0, 5, 0, 6, 0, 0, 0]);
        assert_eq!(bytes[36..], [0, 0, 4, 0, 7, 0, 0, 0]);
        assert_eq!(Header::from_bytes(&bytes), header);
        let any = core::array::from_fn(|index| index as u8 ^ 0xa5);
        assert_eq!(Header::from_bytes(&any).to_bytes(), any);
    }

    #[test]
    fn a_refusal_goes_back_the_way_that_the_packet_came() {
        let sent = Header {
            source_cid: 3,
            destination_cid: 9,
            source_port: 50,
            destination_port: 60,
            kind: 2,
            ..Header::default()
        };
        let refusal = sent.refusal();
        assert_eq!((refusal.source_cid, refusal.destination_cid), (9, 3));
        assert_eq!((refusal.source_port, refusal.destination_port, refusal.kind), (60, 50, 2));
        assert_eq!(Operation::from_number(refusal.operation), Some(Operation::Reset));
        assert_eq!((refusal.length, refusal.flags), (0, 0));
    }

    #[test]
    fn a_piece_and_its_header_fit_a_slot() {
        assert_eq!(u64::from(PIECE_SIZE_MAX) + 44, SLOT_SIZE);
    }

    #[test]
    fn there_are_seven_operations() {
        assert_eq!((0..=u16::MAX).filter_map(Operation::from_number).count(), 7);
        assert_eq!(Operation::from_number(0), None);
    }
}
