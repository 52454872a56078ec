//! Where a virtqueue lies in guest memory: what a register file hands to whoever walks the queue.

use crate::GuestAddr;

/// A split virtqueue (VIRTIO 1.2, 2.7), as its driver has set it up. Nothing is promised about the addresses; the
/// register file has checked the size (a power of two, not above the maximum) and the alignment of the three parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLayout {
    /// How many descriptors it has (QueueNum).
    pub size: u16,
    /// The descriptor table (QueueDesc): 16 bytes for each descriptor.
    pub descriptors: GuestAddr,
    /// The available ring (QueueDriver): 6 bytes, and 2 for each descriptor.
    pub available: GuestAddr,
    /// The used ring (QueueDevice): 6 bytes, and 8 for each descriptor.
    pub used: GuestAddr,
}
