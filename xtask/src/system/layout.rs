//! Where a guest's initial RAM disk and device tree go, beside its kernel.
//!
//! They go where QEMU's `virt` board has them, so that what runs there runs here: a raw binary says nothing of the
//! memory that it clears and uses beyond its file, and was tried with these places.
//!
//! ```text
//! start of RAM              the device tree, for what looks for it there ([`Protocol`])
//!                           the kernel, where its kind says
//! + 128 MiB, or RAM / 2     the initial RAM disk; after the kernel, where that reaches so far
//!   next multiple of 2 MiB  the device tree that x0 points to
//! ```
//!
//! Where QEMU would give up since RAM is too small, there is a second choice.

use manifest::Span;

use super::kernel::{Kernel, Protocol};

const BLOCK_SIZE: u64 = 2 << 20;
const PAGE_SIZE: u64 = 4096;
/// How far into RAM the initial RAM disk goes at most, where the kernel ends before that.
const INITRD_OFFSET_MAX: u64 = 128 << 20;
/// The largest device tree that Linux maps at boot ("Booting AArch64 Linux", 2).
const DEVICE_TREE_SIZE_MAX: u64 = 2 << 20;

/// Where a device tree goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceTreePlaces {
    /// Where `x0` says that it is.
    pub(crate) passed: Span,
    /// Where else a guest may look for it.
    pub(crate) copy: Option<Span>,
}

/// Places an initial RAM disk of `size` bytes; right after the kernel, where RAM ends too early for QEMU's place.
///
/// # Errors
/// The end of a sentence that starts with the RAM disk and its vm.
pub(crate) fn place_initrd(ram: Span, kernel: &Kernel, size: u64) -> Result<Span, String> {
    let usual = Span::new(initrd_start(ram, kernel), size);
    if ram.contains(usual) {
        return Ok(usual);
    }
    let span = Span::new(block_after(kernel.span), size);
    fits(ram, span, "initrd")
}

/// Places a device tree of `size` bytes.
///
/// # Errors
/// The end of a sentence that starts with the device tree and its vm.
pub(crate) fn place_device_tree(
    ram: Span,
    kernel: &Kernel,
    initrd: Option<Span>,
    size: u64,
) -> Result<DeviceTreePlaces, String> {
    if size > DEVICE_TREE_SIZE_MAX {
        return Err(format!("has {size} bytes, but at most 2 MiB are possible; shorten the command line"));
    }
    let is_free = |span: &Span| {
        ram.contains(*span) && !span.overlaps(kernel.span) && !initrd.is_some_and(|initrd| span.overlaps(initrd))
    };
    let first = Some(Span::new(ram.base, size)).filter(is_free);
    let before = initrd.unwrap_or_else(|| Span::new(initrd_start(ram, kernel), 0));
    let last = Some(Span::new(block_after(before), size)).filter(is_free);
    let rest = || fits(ram, Span::new(block_after(initrd.unwrap_or(kernel.span)), size), "device tree");
    let only = |passed| Ok(DeviceTreePlaces { passed, copy: None });
    match (kernel.protocol, first, last) {
        (Protocol::BareMetal, Some(first), _) | (_, Some(first), None) => only(first),
        (Protocol::Unknown, first, Some(passed)) => Ok(DeviceTreePlaces { passed, copy: first }),
        (Protocol::Linux | Protocol::BareMetal, _, Some(last)) => only(last),
        (_, None, None) => only(rest()?),
    }
}

/// The first address for the initial RAM disk.
fn initrd_start(ram: Span, kernel: &Kernel) -> u64 {
    let usual = ram.base.saturating_add(INITRD_OFFSET_MAX.min(ram.size / 2));
    let start = usual.max(kernel.span.end().unwrap_or(u64::MAX));
    start.checked_next_multiple_of(PAGE_SIZE).unwrap_or(u64::MAX)
}

fn fits(ram: Span, span: Span, what: &str) -> Result<Span, String> {
    if ram.contains(span) {
        return Ok(span);
    }
    Err(format!(
        "needs memory at {span} (the {what} goes after the kernel), but the vm has {ram}; give the vm more memory"
    ))
}

