//! The partition report: who owns what.

mod io;
mod json;
mod real;

pub(crate) use json::{json, json_of_problems};

use manifest::{Address, MemoryRegion};
use std::fmt::Write;
use vdev::guest_map;

use super::{
    Bundle, Source,
    size::{show_size, show_size_rounded},
};

/// Says who owns which memory, cores, interrupts and devices, and what is left; with a bundle also which images.
pub(crate) fn report(source: &Source, bundle: Option<&Bundle>) -> String {
    let mut text = format!("System {}", source.name);
    if !source.description.is_empty() {
        text += &format!(": {}", source.description);
    }
    text += &format!("\nBoard {}: {}\n", source.board.name, source.board.description);
    memory(source, bundle).write(&mut text);
    cores(source).write(&mut text);
    devices(source).write(&mut text);
    if source.vms.iter().any(|vm| !vm.assigned.is_empty()) {
        real::pages(source).write(&mut text);
    }
    if source.channels().next().is_some() {
        io::channels(source).write(&mut text);
    }
    if !source.disks.is_empty() {
        io::disks(source).write(&mut text);
    }
    text += &io::uplink(source).unwrap_or_default();
    if let Some(bundle) = bundle {
        images(source, bundle).write(&mut text);
    }
    let notes = source.notes();
    if !notes.is_empty() {
        text += "\nNotes\n";
    }
    for note in notes {
        text += &format!("  {note}\n");
    }
    text
}

fn memory(source: &Source, bundle: Option<&Bundle>) -> Table {
    let mut table = Table::new("Memory", &["owner", "size", "guest addresses", "physical addresses"]);
    let own = source.bulkhead_bytes(bundle.map_or_else(|| source.skeleton().own_bytes(), |bundle| bundle.own_bytes));
    let mut used = own;
    for vm in &source.vms {
        for region in &vm.memory {
            used = used.saturating_add(region.size);
            table.row([vm.name.clone(), show_size(region.size), region.guest_span().to_string(), physical(region)]);
        }
    }
    table.row(["Bulkhead".to_string(), show_size_rounded(own), "-".to_string(), "chosen at boot".to_string()]);
    if let Some(bundle) = bundle {
        let size = bundle.cpio.len() as u64;
        used = used.saturating_add(size);
        let place = "chosen by the boot loader".to_string();
        table.row(["bundle".to_string(), show_size_rounded(size), "-".to_string(), place]);
    }
    let spare = show_size_rounded(source.memory_bytes.saturating_sub(used));
    table.row(["spare".to_string(), spare, "-".to_string(), "-".to_string()]);
    let ram = manifest::Span::new(source.board.ram_base, source.memory_bytes);
    table.row(["board".to_string(), show_size(source.memory_bytes), "-".to_string(), ram.to_string()]);
    table
}

fn physical(region: &MemoryRegion) -> String {
    region.physical_span().map_or_else(|| "chosen at boot".to_string(), |span| span.to_string())
}

fn cores(source: &Source) -> Table {
    let mut table = Table::new("Cores", &["core", "virtual cpus", "use"]);
    for core in 0..source.cores {
        let mut owners = Vec::new();
        for vm in &source.vms {
            let on_core = vm.cores.iter().enumerate().filter(|(_, other)| **other == core);
            owners.extend(on_core.map(|(vcpu, _)| format!("{} {vcpu}", vm.name)));
        }
        let usage = match owners.len() {
            0 => "spare",
            1 => "not shared",
            _ => "shared",
        };
        let owners = if owners.is_empty() { "-".to_string() } else { owners.join(", ") };
        table.row([core.to_string(), owners, usage.to_string()]);
    }
    table
}

fn devices(source: &Source) -> Table {
    let mut table =
        Table::new("Devices and interrupts", &["owner", "device", "guest addresses", "interrupt", "backed by"]);
    for vm in &source.vms {
        let redistributors =
            manifest::Span::new(guest_map::GICR_BASE, guest_map::GICR_STRIDE.saturating_mul(vm.vcpus() as u64));
        let distributor = manifest::Span::new(guest_map::GICD_BASE, guest_map::GICD_SIZE);
        let mut row = |device: &str, addresses: String, interrupt: String, backing: &str| {
            table.row([vm.name.clone(), device.to_string(), addresses, interrupt, backing.to_string()]);
        };
        row("gicv3 distributor", distributor.to_string(), "-".to_string(), "model");
        row("gicv3 redistributors", redistributors.to_string(), "-".to_string(), "model");
        row("virtual timer", "-".to_string(), guest_map::VIRTUAL_TIMER_INTID.to_string(), "hardware, one for each cpu");
        for device in &vm.devices {
            let interrupt = device.interrupt.map_or_else(|| "-".to_string(), |interrupt| interrupt.to_string());
            let backing = if device.service.is_some() { "registers: model; data: channel" } else { "model" };
            row(&device.kind, device.span().to_string(), interrupt, backing);
        }
        if let Some(doorbell) = vm.doorbell {
            row("doorbell", "-".to_string(), doorbell.to_string(), "model");
        }
        for device in &vm.assigned {
            let interrupts = match (device.interrupts.first(), device.interrupts.last()) {
                (Some(first), Some(last)) if first != last => format!("{first}–{last}"),
                (Some(only), _) => only.to_string(),
                (None, _) => "-".to_string(),
            };
            row(&device.name, device.span().to_string(), interrupts, "hardware, owned");
        }
    }
    table
}

fn images(source: &Source, bundle: &Bundle) -> Table {
    let mut table = Table::new("Images", &["owner", "role", "size", "guest addresses", "entry", "image"]);
    let machines = source.vms.iter().zip(&bundle.system.vms).zip(&bundle.images);
    for ((vm, built), images) in machines {
        for image in images {
            let is_entry = image.span.contains(manifest::Span::new(built.entry, 1));
            table.row([
                vm.name.clone(),
                image.role.to_string(),
                show_size_rounded(image.span.size),
                image.span.to_string(),
                if is_entry { Address(built.entry).to_string() } else { "-".to_string() },
                image.description.clone(),
            ]);
        }
    }
    table
}

/// A table with aligned columns.
struct Table {
    title: &'static str,
    rows: Vec<Vec<String>>,
}

impl Table {
    fn new(title: &'static str, columns: &[&str]) -> Self {
        Self { title, rows: vec![columns.iter().map(ToString::to_string).collect()] }
    }

    fn row<const COLUMNS: usize>(&mut self, cells: [String; COLUMNS]) {
        self.rows.push(cells.into());
    }

    fn write(&self, text: &mut String) {
        let width = |column| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell: &String| cell.chars().count()).max().unwrap_or(0)
        };
        *text += &format!("\n{}\n", self.title);
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                // Writing to a string cannot fail.
                let _ = write!(line, "  {cell:<width$}", width = width(column));
            }
            *text += line.trim_end();
            *text += "\n";
        }
    }
}

#[cfg(test)]
mod tests;
