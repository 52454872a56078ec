//! Finishing a checksum that a client left partial (VIRTIO 1.2, 5.1.6.2): the Internet checksum, RFC 1071.

/// Sums `bytes` as big-endian words of 16 bits, the last padded with a zero, in ones' complement.
fn sum(bytes: &[u8]) -> u16 {
    let mut total = 0u64;
    let (chunks, rest) = bytes.as_chunks::<4>();
    for &chunk in chunks {
        // A frame is far too short for the sum of its words to wrap.
        total = total.wrapping_add(u64::from(u32::from_be_bytes(chunk)));
    }
    let mut last = [0; 4];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    total = total.wrapping_add(u64::from(u32::from_be_bytes(last)));
    // Folding: 2¹⁶ counts as 1. A second and third turn take in the carries of the one before.
    for _ in 0..4 {
        total = (total & 0xffff).wrapping_add(total >> 16);
    }
    total as u16
}

/// Computes the checksum of `frame` from byte `start` on and puts it `offset` bytes from there, where the client left
/// the sum of the pseudo-header. `false` where the frame has no such place; it is unchanged then.
#[must_use]
pub fn complete(frame: &mut [u8], start: u16, offset: u16) -> bool {
    let Some(part) = frame.get_mut(usize::from(start)..) else { return false };
    let value = match !sum(part) {
        // Zero means "no checksum" to UDP; to all others both zeroes are the same.
        0 => 0xffff,
        value => value,
    };
    let field = part.get_mut(usize::from(offset)..).and_then(<[u8]>::first_chunk_mut);
    let Some(field) = field else { return false };
    *field = value.to_be_bytes();
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_rfc_1071_is_found() {
        assert_eq!(sum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
        assert_eq!(sum(&[0x12]), 0x1200);
        assert_eq!(sum(&[0xff; 6]), 0xffff);
    }

    #[test]
    fn a_receiver_finds_the_finished_checksum_right() {
        let mut frame = [0u8; 61];
        for (index, byte) in frame.iter_mut().enumerate() {
            *byte = index as u8 ^ 0x5a;
        }
        let pseudo_header = sum(&[10, 0, 2, 15, 10, 0, 2, 2, 0, 17, 0, 27]);
        frame[40..42].copy_from_slice(&pseudo_header.to_be_bytes());
        assert!(complete(&mut frame, 34, 6));
        let [a, b] = pseudo_header.to_be_bytes();
        let mut all = std::vec![a, b];
        all.extend_from_slice(&frame[34..]);
        assert_eq!(sum(&all), 0xffff);
    }

    #[test]
    fn a_field_outside_the_frame_is_refused() {
        let mut frame = [1; 60];
        assert!(!complete(&mut frame, 61, 0));
        assert!(!complete(&mut frame, 50, 9));
        assert!(!complete(&mut frame, u16::MAX, u16::MAX));
        assert_eq!(frame, [1; 60]);
    }

    #[test]
    fn udp_never_sees_a_zero() {
        let mut frame = [0xff; 4];
        assert!(complete(&mut frame, 0, 2));
        assert_eq!(frame[2..], [0xff, 0xff]);
    }
}
