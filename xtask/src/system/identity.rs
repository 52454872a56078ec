//! What a guest is told on its kernel's command line about what the system gives it, so that it can compare.

use super::{
    Source, VmSource,
    backend::{Backend, Mac},
    source::ImageName,
    storage::Content,
};
use std::fmt::Write;

/// The root file systems of `guests/linux`: guests that have one of them talk to one another.
const LINUX: [&str; 2] = ["linux", "linux-bench"];
/// The board's clock, which a guest may own.
const CLOCK: &str = "pl031";
/// The subnet of QEMU's user network, and the first host number of the guests: its DHCP server starts at 15.
const SUBNET: &str = "10.0.2";
const FIRST_HOST: usize = 101;

/// The words for `vm`: its name, CPUs and memory; the size of its disk and whether its root is there; the address of
/// its network card, its own, and that of the neighbour to talk to; whether it finds somebody to ask for an address, a
/// console and a source of entropy. `guests/linux/init` says what each means.
pub(crate) fn identity(source: &Source, vm: &VmSource) -> String {
    let mut words =
        format!("bulkhead.name={} bulkhead.vcpus={} bulkhead.memory={}", vm.name, vm.vcpus(), vm.memory_bytes());
    // Writing to a string cannot fail.
    let first = vm.first_disk(source);
    // Para-virtual disks come first in the device tree, and so in Linux's order.
    let own = || source.disks_of(vm).filter(|_| vm.doorbell.is_none());
    let sizes: Vec<_> = first.iter().map(|(size, _)| *size).chain(own().map(|(_, disk)| disk.size)).collect();
    if !sizes.is_empty() {
        let sizes: Vec<_> = sizes.iter().map(u64::to_string).collect();
        let _ = write!(words, " bulkhead.disk={}", sizes.join(","));
    }
    let is_root = |content: Option<Content>| content == Some(Content::LinuxRoot);
    let root = match first {
        Some((_, content)) => is_root(content).then(|| "vda".to_string()),
        None => own().next().and_then(|(_, disk)| {
            let partition = disk.partitions.iter().position(|partition| is_root(partition.content))?;
            Some(format!("vda{}", partition.saturating_add(1)))
        }),
    };
    if let Some(root) = root {
        let _ = write!(words, " bulkhead.root=/dev/{root}");
    }
    if let Some(mac) = mac(vm).or_else(|| source.cards_of(vm).next()) {
        let _ = write!(words, " bulkhead.mac={}", Mac(mac));
    }
    let mut linux = source.vms.iter().filter(|vm| is_on_network(vm));
    if let Some(number) = linux.position(|other| other.name == vm.name) {
        let address = |number: usize| format!("{SUBNET}.{}", FIRST_HOST.saturating_add(number));
        let _ = write!(words, " bulkhead.address={}/24", address(number));
        // In pairs: each is the other's peer.
        let peer = number ^ 1;
        if let Some(other) = source.vms.iter().filter(|vm| is_on_network(vm)).nth(peer) {
            let _ = write!(words, " bulkhead.peer={}:{}", other.name, address(peer));
        }
    }
    if mac(vm).is_some() && source.uplink || source.cards_of(vm).next().is_some() {
        words += " bulkhead.dhcp";
    }
    if vm.owns(CLOCK) {
        words += " bulkhead.clock";
    }
    for channel in vm.channels() {
        words += match channel.client.backend {
            Backend::Console => " bulkhead.console",
            Backend::Entropy => " bulkhead.entropy",
            Backend::Disk { .. } | Backend::RamDisk { .. } | Backend::Network { .. } => "",
        };
    }
    words
}

fn mac(vm: &VmSource) -> Option<[u8; 6]> {
    vm.channels().find_map(|channel| channel.service.mac)
}

fn is_on_network(vm: &VmSource) -> bool {
    mac(vm).is_some() && matches!(&vm.initrd, Some(ImageName::Named(name)) if LINUX.contains(&name.as_str()))
}
