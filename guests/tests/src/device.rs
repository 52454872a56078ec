//! The registers of a virtio-mmio device, raw: whatever is stored is stored.

use arrayvec::ArrayVec;
use core::fmt;
use rt::{machine, probe};
use testkit::{Failure, Outcome, ensure};

/// Offsets of registers (VIRTIO 1.2, 4.2.2).
pub mod register {
    /// DeviceID.
    pub const DEVICE_ID: u64 = 0x008;
    /// DeviceFeatures.
    pub const DEVICE_FEATURES: u64 = 0x010;
    /// DeviceFeaturesSel.
    pub const DEVICE_FEATURES_SEL: u64 = 0x014;
    /// DriverFeatures.
    pub const DRIVER_FEATURES: u64 = 0x020;
    /// DriverFeaturesSel.
    pub const DRIVER_FEATURES_SEL: u64 = 0x024;
    /// QueueSel.
    pub const QUEUE_SEL: u64 = 0x030;
    /// QueueNumMax.
    pub const QUEUE_NUM_MAX: u64 = 0x034;
    /// QueueNum.
    pub const QUEUE_NUM: u64 = 0x038;
    /// QueueReady.
    pub const QUEUE_READY: u64 = 0x044;
    /// QueueNotify.
    pub const QUEUE_NOTIFY: u64 = 0x050;
    /// InterruptStatus.
    pub const INTERRUPT_STATUS: u64 = 0x060;
    /// InterruptACK.
    pub const INTERRUPT_ACK: u64 = 0x064;
    /// Status.
    pub const STATUS: u64 = 0x070;
    /// QueueDescLow.
    pub const QUEUE_DESC: u64 = 0x080;
    /// QueueDriverLow.
    pub const QUEUE_DRIVER: u64 = 0x090;
    /// QueueDeviceLow.
    pub const QUEUE_DEVICE: u64 = 0x0a0;
    /// Where the configuration begins.
    pub const CONFIGURATION: u64 = 0x100;
}

/// Bits of Status (VIRTIO 1.2, 2.1).
pub mod status {
    /// ACKNOWLEDGE.
    pub const ACKNOWLEDGE: u32 = 1;
    /// DRIVER.
    pub const DRIVER: u32 = 2;
    /// DRIVER_OK.
    pub const DRIVER_OK: u32 = 4;
    /// FEATURES_OK.
    pub const FEATURES_OK: u32 = 8;
    /// DEVICE_NEEDS_RESET.
    pub const NEEDS_RESET: u32 = 64;
}

/// Features of every device (VIRTIO 1.2, 6).
pub const INDIRECT: u64 = 1 << 28;
/// VIRTIO_F_EVENT_IDX.
pub const EVENT_INDEX: u64 = 1 << 29;
/// VIRTIO_F_VERSION_1.
pub const VERSION_1: u64 = 1 << 32;

/// The most devices that are attacked.
pub const DEVICES_MAX: usize = 16;
const MAGIC: u32 = u32::from_le_bytes(*b"virt");

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A network card.
    Network,
    /// A disk.
    Block,
    /// A console.
    Console,
    /// A source of random numbers.
    Entropy,
}

/// A device.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Where its registers are.
    pub base: u64,
    /// What it is.
    pub kind: Kind,
    /// The INTID of its interrupt.
    pub interrupt: u32,
    queues: u16,
}

impl fmt::Display for Device {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:?} at {:#x}", self.kind, self.base)
    }
}

/// Every virtio device that the device tree names.
pub fn all() -> ArrayVec<Device, DEVICES_MAX> {
    let mut devices = ArrayVec::new();
    let Some(tree) = machine().tree() else { return devices };
    for node in tree.all_nodes() {
        let is_slot = node.compatible().is_some_and(|names| names.all().any(|name| name == "virtio,mmio"));
        let window = node.reg().and_then(|mut windows| windows.next()).filter(|_| is_slot);
        let Some(base) = window.map(|window| window.starting_address as u64) else { continue };
        let read = |offset| probe::try_read32(base + offset).unwrap_or(0);
        let kind = match read(register::DEVICE_ID) {
            _ if read(0) != MAGIC => continue,
            1 => Kind::Network,
            2 => Kind::Block,
            3 => Kind::Console,
            4 => Kind::Entropy,
            _ => continue,
        };
        let cell = |bytes: &[u8]| bytes.first_chunk().map_or(0, |cell| u32::from_be_bytes(*cell));
        // An SPI: its type, its number, its trigger.
        let number = node.property("interrupts").and_then(|cells| cells.value.get(4..)).map_or(0, cell);
        let queues = match kind {
            Kind::Network | Kind::Console => 2,
            // `num_queues` (VIRTIO 1.2, 5.2.4).
            Kind::Block => (read(register::CONFIGURATION + 32) >> 16).max(1) as u16,
            Kind::Entropy => 1,
        };
        if devices.try_push(Device { base, kind, interrupt: number + 32, queues }).is_err() {
            break;
        }
    }
    devices
}

