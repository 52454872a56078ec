//! The virtio-mmio slots of this machine, as its device tree names them.

use super::{Error, Transport};
use crate::gic::{self, Trigger};
use crate::machine::{Region, machine};
use crate::mmio;
use arrayvec::ArrayVec;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};
use fdt::node::FdtNode;
use virtio_drivers::transport::mmio::{MmioTransport, VirtIOHeader};

/// The most slots that are looked at: QEMU's `virt` has 32.
pub const SLOTS_MAX: usize = 32;

/// Registers that are read before there is a driver (VIRTIO 1.2, 4.2.2).
const MAGIC_VALUE: u64 = 0x000;
const DEVICE_ID: u64 = 0x008;
/// `virt` in little-endian ASCII.
const MAGIC: u32 = 0x7472_6976;
/// The registers end, and the device's configuration begins, here.
const CONFIGURATION: u64 = 0x100;

/// What kind of device sits in a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A network card (1).
    Network,
    /// A disk (2).
    Block,
    /// A console (3).
    Console,
    /// A source of random numbers (4).
    Entropy,
    /// A device that this runtime has no driver for, by its number.
    Other(u32),
}

/// A virtio-mmio slot. There is one value for each, so a device has one driver.
#[derive(Debug)]
pub struct Slot {
    registers: Region,
    interrupt: u32,
    trigger: Trigger,
}

impl Slot {
    /// The slot that `node` describes: a register window outside RAM, and an SPI.
    fn read(node: FdtNode<'_, 'static>) -> Option<Self> {
        let window = node.reg()?.next()?;
        let registers = Region { start: window.starting_address as u64, size: window.size? as u64 };
        let in_memory = machine().memory_at(registers.start, registers.size).is_some();
        if in_memory || registers.size <= CONFIGURATION || !registers.start.is_multiple_of(8) {
            return None;
        }
        let mut cells = node.property("interrupts")?.value.chunks_exact(4).map(|cell| {
            let mut bytes = [0; 4];
            bytes.copy_from_slice(cell);
            u32::from_be_bytes(bytes)
        });
        let (kind, number, flags) = (cells.next()?, cells.next()?, cells.next()?);
        // A GIC specifier: type 0 is an SPI, counted from INTID 32; flags 1 and 2 are edges.
        let trigger = if flags & 0b11 == 0 { Trigger::Level } else { Trigger::Edge };
        (kind == 0).then_some(Self { registers, interrupt: number.checked_add(32)?, trigger })
    }

    /// What is in the slot; `None` for nothing.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        if mmio::read32(self.registers.start + MAGIC_VALUE) != MAGIC {
            return None;
        }
        Some(match mmio::read32(self.registers.start + DEVICE_ID) {
            0 => return None,
            1 => Kind::Network,
            2 => Kind::Block,
            3 => Kind::Console,
            4 => Kind::Entropy,
            other => Kind::Other(other),
        })
    }

    /// Where the registers are.
    #[must_use]
    pub const fn registers(&self) -> Region {
        self.registers
    }

    /// The INTID of the slot's interrupt.
    #[must_use]
    pub const fn interrupt(&self) -> u32 {
        self.interrupt
    }

    /// Sets the interrupt's trigger as the device tree says, and enables it.
    pub fn enable_interrupt(&self) {
        gic::set_trigger(self.interrupt, self.trigger);
        gic::enable(self.interrupt);
    }

    /// The same slot, for a driver that ends before this value is used again.
    pub(super) const fn again(&self) -> Self {
        Self { registers: self.registers, interrupt: self.interrupt, trigger: self.trigger }
    }

    /// Lends the registers to a driver of `virtio-drivers`, to be brought up with [`Platform`](super::Platform) by its
    /// own safe calls. The device is reset when the driver ends.
    ///
    /// # Errors
    /// [`Error::InvalidParam`] where there is no device that the crate knows.
    pub fn lend(&mut self) -> Result<MmioTransport<'_>, Error> {
        self.open()
    }

    /// The registers for a driver that keeps this slot to itself for as long as it runs.
    pub(super) fn transport(&self) -> Result<Transport, Error> {
        self.open()
    }

    fn open<'a>(&self) -> Result<MmioTransport<'a>, Error> {
        let header = NonNull::new(self.registers.start as *mut VirtIOHeader).ok_or(Error::InvalidParam)?;
        // SAFETY: the device tree says that virtio-mmio registers of this size are here; they are outside RAM, so
        // mapped as Device memory for good, and aligned. A driver begins with a reset, so were there two of them, the
        // device would know the memory of the later one alone.
        unsafe { MmioTransport::new(header, self.registers.size as usize) }.map_err(|_| Error::InvalidParam)
    }
}

/// All slots, by address. They are given out once: a second call finds none.
#[must_use]
pub fn take_slots() -> ArrayVec<Slot, SLOTS_MAX> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let mut slots = ArrayVec::<Slot, SLOTS_MAX>::new();
    if TAKEN.swap(true, Ordering::Relaxed) {
        return slots;
    }
    let Some(tree) = machine().tree() else { return slots };
    let is_slot = |node: &FdtNode<'_, 'static>| {
        node.compatible().is_some_and(|compatible| compatible.all().any(|name| name == "virtio,mmio"))
    };
    for slot in tree.all_nodes().filter(is_slot).filter_map(Slot::read) {
        let overlaps = |other: &Slot| other.registers.overlaps(slot.registers.start, slot.registers.size);
        if !slots.iter().any(overlaps) && !slots.is_full() {
            slots.push(slot);
        }
    }
    slots.sort_unstable_by_key(|slot| slot.registers.start);
    slots
}
