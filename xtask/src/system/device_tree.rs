//! A guest's device tree: what it is told about itself.
//!
//! Devices describe their own nodes ([`vdev::DeviceNode`]); CPUs, timer, interrupt controller and PSCI are the same for
//! every guest and described here, as QEMU's `virt` board does (Devicetree Specification 0.4; the bindings
//! `arm,gic-v3`, `arm,armv8-timer`, `arm,psci`).

mod driver_domain;
mod physical;

use fdt::Fdt;
use manifest::{Assigned, Device, MemoryRegion, Seed, Span};
use platform::PhysicalDevice;
use vdev::{DeviceNode, PropertyValue, guest_map};
use vm_fdt::{Error, FdtWriter};

use super::{channels::Channel, storage::Disk, virtio::DeviceKind};

/// What a device tree is made from.
pub(crate) struct Description<'a> {
    /// The guest's name.
    pub(crate) name: &'a str,
    /// Its kernel command line.
    pub(crate) command_line: &'a str,
    pub(crate) memory: &'a [MemoryRegion],
    pub(crate) vcpus: usize,
    pub(crate) devices: &'a [Device],
    pub(crate) initrd: Option<Span>,
    /// The board's devices that it owns.
    pub(crate) assigned: &'a [Assigned],
    /// What the board says of such devices.
    pub(crate) physical: &'a [PhysicalDevice],
    /// What it serves, if it is a driver domain.
    pub(crate) served: Option<Served<'a>>,
}

/// What a driver domain serves.
pub(crate) struct Served<'a> {
    /// The INTID of its doorbell.
    pub(crate) doorbell: u32,
    /// Its channels.
    pub(crate) channels: Vec<Channel<'a>>,
    /// The board's disks.
    pub(crate) disks: &'a [Disk],
}

/// A device tree in its flattened form.
pub(crate) struct DeviceTree {
    pub(crate) bytes: Vec<u8>,
    /// What EL2 fills with random bytes at each start, as offsets into `bytes`.
    pub(crate) seeds: Vec<Seed>,
}

const GIC_PHANDLE: u32 = 1;
const CLOCK_PHANDLE: u32 = 2;
const CLOCK_HERTZ: u32 = 24_000_000;

/// Cells of `interrupts` in the binding `arm,gic-v3`.
const SHARED_INTERRUPT: u32 = 0;
const PRIVATE_INTERRUPT: u32 = 1;
const EDGE_RISING: u32 = 1;
const LEVEL_HIGH: u32 = 4;
/// The first INTID of private peripheral interrupts (GICv3 specification IHI0069, 2.2).
const PRIVATE_INTID: u32 = 16;
/// The INTIDs that the timers of EL3 and of EL2 have on every board (Arm BSA DEN0094, 3.8.2); the binding wants them
/// listed.
const SECURE_TIMER_INTID: u32 = 29;
const HYPERVISOR_TIMER_INTID: u32 = 26;

/// The properties of `/chosen` that EL2 fills, with their sizes in bytes: what Linux takes at most, and what it takes.
const SEEDS: [(&str, usize); 2] = [("rng-seed", 64), ("kaslr-seed", 8)];

/// Writes the device tree of the guest that `description` describes.
///
/// # Errors
/// The end of a sentence that starts with the device tree and its vm.
pub(crate) fn device_tree(description: &Description<'_>) -> Result<DeviceTree, String> {
    let bytes = write(description).map_err(|error| format!("cannot be written ({error}); check the command line"))?;
    let seeds = find_seeds(&bytes).ok_or("has no seeds; this is a defect of xtask")?;
    Ok(DeviceTree { bytes, seeds })
}

