//! What a board is: plain data, so that a new one needs no code.

use core::ops::RangeInclusive;

/// A board. Addresses are physical; sizes are bytes.
#[derive(Clone, Debug)]
pub struct Board {
    /// The name in a system's TOML file.
    pub name: &'static str,
    /// One sentence for a reader.
    pub description: &'static str,
    /// The value of QEMU's `-M`.
    pub qemu_machine: &'static str,
    /// What QEMU's `-M` gets in addition where a run must be reproducible.
    pub qemu_machine_reproducible: &'static str,
    /// The value of QEMU's `-cpu`, where the user asks for no other.
    pub cpu_default: &'static str,
    /// How many cores the board has, where neither system nor user asks for another number.
    pub cores_default: u8,
    /// The greatest number of cores that Bulkhead starts on the board.
    pub cores_max: u8,
    /// How much RAM the board has, where neither system nor user asks for another size.
    pub memory_default: u64,
    /// The greatest size of RAM.
    pub memory_max: u64,
    /// The address of the first byte of RAM.
    pub ram_base: u64,
    /// How far above [`Board::ram_base`] the boot loader puts `bulkhead.bin`: a multiple of 2 MiB (Linux boot
    /// protocol).
    pub image_load_offset: u64,
    /// How much RAM stays Bulkhead's own whatever the system: its image, the device tree, and what lies between them in
    /// pieces too small for a virtual machine. What it takes for a system comes on top.
    pub reserved_for_hypervisor: u64,
    /// How Bulkhead calls the firmware (PSCI DEN0022 5.1).
    pub psci: Conduit,
    /// The UART of Bulkhead's console.
    pub uart: Uart,
    /// The interrupt controller.
    pub gic: Gic,
    /// The INTIDs that belong to devices which can be assigned to a virtual machine.
    pub assignable_interrupts: &'static [RangeInclusive<u32>],
    /// The devices that can be assigned to a virtual machine.
    pub devices: &'static [PhysicalDevice],
    /// What lies below RAM, in ascending order.
    pub regions: &'static [Region],
}

/// A device of the board that a virtual machine can own, at its physical address: one instance, or several equal ones
/// side by side. Stage 2 maps whole pages, so those that share one have one owner.
#[derive(Clone, Copy, Debug)]
pub struct PhysicalDevice {
    /// The name in a system's TOML file.
    pub name: &'static str,
    /// The address of its first byte; a multiple of 4 KiB.
    pub base: u64,
    /// Its size in bytes; a multiple of 4 KiB.
    pub size: u64,
    /// The INTID of the first instance's interrupt; instance `n` has the `n`th after it.
    pub interrupt: u32,
    /// How it signals that interrupt.
    pub trigger: Trigger,
    /// How many equal instances the window holds.
    pub instances: u32,
    /// Whether it reads and writes memory by itself.
    pub dma: Dma,
    /// The stores of 32 bits, as offset and value, after which an instance does nothing any more: neither to memory nor
    /// to its interrupt.
    pub silence: &'static [(u32, u32)],
    /// How the owner's device tree describes each instance.
    pub node: InstanceNode,
}

impl PhysicalDevice {
    /// The INTIDs of its interrupts.
    #[must_use]
    pub const fn interrupts(&self) -> RangeInclusive<u32> {
        self.interrupt..=self.interrupt + self.instances - 1
    }

    /// The size of each instance in bytes.
    #[must_use]
    pub const fn instance_size(&self) -> u64 {
        self.size / self.instances as u64
    }
}

/// How a device signals an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// By the rising edge of its line.
    Edge,
    /// By the high level of its line.
    Level,
}

/// What a device does to memory by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dma {
    /// Nothing.
    None,
    /// It reads and writes at physical addresses, past the cores' caches.
    Incoherent,
    /// As `Incoherent`, and it sees what is in the cores' caches.
    Coherent,
}

/// A device-tree node of one instance of a [`PhysicalDevice`].
#[derive(Clone, Copy, Debug)]
pub struct InstanceNode {
    /// Its name, before the `@`.
    pub name: &'static str,
    /// Its `compatible` strings.
    pub compatible: &'static [&'static str],
    /// The names of its clocks.
    pub clocks: &'static [&'static str],
}

/// Something at a physical address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// What it is, in a few words.
    pub name: &'static str,
    /// The address of its first byte.
    pub base: u64,
    /// Its size in bytes.
    pub size: u64,
}

/// The instruction that reaches the firmware (SMCCC DEN0028 2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `SMC`: the firmware, or QEMU in its place, is at EL3.
    Smc,
    /// `HVC`: something at EL2 answers; Bulkhead can only be that something's guest.
    Hvc,
}

/// The kind and place of a board's UART.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uart {
    /// An Arm PL011 (DDI0183).
    Pl011 {
        /// The address of its registers.
        base: u64,
        /// The INTID of its interrupt.
        interrupt: u32,
    },
}

/// The kind and place of a board's interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gic {
    /// A GICv3 (IHI0069); its CPU interface is reached through system registers.
    V3 {
        /// The address of the distributor.
        distributor: u64,
        /// The address of core 0's redistributor; the other cores' follow, 128 KiB each.
        redistributors: u64,
    },
}
