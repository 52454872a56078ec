//! What only a driver domain finds in its device tree: the board's devices that it owns, its doorbell, its channels
//! (`abi::io` names the properties).

use abi::io::{CHANNEL_COMPATIBLE, DOORBELL_COMPATIBLE};
use platform::PhysicalDevice;
use vdev::guest_map;
use vm_fdt::{Error, FdtWriter};

use super::{SHARED_INTERRUPT, Served};
use crate::system::{
    backend::{Backend, Channel, Slice},
    storage::Disk,
};

/// The third cell of `interrupts` for a rising edge (binding `arm,gic-v3`).
const EDGE_RISING: u32 = 1;

/// Writes a node for each instance of `device`.
pub(super) fn write_physical(fdt: &mut FdtWriter, device: &PhysicalDevice) -> Result<(), Error> {
    for (index, interrupt) in (0_u64..).zip(device.interrupts()) {
        let address = device.base.saturating_add(device.node.stride.saturating_mul(index));
        let node = fdt.begin_node(&format!("{}@{address:x}", device.node.name))?;
        fdt.property_string("compatible", device.node.compatible)?;
        fdt.property_array_u64("reg", &[address, device.node.stride])?;
        write_interrupt(fdt, interrupt, device.node.trigger)?;
        if device.node.dma_coherent {
            fdt.property_null("dma-coherent")?;
        }
        fdt.end_node(node)?;
    }
    Ok(())
}

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
            fdt.property_u32("bulkhead,disk", u32::try_from(*disk).unwrap_or(u32::MAX))?;
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

fn write_interrupt(fdt: &mut FdtWriter, intid: u32, trigger: u32) -> Result<(), Error> {
    fdt.property_array_u32("interrupts", &[SHARED_INTERRUPT, intid.saturating_sub(guest_map::SPI_INTID), trigger])
}

#[cfg(test)]
mod tests;
