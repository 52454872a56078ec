//! The numbers that a system must stay within: those of Bulkhead itself, and those of a board.

use crate::Span;

/// The most virtual machines of one system.
pub const VMS_MAX: usize = 16;
/// The most virtual CPUs of one virtual machine.
pub const VCPUS_MAX: usize = 8;
/// The longest name of a virtual machine, in bytes; it prefixes every console line.
pub const NAME_LENGTH_MAX: usize = 16;
/// The most regions of RAM of one virtual machine.
pub const REGIONS_MAX: usize = 8;
/// The most virtual devices of one virtual machine.
pub const DEVICES_MAX: usize = 32;
/// The most physical devices of one virtual machine.
pub const ASSIGNED_MAX: usize = 8;
/// The most interrupts of one physical device.
pub const ASSIGNED_INTERRUPTS_MAX: usize = 64;
/// The most instances of one physical device.
pub const ASSIGNED_INSTANCES_MAX: u64 = 64;
/// The most stores that silence an instance of a physical device.
pub const SILENCE_MAX: usize = 8;
/// The most channels of one driver domain; channels are numbered below it.
pub const CHANNELS_MAX: usize = 64;
/// The largest channel in bytes: its ring entries hold offsets of 32 bits, and no device needs more.
pub const CHANNEL_SIZE_MAX: u64 = 64 << 20;
/// The most queues of one virtio device.
pub const QUEUES_MAX: u16 = abi::io::QUEUES_MAX as u16;
/// The most requests of one virtio device that are out at a time.
pub const REQUESTS_MAX: u16 = abi::io::RING_ENTRIES as u16;
/// The most chains that are kept for them.
pub const CHAINS_MAX: u8 = 32;
/// The most files to load into one virtual machine.
pub const LOADS_MAX: usize = 32;
/// The most ranges of random bytes of one virtual machine.
pub const SEEDS_MAX: usize = 8;
/// Guest RAM is given in multiples of this: the size of a stage-2 block at level 2 (Arm ARM D8.2.9, 4 KiB granule).
pub const MEMORY_ALIGN: u64 = 2 << 20;
/// Device windows are given in multiples of this: the size of a stage-2 page.
pub const PAGE_SIZE: u64 = 4096;
/// A guest's addresses have this many bits: 512 GiB, one level-1 table at stage 2.
pub const GUEST_ADDRESS_BITS: u32 = 39;
/// The lowest INTID a device may own: the first SPI (GICv3 specification IHI0069, 2.2.1).
pub const INTERRUPT_MIN: u32 = 32;
/// The highest INTID a device may own: the virtual distributor has 256 SPIs.
pub const INTERRUPT_MAX: u32 = 287;

/// The shortest and the longest time of a [`Watch`](crate::Watch), in milliseconds.
pub const WATCH_MS_MIN: u32 = 10;
/// As [`WATCH_MS_MIN`].
pub const WATCH_MS_MAX: u32 = 3_600_000;

const _: () = assert!(VCPUS_MAX <= 16, "the target list of an SGI has 16 bits");

/// What the board has to give, and where the guest's address map is taken.
///
/// The host fills it from `platform`, EL2 from the board's own device tree.
#[derive(Clone, Copy, Debug)]
pub struct BoardLimits<'a> {
    /// The number of cores.
    pub cores: u8,
    /// The board's RAM.
    pub memory: &'a [Span],
    /// How many bytes of that RAM are taken before Bulkhead has read the system, by its image for one. What it takes
    /// for the system is added ([`System::own_bytes`](crate::System::own_bytes)).
    pub reserved: u64,
    /// Where every guest finds its interrupt controller.
    pub gic: GicWindows,
    /// Physical windows that Bulkhead keeps, and no machine is given: interrupt controller, UART.
    pub kept: &'a [Span],
    /// The INTIDs that Bulkhead keeps: the UART's.
    pub kept_interrupts: &'a [u32],
}

/// The guest addresses of the virtual interrupt controller: the same for every virtual machine.
#[derive(Clone, Copy, Debug)]
pub struct GicWindows {
    /// The distributor's window.
    pub distributor: Span,
    /// The first virtual CPU's redistributor.
    pub redistributors: u64,
    /// The size of one redistributor in bytes; those of further virtual CPUs follow.
    pub redistributor_size: u64,
}

impl GicWindows {
    /// The window of the redistributors of a machine with `vcpus` virtual CPUs.
    #[must_use]
    pub fn redistributor_span(&self, vcpus: usize) -> Span {
        let vcpus = u64::try_from(vcpus).unwrap_or(u64::MAX);
        Span::new(self.redistributors, self.redistributor_size.saturating_mul(vcpus))
    }
}