/// The first multiple of 2 MiB after `span`; the last one there is, where it ends beyond 64 bits.
fn block_after(span: Span) -> u64 {
    span.end().and_then(|end| end.checked_next_multiple_of(BLOCK_SIZE)).unwrap_or(u64::MAX - BLOCK_SIZE + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAM: Span = Span::new(0x4000_0000, 64 << 20);

    fn kernel(base: u64, size: u64) -> Kernel {
        let protocol = Protocol::Linux;
        Kernel {
            kind: "arm64 Image",
            protocol,
            page_size: None,
            segments: Vec::new(),
            entry: base,
            span: Span::new(base, size),
        }
    }

    fn tree(kernel: &Kernel, initrd: Option<Span>, size: u64) -> (u64, Option<u64>) {
        let DeviceTreePlaces { passed, copy } = place_device_tree(RAM, kernel, initrd, size).unwrap();
        assert_eq!(passed.size, size);
        (passed.base, copy.map(|copy| copy.base))
    }

    #[test]
    fn the_initrd_is_half_way_into_ram_but_at_most_at_128_mib() {
        for (mebibytes, address) in [(64, 0x4200_0000), (192, 0x4600_0000), (256, 0x4800_0000), (1024, 0x4800_0000)] {
            let ram = Span::new(0x4000_0000, mebibytes << 20);
            let initrd = place_initrd(ram, &kernel(0x4020_0000, 0x20_0001), 5).unwrap();
            assert_eq!(initrd, Span::new(address, 5), "{mebibytes} MiB");
        }
    }

    #[test]
    fn the_initrd_is_clear_of_what_the_kernel_clears() {
        let initrd = place_initrd(RAM, &kernel(0x4020_0000, (40 << 20) + 1), 5).unwrap();
        assert_eq!(initrd, Span::new(0x42a0_1000, 5));
    }

    #[test]
    fn an_initrd_may_fill_ram_but_not_more() {
        place_initrd(RAM, &kernel(0x4020_0000, 0x20_0000), 60 << 20).unwrap();
        place_initrd(RAM, &kernel(0x4020_0000, 0x20_0000), (60 << 20) + 1).unwrap_err();
        place_initrd(RAM, &kernel(0x4020_0000, u64::MAX), 1).unwrap_err();
    }

    #[test]
    fn linux_finds_its_device_tree_after_the_initrd() {
        let linux = kernel(0x4020_0000, 9);
        assert_eq!(tree(&linux, None, 0x20_0000), (0x4200_0000, None));
        assert_eq!(tree(&linux, Some(Span::new(0x4200_0000, 9)), 8), (0x4220_0000, None));
    }

    #[test]
    fn an_elf_program_finds_its_device_tree_at_the_start_of_ram() {
        let program = Kernel { protocol: Protocol::BareMetal, ..kernel(0x4020_0000, 9) };
        assert_eq!(tree(&program, None, 0x20_0000), (0x4000_0000, None));
        let in_the_way = Kernel { protocol: Protocol::BareMetal, ..kernel(0x4000_0000, 9) };
        assert_eq!(tree(&in_the_way, None, 8), (0x4200_0000, None));
    }

    #[test]
    fn a_raw_binary_finds_its_device_tree_in_both_places() {
        let raw = Kernel { protocol: Protocol::Unknown, ..kernel(0x4008_0000, 9) };
        assert_eq!(tree(&raw, None, 0x8_0000), (0x4200_0000, Some(0x4000_0000)));
        assert_eq!(tree(&raw, None, 0x8_0001), (0x4200_0000, None));
    }

    #[test]
    fn a_device_tree_without_room_at_the_end_is_at_the_start_or_anywhere() {
        let initrd = Some(Span::new(0x4200_0000, 32 << 20));
        assert_eq!(tree(&kernel(0x4020_0000, 9), initrd, 8), (0x4000_0000, None));
        let in_the_way = kernel(0x4000_0000, 9);
        let initrd = place_initrd(RAM, &in_the_way, 60 << 20).unwrap();
        assert_eq!(tree(&in_the_way, Some(initrd), 8), (0x43e0_0000, None));
        place_device_tree(RAM, &in_the_way, Some(Span::new(0x4020_0000, 62 << 20)), 8).unwrap_err();
    }

    #[test]
    fn a_device_tree_beyond_2_mib_is_refused() {
        place_device_tree(RAM, &kernel(0x4020_0000, 9), None, (2 << 20) + 1).unwrap_err();
    }
}
