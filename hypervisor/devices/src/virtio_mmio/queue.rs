//! One queue's registers, and the check that makes a [`QueueLayout`] of them.
//!
//! What this module leaves out: the rings (whoever walks the queue), and which queue QueueSel selects.

use super::QUEUE_SIZE_MAX;
use super::registers::{Half, Part};
use vdev::{GuestAddr, QueueLayout};

/// The registers of a queue as its driver has set them, and whether the device took them.
#[derive(Clone, Copy)]
pub(super) struct Queue {
    /// QueueNum, as it was stored.
    size: u32,
    /// QueueDesc, QueueDriver and QueueDevice.
    addresses: [u64; 3],
    ready: bool,
}

impl Queue {
    pub(super) const RESET: Self = Self { size: 0, addresses: [0; 3], ready: false };

    /// QueueReady.
    pub(super) const fn is_ready(&self) -> bool {
        self.ready
    }

    /// QueueNum. A queue that is ready keeps its size.
    pub(super) fn set_size(&mut self, size: u32) {
        if !self.ready {
            self.size = size;
        }
    }

    /// One of the address registers. A queue that is ready stays where it is.
    pub(super) fn set_address(&mut self, part: Part, half: Half, value: u32) {
        if let (false, Some(address)) = (self.ready, self.addresses.get_mut(part as usize)) {
            *address = half.replace(*address, value);
        }
    }

    /// QueueReady = 1. The device takes a queue that it could walk, and leaves QueueReady clear for any other.
    pub(super) fn start(&mut self) -> bool {
        self.ready = self.is_valid();
        self.ready
    }

    /// QueueReady = 0.
    pub(super) fn stop(&mut self) {
        self.ready = false;
    }

    /// VIRTIO 1.2, 2.7: the size is a power of two, and each part has its alignment. An address of zero is one that was
    /// never set: no guest has RAM there.
    fn is_valid(&self) -> bool {
        let [descriptors, available, used] = self.addresses;
        self.size.is_power_of_two()
            && self.size <= u32::from(QUEUE_SIZE_MAX)
            && [(descriptors, 15), (available, 1), (used, 3)]
                .into_iter()
                .all(|(address, unaligned)| address != 0 && address & unaligned == 0)
    }

    /// Where the queue is, if it is ready.
    pub(super) fn layout(&self) -> Option<QueueLayout> {
        let [descriptors, available, used] = self.addresses.map(GuestAddr);
        self.ready.then_some(QueueLayout { size: self.size as u16, descriptors, available, used })
    }
}
