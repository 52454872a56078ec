//! The board as its device tree describes it, read once at boot with the MMU off; all that is needed later is copied.
//!
//! What the tree says is read by `device_tree`.

use crate::timer;
use core::ops::Deref;
use device_tree::Survey;
pub use device_tree::{Conduit, Description, Missing, Pcie, RANGES_MAX, Range, Ranges};
use vdev::Clock;

/// The board, as its device tree describes it. Nobody else can make one up or change it: what EL2 maps, owns and drives
/// rests on it.
pub struct Board {
    description: Description,
    clock: Clock,
}

impl Deref for Board {
    type Target = Description;

    fn deref(&self) -> &Description {
        &self.description
    }
}

/// The device tree's bytes, as the boot loader passed them.
///
/// # Errors
/// There is no device tree.
///
/// # Safety
/// `address` must be what the boot loader passed in `x0`: the address of a device tree in RAM that nobody else uses. To
/// be called once.
pub(crate) unsafe fn tree(address: usize) -> Result<&'static mut [u8], Missing> {
    if address == 0 || !address.is_multiple_of(8) {
        return Err("x0 does not hold the address of a device tree; start Bulkhead as one starts Linux");
    }
    // SAFETY: the caller vouches for the tree, which begins with 8 bytes of magic number and size.
    let header = unsafe { core::slice::from_raw_parts(address as *const u8, 8) };
    let size = device_tree::size(header).ok_or("x0 does not point to a device tree")?;
    // SAFETY: as above; it is as long as it says.
    Ok(unsafe { core::slice::from_raw_parts_mut(address as *mut u8, size) })
}

impl Board {
    /// Reads the device tree that `survey` has seen and that lies at `address`, on the core whose affinity is `own`.
    ///
    /// # Errors
    /// What is missing or not supported, as a sentence.
    pub(crate) fn read(survey: Survey<'_>, address: u64, own: u64) -> Result<Self, Missing> {
        let description = device_tree::read(survey, address, own)?;
        let clock = timer::clock(description.clock);
        Ok(Self { description, clock })
    }

    /// What is known of time on this board.
    #[must_use]
    pub const fn time(&self) -> Clock {
        self.clock
    }
}