fn write(description: &Description<'_>) -> Result<Vec<u8>, Error> {
    let mut fdt = FdtWriter::new()?;
    let root = fdt.begin_node("")?;
    fdt.property_string("model", "Bulkhead virtual machine")?;
    fdt.property_string("compatible", "linux,dummy-virt")?;
    fdt.property_u32("#address-cells", 2)?;
    fdt.property_u32("#size-cells", 2)?;
    fdt.property_u32("interrupt-parent", GIC_PHANDLE)?;
    write_chosen(&mut fdt, description)?;
    write_memory(&mut fdt, description.memory)?;
    write_cpus(&mut fdt, description.vcpus)?;
    write_psci(&mut fdt)?;
    write_timer(&mut fdt)?;
    write_gic(&mut fdt, description.vcpus)?;
    write_clock(&mut fdt)?;
    for device in description.devices {
        write_device(&mut fdt, device)?;
    }
    for device in description.assigned {
        let physical = description.physical.iter().find(|physical| physical.name == device.name);
        physical.map_or(Ok(()), |physical| physical::write(&mut fdt, device, physical))?;
    }
    if let Some(served) = &description.served {
        driver_domain::write_served(&mut fdt, served)?;
    }
    write_hypervisor(&mut fdt)?;
    fdt.end_node(root)?;
    fdt.finish()
}

fn write_chosen(fdt: &mut FdtWriter, description: &Description<'_>) -> Result<(), Error> {
    let console = description.devices.iter().find_map(|device| {
        let node = node_of(device)?;
        node.console.then(|| format!("/{}", node_name(node, device)))
    });
    if let Some(path) = &console {
        let aliases = fdt.begin_node("aliases")?;
        fdt.property_string("serial0", path)?;
        fdt.end_node(aliases)?;
    }
    let chosen = fdt.begin_node("chosen")?;
    fdt.property_string("bootargs", description.command_line)?;
    fdt.property_string("bulkhead,name", description.name)?;
    if let Some(path) = &console {
        fdt.property_string("stdout-path", path)?;
    }
    if let Some(Span { base, size }) = description.initrd {
        fdt.property_u64("linux,initrd-start", base)?;
        fdt.property_u64("linux,initrd-end", base.saturating_add(size))?;
    }
    for (name, size) in SEEDS {
        fdt.property(name, &vec![0; size])?;
    }
    fdt.end_node(chosen)
}

fn write_memory(fdt: &mut FdtWriter, regions: &[MemoryRegion]) -> Result<(), Error> {
    for region in regions {
        let memory = fdt.begin_node(&format!("memory@{:x}", region.guest))?;
        fdt.property_string("device_type", "memory")?;
        fdt.property_array_u64("reg", &[region.guest, region.size])?;
        fdt.end_node(memory)?;
    }
    Ok(())
}

fn write_cpus(fdt: &mut FdtWriter, vcpus: usize) -> Result<(), Error> {
    let cpus = fdt.begin_node("cpus")?;
    fdt.property_u32("#address-cells", 1)?;
    fdt.property_u32("#size-cells", 0)?;
    for index in (0_u32..).take(vcpus) {
        // MPIDR_EL1: Aff0 counts to 15, so that an SGI's target list reaches all of a cluster; then Aff1.
        let affinity = index & 15 | (index >> 4) << 8;
        let cpu = fdt.begin_node(&format!("cpu@{affinity:x}"))?;
        fdt.property_string("device_type", "cpu")?;
        fdt.property_string("compatible", "arm,armv8")?;
        fdt.property_string("enable-method", "psci")?;
        fdt.property_u32("reg", affinity)?;
        fdt.end_node(cpu)?;
    }
    fdt.end_node(cpus)
}

fn write_psci(fdt: &mut FdtWriter) -> Result<(), Error> {
    let psci = fdt.begin_node("psci")?;
    fdt.property_string_list("compatible", strings(&["arm,psci-1.0", "arm,psci-0.2"]))?;
    fdt.property_string("method", "hvc")?;
    fdt.end_node(psci)
}

fn write_timer(fdt: &mut FdtWriter) -> Result<(), Error> {
    let interrupts =
        [SECURE_TIMER_INTID, guest_map::PHYSICAL_TIMER_INTID, guest_map::VIRTUAL_TIMER_INTID, HYPERVISOR_TIMER_INTID];
    let timer = fdt.begin_node("timer")?;
    fdt.property_string("compatible", "arm,armv8-timer")?;
    let cells = interrupts.map(|intid| [PRIVATE_INTERRUPT, intid.saturating_sub(PRIVATE_INTID), LEVEL_HIGH]);
    fdt.property_array_u32("interrupts", cells.as_flattened())?;
    fdt.property_null("always-on")?;
    fdt.end_node(timer)
}

