//! The bundle: a cpio archive in the `newc` format, read in place.
//!
//! Each file is a header of 110 characters (the magic number `070701` and thirteen numbers of eight hexadecimal
//! digits), its name with a final zero byte, and its data; name and data are padded to a multiple of four bytes. The
//! file `TRAILER!!!` ends the archive. See cpio(5), "New ASCII Format".
//!
//! What this module leaves out: writing a bundle, and anything but regular files.

use core::str;

use crate::{Damage, Error, MANIFEST_SIZE_MAX, Name, System, decode};

/// The name of the first file of every bundle.
pub const MANIFEST_FILE: &str = "manifest.bin";

const NEWC_MAGIC: &[u8; 6] = b"070701";
const HEADER_SIZE: usize = 110;
const TRAILER: &str = "TRAILER!!!";
/// Position of the file's size among the numbers of a header.
const FILE_SIZE_FIELD: usize = 6;
/// Position of the name's size, final zero included, among the numbers of a header.
const NAME_SIZE_FIELD: usize = 11;

/// A bundle in memory. Nothing is promised about its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    bytes: &'a [u8],
}

/// A file of a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The file's name.
    pub name: &'a str,
    /// Its contents; the first byte lies at a multiple of four from the start of the bundle.
    pub data: &'a [u8],
}

impl<'a> Bundle<'a> {
    /// A bundle that lies in `bytes`. What follows the archive's trailer is ignored.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The files in order. The first error ends the iteration.
    #[must_use]
    pub const fn entries(&self) -> Entries<'a> {
        Entries { bytes: self.bytes, offset: 0, state: State::Reading }
    }

    /// The contents of the file `name`.
    ///
    /// # Errors
    /// [`Error::NoSuchFile`], or a [`Damage`] of the archive before the file.
    #[inline(never)]
    pub fn find<'n>(&self, name: &'n str) -> Result<&'a [u8], Error<'n>> {
        for entry in self.entries() {
            let entry = entry?;
            if entry.name == name {
                return Ok(entry.data);
            }
        }
        Err(Error::NoSuchFile(Name(name)))
    }

    /// Reads the manifest. It is not validated: that is [`System::validate`] and [`System::validate_files`].
    ///
    /// # Errors
    /// As for [`Bundle::manifest_file`], or a [`Damage`] of the manifest.
    pub fn manifest(&self) -> Result<System, Error<'static>> {
        decode(self.manifest_file()?)
    }

    /// The manifest as it is in the bundle.
    ///
    /// # Errors
    /// [`Damage::ManifestNotFirst`], [`Damage::WrongLength`] if it is too long to be read, or a [`Damage`] of the
    /// archive's start.
    pub fn manifest_file(&self) -> Result<&'a [u8], Error<'static>> {
        match self.entries().next() {
            Some(Ok(Entry { name: MANIFEST_FILE, data })) if data.len() > MANIFEST_SIZE_MAX => {
                Err(Damage::WrongLength.into())
            }
            Some(Ok(Entry { name: MANIFEST_FILE, data })) => Ok(data),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => Err(Damage::ManifestNotFirst.into()),
        }
    }
}

/// The files of a bundle, in order.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    offset: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Reading,
    Ended,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Error<'static>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Ended {
            return None;
        }
        match read_entry(self.bytes, self.offset) {
            Ok((Entry { name: TRAILER, .. }, _)) => {
                self.state = State::Ended;
                None
            }
            Ok((entry, next)) => {
                self.offset = next;
                Some(Ok(entry))
            }
            Err(damage) => {
                self.state = State::Ended;
                Some(Err(damage.into()))
            }
        }
    }
}

/// Reads the entry whose header is at `offset`, and says where the next header is: always further on.
fn read_entry(bytes: &[u8], offset: usize) -> Result<(Entry<'_>, usize), Damage> {
    let truncated = Damage::Truncated { offset };
    let bad_header = Damage::BadHeader { offset };
    let name_start = offset.checked_add(HEADER_SIZE).ok_or(truncated)?;
    let available = bytes.get(offset..).ok_or(truncated)?;
    if !available.starts_with(NEWC_MAGIC) {
        let is_cut = NEWC_MAGIC.starts_with(available);
        return Err(if is_cut { truncated } else { Damage::NotAnArchive { offset } });
    }
    let header = bytes.get(offset..name_start).ok_or(truncated)?;
    let name_size = header_number(header, NAME_SIZE_FIELD).ok_or(bad_header)?;
    let data_size = header_number(header, FILE_SIZE_FIELD).ok_or(bad_header)?;

    let name_end = name_start.checked_add(name_size).ok_or(truncated)?;
    let name = bytes.get(name_start..name_end).ok_or(truncated)?;
    let name = name.strip_suffix(&[0]).and_then(|name| str::from_utf8(name).ok()).ok_or(bad_header)?;

    let data_start = name_end.checked_next_multiple_of(4).ok_or(truncated)?;
    let data_end = data_start.checked_add(data_size).ok_or(truncated)?;
    let data = bytes.get(data_start..data_end).ok_or(truncated)?;
    let next = data_end.checked_next_multiple_of(4).ok_or(truncated)?;
    Ok((Entry { name, data }, next))
}

