//! What a driver domain says of the device behind a channel, checked: its client is told nothing that no device is.

use super::service::ServiceKind;
use abi::io::{self, RECEIVE_SLOT_SIZE, WINDOW_PAGE_SIZE};

/// The least MTU of a network card (VIRTIO 1.2, 5.1.4.1).
const MTU_MIN: u64 = 68;
/// The most: a frame of it, with addresses and type, fits a slot of the receive window.
const MTU_MAX: u64 = RECEIVE_SLOT_SIZE - super::network::FRAME_SIZE_MIN;
/// The least logical block in bytes, and the most: a guest that caches pages of 4 KiB cannot use a larger one.
const BLOCK_SIZE_MIN: u64 = super::block::SECTOR_SIZE;
const BLOCK_SIZE_MAX: u64 = WINDOW_PAGE_SIZE;
/// The most sectors: their bytes are counted in 63 bits.
const SECTORS_MAX: u64 = i64::MAX as u64 / super::block::SECTOR_SIZE;

/// What stands behind a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// A disk.
    Disk {
        /// Its size in sectors of 512 bytes.
        capacity_sectors: u64,
        /// The logical block in bytes.
        block_size: u32,
        /// A set of `abi::io`'s `FEATURE_` bits.
        features: u64,
    },
    /// A network card.
    Card {
        /// In bytes.
        mtu: u16,
    },
    /// Something that there is nothing to say of.
    Plain,
}

impl Backing {
    /// Reads the arguments of `abi::io::FUNCTION_ATTACH`. `None` if no device of this kind is like that.
    #[must_use]
    pub fn read(kind: ServiceKind, size: u64, features: u64, block_size: u64) -> Option<Self> {
        match kind {
            ServiceKind::Block => {
                let is_block = block_size.is_power_of_two() && (BLOCK_SIZE_MIN..=BLOCK_SIZE_MAX).contains(&block_size);
                let is_known = features & !io::FEATURES == 0;
                (is_block && is_known && size <= SECTORS_MAX).then_some(Self::Disk {
                    capacity_sectors: size,
                    block_size: block_size as u32,
                    features,
                })
            }
            ServiceKind::Network => (MTU_MIN..=MTU_MAX).contains(&size).then_some(Self::Card { mtu: size as u16 }),
            ServiceKind::Console | ServiceKind::Entropy => Some(Self::Plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_blocks_that_its_client_can_use() {
        let disk = |size, features, block_size| Backing::read(ServiceKind::Block, size, features, block_size);
        let sound = Backing::Disk { capacity_sectors: 8, block_size: 4096, features: io::FEATURE_FLUSH };
        assert_eq!(disk(8, io::FEATURE_FLUSH, 4096), Some(sound));
        assert!(disk(0, 0, 512).is_some() && disk(SECTORS_MAX, io::FEATURES, 512).is_some());
        for block_size in [0, 1, 511, 513, 256, 8192, 1 << 32, (1 << 32) + 512, u64::MAX] {
            assert_eq!(disk(8, 0, block_size), None, "{block_size}");
        }
        assert_eq!(disk(SECTORS_MAX + 1, 0, 512), None);
        assert_eq!(disk(u64::MAX, 0, 512), None);
        assert_eq!(disk(8, 1 << 63, 512), None);
    }

    #[test]
    fn a_card_has_an_mtu_whose_frames_fit() {
        let card = |mtu| Backing::read(ServiceKind::Network, mtu, 0, 0);
        assert_eq!(card(1500), Some(Backing::Card { mtu: 1500 }));
        assert!(card(MTU_MIN).is_some() && card(MTU_MAX).is_some());
        for mtu in [0, 67, MTU_MAX + 1, 0x1_0000 + 1500, u64::MAX] {
            assert_eq!(card(mtu), None, "{mtu}");
        }
    }

    #[test]
    fn of_a_console_there_is_nothing_to_say() {
        assert_eq!(Backing::read(ServiceKind::Console, u64::MAX, u64::MAX, u64::MAX), Some(Backing::Plain));
    }
}
