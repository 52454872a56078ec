//! From ELF to what a boot loader copies into memory: the loadable segments, each at its distance from the lowest one.
//!
//! The images are position-independent; their relocations lie inside the segments and are applied by the image's own
//! first instructions, so nothing is relocated here.

use anyhow::{Context, bail, ensure};
use object::{Object, ObjectSegment};

/// More than any image of this project; a wrong linker script gives segments terabytes apart.
const IMAGE_BYTES_MAX: u64 = 64 << 20;

/// Lays out the loadable segments of `elf` as one flat image. Memory that no segment fills from the file (BSS) is left
/// out at the end and zero in between.
///
/// # Errors
/// When `elf` is not an ELF file for AArch64, has nothing to load, or spreads over more than [`IMAGE_BYTES_MAX`].
pub(crate) fn flatten(elf: &[u8]) -> anyhow::Result<Vec<u8>> {
    let file = object::File::parse(elf).context("not an ELF file")?;
    if file.architecture() != object::Architecture::Aarch64 {
        bail!("built for {:?}, not for AArch64", file.architecture());
    }
    let mut segments = Vec::new();
    for segment in file.segments() {
        let data = segment.data().context("a segment lies outside the file")?;
        if !data.is_empty() {
            segments.push((segment.address(), data));
        }
    }
    let lowest = segments.iter().map(|(address, _)| *address).min().context("no segment to load")?;

    let mut image = Vec::new();
    for (address, data) in segments {
        let start = address - lowest;
        ensure!(start < IMAGE_BYTES_MAX, "its segments lie {start:#x} bytes apart; check the linker script");
        let start = usize::try_from(start)?;
        let end = start + data.len();
        if image.len() < end {
            image.resize(end, 0);
        }
        image[start..end].copy_from_slice(data);
    }
    Ok(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minimal ELF64 file with one program header per segment given as (address, bytes, size in memory).
    fn elf(machine: u16, segments: &[(u64, &[u8], u64)]) -> Vec<u8> {
        let header_bytes = 64 + 56 * segments.len();
        let mut file = Vec::new();
        file.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
        file.extend(3u16.to_le_bytes()); // ET_DYN: position-independent
        file.extend(machine.to_le_bytes());
        file.extend(1u32.to_le_bytes());
        file.extend(0u64.to_le_bytes()); // entry
        file.extend(64u64.to_le_bytes()); // program headers follow this header
        file.extend(0u64.to_le_bytes()); // no section headers
        file.extend(0u32.to_le_bytes());
        for half in [64u16, 56, u16::try_from(segments.len()).expect("few segments"), 64, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let mut offset = header_bytes as u64;
        for (address, bytes, memory_size) in segments {
            file.extend(1u32.to_le_bytes()); // PT_LOAD
            file.extend(7u32.to_le_bytes());
            for word in [offset, *address, *address, bytes.len() as u64, *memory_size, 4] {
                file.extend(word.to_le_bytes());
            }
            offset += bytes.len() as u64;
        }
        for (_, bytes, _) in segments {
            file.extend(*bytes);
        }
        file
    }

    const AARCH64: u16 = 183;
    const X86_64: u16 = 62;

    #[test]
    fn segments_keep_their_distance() {
        let image = flatten(&elf(AARCH64, &[(0x10, &[3, 4], 2), (0x8, &[1, 2], 2)])).expect("flattened");
        assert_eq!(image, [1, 2, 0, 0, 0, 0, 0, 0, 3, 4]);
    }

    #[test]
    fn zeroed_memory_at_the_end_takes_no_room() {
        let image = flatten(&elf(AARCH64, &[(0, &[1], 4096), (8192, &[], 4096)])).expect("flattened");
        assert_eq!(image, [1]);
    }

    #[test]
    fn segments_far_apart_are_refused() {
        let error = flatten(&elf(AARCH64, &[(0, &[1], 1), (1 << 40, &[2], 1)])).expect_err("too far");
        assert!(error.to_string().contains("linker script"), "{error}");
    }

    #[test]
    fn another_machine_is_refused() {
        let error = flatten(&elf(X86_64, &[(0, &[1], 1)])).expect_err("not AArch64");
        assert!(error.to_string().contains("not for AArch64"), "{error}");
    }

    #[test]
    fn garbage_is_refused() {
        assert!(flatten(b"#!/bin/sh").is_err());
        assert!(flatten(&elf(AARCH64, &[])).is_err());
    }
}
