//! Registers of physical devices that a guest may own.

use crate::board::{Board, Range};
use crate::mmu::TABLE_SIZE;

/// Registers that are neither RAM nor EL2's own: a guest that has them can harm nobody's memory but through what the
/// device itself can do (DMA), which is the system's author to judge.
#[derive(Clone, Copy, Debug)]
pub struct DeviceWindow(Range);

impl DeviceWindow {
    /// The `size` bytes of registers at `start`.
    ///
    /// # Errors
    /// What is in the way, to complete "the registers … are no whole pages", and so on.
    pub fn new(board: &Board, start: u64, size: u64) -> Result<Self, &'static str> {
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
        Ok(Self(Range { start, size }))
    }

    pub(crate) fn range(&self) -> Range {
        self.0
    }
}
