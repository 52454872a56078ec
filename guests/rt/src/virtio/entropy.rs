//! A source of random numbers.

use super::{Error, Slot, Transport};
use crate::dma::Platform;
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::InterruptStatus;

/// A source of random numbers.
pub struct Entropy(VirtIORng<Platform, Transport>);

impl Entropy {
    /// Brings the source in `slot` up.
    ///
    /// # Errors
    /// What the device or the crate objects to.
    pub fn new(slot: Slot) -> Result<Self, Error> {
        VirtIORng::new(slot.transport()?).map(Self)
    }

    /// Acknowledges the device's interrupt.
    pub fn acknowledge_interrupt(&mut self) -> InterruptStatus {
        self.0.ack_interrupt()
    }

    /// Fills the start of `bytes` with fresh random numbers, waits for them, and says how many there are.
    pub fn fill(&mut self, bytes: &mut [u8]) -> usize {
        if bytes.is_empty() {
            return 0;
        }
        // What the device says that it wrote is a claim.
        self.0.request_entropy(bytes).map_or(0, |count| count.min(bytes.len()))
    }
}
