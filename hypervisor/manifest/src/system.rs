//! The types: what a system description says. What must hold between them is in `validate`, how they are written in
//! `record`.

use alloc::{string::String, vec::Vec};

use crate::Span;

/// A whole system: one board, cut into virtual machines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct System {
    /// The system's name, as in `guests/systems/NAME.toml`.
    pub name: String,
    /// How many cores of the board the system uses, counted from core 0.
    pub cores: u8,
    /// The virtual machines.
    pub vms: Vec<Vm>,
}

/// One virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    /// A unique name; it prefixes the machine's console lines.
    pub name: String,
    /// RAM, in ascending order of guest address.
    pub memory: Vec<MemoryRegion>,
    /// Virtual CPUs; the index is the virtual CPU's number, and virtual CPU 0 starts first.
    pub vcpus: Vec<Vcpu>,
    /// Files of the bundle to copy into RAM at each start. What no file covers starts as zero.
    pub loads: Vec<Load>,
    /// Where virtual CPU 0 starts (EL1, MMU off), a guest address.
    pub entry: u64,
    /// What virtual CPU 0 finds in `x0`: the guest address of its device tree.
    pub device_tree: u64,
    /// Ranges of RAM (within loaded files) that get fresh random bytes at each start.
    pub seeds: Vec<Seed>,
    /// Virtual devices.
    pub devices: Vec<Device>,
    /// Physical devices that belong to this machine alone.
    pub assigned: Vec<Assigned>,
    /// The INTID of the interrupt that tells a driver domain of requests: an edge-triggered SPI of its own. A machine
    /// that has one is a driver domain.
    pub doorbell: Option<u32>,
    /// What a driver domain is held to.
    pub watch: Watch,
}

impl Vm {
    /// The size of the machine's RAM in bytes, all regions together; saturates at `u64::MAX`.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory.iter().fold(0, |sum, region| region.size.saturating_add(sum))
    }
}

/// What a driver domain is held to, and how often it may start again. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Watch {
    /// It runs at least once in this time. One that hangs is found after twice as long at most.
    pub heartbeat_ms: u32,
    /// The longest that a request may be out to a queue that is not patient: a disk's, or one for random numbers.
    pub request_ms: u32,
    /// The longest from its start until it is ready.
    pub startup_ms: u32,
    /// The most restarts in `restart_window_ms`; one more, and it stays off, and its clients get errors.
    pub restart_limit: Option<u32>,
    /// How long a restart counts: from the first one on.
    pub restart_window_ms: u32,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            // A tenth of what a person takes for a stop, and yet far more than an emulated core is kept waiting by a
            // busy host.
            heartbeat_ms: 500,
            // A disk that has to spin up, or to try a sector again, answers within this; Linux complains of a task that
            // has been waiting for twelve times as long.
            request_ms: 10_000,
            startup_ms: 10_000,
            restart_limit: None,
            restart_window_ms: 60_000,
        }
    }
}

/// A region of guest RAM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// First guest address; a multiple of 2 MiB.
    pub guest: u64,
    /// Size in bytes; a multiple of 2 MiB.
    pub size: u64,
    /// The physical address, where the system fixes it; a multiple of 2 MiB.
    pub physical: Option<u64>,
}

impl MemoryRegion {
    /// The guest addresses of the region.
    #[must_use]
    pub const fn guest_span(&self) -> Span {
        Span::new(self.guest, self.size)
    }

    /// The physical addresses of the region, where the system fixes them.
    #[must_use]
    pub fn physical_span(&self) -> Option<Span> {
        self.physical.map(|base| Span::new(base, self.size))
    }
}

/// A virtual CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vcpu {
    /// The physical core it is pinned to. Virtual CPUs of one core have equal shares of it.
    pub core: u8,
}

/// A file to copy into guest RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// The file's name in the bundle.
    pub file: String,
    /// The guest address of its first byte.
    pub address: u64,
}

/// A range of guest RAM that gets random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The guest address of the first byte.
    pub address: u64,
    /// The number of bytes.
    pub size: u32,
}

/// A virtual device of a virtual machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The model's name in the registry of `devices`, such as `pl011`.
    pub kind: String,
    /// The guest address of its register window.
    pub address: u64,
    /// The size of its register window in bytes; a multiple of 4 KiB.
    pub size: u64,
    /// The INTID of its interrupt (an SPI: 32 and above), if it has one.
    pub interrupt: Option<u32>,
    /// Who stands behind a para-virtual device.
    pub service: Option<Service>,
    /// What its model is told of its place in the system, in the model's own terms; nothing for a para-virtual device.
    pub configuration: Vec<u8>,
}

/// Where a para-virtual device's requests go: a channel of a driver domain (`abi::io`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The driver domain: its place among the virtual machines.
    pub provider: u8,
    /// The channel's number, counted from 0 for each driver domain.
    pub channel: u16,
    /// The first byte of the channel, a guest address of the driver domain; a multiple of 4 KiB.
    pub address: u64,
    /// The size of the channel in bytes; a multiple of 4 KiB.
    pub size: u64,
    /// Which kind of device it is (VIRTIO 1.2, 5).
    pub device_id: u32,
    /// How many queues it has.
    pub queues: u16,
    /// Which of them its driver domain fills unasked, a bit each.
    pub filled: u32,
    /// How many requests are out at a time.
    pub requests: u16,
    /// How many chains EL2 keeps for them.
    pub chains: u8,
}

impl Service {
    /// The driver domain's addresses of the channel.
    #[must_use]
    pub const fn span(&self) -> Span {
        Span::new(self.address, self.size)
    }
}

/// A physical device in the address space of the machine that owns it, at its physical address: one instance, or
/// several equal ones side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Its name on the board, such as `virtio-mmio`.
    pub name: String,
    /// Its first address, physical and guest address alike; a multiple of 4 KiB.
    pub address: u64,
    /// Its size in bytes; a multiple of 4 KiB.
    pub size: u64,
    /// The size of each instance in bytes.
    pub instance_size: u64,
    /// The INTIDs of its interrupts (SPIs), the same physically and for the guest.
    pub interrupts: Vec<u32>,
    /// How it signals them.
    pub trigger: Trigger,
    /// Whether it reads and writes memory by itself: what it does there is its owner's doing, and EL2 cannot check it.
    pub dma: bool,
    /// The stores after which an instance does nothing any more, be it to memory or to its interrupt. They are made
    /// before its owner starts and after it has stopped.
    pub silence: Vec<Store>,
}

/// How a device signals an interrupt (GICD_ICFGR).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// By the rising edge of its line.
    Edge,
    /// By the high level of its line.
    Level,
}

/// A store of 32 bits to a register of a physical device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Store {
    /// The register: bytes from the instance's first address, a multiple of 4.
    pub offset: u32,
    /// What is stored there.
    pub value: u32,
}

impl Assigned {
    /// Its addresses.
    #[must_use]
    pub const fn span(&self) -> Span {
        Span::new(self.address, self.size)
    }
}

impl Device {
    /// The guest addresses of the register window.
    #[must_use]
    pub const fn span(&self) -> Span {
        Span::new(self.address, self.size)
    }
}