fn write_gic(fdt: &mut FdtWriter, vcpus: usize) -> Result<(), Error> {
    let redistributors_size = guest_map::GICR_STRIDE.saturating_mul(vcpus as u64);
    let gic = fdt.begin_node(&format!("intc@{:x}", guest_map::GICD_BASE))?;
    fdt.property_string("compatible", "arm,gic-v3")?;
    fdt.property_null("interrupt-controller")?;
    fdt.property_u32("#interrupt-cells", 3)?;
    fdt.property_u32("#redistributor-regions", 1)?;
    let windows = [guest_map::GICD_BASE, guest_map::GICD_SIZE, guest_map::GICR_BASE, redistributors_size];
    fdt.property_array_u64("reg", &windows)?;
    fdt.property_phandle(GIC_PHANDLE)?;
    fdt.end_node(gic)
}

fn write_clock(fdt: &mut FdtWriter) -> Result<(), Error> {
    let clock = fdt.begin_node("apb-pclk")?;
    fdt.property_string("compatible", "fixed-clock")?;
    fdt.property_u32("#clock-cells", 0)?;
    fdt.property_u32("clock-frequency", CLOCK_HERTZ)?;
    fdt.property_string("clock-output-names", "clk24mhz")?;
    fdt.property_phandle(CLOCK_PHANDLE)?;
    fdt.end_node(clock)
}

fn write_device(fdt: &mut FdtWriter, device: &Device) -> Result<(), Error> {
    let Some(node) = node_of(device) else { return Ok(()) };
    let open = fdt.begin_node(&node_name(node, device))?;
    fdt.property_string_list("compatible", strings(node.compatible))?;
    fdt.property_array_u64("reg", &[device.address, device.size])?;
    if let (Some(trigger), Some(intid)) = (node.trigger, device.interrupt) {
        write_interrupt(fdt, intid, trigger.cell())?;
    }
    write_clocks(fdt, node.clocks)?;
    for (name, value) in node.properties {
        match value {
            PropertyValue::Empty => fdt.property_null(name)?,
            PropertyValue::Word(word) => fdt.property_u32(name, *word)?,
            PropertyValue::Words(words) => fdt.property_array_u32(name, words)?,
            PropertyValue::Text(text) => fdt.property_string(name, text)?,
            PropertyValue::Texts(texts) => fdt.property_string_list(name, strings(texts))?,
        }
    }
    fdt.end_node(open)
}

fn write_interrupt(fdt: &mut FdtWriter, intid: u32, trigger: u32) -> Result<(), Error> {
    fdt.property_array_u32("interrupts", &[SHARED_INTERRUPT, intid.saturating_sub(guest_map::SPI_INTID), trigger])
}

/// The one clock there is, under each of `names`.
fn write_clocks(fdt: &mut FdtWriter, names: &[&str]) -> Result<(), Error> {
    if names.is_empty() {
        return Ok(());
    }
    fdt.property_array_u32("clocks", &vec![CLOCK_PHANDLE; names.len()])?;
    fdt.property_string_list("clock-names", strings(names))
}

fn write_hypervisor(fdt: &mut FdtWriter) -> Result<(), Error> {
    let hypervisor = fdt.begin_node("hypervisor")?;
    fdt.property_string("compatible", "bulkhead,bulkhead")?;
    fdt.end_node(hypervisor)
}

fn node_of(device: &Device) -> Option<&'static DeviceNode> {
    DeviceKind::find(&device.kind).map(DeviceKind::node)
}

fn node_name(node: &DeviceNode, device: &Device) -> String {
    format!("{}@{:x}", node.name, device.address)
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// Where the placeholders of the seeds lie, as offsets into the blob.
fn find_seeds(bytes: &[u8]) -> Option<Vec<Seed>> {
    let tree = Fdt::new(bytes).ok()?;
    let chosen = tree.find_node("/chosen")?;
    let seed = |(name, _)| {
        let value = chosen.property(name)?.value;
        let offset = value.as_ptr().addr().checked_sub(bytes.as_ptr().addr())?;
        Some(Seed { address: offset as u64, size: u32::try_from(value.len()).ok()? })
    };
    SEEDS.into_iter().map(seed).collect()
}

#[cfg(test)]
mod tests;
