//! The part of the report about the board's own devices, page by page: what shares a page has one owner.

use std::ops::RangeInclusive;

use super::Table;
use crate::system::{Plug, Source, reader::page_of, source::VmSource};
use platform::{Dma, PhysicalDevice};

/// The pages with devices that a virtual machine can own, who owns each, and what the system plugs in there.
pub(super) fn pages(source: &Source) -> Table {
    let columns = ["page", "devices", "interrupts", "owner", "reaches", "in them"];
    let mut table = Table::new("Real devices (those of a page cannot be split)", &columns);
    for device in source.board.devices {
        let mut next = 0;
        while next < device.instances {
            let (page, instances) = page_of(device, next);
            next = instances.end().saturating_add(1);
            let owner = source.vms.iter().find(|vm| vm.assigned.iter().any(|owned| owned.span().overlaps(page)));
            table.row([
                page.to_string(),
                names(device, &instances),
                range(
                    device.interrupt.saturating_add(*instances.start())
                        ..=device.interrupt.saturating_add(*instances.end()),
                ),
                owner.map_or("-", VmSource::name).to_string(),
                owner.map_or("-", |_| reach(device.dma)).to_string(),
                in_them(source, device, &instances),
            ]);
        }
    }
    table
}

fn names(device: &PhysicalDevice, instances: &RangeInclusive<u32>) -> String {
    if device.instances == 1 {
        device.name.to_string()
    } else {
        format!("{}:{}-{}", device.name, instances.start(), instances.end())
    }
}

fn range(numbers: RangeInclusive<u32>) -> String {
    let (first, last) = (numbers.start(), numbers.end());
    if first == last { first.to_string() } else { format!("{first}–{last}") }
}

/// What its owner can do through the device.
const fn reach(dma: Dma) -> &'static str {
    match dma {
        Dma::None => "its registers",
        Dma::Coherent | Dma::Incoherent => "all RAM: trusted",
    }
}

fn in_them(source: &Source, device: &PhysicalDevice, instances: &RangeInclusive<u32>) -> String {
    if device.name != crate::system::plugs::VIRTIO_MMIO {
        return "-".to_string();
    }
    let plugs = source.plugs().into_iter().filter(|(slot, _)| instances.contains(slot));
    let plugs: Vec<_> = plugs.map(|(slot, plug)| format!("{slot}: {}", what(source, plug))).collect();
    if plugs.is_empty() { "-".to_string() } else { plugs.join(", ") }
}

fn what(source: &Source, plug: Plug) -> String {
    match plug {
        Plug::Disk(number) => {
            let disk = source.disks.get(number).map_or("-", |disk| disk.name.as_str());
            format!("disk {}", disk.rsplit('/').next().unwrap_or(disk))
        }
        Plug::Uplink => "uplink".to_string(),
        Plug::Card(number) => format!("card {}", source.card_mac(number)),
        Plug::Console => "console".to_string(),
        Plug::Entropy => "entropy".to_string(),
    }
}
