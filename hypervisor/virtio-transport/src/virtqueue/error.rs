//! What a driver can get wrong in its rings.

use vdev::GuestFault;

/// Which rule of VIRTIO 1.2 the driver broke. Its queue is of no use before the driver has reset the device: what was
/// already taken out of it is still good, but nothing more comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueError {
    /// A ring, or a table of indirect descriptors, does not lie in the driver's memory.
    Memory,
    /// The available index has gone further than the queue is long, or back (2.7.6).
    AvailableIndex,
    /// The head of a chain is no descriptor of the queue (2.7.6).
    Head,
    /// The head of a chain is that of a chain which the device has not given back (2.7.13).
    HeadInFlight,
    /// `next` is no descriptor of its table (2.7.5).
    Next,
    /// The chain has a loop, or more than [`SEGMENTS_MAX`](super::SEGMENTS_MAX) descriptors (2.7.5, 2.7.5.3.1).
    ChainTooLong,
    /// The chain's buffers have more than 2³² bytes in all (2.7.5.2).
    TooManyBytes,
    /// A buffer ends above the address space.
    AddressWraps,
    /// A buffer for the device to read follows one for it to write (2.7.4.2).
    ReadableAfterWritable,
    /// An indirect descriptor, though the driver has not accepted VIRTIO_F_INDIRECT_DESC (2.7.5.3.1).
    IndirectNotNegotiated,
    /// An indirect descriptor in a table of indirect descriptors (2.7.5.3.1).
    IndirectNested,
    /// A descriptor with both INDIRECT and NEXT (2.7.5.3.1).
    IndirectAndNext,
    /// The length of a table of indirect descriptors is 0, no multiple of 16, or more than `next` can reach (2.7.5.3).
    IndirectLength,
    /// The device gives back a chain that it does not have. No driver can cause this: it is the device's own mistake.
    NotInFlight,
}

impl QueueError {
    /// Every rule; the index is its number.
    pub const ALL: [Self; 14] = [
        Self::Memory,
        Self::AvailableIndex,
        Self::Head,
        Self::HeadInFlight,
        Self::Next,
        Self::ChainTooLong,
        Self::TooManyBytes,
        Self::AddressWraps,
        Self::ReadableAfterWritable,
        Self::IndirectNotNegotiated,
        Self::IndirectNested,
        Self::IndirectAndNext,
        Self::IndirectLength,
        Self::NotInFlight,
    ];

    /// A short name, for counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::AvailableIndex => "index",
            Self::Head => "head",
            Self::HeadInFlight => "head-in-flight",
            Self::Next => "next",
            Self::ChainTooLong => "chain-too-long",
            Self::TooManyBytes => "too-many-bytes",
            Self::AddressWraps => "address-wraps",
            Self::ReadableAfterWritable => "readable-after-writable",
            Self::IndirectNotNegotiated => "indirect-not-negotiated",
            Self::IndirectNested => "indirect-nested",
            Self::IndirectAndNext => "indirect-and-next",
            Self::IndirectLength => "indirect-length",
            Self::NotInFlight => "not-in-flight",
        }
    }
}

impl From<GuestFault> for QueueError {
    fn from(_: GuestFault) -> Self {
        Self::Memory
    }
}

impl core::fmt::Display for QueueError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        formatter.write_str(match self {
            Self::Memory => "a ring or an indirect table is not in the driver's memory",
            Self::AvailableIndex => "the available index has gone further than the queue is long, or back",
            Self::Head => "the head of a chain is no descriptor of the queue",
            Self::HeadInFlight => "the head of a chain is that of a chain which the device still has",
            Self::Next => "a descriptor's `next` is no descriptor of its table",
            Self::ChainTooLong => "a chain has a loop or too many descriptors",
            Self::TooManyBytes => "a chain has more than 2^32 bytes",
            Self::AddressWraps => "a buffer ends above the address space",
            Self::ReadableAfterWritable => "a chain has a readable buffer behind a writable one",
            Self::IndirectNotNegotiated => "a chain has an indirect descriptor, which was not negotiated",
            Self::IndirectNested => "an indirect table holds an indirect descriptor",
            Self::IndirectAndNext => "a descriptor has both INDIRECT and NEXT",
            Self::IndirectLength => "an indirect table has a bad length",
            Self::NotInFlight => "the device gives back a chain that it does not have",
        })
    }
}
