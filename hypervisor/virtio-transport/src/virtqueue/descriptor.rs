//! One descriptor, as its driver wrote it.

use vdev::{GuestAddr, GuestFault, GuestMemory};

/// The size of a descriptor in bytes.
pub(super) const DESCRIPTOR_SIZE: u32 = 16;

const NEXT: u16 = 1 << 0;
const WRITE: u16 = 1 << 1;
const INDIRECT: u16 = 1 << 2;

/// A private copy of a descriptor (`struct virtq_desc`, VIRTIO 1.2, 2.7.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor {
    pub(super) address: GuestAddr,
    pub(super) length: u32,
    flags: u16,
    /// Where the chain goes on, if it does.
    pub(super) next: u16,
}

impl Descriptor {
    /// Copies the descriptor at `address`, a multiple of 8, once: the driver may change it at any moment.
    #[inline]
    pub(super) fn load(memory: &impl GuestMemory, address: GuestAddr) -> Result<Self, GuestFault> {
        Ok(Self::of(memory.load_u64_pair(address)?))
    }

    /// The descriptor in two words.
    #[inline]
    pub(super) const fn of([low, high]: [u64; 2]) -> Self {
        Self { address: GuestAddr(low), length: high as u32, flags: (high >> 32) as u16, next: (high >> 48) as u16 }
    }

    /// Whether the chain goes on.
    #[inline]
    pub(super) const fn continues(self) -> bool {
        self.flags & NEXT != 0
    }

    /// Whether the device may write the buffer; otherwise it may read it.
    #[inline]
    pub(super) const fn is_writable(self) -> bool {
        self.flags & WRITE != 0
    }

    /// Whether the buffer is a table of descriptors with which the chain goes on.
    #[inline]
    pub(super) const fn is_indirect(self) -> bool {
        self.flags & INDIRECT != 0
    }
}