/// The number at position `field` of a header.
fn header_number(header: &[u8], field: usize) -> Option<usize> {
    let start = field.checked_mul(8)?.checked_add(NEWC_MAGIC.len())?;
    let digits = header.get(start..start.checked_add(8)?)?;
    // `from_str_radix` would also take a sign.
    digits.iter().try_fold(0, |number, digit| Some(number << 4 | char::from(*digit).to_digit(16)? as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{encode, validate::tests::two_vms};
    use alloc::{format, vec::Vec};

    /// Miri is a thousand times slower: it tries some of the bytes.
    const STEP: usize = if cfg!(miri) { 23 } else { 1 };

    /// Writes an archive by hand, as cpio(5) says.
    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, data) in files.iter().copied().chain([(TRAILER, &[][..])]) {
            bytes.extend_from_slice(NEWC_MAGIC);
            let numbers = [1, 0o100_644, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
            for number in numbers {
                bytes.extend_from_slice(format!("{number:08X}").as_bytes());
            }
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes.extend_from_slice(data);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn sample() -> Vec<u8> {
        archive(&[(MANIFEST_FILE, &encode(&two_vms()).unwrap()), ("kernel", b"12345"), ("empty", b"")])
    }

    #[test]
    fn files_are_found_by_name() {
        let bytes = sample();
        let bundle = Bundle::new(&bytes);
        assert_eq!(bundle.find("kernel").unwrap(), b"12345");
        assert_eq!(bundle.find("empty").unwrap(), b"");
        assert_eq!(bundle.find("none"), Err(Error::NoSuchFile(Name("none"))));
        assert_eq!(bundle.find(TRAILER), Err(Error::NoSuchFile(Name(TRAILER))));
    }

    #[test]
    fn files_come_in_order_and_end_with_the_trailer() {
        let mut bytes = sample();
        bytes.extend_from_slice(b"what a boot loader left behind");
        let names: Vec<_> = Bundle::new(&bytes).entries().map(|entry| entry.unwrap().name).collect();
        assert_eq!(names, [MANIFEST_FILE, "kernel", "empty"]);
    }

    #[test]
    fn the_manifest_is_read() {
        assert_eq!(Bundle::new(&sample()).manifest().unwrap(), two_vms());
    }

    #[test]
    fn a_bundle_without_a_manifest_in_front_is_refused() {
        let bytes = archive(&[("kernel", b"1"), (MANIFEST_FILE, b"2")]);
        assert_eq!(Bundle::new(&bytes).manifest(), Err(Damage::ManifestNotFirst.into()));
        assert_eq!(Bundle::new(&archive(&[])).manifest(), Err(Damage::ManifestNotFirst.into()));
    }

    #[test]
    fn no_bundle_at_all_is_refused() {
        assert_eq!(Bundle::new(&[]).manifest(), Err(Damage::Truncated { offset: 0 }.into()));
        assert_eq!(Bundle::new(&[0; 4096]).manifest(), Err(Damage::NotAnArchive { offset: 0 }.into()));
    }

    #[test]
    fn a_bundle_cut_anywhere_says_so() {
        let bytes = sample();
        for length in (0..bytes.len()).step_by(STEP) {
            let result: Result<Vec<_>, _> = Bundle::new(&bytes[..length]).entries().collect();
            assert!(matches!(result, Err(Error::Damaged(Damage::Truncated { .. }))), "cut at {length}");
        }
    }

    #[test]
    fn flipped_bytes_never_panic_and_never_loop() {
        let bytes = sample();
        for index in (0..bytes.len()).step_by(STEP) {
            for flip in [0x01, 0x10, 0x80, 0xff] {
                let mut bytes = bytes.clone();
                bytes[index] ^= flip;
                // Three files, the trailer under another name, and an error for what is missing after it.
                assert!(Bundle::new(&bytes).entries().count() <= 5);
            }
        }
    }

    #[test]
    fn sizes_beyond_the_bundle_are_refused() {
        for (field, digits) in
            [(FILE_SIZE_FIELD, "FFFFFFFF"), (NAME_SIZE_FIELD, "FFFFFFFF"), (FILE_SIZE_FIELD, "00001000")]
        {
            let mut bytes = sample();
            bytes[6 + field * 8..][..8].copy_from_slice(digits.as_bytes());
            assert_eq!(Bundle::new(&bytes).manifest(), Err(Damage::Truncated { offset: 0 }.into()));
        }
    }

    #[test]
    fn a_sign_is_no_digit() {
        let mut bytes = sample();
        bytes[6 + FILE_SIZE_FIELD * 8..][..8].copy_from_slice(b"+0000001");
        assert_eq!(Bundle::new(&bytes).manifest(), Err(Damage::BadHeader { offset: 0 }.into()));
    }

    #[test]
    fn a_name_without_its_final_zero_is_refused() {
        let mut bytes = sample();
        bytes[6 + NAME_SIZE_FIELD * 8..][..8].copy_from_slice(b"00000000");
        assert_eq!(Bundle::new(&bytes).manifest(), Err(Damage::BadHeader { offset: 0 }.into()));
    }
}
