//! The nodes of the board's devices that a guest owns.

use manifest::{Assigned, Trigger};
use platform::{Dma, PhysicalDevice};
use vm_fdt::{Error, FdtWriter};

use super::{EDGE_RISING, LEVEL_HIGH, strings, write_clocks, write_interrupt};

/// Writes a node for each instance of `device`, which the board describes as `physical`.
pub(super) fn write(fdt: &mut FdtWriter, device: &Assigned, physical: &PhysicalDevice) -> Result<(), Error> {
    let trigger = match device.trigger {
        Trigger::Edge => EDGE_RISING,
        Trigger::Level => LEVEL_HIGH,
    };
    for (index, interrupt) in (0_u64..).zip(&device.interrupts) {
        let address = device.address.saturating_add(device.instance_size.saturating_mul(index));
        let node = fdt.begin_node(&format!("{}@{address:x}", physical.node.name))?;
        fdt.property_string_list("compatible", strings(physical.node.compatible))?;
        fdt.property_array_u64("reg", &[address, device.instance_size])?;
        write_interrupt(fdt, *interrupt, trigger)?;
        write_clocks(fdt, physical.node.clocks)?;
        match physical.dma {
            Dma::Coherent => fdt.property_null("dma-coherent")?,
            Dma::Incoherent | Dma::None => {}
        }
        fdt.end_node(node)?;
    }
    Ok(())
}
