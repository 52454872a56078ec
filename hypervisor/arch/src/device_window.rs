//! Registers of physical devices that a guest may own.

use crate::board::{Board, Range};
use crate::mmu::{HypMap, TABLE_SIZE};

/// The bytes from one virtio-mmio device to the next where several share a page, as on QEMU's `virt`; a device that has a
/// page to itself is the first of several of which the others do not exist.
const VIRTIO_STRIDE: u64 = 0x200;
/// MagicValue of a virtio-mmio device, "virt", and the offset of its Status (VIRTIO 1.2, 4.2.2).
const VIRTIO_MAGIC: u32 = 0x7472_6976;
const VIRTIO_STATUS: u64 = 0x70;

/// Registers that are neither RAM nor EL2's own: a guest that has them can harm nobody's memory but through what the
/// device itself can do (DMA), which is the system's author to judge.
#[derive(Clone, Copy, Debug)]
pub struct DeviceWindow(Range);

impl DeviceWindow {
    /// The `size` bytes of registers at `start`, which EL2 maps for itself too.
    ///
    /// # Errors
    /// What is in the way, to complete "the registers … are no whole pages", and so on.
    pub fn new(board: &Board, map: &mut HypMap, start: u64, size: u64) -> Result<Self, &'static str> {
        if size == 0 || !start.is_multiple_of(TABLE_SIZE) || !size.is_multiple_of(TABLE_SIZE) {
            return Err("are no whole pages");
        }
        let Some(end) = start.checked_add(size) else { return Err("end beyond all addresses") };
        let meets =
            |range: &Range| range.size != 0 && start < range.start.saturating_add(range.size) && range.start < end;
        if board.memory.iter().any(meets) {
            return Err("are RAM of the board");
        }
        let pcie = board.pcie.iter().flat_map(|pcie| [pcie.configuration, pcie.window]);
        if [board.uart, board.distributor, board.redistributors].iter().copied().chain(pcie).any(|range| meets(&range))
        {
            return Err("are Bulkhead's own");
        }
        let range = Range { start, size };
        map.map_registers(range).map_err(|_| "cannot be mapped by Bulkhead itself")?;
        Ok(Self(range))
    }

    /// Resets the virtio devices behind these registers (VIRTIO 1.2, 4.2.2.1: Status = 0), so that none of them writes to
    /// memory any more. Only for registers that are those of virtio-mmio devices.
    pub fn reset_virtio(&self) {
        let Self(Range { start, size }) = *self;
        for device in (start..start + size).step_by(VIRTIO_STRIDE as usize) {
            // SAFETY: within registers that EL2 maps as device memory (`new`), and that are no register of EL2's own and no
            // memory: whatever a load or a store does there, it does to the devices of the guest that owns them.
            unsafe {
                if (device as *const u32).read_volatile() == VIRTIO_MAGIC {
                    ((device + VIRTIO_STATUS) as *mut u32).write_volatile(0);
                }
            }
        }
    }

    pub(crate) fn range(&self) -> Range {
        self.0
    }
}
