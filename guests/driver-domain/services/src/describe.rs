//! What the driver domain says of a device when it attaches it ([`Description`]): the features and the configuration
//! space of its kind (VIRTIO 1.2, 5.1 to 5.4, 5.10), and what EL2 does with the chains of its queues.
//!
//! What this module leaves out: the features of the transport and of the queues, which EL2 offers itself, and which
//! queues are filled, which the system says.

pub mod block;
pub mod console;
pub mod entropy;
pub mod network;
pub mod vsock;

use abi::io::{CONFIGURATION_SIZE, Description, QUEUES_MAX, QueueDescription, WINDOW_PAGE_SIZE};

/// The most bytes of data of one request that are copied. A window that is smaller has less of them.
const COPY_SIZE_MAX: u64 = 64 * WINDOW_PAGE_SIZE;

/// The most bytes of data of one request that are copied by way of a window of `window_size` bytes, in whole pages.
const fn copy_size_max(window_size: u64) -> u32 {
    let size = if window_size < COPY_SIZE_MAX { window_size } else { COPY_SIZE_MAX };
    (size & !(WINDOW_PAGE_SIZE - 1)) as u32
}

/// `bit`, if the device `has` what it stands for.
const fn optional(bit: u64, has: bool) -> u64 {
    if has { bit } else { 0 }
}

/// Two numbers of 16 bits in one word, the first at the lower address.
const fn pair(low: u16, high: u16) -> u32 {
    low as u32 | (high as u32) << 16
}

/// The description of a device whose configuration space begins with `configuration`, in little-endian words. The
/// queues are as many as `queues` has, [`QUEUES_MAX`] at most.
fn description(
    features: u64,
    configuration: &[u32],
    live_size: u16,
    queues: impl IntoIterator<Item = QueueDescription>,
) -> Description {
    let mut description = Description {
        features,
        configuration: [0; CONFIGURATION_SIZE],
        live_size,
        queue_count: 0,
        queues: [QueueDescription::NONE; QUEUES_MAX],
    };
    let (bytes, _) = description.configuration.as_chunks_mut();
    bytes.iter_mut().zip(configuration).for_each(|(bytes, word)| *bytes = word.to_le_bytes());
    for (place, queue) in description.queues.iter_mut().zip(queues) {
        *place = queue;
        description.queue_count = description.queue_count.saturating_add(1);
    }
    description
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The word of the configuration space at `offset`.
    pub(super) fn word(description: &Description, offset: usize) -> u32 {
        u32::from_le_bytes(*description.configuration[offset..].first_chunk().unwrap())
    }

    /// The halfword at `offset`.
    pub(super) fn half(description: &Description, offset: usize) -> u16 {
        u16::from_le_bytes(*description.configuration[offset..].first_chunk().unwrap())
    }

    #[test]
    fn a_request_is_no_longer_than_the_window() {
        assert_eq!(copy_size_max(2 << 20), 256 << 10);
        assert_eq!(copy_size_max(256 << 10), 256 << 10);
        assert_eq!(copy_size_max((64 << 10) + 100), 64 << 10);
        assert_eq!(copy_size_max(4095), 0);
    }

    #[test]
    fn a_device_has_no_more_queues_than_a_description() {
        let description = description(0, &[], 0, [QueueDescription::NONE; QUEUES_MAX + 1]);
        assert_eq!(usize::from(description.queue_count), QUEUES_MAX);
    }
}
