//! QEMU's `virt` machine with EL2 and a GICv3.

use crate::{Board, Conduit, Dma, Gic, InstanceNode, PhysicalDevice, Region, Trigger, Uart};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// `qemu-system-aarch64 -M virt,virtualization=on,gic-version=3`.
pub(crate) const QEMU_VIRT: Board = Board {
    name: "qemu-virt",
    description: "QEMU's virt machine with virtualisation extensions and a GICv3",
    // With virtualization=on QEMU gives a GICv2 unless told otherwise.
    qemu_machine: "virt,virtualization=on,gic-version=3",
    qemu_machine_reproducible: "dtb-randomness=off",
    cpu_default: "cortex-a57",
    cores_default: 4,
    cores_max: 16,
    memory_default: GIB,
    // QEMU puts further redistributors and PCIe at 256 GiB, right after the largest RAM.
    memory_max: 255 * GIB,
    ram_base: 0x4000_0000,
    image_load_offset: 2 * MIB,
    reserved_for_hypervisor: 16 * MIB,
    psci: Conduit::Smc,
    uart: Uart::Pl011 { base: 0x0900_0000, interrupt: 33 },
    gic: Gic::V3 { distributor: 0x0800_0000, redistributors: 0x080a_0000 },
    // Clock, PCIe INTx A to D, GPIO; then the 32 virtio-mmio slots.
    assignable_interrupts: &[34..=39, 48..=79],
    devices: &[
        PhysicalDevice {
            name: "pl031",
            base: 0x0901_0000,
            size: 0x1000,
            interrupt: 34,
            trigger: Trigger::Level,
            instances: 1,
            dma: Dma::None,
            // RTCIMSC: the alarm is masked. RTCICR: one that has gone off is over (DDI0224, 3.3). The time goes on.
            silence: &[(0x10, 0), (0x1c, 1)],
            node: InstanceNode { name: "pl031", compatible: &["arm,pl031", "arm,primecell"], clocks: &["apb_pclk"] },
        },
        PhysicalDevice {
            name: "virtio-mmio",
            base: 0x0a00_0000,
            // Eight slots to a page.
            size: 0x4000,
            interrupt: 48,
            trigger: Trigger::Edge,
            instances: 32,
            dma: Dma::Coherent,
            // Status: a reset (VIRTIO 1.2, 4.2.2.1). It ends the interrupt, too.
            silence: &[(0x70, 0)],
            node: InstanceNode { name: "virtio_mmio", compatible: &["virtio,mmio"], clocks: &[] },
        },
    ],
    regions: &[
        Region { name: "flash", base: 0, size: 128 * MIB },
        Region { name: "GICv3 distributor", base: 0x0800_0000, size: 0x1_0000 },
        Region { name: "GICv3 interrupt translation service", base: 0x0808_0000, size: 0x2_0000 },
        Region { name: "GICv3 redistributors", base: 0x080a_0000, size: 0xf6_0000 },
        Region { name: "PL011 UART", base: 0x0900_0000, size: 0x1000 },
        Region { name: "PL031 clock", base: 0x0901_0000, size: 0x1000 },
        Region { name: "firmware configuration", base: 0x0902_0000, size: 0x18 },
        Region { name: "PL061 GPIO", base: 0x0903_0000, size: 0x1000 },
        Region { name: "32 virtio-mmio slots", base: 0x0a00_0000, size: 0x4000 },
        Region { name: "platform bus", base: 0x0c00_0000, size: 32 * MIB },
        Region { name: "PCIe memory window", base: 0x1000_0000, size: 0x2eff_0000 },
        Region { name: "PCIe port window", base: 0x3eff_0000, size: 0x1_0000 },
    ],
};
