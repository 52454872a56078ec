//! Compressed kernels: by which method, and what is in them. They are uncompressed here, so that the hypervisor need
//! not.

use flate2::read::GzDecoder;
use ruzstd::decoding::StreamingDecoder;
use std::io::Read;

/// A compressed kernel.
pub(super) struct Packed<'a> {
    /// What kind of file it is.
    pub(super) kind: &'static str,
    method: Method,
    bytes: &'a [u8],
}

/// A method that can be uncompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    Gzip,
    Zstd,
}

/// How compressed files of every kind begin. Those without a method can only be named.
const MAGICS: [(&[u8], &str, Option<Method>); 8] = [
    (&[0x1f, 0x8b], "gzip", Some(Method::Gzip)),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd", Some(Method::Zstd)),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz", None),
    (&[0x04, 0x22, 0x4d, 0x18], "lz4", None),
    (&[0x02, 0x21, 0x4c, 0x18], "lz4", None),
    (b"BZh", "bzip2", None),
    (&[0x89, b'L', b'Z', b'O'], "lzo", None),
    (&[0x5d, 0, 0], "lzma", None),
];

/// What of `bytes` is compressed, if it is a compressed kernel.
///
/// # Errors
/// The end of a sentence that starts with what and where.
pub(super) fn packed(bytes: &[u8]) -> Result<Option<Packed<'_>>, String> {
    if let Some((_, name, method)) = MAGICS.into_iter().find(|(magic, ..)| bytes.starts_with(magic)) {
        let method = method.ok_or_else(|| unreadable(name))?;
        let kind = match method {
            Method::Gzip => "compressed kernel (gzip)",
            Method::Zstd => "compressed kernel (zstd)",
        };
        return Ok(Some(Packed { kind, method, bytes }));
    }
    // The header of an EFI zboot image: "MZ", "zimg" at 4, offset and size of the payload, and at 24 the method.
    if !(bytes.starts_with(b"MZ") && bytes.get(4..8) == Some(b"zimg")) {
        return Ok(None);
    }
    let cut = || "is cut short; get the file again".to_string();
    let name = bytes.get(24..56).ok_or_else(cut)?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    let (kind, method) = match name {
        b"gzip" => ("compressed kernel (EFI, gzip)", Method::Gzip),
        b"zstd" => ("compressed kernel (EFI, zstd)", Method::Zstd),
        other => return Err(unreadable(&String::from_utf8_lossy(other))),
    };
    let offset = word(bytes, 8).ok_or_else(cut)?;
    let size = word(bytes, 12).ok_or_else(cut)?;
    let bytes = bytes.get(offset..).and_then(|rest| rest.get(..size)).ok_or_else(cut)?;
    Ok(Some(Packed { kind, method, bytes }))
}

fn unreadable(method: &str) -> String {
    format!("is compressed with {method:?}, but only gzip and zstd can be read; uncompress it first")
}

impl Packed<'_> {
    /// What is in it, but not more than `size_max` bytes. What follows the compressed stream is left out: an EFI image
    /// has the unpacked size there.
    pub(super) fn unpack(&self, size_max: u64) -> Result<Vec<u8>, String> {
        let damaged = |error: &dyn std::fmt::Display| format!("cannot be uncompressed ({error}); get the file again");
        let mut unpacked = Vec::new();
        let limit = size_max.saturating_add(1);
        match self.method {
            Method::Gzip => GzDecoder::new(self.bytes).take(limit).read_to_end(&mut unpacked),
            Method::Zstd => {
                let decoder = StreamingDecoder::new(self.bytes).map_err(|error| damaged(&error))?;
                decoder.take(limit).read_to_end(&mut unpacked)
            }
        }
        .map_err(|error| damaged(&error))?;
        if unpacked.len() as u64 > size_max {
            return Err("is larger than the vm's memory once it is uncompressed; give the vm more memory".to_string());
        }
        Ok(unpacked)
    }
}

fn word(bytes: &[u8], offset: usize) -> Option<usize> {
    let bytes = bytes.get(offset..)?.first_chunk()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}
