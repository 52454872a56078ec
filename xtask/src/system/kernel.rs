//! Kernels: what kind a file is, and where its bytes go in guest RAM.
//!
//! | kind | place | entry |
//! | --- | --- | --- |
//! | arm64 `Image` | `text_offset` above the start of RAM; 2 MiB higher where that is less than 4 KiB | its first byte |
//! | the same, compressed with gzip or zstd, or as an EFI `vmlinuz.efi` | as above, once it is uncompressed | its first byte |
//! | ELF64 for AArch64 | each segment at its physical address; position-independent ones 2 MiB above the start of RAM | its entry |
//! | anything else | 512 KiB above the start of RAM | its first byte |
//!
//! These are the places that QEMU's `virt` board gives them, so that an image which was tried there finds itself and
//! everything else in the same place here; of position-independent ELF files, QEMU knows nothing.
//!
//! Sources: Linux's "Booting AArch64 Linux" (the `Image` header); the ELF specification; QEMU's documentation of `virt`
//! ("Hardware configuration information for bare-metal programming").

mod packed;

use manifest::Span;
use object::{
    Endian as _, Endianness, elf,
    read::elf::{FileHeader, ProgramHeader},
};
use packed::packed;

/// A kernel, placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// What kind of file it was.
    pub(crate) kind: &'static str,
    /// Where it looks for its device tree.
    pub(crate) protocol: Protocol,
    /// The size of its pages, as far as the file says so.
    pub(crate) page_size: Option<PageSize>,
    /// Its parts in ascending order of address; at least one.
    pub(crate) segments: Vec<Segment>,
    /// The guest address at which it starts.
    pub(crate) entry: u64,
    /// The memory it needs, that which it clears by itself included.
    pub(crate) span: Span,
}

/// Where a kernel looks for its device tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Where `x0` says ("Booting AArch64 Linux", 4).
    Linux,
    /// At the start of RAM, where QEMU's `virt` board has it for everything but Linux.
    BareMetal,
    /// Either: nothing says which of the two a raw binary is.
    Unknown,
}

/// The size of a kernel's pages: its translation granule (`flags` of an `Image`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PageSize {
    Kib4,
    Kib16,
    Kib64,
}

/// Bytes and the guest address they go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) address: u64,
    pub(crate) bytes: Vec<u8>,
}

const BLOCK_SIZE: u64 = 2 << 20;
/// Where QEMU puts a file that it knows nothing about, above the start of RAM.
const RAW_OFFSET: u64 = 0x8_0000;
/// The start of RAM that QEMU keeps for its own first instructions. An `Image` that would lie there goes 2 MiB higher:
/// `text_offset` counts from any multiple of 2 MiB.
const LOADER_SIZE: u64 = 0x1000;
/// `text_offset` of an `Image` whose header is too old to state its size ("Booting AArch64 Linux", 4).
const OLD_TEXT_OFFSET: u64 = 0x8_0000;
const IMAGE_MAGIC_OFFSET: usize = 0x38;
const IMAGE_MAGIC: &[u8] = b"ARM\x64";
/// `flags` of an `Image`: its byte order, and its page size.
const FLAG_BIG_ENDIAN: u64 = 1;
const FLAGS_PAGE_SHIFT: u32 = 1;
const BIG_ENDIAN: &str = "is made for big-endian cores, and a guest starts little-endian; build it little-endian";

/// Recognises the kernel in `bytes` and places it in the guest's RAM `ram`.
///
/// # Errors
/// The end of a sentence that starts with what and where: why it cannot be started, and what to do.
pub(crate) fn place_kernel(bytes: Vec<u8>, ram: Span) -> Result<Kernel, String> {
    let kernel = match packed(&bytes)? {
        Some(packed) => Kernel { kind: packed.kind, ..place_uncompressed(packed.unpack(ram.size)?, ram)? },
        None => place_uncompressed(bytes, ram)?,
    };
    if !ram.contains(kernel.span) {
        return Err(format!("needs memory at {}, but the vm has {ram}; give the vm other or more memory", kernel.span));
    }
    Ok(kernel)
}

fn place_uncompressed(bytes: Vec<u8>, ram: Span) -> Result<Kernel, String> {
    if bytes.is_empty() {
        return Err("is empty; get the file again".to_string());
    }
    if bytes.get(IMAGE_MAGIC_OFFSET..IMAGE_MAGIC_OFFSET + 4) == Some(IMAGE_MAGIC) {
        return place_image(bytes, ram);
    }
    if bytes.starts_with(&elf::ELFMAG) {
        return place_elf(&bytes, ram);
    }
    let address = offset_in(ram, RAW_OFFSET)?;
    let span = Span::new(address, bytes.len() as u64);
    if is_text(&bytes) {
        return Err("is a text and no kernel; name an arm64 Image, an ELF file or a raw binary".to_string());
    }
    let protocol = Protocol::Unknown;
    Ok(Kernel {
        kind: "raw binary",
        protocol,
        page_size: None,
        segments: vec![Segment { address, bytes }],
        entry: address,
        span,
    })
}

