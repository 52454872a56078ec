//! The part of the report about disks, the network, and who serves whom.

use manifest::{Address, Span};

use super::Table;
use crate::system::{
    Source,
    backend::{Backend, Mac, Slice},
    channels::Channel,
    size::{show_size, show_size_rounded},
    slots::Slots,
    storage::Disk,
};

/// The disks with their partitions, and who uses them.
pub(super) fn disks(source: &Source) -> Table {
    let mut table = Table::new("Disks", &["disk", "partition", "size", "bytes", "at first", "used by"]);
    for (number, disk) in source.disks.iter().enumerate() {
        let whole = Span::new(0, disk.size);
        let file = disk.file.as_ref().map_or_else(|| "-".to_string(), |file| file.display().to_string());
        row(
            &mut table,
            &disk.name,
            "-",
            whole,
            file,
            users(source, number, |slice| !matches!(slice, Slice::Partition(_))),
        );
        for (index, partition) in disk.partitions.iter().enumerate() {
            let content = partition.content.map_or("zeroes", |content| content.name()).to_string();
            let is_it = |slice: Slice| matches!(slice, Slice::Partition(other) if other == index);
            row(&mut table, &disk.name, &partition.name, partition.span, content, users(source, number, is_it));
        }
    }
    table
}

fn row(table: &mut Table, disk: &str, partition: &str, span: Span, content: String, users: String) {
    let size = show_size(span.size);
    table.row([disk.to_string(), partition.to_string(), size, span.to_string(), content, users]);
}

fn users(source: &Source, number: usize, is_it: impl Fn(Slice) -> bool) -> String {
    let users = names_of_users(source, number, is_it);
    if users.is_empty() { "-".to_string() } else { users.join(", ") }
}

/// The machines that use the partition `index` of disk `number`.
pub(super) fn users_of_partition(source: &Source, number: usize, index: usize) -> Vec<&str> {
    names_of_users(source, number, |slice| matches!(slice, Slice::Partition(other) if other == index))
}

fn names_of_users(source: &Source, number: usize, is_it: impl Fn(Slice) -> bool) -> Vec<&str> {
    let uses = |channel: &Channel<'_>| matches!(&channel.client.backend, Backend::Disk { disk, slice, .. } if *disk == number && is_it(*slice));
    let clients = source.channels().filter(uses).map(|channel| channel.vm.name.as_str());
    // Who drives a disk without serving it to others has all of it.
    let owner = source.disks.get(number).and_then(|disk| source.driver_of(disk)).filter(|vm| vm.doorbell.is_none());
    clients.chain(owner.map(|vm| vm.name.as_str())).collect()
}

/// The channels: each para-virtual device, who serves it, where, and with what.
pub(super) fn channels(source: &Source) -> Table {
    let columns =
        ["client", "device", "EL2 heap", "slot", "driver domain", "channel", "driver domain's addresses", "gives"];
    let mut table = Table::new("Channels", &columns);
    for channel in source.channels() {
        let provider = source.vms.get(usize::from(channel.service.provider)).map_or("-", |vm| vm.name.as_str());
        let slot = Slots::at(channel.device.address).map_or_else(|| "-".to_string(), |slot| slot.to_string());
        table.row([
            channel.vm.name.clone(),
            channel.device.kind.clone(),
            show_size_rounded(channel.device.heap_bytes()),
            slot,
            provider.to_string(),
            channel.service.channel.to_string(),
            channel.service.span().to_string(),
            gives(source, &channel),
        ]);
    }
    table
}

pub(super) fn gives(source: &Source, channel: &Channel<'_>) -> String {
    let access = |read_only: bool| if read_only { ", read-only" } else { "" };
    match &channel.client.backend {
        Backend::Disk { disk, slice, read_only, shared } => {
            let Some(disk) = source.disks.get(*disk) else { return "-".to_string() };
            let shared = if *shared { ", shared" } else { "" };
            format!("{}{}{shared}", slice_of(disk, *slice), access(*read_only))
        }
        Backend::RamDisk { span, read_only } => {
            format!("RAM disk, {} at {}{}", show_size(span.size), Address(span.base), access(*read_only))
        }
        Backend::Network { rate_limit } => {
            let limit = rate_limit.map(|bytes| format!(", at most {} a second", show_size(bytes.into())));
            format!("port {}{}", Mac(channel.client.mac.unwrap_or_default()), limit.unwrap_or_default())
        }
        Backend::Console => "the real console".to_string(),
        Backend::Entropy => "the real source of entropy".to_string(),
        Backend::Socket { cid, peers } => {
            let peers = if peers.is_empty() { "nobody".to_string() } else { peers.join(", ") };
            format!("streams to {peers}, as cid {cid}")
        }
    }
}

fn slice_of(disk: &Disk, slice: Slice) -> String {
    let span = disk.span_of(slice);
    let size = show_size(span.size);
    match slice {
        Slice::Whole => format!("disk {}, {size}", disk.name),
        Slice::Partition(index) => {
            let name = disk.partitions.get(index).map_or("-", |partition| partition.name.as_str());
            format!("partition {name} of disk {}, {size}", disk.name)
        }
        Slice::Range(_) => format!("bytes {span} of disk {}, {size}", disk.name),
    }
}

/// What is on the board's network.
pub(super) fn uplink(source: &Source) -> Option<String> {
    source.uplink_mac().map(|mac| format!("\nUplink: QEMU's user network, through a card with the address {mac}\n"))
}
