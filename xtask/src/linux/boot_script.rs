//! The script by which U-Boot starts Linux from a root partition.
//!
//! U-Boot looks for it there by itself (its "distro boot"), in the format of its older images. The kernel is read in
//! pieces: U-Boot would ask for a whole file in one request, and one of more than 4 MiB is refused by the disk. The
//! command line is that of the device tree, which U-Boot leaves as it is.

use crate::u_boot::script_image;
use std::fmt::Write as _;

/// The script's path on the partition, where U-Boot looks for it.
pub(super) const PATH: &str = "boot/boot.scr";
/// The paths of the kernel and of its initial archive there.
pub(super) const KERNEL: &str = "boot/vmlinuz";
pub(super) const INITRD: &str = "boot/initrd";

/// Where U-Boot's own environment for QEMU's `virt` board has kernel and initial archive in RAM (`kernel_addr_r`,
/// `ramdisk_addr_r`).
const KERNEL_ADDRESS: usize = 0x4040_0000;
const INITRD_ADDRESS: usize = 0x4400_0000;
/// What is read at a time.
const PIECE: usize = 2 << 20;

/// The script for a kernel and an initial archive of so many bytes, as an image.
pub(super) fn boot_script(kernel_bytes: usize, initrd_bytes: usize) -> Vec<u8> {
    let mut script = String::new();
    for (path, address, bytes) in [(KERNEL, KERNEL_ADDRESS, kernel_bytes), (INITRD, INITRD_ADDRESS, initrd_bytes)] {
        for position in (0..bytes).step_by(PIECE) {
            let to = address + position;
            // Writing to a string cannot fail. U-Boot's numbers are hexadecimal.
            let _ = writeln!(
                script,
                "load ${{devtype}} ${{devnum}}:${{distro_bootpart}} {to:x} /{path} {PIECE:x} {position:x} || exit"
            );
        }
    }
    let _ = writeln!(script, "booti {KERNEL_ADDRESS:x} {INITRD_ADDRESS:x}:{initrd_bytes:x} ${{fdt_addr}}");
    script_image(&script)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The header, and the list of one script's length.
    const HEADER_BYTES: usize = 64 + 8;

    #[test]
    fn a_kernel_is_read_in_pieces_that_the_disk_takes() {
        let script = boot_script((4 << 20) + 1, 5);
        let text = String::from_utf8(script[HEADER_BYTES..].to_vec()).expect("text");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[2].ends_with(" 40800000 /boot/vmlinuz 200000 400000 || exit"), "{}", lines[2]);
        assert!(lines[3].ends_with(" 44000000 /boot/initrd 200000 0 || exit"), "{}", lines[3]);
        assert_eq!(lines[4], "booti 40400000 44000000:5 ${fdt_addr}");
    }
}