fn place_image(bytes: Vec<u8>, ram: Span) -> Result<Kernel, String> {
    let length = bytes.len() as u64;
    let (text_offset, image_size) = match (double_word(&bytes, 8), double_word(&bytes, 16)) {
        (Some(text_offset), Some(size)) if size != 0 => (text_offset, size.max(length)),
        _ => (OLD_TEXT_OFFSET, length),
    };
    // A header too old to state its size has no flags either.
    let flags = double_word(&bytes, 24).filter(|_| double_word(&bytes, 16) != Some(0)).unwrap_or(0);
    if flags & FLAG_BIG_ENDIAN != 0 {
        return Err(BIG_ENDIAN.to_string());
    }
    let page_size = match flags >> FLAGS_PAGE_SHIFT & 3 {
        1 => Some(PageSize::Kib4),
        2 => Some(PageSize::Kib16),
        3 => Some(PageSize::Kib64),
        _ => None,
    };
    let is_taken = text_offset < LOADER_SIZE;
    let offset = if is_taken { text_offset.saturating_add(BLOCK_SIZE) } else { text_offset };
    let address = offset_in(ram, offset)?;
    let span = Span::new(address, image_size);
    let protocol = Protocol::Linux;
    Ok(Kernel {
        kind: "arm64 Image",
        protocol,
        page_size,
        segments: vec![Segment { address, bytes }],
        entry: address,
        span,
    })
}

fn place_elf(bytes: &[u8], ram: Span) -> Result<Kernel, String> {
    let broken = |error: object::Error| format!("is a broken ELF file ({error}); build it again");
    let header = elf::FileHeader64::<Endianness>::parse(bytes)
        .map_err(|_| "is an ELF file, but not of 64 bits; build it for AArch64".to_string())?;
    let endian = header.endian().map_err(broken)?;
    if header.e_machine(endian) != elf::EM_AARCH64 {
        return Err("is an ELF file for another processor; build it for AArch64".to_string());
    }
    if endian.is_big_endian() {
        return Err(BIG_ENDIAN.to_string());
    }
    let bias = match header.e_type(endian) {
        elf::ET_EXEC => None,
        elf::ET_DYN => Some(()),
        _ => return Err("is an ELF file, but not a linked program; link it first".to_string()),
    };
    let is_loaded =
        |part: &&elf::ProgramHeader64<Endianness>| part.p_type(endian) == elf::PT_LOAD && part.p_memsz(endian) != 0;
    let parts = header.program_headers(endian, bytes).map_err(broken)?;
    let parts: Vec<_> = parts.iter().filter(is_loaded).collect();
    let low = parts.iter().map(|part| part.p_paddr(endian)).min();
    let low = low.ok_or("is an ELF file with nothing to load; link it again")?;
    // What is position-independent keeps its place within a block, so that its alignment stays true.
    let bias = match bias {
        None => 0,
        Some(()) => offset_in(ram, BLOCK_SIZE)?.wrapping_sub(low - low % BLOCK_SIZE),
    };

    let wraps = || "is an ELF file with addresses beyond 64 bits; link it again".to_string();
    let (mut segments, mut entry, mut end) = (Vec::new(), None, 0);
    for part in parts {
        let address = part.p_paddr(endian).wrapping_add(bias);
        let part_end = address.checked_add(part.p_memsz(endian)).ok_or_else(wraps)?;
        end = part_end.max(end);
        let offset = header.e_entry(endian).wrapping_sub(part.p_vaddr(endian));
        if offset < part.p_memsz(endian) {
            entry = Some(address + offset);
        }
        let bytes = part.data(endian, bytes).map_err(|()| "is an ELF file that is cut short; get the file again")?;
        if bytes.len() as u64 > part.p_memsz(endian) {
            return Err("is an ELF file with a segment larger than its memory; link it again".to_string());
        }
        if !bytes.is_empty() {
            segments.push(Segment { address, bytes: bytes.to_vec() });
        }
    }
    segments.sort_by_key(|segment| segment.address);
    let entry = entry.ok_or("is an ELF file whose entry point is in no segment; link it again")?;
    let low = low.wrapping_add(bias);
    let size = end.checked_sub(low).ok_or_else(wraps)?;
    let protocol = Protocol::BareMetal;
    Ok(Kernel { kind: "ELF program", protocol, page_size: None, segments, entry, span: Span::new(low, size) })
}

/// Whether a file that is nothing else is for people: no code comes without a byte that a text does not have.
fn is_text(bytes: &[u8]) -> bool {
    let is_control = |character: char| character.is_control() && !character.is_whitespace();
    std::str::from_utf8(bytes).is_ok_and(|text| !text.contains(is_control))
}

/// The address `offset` above the start of RAM.
fn offset_in(ram: Span, offset: u64) -> Result<u64, String> {
    ram.base.checked_add(offset).ok_or_else(|| "has an offset beyond 64 bits; get the file again".to_string())
}

fn double_word(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests;