impl Device {
    /// How many queues the device has.
    pub const fn queues(self) -> u16 {
        self.queues
    }

    /// Whether the device fills the buffers of `queue` when it pleases.
    pub const fn receives_in(self, queue: u16) -> bool {
        matches!(self.kind, Kind::Network | Kind::Console) && queue == 0
    }

    /// Loads a register.
    pub fn read(self, offset: u64) -> Result<u32, Failure> {
        Ok(probe::try_read32(self.base + offset)?)
    }

    /// Stores into a register.
    pub fn write(self, offset: u64, value: u32) -> Outcome {
        Ok(probe::try_write32(self.base + offset, value)?)
    }

    /// Stores 64 bits into a pair of registers.
    pub fn write_address(self, offset: u64, address: u64) -> Outcome {
        self.write(offset, address as u32)?;
        self.write(offset + 4, (address >> 32) as u32)
    }

    /// Status.
    pub fn status(self) -> Result<u32, Failure> {
        self.read(register::STATUS)
    }

    /// Whether the device asks to be reset.
    pub fn needs_reset(self) -> Result<bool, Failure> {
        Ok(self.status()? & status::NEEDS_RESET != 0)
    }

    /// Resets the device, which is then at rest.
    pub fn reset(self) -> Outcome {
        self.write(register::STATUS, 0)?;
        let status = self.status()?;
        ensure!(status == 0, "Status is {status:#x} after a reset");
        Ok(())
    }

    /// What the device offers.
    pub fn offered(self) -> Result<u64, Failure> {
        self.write(register::DEVICE_FEATURES_SEL, 1)?;
        let high = self.read(register::DEVICE_FEATURES)?;
        self.write(register::DEVICE_FEATURES_SEL, 0)?;
        Ok(u64::from(high) << 32 | u64::from(self.read(register::DEVICE_FEATURES)?))
    }

    /// Accepts `features` after a reset, and says whether the device agrees.
    pub fn negotiate(self, features: u64) -> Result<bool, Failure> {
        self.reset()?;
        self.write(register::STATUS, status::ACKNOWLEDGE)?;
        self.write(register::STATUS, status::ACKNOWLEDGE | status::DRIVER)?;
        for (half, value) in [(0, features as u32), (1, (features >> 32) as u32)] {
            self.write(register::DRIVER_FEATURES_SEL, half)?;
            self.write(register::DRIVER_FEATURES, value)?;
        }
        self.write(register::STATUS, status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK)?;
        Ok(self.status()? & status::FEATURES_OK != 0)
    }

    /// The driver is ready.
    pub fn go(self) -> Outcome {
        let all = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
        self.write(register::STATUS, all)
    }

    /// Selects `queue`, gives it its size and places, and asks for it; says whether the device takes it.
    pub fn start_queue(self, queue: u32, size: u32, places: [u64; 3]) -> Result<bool, Failure> {
        self.write(register::QUEUE_SEL, queue)?;
        self.write(register::QUEUE_NUM, size)?;
        let registers = [register::QUEUE_DESC, register::QUEUE_DRIVER, register::QUEUE_DEVICE];
        for (register, place) in registers.into_iter().zip(places) {
            self.write_address(register, place)?;
        }
        self.write(register::QUEUE_READY, 1)?;
        Ok(self.read(register::QUEUE_READY)? == 1)
    }

    /// Notifies the device of `queue`.
    pub fn notify(self, queue: u32) -> Outcome {
        self.write(register::QUEUE_NOTIFY, queue)
    }
}
