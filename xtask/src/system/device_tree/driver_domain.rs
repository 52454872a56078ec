//! What only a driver domain finds in its device tree: its doorbell and its channels (`abi::io` names the properties).

use abi::io::{CHANNEL_COMPATIBLE, DOORBELL_COMPATIBLE};
use vm_fdt::{Error, FdtWriter};

use super::{EDGE_RISING, Served, write_interrupt};
use crate::system::{
    backend::{Backend, Channel, Slice},
    storage::Disk,
};

/// Writes the doorbell and the channels.
pub(super) fn write_served(fdt: &mut FdtWriter, served: &Served<'_>) -> Result<(), Error> {
    let doorbell = fdt.begin_node("doorbell")?;
    fdt.property_string("compatible", DOORBELL_COMPATIBLE)?;
    write_interrupt(fdt, served.doorbell, EDGE_RISING)?;
    fdt.end_node(doorbell)?;
    served.channels.iter().try_for_each(|channel| write_channel(fdt, channel, served.disks))
}

fn write_channel(fdt: &mut FdtWriter, channel: &Channel<'_>, disks: &[Disk]) -> Result<(), Error> {
    let service = channel.service;
    let node = fdt.begin_node(&format!("channel@{:x}", service.address))?;
    fdt.property_string("compatible", CHANNEL_COMPATIBLE)?;
    fdt.property_array_u64("reg", &[service.address, service.size])?;
    fdt.property_u32("bulkhead,channel", service.channel.into())?;
    fdt.property_string("bulkhead,kind", channel.client.backend.kind())?;
    fdt.property_string("bulkhead,client", channel.vm.name())?;
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
            fdt.property("local-mac-address", &service.mac.unwrap_or_default())?;
            if let Some(bytes_a_second) = rate_limit {
                fdt.property_u32("bulkhead,rate-limit", *bytes_a_second)?;
            }
        }
        Backend::Console | Backend::Entropy => {}
    }
    fdt.end_node(node)
}

fn write_read_only(fdt: &mut FdtWriter, read_only: bool) -> Result<(), Error> {
    if read_only { fdt.property_null("bulkhead,read-only") } else { Ok(()) }
}

#[cfg(test)]
mod tests;
