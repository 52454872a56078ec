//! The file `manifest.bin`: magic number, version, length, checksum, then the system, as `record` writes it.
//!
//! | bytes | contents |
//! | --- | --- |
//! | 0–7 | [`MAGIC`] |
//! | 8–9 | [`VERSION`], little-endian |
//! | 10–11 | zero |
//! | 12–15 | length of the payload, little-endian |
//! | 16–19 | CRC-32 (ISO-HDLC) of version, zero, length and payload, little-endian |
//! | 20– | payload |

use alloc::vec::Vec;

use crc::{CRC_32_ISO_HDLC, Crc};

use crate::record::{Reader, Record, VERSION};
use crate::{Damage, Error, System};

/// The first bytes of a manifest.
pub const MAGIC: [u8; 8] = *b"BULKHEAD";
/// The longest manifest that is read, in bytes. It bounds what [`decode`] allocates.
pub const MANIFEST_SIZE_MAX: usize = 64 << 10;

const CHECKSUM: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Writes `system` in binary form.
///
/// # Errors
/// [`Damage::WrongLength`] if it would be longer than [`MANIFEST_SIZE_MAX`]; [`Damage::NotASystem`] if a list or a text
/// in it is longer than any that is possible.
pub fn encode(system: &System) -> Result<Vec<u8>, Error<'static>> {
    let mut payload = Vec::new();
    system.write(&mut payload);
    let length = u32::try_from(payload.len()).map_err(|_| Damage::WrongLength)?;
    let (version, length) = (VERSION.to_le_bytes(), length.to_le_bytes());
    let mut bytes = Vec::new();
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&version);
    bytes.extend_from_slice(&[0; 2]);
    bytes.extend_from_slice(&length);
    bytes.extend_from_slice(&checksum(version, [0; 2], length, &payload).to_le_bytes());
    bytes.extend_from_slice(&payload);
    // What cannot be read again, because it or one of its lists is too long, is not written.
    decode(&bytes)?;
    Ok(bytes)
}

/// Reads a system from its binary form. It is not validated: that is [`System::validate`].
///
/// # Errors
/// A [`Damage`] for anything that [`encode`] did not write.
#[inline(never)]
pub fn decode(bytes: &[u8]) -> Result<System, Error<'static>> {
    if bytes.len() > MANIFEST_SIZE_MAX {
        return Err(Damage::WrongLength.into());
    }
    let rest = bytes.strip_prefix(&MAGIC).ok_or(Damage::NotAManifest)?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(Damage::WrongLength)?;
    let (zero, rest) = rest.split_first_chunk::<2>().ok_or(Damage::WrongLength)?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(Damage::WrongLength)?;
    let (stored, payload) = rest.split_first_chunk::<4>().ok_or(Damage::WrongLength)?;
    if u16::from_le_bytes(*version) != VERSION {
        return Err(Damage::OtherVersion { found: u16::from_le_bytes(*version) }.into());
    }
    if usize::try_from(u32::from_le_bytes(*length)).ok() != Some(payload.len()) {
        return Err(Damage::WrongLength.into());
    }
    if checksum(*version, *zero, *length, payload) != u32::from_le_bytes(*stored) {
        return Err(Damage::WrongChecksum.into());
    }
    let mut reader = Reader::new(payload);
    let system = System::read(&mut reader);
    if reader.end() { Ok(system) } else { Err(Damage::NotASystem.into()) }
}

fn checksum(version: [u8; 2], zero: [u8; 2], length: [u8; 4], payload: &[u8]) -> u32 {
    let mut digest = CHECKSUM.digest();
    digest.update(&version);
    digest.update(&zero);
    digest.update(&length);
    digest.update(payload);
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::tests::{two_vms, with_driver_domain};

    /// Miri is a thousand times slower: it tries some of the bytes.
    const STEP: usize = if cfg!(miri) { 23 } else { 1 };

    #[test]
    fn what_was_written_is_read() {
        for system in [two_vms(), with_driver_domain()] {
            assert_eq!(decode(&encode(&system).unwrap()).unwrap(), system);
        }
    }

    #[test]
    fn what_could_not_be_read_is_not_written() {
        let mut system = two_vms();
        system.name = "n".repeat(300);
        assert_eq!(encode(&system), Err(Damage::NotASystem.into()));
    }

    #[test]
    fn a_manifest_cut_anywhere_is_refused() {
        let bytes = encode(&two_vms()).unwrap();
        for length in (0..bytes.len()).step_by(STEP) {
            assert!(matches!(decode(&bytes[..length]), Err(Error::Damaged(_))), "cut at {length}");
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_refused() {
        let bytes = encode(&two_vms()).unwrap();
        for index in (0..bytes.len()).step_by(STEP) {
            let mut bytes = bytes.clone();
            bytes[index] ^= 1 << (index % 8);
            assert!(matches!(decode(&bytes), Err(Error::Damaged(_))), "flipped in byte {index}");
        }
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        let mut bytes = encode(&two_vms()).unwrap();
        bytes.push(0);
        assert_eq!(decode(&bytes), Err(Damage::WrongLength.into()));
    }

    #[test]
    fn another_version_is_named() {
        let mut bytes = encode(&two_vms()).unwrap();
        bytes[8] = 9;
        assert_eq!(decode(&bytes), Err(Damage::OtherVersion { found: 9 }.into()));
    }

    #[test]
    fn a_forged_checksum_over_garbage_is_refused_without_a_large_allocation() {
        // Each payload claims lists of up to 2^16 - 1 elements, with a checksum that holds.
        for filler in [0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff] {
            for size in [0_u32, 1, 2, 9, 10, 64, 300] {
                let payload = alloc::vec![filler; size as usize];
                let (version, length) = (VERSION.to_le_bytes(), size.to_le_bytes());
                let mut bytes = MAGIC.to_vec();
                bytes.extend(version);
                bytes.extend([0; 2]);
                bytes.extend(length);
                bytes.extend(checksum(version, [0; 2], length, &payload).to_le_bytes());
                bytes.extend(&payload);
                // Five zero bytes are a system: no name, no cores, no machines. `validate` refuses that one.
                assert!(decode(&bytes).is_err());
            }
        }
    }

    #[test]
    fn a_manifest_that_is_too_long_is_not_read() {
        assert_eq!(decode(&alloc::vec![0; MANIFEST_SIZE_MAX + 1]), Err(Damage::WrongLength.into()));
    }
}
