//! A script for U-Boot that starts Bulkhead from the disk it lies on.
//!
//! Source: U-Boot's `include/image.h` as documented in "Legacy uImage format" (doc/usage): a header of 64 bytes, big
//! endian, with a checksum of itself and one of what follows; a script is preceded by the list of its length.

use flate2::Crc;

const MAGIC: u32 = 0x2705_1956;
const OS_LINUX: u8 = 5;
const ARCHITECTURE_ARM64: u8 = 22;
const TYPE_SCRIPT: u8 = 6;
const NOT_COMPRESSED: u8 = 0;

/// The commands that load `bulkhead.bin` and `bundle` from where the script was found, and start them.
///
/// Neither tree nor bundle is moved (`fdt_high`, `initrd_high`): U-Boot would move them to the end of RAM, where driver
/// domains are.
///
/// U-Boot's own boot flow sets `devtype`, `devnum`, `distro_bootpart` and `prefix` before it runs the script.
pub(crate) fn commands(system: &str, bundle: &str) -> String {
    format!(
        "# Starts the system {system}. U-Boot must run at EL2; by hand, set devtype, devnum and distro_bootpart first.\n\
         setenv bulkhead_from ${{devtype}} ${{devnum}}:${{distro_bootpart}}\n\
         setenv bulkhead_tree ${{fdt_addr}}\n\
         if test -z \"${{bulkhead_tree}}\"; then setenv bulkhead_tree ${{fdtcontroladdr}}; fi\n\
         setenv fdt_high 0xffffffffffffffff\n\
         setenv initrd_high 0xffffffffffffffff\n\
         load ${{bulkhead_from}} ${{kernel_addr_r}} ${{prefix}}bulkhead.bin\n\
         load ${{bulkhead_from}} ${{ramdisk_addr_r}} ${{prefix}}{bundle}\n\
         booti ${{kernel_addr_r}} ${{ramdisk_addr_r}}:${{filesize}} ${{bulkhead_tree}}\n"
    )
}

/// `commands` as a `boot.scr`.
pub(crate) fn script_image(commands: &str) -> Vec<u8> {
    let mut data = Vec::new();
    let length = u32::try_from(commands.len()).unwrap_or(u32::MAX);
    data.extend(length.to_be_bytes());
    data.extend(0_u32.to_be_bytes());
    data.extend(commands.as_bytes());
    let size = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut header = Vec::new();
    // Magic, checksum, time, size, load address, entry, checksum of the data.
    for word in [MAGIC, 0, 0, size, 0, 0, checksum(&data)] {
        header.extend(word.to_be_bytes());
    }
    header.extend([OS_LINUX, ARCHITECTURE_ARM64, TYPE_SCRIPT, NOT_COMPRESSED]);
    let mut name = [0; 32];
    for (to, from) in name.iter_mut().zip(b"bulkhead") {
        *to = *from;
    }
    header.extend(name);
    // The header's own checksum counts as zero in it.
    let own = checksum(&header).to_be_bytes();
    for (to, from) in header.iter_mut().skip(4).zip(own) {
        *to = from;
    }
    header.extend(data);
    header
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(image: &[u8], at: usize) -> u32 {
        u32::from_be_bytes(image[at..at + 4].try_into().expect("four bytes"))
    }

    #[test]
    fn a_script_has_the_header_that_u_boot_checks() {
        let commands = commands("two", "two.bundle");
        let image = script_image(&commands);
        assert_eq!((word(&image, 0), word(&image, 12) as usize), (MAGIC, image.len() - 64));
        assert_eq!(word(&image, 24), checksum(&image[64..]));
        let mut header = image[..64].to_vec();
        header[4..8].fill(0);
        assert_eq!(word(&image, 4), checksum(&header));
        assert_eq!((word(&image, 64) as usize, word(&image, 68)), (commands.len(), 0));
        assert!(image.ends_with(commands.as_bytes()));
    }
}
