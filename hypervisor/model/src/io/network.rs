//! The header in front of a frame (VIRTIO 1.2, 5.1.6), and checksums left to the device.

use crate::virtqueue::Chain;
use abi::io::{RECEIVE_CHECKED, RECEIVE_PARTIAL, RECEIVE_SLOT_SIZE, Receive};
use vdev::{GuestAddr, GuestFault, GuestMemory};

/// Bytes of `struct virtio_net_hdr`.
pub const HEADER_SIZE: u64 = 12;
/// The shortest frame: two addresses and a type.
pub const FRAME_SIZE_MIN: u64 = 14;

/// Header flags: VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_F_DATA_VALID.
const NEEDS_CHECKSUM: u8 = 1;
const DATA_VALID: u8 = 2;

/// A frame that a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Bytes, the header not counted.
    pub length: u32,
    /// What the checksum needs, as `abi::io::Operation::Transmit` has it.
    pub checksum: u64,
}

/// The frame in `chain`; `None` if there is none that can be sent.
///
/// # Errors
/// The chain names memory that is not the client's.
#[inline]
pub fn frame(chain: &Chain, memory: &impl GuestMemory) -> Result<Option<Frame>, GuestFault> {
    let length = match chain.readable_bytes().checked_sub(HEADER_SIZE) {
        Some(length @ FRAME_SIZE_MIN..=RECEIVE_SLOT_SIZE) => length,
        _ => return Ok(None),
    };
    let mut header = [0; HEADER_SIZE as usize];
    chain.read(memory, 0, &mut header)?;
    // Segmentation was not offered: gso_type is VIRTIO_NET_HDR_GSO_NONE.
    let [flags, 0, _, _, _, _, start_low, start_high, offset_low, offset_high, _, _] = header else {
        return Ok(None);
    };
    let (start, offset) = (u16::from_le_bytes([start_low, start_high]), u16::from_le_bytes([offset_low, offset_high]));
    let checksum = if flags & NEEDS_CHECKSUM == 0 {
        0
    } else if fits(start, offset, length) {
        u64::from(start) | u64::from(offset) << 16
    } else {
        return Ok(None);
    };
    Ok(Some(Frame { length: length as u32, checksum }))
}

/// Whether the checksum's two bytes lie in a frame of `length` bytes.
fn fits(start: u16, offset: u16, length: u64) -> bool {
    u64::from(start).saturating_add(u64::from(offset)).saturating_add(2) <= length
}

/// The header of a received frame that fills `buffers` chains. `takes_partial` says whether the client negotiated
/// VIRTIO_NET_F_GUEST_CSUM.
pub fn header(receive: &Receive, buffers: u16, takes_partial: bool) -> [u8; HEADER_SIZE as usize] {
    let is_partial = is_partial(receive) && takes_partial;
    let flags = match is_partial {
        true => NEEDS_CHECKSUM,
        false if takes_partial && receive.flags & RECEIVE_CHECKED != 0 => DATA_VALID,
        false => 0,
    };
    let (start, offset) = if is_partial { (receive.checksum_start, receive.checksum_offset) } else { (0, 0) };
    let ([start_low, start_high], [offset_low, offset_high]) = (start.to_le_bytes(), offset.to_le_bytes());
    let [buffers_low, buffers_high] = buffers.to_le_bytes();
    [flags, 0, 0, 0, 0, 0, start_low, start_high, offset_low, offset_high, buffers_low, buffers_high]
}

/// Whether the frame's checksum is still to be completed.
pub fn is_partial(receive: &Receive) -> bool {
    receive.flags & RECEIVE_PARTIAL != 0
        && fits(receive.checksum_start, receive.checksum_offset, u64::from(receive.length))
}

/// The checksum (RFC 1071) of the `length` bytes at `address`, in network byte order.
///
/// # Errors
/// The range is not memory.
#[cold]
pub fn checksum(memory: &impl GuestMemory, address: GuestAddr, length: u32) -> Result<[u8; 2], GuestFault> {
    let mut sum = 0u64;
    let mut done = 0;
    while done < length {
        let mut buffer = [0; 64];
        let step = length.saturating_sub(done).min(64);
        let piece = buffer.get_mut(..step as usize).ok_or(GuestFault::BadAddress)?;
        memory.read(GuestAddr(address.0.wrapping_add(u64::from(done))), piece)?;
        for pair in buffer.as_chunks::<2>().0 {
            sum = sum.wrapping_add(u64::from(u16::from_be_bytes(*pair)));
        }
        done = done.saturating_add(step);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff).wrapping_add(sum >> 16);
    }
    // 0 would say "no checksum" in UDP; ones' complement has another zero.
    let value = match !(sum as u16) {
        0 => 0xffff,
        value => value,
    };
    Ok(value.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdev::testkit::{FakeMemory, MEMORY_BASE};

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        let memory = FakeMemory::new(0x100);
        // The example of RFC 1071, section 3: the sum is ddf2.
        memory.write(MEMORY_BASE, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]).unwrap();
        assert_eq!(checksum(&memory, MEMORY_BASE, 8).unwrap(), (!0xddf2u16).to_be_bytes());
        // An odd byte counts as if a zero followed.
        assert_eq!(checksum(&memory, MEMORY_BASE, 7).unwrap(), (!0xdcfbu16).to_be_bytes());
    }

    #[test]
    fn a_client_that_takes_partial_checksums_is_told_where_they_are() {
        let receive =
            Receive { length: 100, flags: RECEIVE_PARTIAL, checksum_start: 34, checksum_offset: 16, reserved: [0; 5] };
        assert_eq!(header(&receive, 1, true), [1, 0, 0, 0, 0, 0, 34, 0, 16, 0, 1, 0]);
        assert_eq!(header(&receive, 2, false), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0]);
        let checked = Receive { flags: RECEIVE_CHECKED, ..receive };
        assert_eq!(header(&checked, 1, true), [2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        let beyond = Receive { checksum_start: 90, ..receive };
        assert!(!is_partial(&beyond));
    }
}
