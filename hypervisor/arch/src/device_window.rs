//! Registers of physical devices that a guest may own.

use crate::board::{Board, Range};
use crate::mmu::HypMap;
use memory::table::PAGE_SIZE;

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
        if size == 0 || !start.is_multiple_of(PAGE_SIZE) || !size.is_multiple_of(PAGE_SIZE) {
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

    /// Whether a device of the board begins with each page of these registers, as its device tree has it. Where nothing
    /// is, a board may answer a load or a store with an abort.
    pub fn is_there(&self, board: &Board) -> bool {
        let Self(Range { start, size }) = *self;
        (start..start + size).step_by(PAGE_SIZE as usize).all(|page| board.devices.contains(&page))
    }

    /// Their size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.0.size
    }

    /// Stores `value` in the 32-bit register at byte `offset`. What is not inside these registers is left alone.
    pub fn store(&self, offset: u64, value: u32) {
        let Self(Range { start, size }) = *self;
        if offset.is_multiple_of(4) && offset < size {
            // SAFETY: within registers that EL2 maps as device memory (`new`), and that are no register of EL2's own
            // and no memory: whatever a store does there, it does to the devices of the guest that owns them.
            unsafe { ((start + offset) as *mut u32).write_volatile(value) };
        }
    }

    pub(crate) fn range(&self) -> Range {
        self.0
    }
}
