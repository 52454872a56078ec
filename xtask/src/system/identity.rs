//! What a guest is told on its kernel's command line about what the system gives it, so that it can compare.

use super::{
    Source, VmSource,
    backend::{Backend, Mac},
    sockets,
    storage::Content,
};
use std::fmt::Write;

/// The board's clock, which a guest may own.
const CLOCK: &str = "pl031";

/// The words for `vm`: its name, CPUs and memory; the sizes of its disks and on which its root is; its network card's
/// MAC address, its IPv4 address if it is stated or chosen, and that of the neighbour to talk to; whether it finds a
/// console and a source of entropy. `guests/linux/init` says what each means.
pub(crate) fn identity(source: &Source, vm: &VmSource) -> String {
    let mut words =
        format!("bulkhead.name={} bulkhead.vcpus={} bulkhead.memory={}", vm.name, vm.vcpus(), vm.memory_bytes());
    let disks = disks(source, vm);
    // Writing to a string cannot fail.
    if !disks.sizes.is_empty() {
        let _ = write!(words, " bulkhead.disk={}", disks.sizes.join(","));
    }
    if let Some(root) = disks.root {
        let _ = write!(words, " bulkhead.root=/dev/{root}");
    }
    if let Some(mac) = mac(vm).or_else(|| source.cards_of(vm).next()) {
        let _ = write!(words, " bulkhead.mac={}", Mac(mac));
    }
    words += &source.address_words(vm);
    if vm.owns(CLOCK) {
        words += " bulkhead.clock";
    }
    words += &sockets::words(source, vm);
    for channel in vm.channels() {
        words += match channel.client.backend {
            Backend::Console => " bulkhead.console",
            Backend::Entropy => " bulkhead.entropy",
            Backend::Disk { .. } | Backend::RamDisk { .. } | Backend::Network { .. } | Backend::Socket { .. } => "",
        };
    }
    words
}

/// The disks of a guest as Linux has them.
struct Disks {
    /// The bytes of each, with `:ro` where it takes no writes and `:shared` where others may write it, too.
    sizes: Vec<String>,
    /// The name of the device with the root file system.
    root: Option<String>,
}

/// The disks of `vm`, in Linux's order: the para-virtual ones come first in the device tree.
fn disks(source: &Source, vm: &VmSource) -> Disks {
    let is_root = |content: Option<Content>| matches!(content, Some(Content::LinuxRoot | Content::LinuxBoot));
    let mut disks = Disks { sizes: Vec::new(), root: None };
    for disk in vm.block_devices(source) {
        if is_root(disk.content) && disks.root.is_none() {
            disks.root = Some(linux_name(disks.sizes.len()));
        }
        let mark = match (disk.read_only, disk.shared) {
            (true, _) => ":ro",
            (false, true) => ":shared",
            (false, false) => "",
        };
        disks.sizes.push(format!("{}{mark}", disk.bytes));
    }
    for (_, disk) in source.disks_of(vm).filter(|_| vm.doorbell.is_none()) {
        let root = disk.partitions.iter().position(|partition| is_root(partition.content));
        if let (Some(partition), None) = (root, &disks.root) {
            disks.root = Some(format!("{}{}", linux_name(disks.sizes.len()), partition.saturating_add(1)));
        }
        disks.sizes.push(disk.size.to_string());
    }
    disks
}

/// Linux's name for the virtio disk `number`: `vda` to `vdz`, then `vdaa` (drivers/block/virtio_blk.c:
/// virtblk_name_format).
fn linux_name(number: usize) -> String {
    const LETTERS: &[u8; 26] = b"abcdefghijklmnopqrstuvwxyz";
    let letter = |place: usize| LETTERS.get(place % LETTERS.len()).copied().map(char::from).unwrap_or_default();
    match (number / LETTERS.len()).checked_sub(1) {
        None => format!("vd{}", letter(number)),
        Some(first) => format!("vd{}{}", letter(first), letter(number)),
    }
}

fn mac(vm: &VmSource) -> Option<[u8; 6]> {
    vm.channels().find_map(|channel| channel.client.mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::reader::parse;
    use std::path::Path;

    /// A guest with what `devices` states, and whatever it takes to serve it.
    fn words(devices: &str) -> String {
        let text = format!(
            r#"
board = "qemu-virt"
cores = 2
memory = "1 GiB"

[[disk]]
name = "main"
size = "256 MiB"

[[disk.partition]]
name = "root"
size = "32 MiB"
content = "linux-root"

[[disk.partition]]
name = "maps"
size = "64 MiB"

[network]
uplink = "user"

[[vm]]
name = "ivi"
memory = "64 MiB"
cores = [0]
kernel = "debian"
initrd = "linux"
{devices}
[[vm]]
name = "io"
memory = "64 MiB"
cores = [1]
kernel = "guest:driver-domain"
owns = ["virtio-mmio"]
driver_domain = true
"#
        );
        let source = parse(Path::new("identity.toml"), &text).expect("a system");
        identity(&source, &source.vms[0])
    }

    fn device(keys: &str) -> String {
        format!("\n[[vm.device]]\nkind = \"virtio-blk\"\n{keys}\n")
    }

    #[test]
    fn every_disk_is_told_in_linuxs_order_and_on_which_the_root_is() {
        let maps = device("disk = \"main\"\npartition = \"maps\"\nread_only = true");
        let ram = device("ram_disk = \"1 MiB\"");
        let root = device("disk = \"main\"\npartition = \"root\"");
        let words = words(&format!("{maps}{ram}{root}"));
        assert!(words.contains(" bulkhead.disk=67108864:ro,1048576,33554432 bulkhead.root=/dev/vdc"), "{words}");
    }

    #[test]
    fn a_guest_without_a_root_partition_is_told_of_none() {
        let words = words(&device("disk = \"main\"\npartition = \"maps\"\nshared = true"));
        assert!(words.contains(" bulkhead.disk=67108864:shared"), "{words}");
        assert!(!words.contains("bulkhead.root"), "{words}");
    }

    #[test]
    fn disks_beyond_the_alphabet_have_linuxs_names() {
        assert_eq!([0, 1, 25, 26, 28].map(linux_name), ["vda", "vdb", "vdz", "vdaa", "vdac"]);
    }
}
