//! Kernels of each kind, written by hand as their formats say.

use super::*;
use flate2::{Compression, write::GzEncoder};
use std::io::Write;

const RAM: Span = Span::new(0x4000_0000, 64 << 20);

/// An `Image` header, and `extra` bytes after it.
fn image(text_offset: u64, image_size: u64, extra: usize) -> Vec<u8> {
    let mut bytes = vec![0; 64 + extra];
    bytes[8..16].copy_from_slice(&text_offset.to_le_bytes());
    bytes[16..24].copy_from_slice(&image_size.to_le_bytes());
    bytes[0x38..0x3c].copy_from_slice(IMAGE_MAGIC);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

/// An EFI zboot image that holds `payload`.
fn zboot(payload: &[u8], method: &[u8]) -> Vec<u8> {
    let mut bytes = b"MZ\0\0zimg".to_vec();
    bytes.extend(64_u32.to_le_bytes());
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.resize(24, 0);
    bytes.extend(method);
    bytes.resize(64, 0);
    bytes.extend(payload);
    bytes
}

/// A segment of an ELF file: physical and virtual address, bytes, and size in memory.
type Part<'a> = (u64, u64, &'a [u8], u64);

/// An ELF file of 64 bits, as the specification says.
fn elf_file(kind: u16, machine: u16, entry: u64, parts: &[Part<'_>]) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend(kind.to_le_bytes());
    bytes.extend(machine.to_le_bytes());
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(entry.to_le_bytes());
    bytes.extend(64_u64.to_le_bytes());
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend(0_u32.to_le_bytes());
    for half_word in [64, 56, parts.len() as u16, 64, 0, 0] {
        bytes.extend(half_word.to_le_bytes());
    }
    let mut offset = 64 + 56 * parts.len() as u64;
    for (physical, virtual_address, data, memory_size) in parts {
        bytes.extend(1_u32.to_le_bytes());
        bytes.extend(5_u32.to_le_bytes());
        let size = data.len() as u64;
        for double_word in [offset, *virtual_address, *physical, size, *memory_size, 8] {
            bytes.extend(double_word.to_le_bytes());
        }
        offset += size;
    }
    for (_, _, data, _) in parts {
        bytes.extend(*data);
    }
    bytes
}

const EXECUTABLE: u16 = 2;
const POSITION_INDEPENDENT: u16 = 3;
const AARCH64: u16 = 183;

#[test]
fn an_image_goes_where_its_header_says() {
    let kernel = place_kernel(image(0x8_0000, 0x100_0000, 100), RAM).unwrap();
    assert_eq!((kernel.kind, kernel.entry), ("arm64 Image", 0x4008_0000));
    assert_eq!(kernel.span, Span::new(0x4008_0000, 0x100_0000));
    assert_eq!(kernel.segments.len(), 1);
    assert_eq!(kernel.segments[0].bytes.len(), 164);
}

#[test]
fn an_image_at_the_very_start_of_ram_goes_a_block_higher_as_with_qemu() {
    for (text_offset, entry) in [(0, 0x4020_0000), (0xfff, 0x4020_0fff), (0x1000, 0x4000_1000)] {
        assert_eq!(place_kernel(image(text_offset, 1 << 20, 0), RAM).unwrap().entry, entry);
    }
}

#[test]
fn an_image_from_before_its_size_was_stated_is_as_large_as_its_file() {
    let kernel = place_kernel(image(0, 0, 100), RAM).unwrap();
    assert_eq!(kernel.span, Span::new(0x4008_0000, 164));
}

#[test]
fn an_image_that_states_less_than_its_file_needs_its_file() {
    assert_eq!(place_kernel(image(0, 1, 100), RAM).unwrap().span.size, 164);
}

#[test]
fn a_header_with_absurd_numbers_is_refused() {
    place_kernel(image(u64::MAX, 1 << 20, 0), RAM).unwrap_err();
    place_kernel(image(0, u64::MAX, 0), RAM).unwrap_err();
    place_kernel(image(0, 63 << 20, 0), RAM).unwrap_err();
    place_kernel(image(0, 62 << 20, 0), RAM).unwrap();
}

#[test]
fn a_compressed_kernel_is_uncompressed_here_so_that_the_hypervisor_need_not() {
    let plain = image(0, 0x100_0000, 9);
    let kernel = place_kernel(gzip(&plain), RAM).unwrap();
    assert_eq!(kernel.kind, "compressed kernel (gzip)");
    assert_eq!(kernel.segments[0].bytes, plain);
    let kernel = place_kernel(zboot(&gzip(&plain), b"gzip"), RAM).unwrap();
    assert_eq!(kernel.kind, "compressed kernel (EFI, gzip)");
    assert_eq!(kernel.segments[0].bytes, plain);
    let kernel = place_kernel(zstd(&plain), RAM).unwrap();
    assert_eq!(kernel.kind, "compressed kernel (zstd)");
    assert_eq!(kernel.segments[0].bytes, plain);
    // With what Linux's build puts behind: the unpacked size.
    let kernel = place_kernel(zboot(&[zstd(&plain), vec![73, 0, 0, 0]].concat(), b"zstd"), RAM).unwrap();
    assert_eq!(kernel.kind, "compressed kernel (EFI, zstd)");
    assert_eq!(kernel.segments[0].bytes, plain);
}

#[test]
fn what_unpacks_to_more_than_ram_is_refused() {
    for packed in [gzip(&vec![0; 3 << 20]), zstd(&vec![0; 3 << 20])] {
        let end = place_kernel(packed, Span::new(0x4000_0000, 2 << 20)).unwrap_err();
        assert!(end.contains("once it is uncompressed"), "{end}");
    }
}

#[test]
fn another_compression_is_named() {
    let end = place_kernel(zboot(b"x", b"lz4"), RAM).unwrap_err();
    assert_eq!(end, "is compressed with \"lz4\", but only gzip and zstd can be read; uncompress it first");
    for (magic, name) in [
        (b"\xfd7zXZ\0".as_slice(), "xz"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"BZh91AY", "bzip2"),
        (b"\x89LZO\0", "lzo"),
        (b"\x5d\0\0\x80", "lzma"),
    ] {
        let end = place_kernel([magic, &[7; 100]].concat(), RAM).unwrap_err();
        assert!(end.starts_with(&format!("is compressed with {name:?}, ")), "{end}");
    }
}

/// An `Image` header with `flags`.
fn image_with(flags: u64) -> Vec<u8> {
    let mut bytes = image(0, 1 << 20, 0);
    bytes[24..32].copy_from_slice(&flags.to_le_bytes());
    bytes
}

#[test]
fn a_big_endian_kernel_is_refused() {
    assert_eq!(place_kernel(image_with(0b1011), RAM).unwrap_err(), BIG_ENDIAN);
    let parts: [Part<'_>; 1] = [(0x4008_0000, 0x4008_0000, b"text", 4)];
    let mut elf = elf_file(EXECUTABLE, AARCH64, 0x4008_0000, &parts);
    // EI_DATA, and a machine that reads as AArch64 in that order.
    (elf[5], elf[18], elf[19]) = (2, 0, 183);
    assert_eq!(place_kernel(elf, RAM).unwrap_err(), BIG_ENDIAN);
}

#[test]
fn an_image_says_which_pages_it_uses() {
    let found = |flags| place_kernel(image_with(flags), RAM).unwrap().page_size;
    let expected = [None, Some(PageSize::Kib4), Some(PageSize::Kib16), Some(PageSize::Kib64)];
    assert_eq!([0b1000, 0b1010, 0b1100, 0b1110].map(found), expected);
    let mut old = image_with(0b101);
    old[16..24].fill(0);
    assert_eq!(place_kernel(old, RAM).unwrap().page_size, None, "a header from before there were flags");
}

#[test]
fn a_text_is_no_kernel() {
    for text in ["[[vm]]\nname = \"a\"\n", "Größe\r\n\t1"] {
        let end = place_kernel(text.into(), RAM).unwrap_err();
        assert!(end.starts_with("is a text and no kernel; "), "{end}");
    }
}

#[test]
fn a_damaged_stream_is_refused() {
    let mut packed = gzip(&image(0, 1, 1000));
    packed.truncate(packed.len() / 2);
    place_kernel(packed.clone(), RAM).unwrap_err();
    place_kernel(zboot(&packed, b"gzip"), RAM).unwrap_err();
    let mut packed = zstd(&image(0, 1, 1000));
    for length in [3, 4, 5, packed.len() / 2] {
        packed.truncate(packed.len().min(length.max(4)));
        place_kernel(packed.clone(), RAM).unwrap_err();
    }
    place_kernel(b"MZ\0\0zimg".to_vec(), RAM).unwrap_err();
}

#[test]
fn an_elf_program_goes_to_its_physical_addresses() {
    let parts: [Part<'_>; 2] =
        [(0x4010_0000, 0xffff_0010_0000, b"data", 0x1000), (0x4008_0000, 0xffff_0008_0000, b"text", 4)];
    let kernel = place_kernel(elf_file(EXECUTABLE, AARCH64, 0xffff_0008_0000, &parts), RAM).unwrap();
    assert_eq!((kernel.kind, kernel.entry), ("ELF program", 0x4008_0000));
    assert_eq!(kernel.span, Span::new(0x4008_0000, 0x8_1000));
    let segment = |address, bytes: &[u8]| Segment { address, bytes: bytes.to_vec() };
    assert_eq!(kernel.segments, [segment(0x4008_0000, b"text"), segment(0x4010_0000, b"data")]);
}

#[test]
fn a_segment_without_bytes_is_memory_only() {
    let parts: [Part<'_>; 2] = [(0x4008_0000, 0x4008_0000, b"text", 4), (0x4020_0000, 0x4020_0000, b"", 0x10_0000)];
    let kernel = place_kernel(elf_file(EXECUTABLE, AARCH64, 0x4008_0000, &parts), RAM).unwrap();
    assert_eq!(kernel.segments.len(), 1);
    assert_eq!(kernel.span, Span::new(0x4008_0000, 0x28_0000));
}

#[test]
fn a_position_independent_program_goes_above_the_start_of_ram() {
    let parts: [Part<'_>; 1] = [(0x1000, 0x1000, b"text", 4)];
    let kernel = place_kernel(elf_file(POSITION_INDEPENDENT, AARCH64, 0x1002, &parts), RAM).unwrap();
    assert_eq!((kernel.entry, kernel.span.base), (0x4020_1002, 0x4020_1000));
}

#[test]
fn an_elf_file_that_cannot_run_says_why() {
    let text: [Part<'_>; 1] = [(0x4008_0000, 0x4008_0000, b"text", 4)];
    let wraps: [Part<'_>; 1] = [(u64::MAX, u64::MAX, b"text", 4)];
    let elsewhere: [Part<'_>; 1] = [(0x8000_0000, 0x4008_0000, b"text", 4)];
    let shrinking: [Part<'_>; 1] = [(0x4008_0000, 0x4008_0000, b"text", 3)];
    let entry = 0x4008_0000;
    let cases = [
        (elf_file(EXECUTABLE, 62, entry, &text), "for another processor"),
        (elf_file(1, AARCH64, entry, &text), "not a linked program"),
        (elf_file(EXECUTABLE, AARCH64, 0, &text), "entry point is in no segment"),
        (elf_file(EXECUTABLE, AARCH64, entry, &[]), "nothing to load"),
        (elf_file(EXECUTABLE, AARCH64, entry, &wraps), "beyond 64 bits"),
        (elf_file(EXECUTABLE, AARCH64, entry, &elsewhere), "needs memory at 0x8000_0000"),
        (elf_file(EXECUTABLE, AARCH64, entry, &shrinking), "larger than its memory"),
        (b"\x7fELF\x01\x01\x01".to_vec(), "not of 64 bits"),
    ];
    for (bytes, reason) in cases {
        let end = place_kernel(bytes, RAM).unwrap_err();
        assert!(end.contains(reason) && end.contains("; "), "{end}");
    }
}

#[test]
fn an_elf_file_cut_anywhere_is_refused() {
    let parts: [Part<'_>; 1] = [(0x4008_0000, 0x4008_0000, b"text", 4)];
    let bytes = elf_file(EXECUTABLE, AARCH64, 0x4008_0000, &parts);
    for length in 4..bytes.len() {
        place_kernel(bytes[..length].to_vec(), RAM).unwrap_err();
    }
}

#[test]
fn anything_else_goes_where_qemu_puts_it() {
    let kernel = place_kernel(b"\x7f\x20\x03\xd5\0".to_vec(), RAM).unwrap();
    assert_eq!((kernel.kind, kernel.entry), ("raw binary", 0x4008_0000));
    assert_eq!(kernel.span, Span::new(0x4008_0000, 5));
}

#[test]
fn an_empty_file_is_refused() {
    assert_eq!(place_kernel(Vec::new(), RAM).unwrap_err(), "is empty; get the file again");
}
