//! What stands behind a device: the features of its kind and its configuration space, as whoever serves it describes
//! them.
//!
//! What this module leaves out: what a feature or a field means. The register file knows no kind of device.

/// The features of VIRTIO 1.2, 6 that every device offers: those of the registers and queues, which are not the
/// backend's to choose. Bits of [`VirtioMmio::features`](super::VirtioMmio::features).
pub mod feature {
    /// Descriptors may name tables of descriptors.
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// `used_event` and `avail_event`.
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The device is not a legacy one.
    pub const VERSION_1: u64 = 1 << 32;
    /// All of these.
    pub const COMMON: u64 = VERSION_1 | EVENT_IDX | INDIRECT_DESC;
    /// The bits that a kind of device has for itself (VIRTIO 1.2, 2.2): 0 to 23 and 50 to 63.
    pub const OF_KIND: u64 = 0xfffc_0000_00ff_ffff;
}

/// The size of the configuration space in bytes: what is left of a slot behind its registers.
pub const CONFIGURATION_SIZE: usize = 256;

/// A configuration space, in words of 64 bits: its fields are little-endian, and so are its words.
pub type Words = [u64; CONFIGURATION_SIZE / 8];

/// What stands behind a device.
#[derive(Clone, Copy, Debug)]
pub struct Configuration<'a> {
    /// The features of this kind of device; bits outside of [`feature::OF_KIND`] are not offered.
    pub features: u64,
    /// The configuration space.
    pub words: &'a Words,
    /// How many bytes at the start of the configuration space follow a change after FEATURES_OK, a multiple of 4. What
    /// else there is was settled with the features.
    pub live_size: u16,
}

impl Configuration<'_> {
    /// What the device offers.
    pub(super) const fn offered(&self) -> u64 {
        feature::COMMON | self.features & feature::OF_KIND
    }
}

/// A driver has accepted features that the new configuration lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FeaturesLost;
