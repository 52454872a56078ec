//! Where a guest's initial RAM disk and device tree go, beside its kernel.

use manifest::Span;

use super::kernel::Kernel;

const BLOCK_SIZE: u64 = 2 << 20;
/// The largest device tree that Linux maps at boot ("Booting AArch64 Linux", 2).
const DEVICE_TREE_SIZE_MAX: u64 = 2 << 20;

/// Places an initial RAM disk of `size` bytes after the kernel.
///
/// # Errors
/// The end of a sentence that starts with the RAM disk and its vm.
pub(crate) fn place_initrd(ram: Span, kernel: &Kernel, size: u64) -> Result<Span, String> {
    let span = Span::new(block_after(kernel.span), size);
    fits(ram, span, "initrd")
}

/// Places a device tree of `size` bytes: at the start of RAM, where firmware and real-time kernels look for it, or
/// after everything else where the kernel is in the way.
///
/// # Errors
/// The end of a sentence that starts with the device tree and its vm.
pub(crate) fn place_device_tree(ram: Span, kernel: &Kernel, initrd: Option<Span>, size: u64) -> Result<Span, String> {
    if size > DEVICE_TREE_SIZE_MAX {
        return Err(format!("has {size} bytes, but at most 2 MiB are possible; shorten the command line"));
    }
    let first = Span::new(ram.base, size);
    if !first.overlaps(kernel.span) {
        return fits(ram, first, "device tree");
    }
    fits(ram, Span::new(block_after(initrd.unwrap_or(kernel.span)), size), "device tree")
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
        Kernel { kind: "raw binary", segments: Vec::new(), entry: base, span: Span::new(base, size) }
    }

    #[test]
    fn the_initrd_follows_the_kernel_in_a_block_of_its_own() {
        let initrd = place_initrd(RAM, &kernel(0x4020_0000, 0x20_0001), 5).unwrap();
        assert_eq!(initrd, Span::new(0x4060_0000, 5));
    }

    #[test]
    fn an_initrd_may_fill_ram_but_not_more() {
        place_initrd(RAM, &kernel(0x4020_0000, 0x20_0000), 60 << 20).unwrap();
        place_initrd(RAM, &kernel(0x4020_0000, 0x20_0000), (60 << 20) + 1).unwrap_err();
        place_initrd(RAM, &kernel(0x4020_0000, u64::MAX), 1).unwrap_err();
    }

    #[test]
    fn the_device_tree_is_at_the_start_of_ram() {
        let device_tree = place_device_tree(RAM, &kernel(0x4020_0000, 9), None, 0x20_0000).unwrap();
        assert_eq!(device_tree, Span::new(0x4000_0000, 0x20_0000));
    }

    #[test]
    fn a_kernel_at_the_start_of_ram_moves_the_device_tree_behind_everything() {
        let kernel = kernel(0x4000_0000, 9);
        assert_eq!(place_device_tree(RAM, &kernel, None, 8).unwrap(), Span::new(0x4020_0000, 8));
        let initrd = place_initrd(RAM, &kernel, 9).unwrap();
        assert_eq!(place_device_tree(RAM, &kernel, Some(initrd), 8).unwrap(), Span::new(0x4040_0000, 8));
    }

    #[test]
    fn a_device_tree_beyond_2_mib_is_refused() {
        place_device_tree(RAM, &kernel(0x4020_0000, 9), None, (2 << 20) + 1).unwrap_err();
    }
}
