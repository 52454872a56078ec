//! The registers of a virtio-mmio device (VIRTIO 1.2, 4.2.2), named as the specification names them.
//!
//! What this module leaves out: what a register does, and the configuration space from offset 0x100 on.

use bitflags::bitflags;

/// What MagicValue reads: "virt".
pub(super) const MAGIC: u32 = u32::from_le_bytes(*b"virt");
/// What Version reads: the interface of VIRTIO 1.0 and later.
pub(super) const VERSION: u32 = 2;
/// What VendorID reads: "Bulk". The specification gives the number no meaning, and drivers none.
pub(super) const VENDOR: u32 = u32::from_le_bytes(*b"Bulk");

/// Where the configuration space starts, in bytes from the start of the window.
pub(super) const CONFIGURATION_OFFSET: u16 = 0x100;

/// A register, but for the two that are stored to with every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Register {
    MagicValue,
    Version,
    DeviceId,
    VendorId,
    DeviceFeatures,
    DeviceFeaturesSel,
    DriverFeatures,
    DriverFeaturesSel,
    QueueSel,
    QueueNumMax,
    QueueNum,
    QueueReady,
    InterruptStatus,
    Status,
    /// One of QueueDescLow … QueueDeviceHigh.
    QueueAddress(Part, Half),
    /// SHMLenLow, SHMLenHigh, SHMBaseLow, SHMBaseHigh.
    SharedMemory,
    ConfigGeneration,
}

/// The parts of a split virtqueue, in the order of their registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Descriptors = 0,
    Available = 1,
    Used = 2,
}

/// The halves of a 64-bit address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Low,
    High,
}

impl Half {
    /// `address` with this half of it replaced.
    pub(super) const fn replace(self, address: u64, half: u32) -> u64 {
        match self {
            Self::Low => address & !0xffff_ffff | half as u64,
            Self::High => address & 0xffff_ffff | (half as u64) << 32,
        }
    }
}

impl Register {
    /// Where QueueNotify and InterruptACK are, which are answered before anything else is looked at.
    pub(super) const QUEUE_NOTIFY: u64 = 0x050;
    pub(super) const INTERRUPT_ACK: u64 = 0x064;

    /// The offset of a register, for those that are published one by one.
    pub(super) const MAGIC_VALUE: u16 = 0x000;
    pub(super) const VERSION: u16 = 0x004;
    pub(super) const DEVICE_ID: u16 = 0x008;
    pub(super) const VENDOR_ID: u16 = 0x00c;
    pub(super) const DEVICE_FEATURES: u16 = 0x010;
    pub(super) const QUEUE_NUM_MAX: u16 = 0x034;
    pub(super) const QUEUE_READY: u16 = 0x044;
    pub(super) const INTERRUPT_STATUS: u16 = 0x060;
    pub(super) const STATUS: u16 = 0x070;
    pub(super) const CONFIG_GENERATION: u16 = 0x0fc;
    /// Those that read otherwise after a reset. To publish the whole page would be a long stretch at EL2.
    pub(super) const OF_DRIVER: [u16; 5] =
        [Self::DEVICE_FEATURES, Self::QUEUE_NUM_MAX, Self::QUEUE_READY, Self::INTERRUPT_STATUS, Self::STATUS];

    /// The register at `offset` bytes into the window, if it is one of these. SHMSel and QueueReset are left out, since
    /// nothing is offered that they serve: they read as zero and ignore stores, as the gaps do.
    pub(super) const fn at(offset: u64) -> Option<Self> {
        Some(match offset {
            0x000 => Self::MagicValue,
            0x004 => Self::Version,
            0x008 => Self::DeviceId,
            0x00c => Self::VendorId,
            0x010 => Self::DeviceFeatures,
            0x014 => Self::DeviceFeaturesSel,
            0x020 => Self::DriverFeatures,
            0x024 => Self::DriverFeaturesSel,
            0x030 => Self::QueueSel,
            0x034 => Self::QueueNumMax,
            0x038 => Self::QueueNum,
            0x044 => Self::QueueReady,
            0x060 => Self::InterruptStatus,
            0x070 => Self::Status,
            0x080 => Self::QueueAddress(Part::Descriptors, Half::Low),
            0x084 => Self::QueueAddress(Part::Descriptors, Half::High),
            0x090 => Self::QueueAddress(Part::Available, Half::Low),
            0x094 => Self::QueueAddress(Part::Available, Half::High),
            0x0a0 => Self::QueueAddress(Part::Used, Half::Low),
            0x0a4 => Self::QueueAddress(Part::Used, Half::High),
            0x0b0 | 0x0b4 | 0x0b8 | 0x0bc => Self::SharedMemory,
            0x0fc => Self::ConfigGeneration,
            _ => return None,
        })
    }
}

bitflags! {
    /// Status (VIRTIO 1.2, 2.1).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Status: u32 {
        /// The guest has seen the device.
        const ACKNOWLEDGE = 1 << 0;
        /// The guest has a driver for it.
        const DRIVER = 1 << 1;
        /// The driver is ready: the device may work.
        const DRIVER_OK = 1 << 2;
        /// The features are negotiated.
        const FEATURES_OK = 1 << 3;
        /// The device cannot go on without a reset; the device's to set.
        const DEVICE_NEEDS_RESET = 1 << 6;
        /// The driver has given up.
        const FAILED = 1 << 7;
    }

    /// InterruptStatus and InterruptACK (VIRTIO 1.2, 4.2.2).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Interrupts: u32 {
        /// A buffer was used in one of the queues.
        const USED_BUFFER = 1 << 0;
        /// The configuration has changed, or the device needs a reset.
        const CONFIGURATION_CHANGE = 1 << 1;
    }
}
