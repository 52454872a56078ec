//! What only a driver domain finds in its device tree: its doorbell and its channels. `abi::io` names the properties
//! that every backend finds, `tree` of the driver domain those of each kind.

use abi::io::{CHANNEL_COMPATIBLE, DOORBELL_COMPATIBLE};
use services::block::SERIAL_SIZE;
use vm_fdt::{Error, FdtWriter};

use super::{EDGE_RISING, Served, write_interrupt};
use crate::system::{
    backend::{Backend, Slice},
    channels::Channel,
    storage::Disk,
};

/// Writes the doorbell and the channels.
pub(super) fn write_served(fdt: &mut FdtWriter, served: &Served<'_>) -> Result<(), Error> {
    let doorbell = fdt.begin_node("doorbell")?;
    fdt.property_string("compatible", DOORBELL_COMPATIBLE)?;
    write_interrupt(fdt, served.doorbell, EDGE_RISING)?;
    fdt.end_node(doorbell)?;
    served.channels.iter().try_for_each(|channel| write_channel(fdt, channel, served))
}

fn write_channel(fdt: &mut FdtWriter, channel: &Channel<'_>, served: &Served<'_>) -> Result<(), Error> {
    let disks = served.disks;
    let service = channel.service;
    let node = fdt.begin_node(&format!("channel@{:x}", service.address))?;
    fdt.property_string("compatible", CHANNEL_COMPATIBLE)?;
    fdt.property_array_u64("reg", &[service.address, service.size])?;
    fdt.property_u32("bulkhead,channel", service.channel.into())?;
    fdt.property_string("bulkhead,kind", channel.client.backend.tree_name())?;
    fdt.property_u32("bulkhead,queues", service.queues.into())?;
    fdt.property_u32("bulkhead,filled-queues", service.filled)?;
    fdt.property_string("bulkhead,client", channel.vm.name())?;
    if let Some(serial) = serial(&channel.client.backend, disks) {
        fdt.property_string("bulkhead,serial", &serial)?;
    }
    match &channel.client.backend {
        Backend::Disk { disk, slice, read_only, .. } => {
            // A driver domain counts the disks in its own slots.
            let owner = disks.get(*disk).map(|disk| &disk.owner);
            let number = disks.iter().take(*disk).filter(|other| Some(&other.owner) == owner).count();
            fdt.property_u32("bulkhead,disk", u32::try_from(number).unwrap_or(u32::MAX))?;
            match slice {
                Slice::Whole => {}
                Slice::Partition(index) => {
                    let partition = disks.get(*disk).and_then(|disk| disk.partitions.get(*index));
                    fdt.property_string("bulkhead,partition", partition.map_or("", |partition| &partition.name))?;
                }
                Slice::Range(span) => fdt.property_array_u64("bulkhead,range", &[span.base, span.size])?,
            }
            write_read_only(fdt, *read_only)?;
        }
        Backend::RamDisk { span, read_only } => {
            fdt.property_array_u64("bulkhead,ram-disk", &[span.base, span.size])?;
            write_read_only(fdt, *read_only)?;
        }
        Backend::Network { rate_limit } => {
            fdt.property("local-mac-address", &channel.client.mac.unwrap_or_default())?;
            if let Some(bytes_a_second) = rate_limit {
                fdt.property_u32("bulkhead,rate-limit", *bytes_a_second)?;
            }
        }
        Backend::Socket { cid, peers } => {
            let peers: Vec<_> = peers.iter().filter_map(|peer| cid_of(served, peer)).collect();
            fdt.property_u32("bulkhead,cid", *cid)?;
            fdt.property_array_u32("bulkhead,peers", &peers)?;
        }
        Backend::Console | Backend::Entropy => {}
    }
    fdt.end_node(node)
}

/// The serial number of a client's disk: what it is a part of, and which. Where that is too long, or has characters
/// that a serial number has not, a number takes its place (64-bit FNV-1a). It is the same in every run.
fn serial(backend: &Backend, disks: &[Disk]) -> Option<String> {
    let text = match backend {
        Backend::Disk { disk, slice, .. } => {
            let disk = disks.get(*disk)?;
            match slice {
                Slice::Whole => disk.name.clone(),
                Slice::Partition(index) => format!("{}.{}", disk.name, disk.partitions.get(*index)?.name),
                Slice::Range(span) => format!("{}.{:x}+{:x}", disk.name, span.base, span.size),
            }
        }
        Backend::RamDisk { span, .. } => format!("ram.{:x}+{:x}", span.base, span.size),
        Backend::Network { .. } | Backend::Console | Backend::Entropy | Backend::Socket { .. } => return None,
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-.+".contains(&byte);
    if text.len() <= SERIAL_SIZE && text.bytes().all(is_plain) {
        return Some(text);
    }
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    Some(format!("{:016x}", text.bytes().fold(0xcbf2_9ce4_8422_2325, step)))
}

/// The CID of the client `vm`, if it has a socket device.
fn cid_of(served: &Served<'_>, vm: &str) -> Option<u32> {
    let mut its = served.channels.iter().filter(|channel| channel.vm.name() == vm);
    its.find_map(|channel| if let Backend::Socket { cid, .. } = channel.client.backend { Some(cid) } else { None })
}

fn write_read_only(fdt: &mut FdtWriter, read_only: bool) -> Result<(), Error> {
    if read_only { fdt.property_null("bulkhead,read-only") } else { Ok(()) }
}

#[cfg(test)]
mod tests;
