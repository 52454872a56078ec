//! What the manifest says of a virtual machine.

use alloc::string::String;
use alloc::vec::Vec;
use terminal::console::GuestIndex;
use vdev::Clock;
use vgic::{IntId, VCPUS_MAX};

/// A file of the bundle and where it goes.
pub struct Image {
    /// Guest address.
    pub address: u64,
    /// The file's bytes, in the bundle.
    pub bytes: &'static [u8],
}

/// What does not change as long as Bulkhead runs.
pub struct Config {
    /// Its place in the manifest.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// What it serves, if it is a driver domain: by channel, the client's place among the virtual machines and the
    /// index of the client's device.
    pub channels: Vec<(usize, usize)>,
    /// The interrupt by which a driver domain hears of requests.
    pub doorbell: Option<IntId>,
    /// Its end of the system console.
    pub console: GuestIndex,
    /// What is copied into its RAM at each start.
    pub images: Vec<Image>,
    /// Ranges of its RAM that get random bytes at each start: guest address, bytes.
    pub seeds: Vec<(u64, usize)>,
    /// Where virtual CPU 0 starts.
    pub entry: u64,
    /// What virtual CPU 0 finds in `x0`.
    pub device_tree: u64,
    /// Each virtual CPU's core.
    pub cores: [u8; VCPUS_MAX],
    /// What is known of time on this board.
    pub clock: Clock,
    /// Virtual CPUs whose core is shared, a bit each.
    pub sharing: u32,
}
