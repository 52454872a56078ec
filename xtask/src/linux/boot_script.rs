//! The script by which U-Boot starts Linux from a root partition.
//!
//! U-Boot looks for it there by itself (its "distro boot"), in the format of its older images. The kernel is read in
//! pieces: U-Boot would ask for a whole file in one request, and one of more than 4 MiB is refused by the disk. The
//! command line is that of the device tree, which U-Boot leaves as it is.

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

/// The header of an image (U-Boot's `include/image.h`): its magic number, and what the numbers in it stand for.
const HEADER_MAGIC: u32 = 0x2705_1956;
const HEADER_BYTES: usize = 64;
const LINUX: u8 = 5;
const ARM64: u8 = 22;
const SCRIPT: u8 = 6;

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
    image(script.as_bytes())
}

/// An image of the type "script": a header with two checksums, the list of the scripts' sizes, and the script.
fn image(script: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    data.extend(length(script));
    data.extend(0_u32.to_be_bytes());
    data.extend(script);
    let header = |checksum: u32| {
        let mut header = Vec::with_capacity(HEADER_BYTES);
        // Magic number, the header's checksum, time, size, load address, entry, and the data's checksum.
        for word in [HEADER_MAGIC.to_be_bytes(), checksum.to_be_bytes(), [0; 4], length(&data), [0; 4], [0; 4]] {
            header.extend(word);
        }
        header.extend(sum(&data).to_be_bytes());
        // Operating system, architecture, type, no compression; no name.
        header.extend([LINUX, ARM64, SCRIPT, 0]);
        header.resize(HEADER_BYTES, 0);
        header
    };
    // The header's own checksum counts as zero in it.
    let mut image = header(sum(&header(0)));
    image.extend(data);
    image
}

fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes()
}

fn sum(bytes: &[u8]) -> u32 {
    let mut sum = flate2::Crc::new();
    sum.update(bytes);
    sum.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(bytes: &[u8], offset: usize) -> u32 {
        u32::from_be_bytes(*bytes[offset..].first_chunk().expect("long enough"))
    }

    #[test]
    fn a_kernel_is_read_in_pieces_that_the_disk_takes() {
        let script = boot_script((4 << 20) + 1, 5);
        let text = String::from_utf8(script[HEADER_BYTES + 8..].to_vec()).expect("text");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[2].ends_with(" 40800000 /boot/vmlinuz 200000 400000 || exit"), "{}", lines[2]);
        assert!(lines[3].ends_with(" 44000000 /boot/initrd 200000 0 || exit"), "{}", lines[3]);
        assert_eq!(lines[4], "booti 40400000 44000000:5 ${fdt_addr}");
    }

    #[test]
    fn the_image_has_the_checksums_that_u_boot_compares() {
        let image = boot_script(1, 1);
        let (header, data) = image.split_at(HEADER_BYTES);
        assert_eq!((word(header, 0), word(header, 12)), (0x2705_1956, data.len() as u32));
        assert_eq!(word(header, 24), sum(data));
        let mut without = header.to_vec();
        without[4..8].fill(0);
        assert_eq!(word(header, 4), sum(&without));
        assert_eq!((word(data, 0) as usize, word(data, 4)), (data.len() - 8, 0));
    }
}
