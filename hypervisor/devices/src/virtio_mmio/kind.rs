//! The kinds of virtio device, and what stands behind one: features and configuration space (VIRTIO 1.2, 5.1 to 5.4).
//!
//! What this module leaves out: negotiation and registers (the register file), and what requests do.

use super::QUEUES_MAX;

/// A kind of virtio device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A block device (VIRTIO 1.2, 5.2).
    Block,
    /// A network card (VIRTIO 1.2, 5.1).
    Network,
    /// A console without MULTIPORT (VIRTIO 1.2, 5.3).
    Console,
    /// A source of entropy (VIRTIO 1.2, 5.4).
    Entropy,
}

impl Kind {
    /// What DeviceID reads (VIRTIO 1.2, 5).
    #[must_use]
    pub const fn device_id(self) -> u32 {
        match self {
            Self::Network => 1,
            Self::Block => 2,
            Self::Console => 3,
            Self::Entropy => 4,
        }
    }

    /// The name in a system's TOML file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "virtio-blk",
            Self::Network => "virtio-net",
            Self::Console => "virtio-console",
            Self::Entropy => "virtio-rng",
        }
    }

    /// How many queues a device has whose maker asks for `wanted`: only a block device has a choice.
    pub(super) const fn queues(self, wanted: u16) -> u16 {
        match self {
            Self::Block if wanted == 0 => 1,
            Self::Block if wanted as usize > QUEUES_MAX => QUEUES_MAX as u16,
            Self::Block => wanted,
            Self::Network | Self::Console => 2,
            Self::Entropy => 1,
        }
    }

    /// What the device offers before anything stands behind it.
    pub(super) const fn nothing_behind(self) -> Configuration {
        match self {
            Self::Block => Configuration::Block {
                capacity_sectors: 0,
                block_size: BLOCK_SIZE_MIN,
                segment_size_max: BLOCK_SEGMENT_SIZE,
                segments_max: BLOCK_SEGMENTS_MAX,
                read_only: false,
                flush: false,
                discard: false,
                write_zeroes: false,
            },
            Self::Network => Configuration::Network { mac: [0; 6], mtu: 0, link_up: false },
            Self::Console => Configuration::Console { columns: 0, rows: 0 },
            Self::Entropy => Configuration::Entropy,
        }
    }

    /// How many words at the start of the configuration space follow a change after FEATURES_OK: the capacity, the
    /// address and the state of the link, the size of the console. What else there is was settled with the features.
    pub(super) const fn live_words(self) -> usize {
        match self {
            Self::Block | Self::Network => 2,
            Self::Console => 1,
            Self::Entropy => 0,
        }
    }
}

/// What stands behind a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// Behind a block device.
    Block {
        /// Its size in sectors of 512 bytes.
        capacity_sectors: u64,
        /// Its logical block size in bytes: a power of two from 512 to 4096. Anything else is taken for 512, since
        /// drivers refuse such a device.
        block_size: u32,
        /// The largest segment of a request in bytes (`size_max`).
        segment_size_max: u32,
        /// The most segments of a request (`seg_max`).
        segments_max: u32,
        /// Whether it takes no writes.
        read_only: bool,
        /// Whether it has a volatile cache, which a flush empties.
        flush: bool,
        /// Whether it can discard.
        discard: bool,
        /// Whether it can write zeroes without being sent them.
        write_zeroes: bool,
    },
    /// Behind a network card.
    Network {
        /// Its address; all zeroes for none.
        mac: [u8; 6],
        /// The largest packet in bytes, without the Ethernet header; below 68 for "not stated" (VIRTIO 1.2, 5.1.4.1).
        mtu: u16,
        /// Whether the cable is in.
        link_up: bool,
    },
    /// Behind a console.
    Console {
        /// Its width in characters; 0 for "not stated".
        columns: u16,
        /// Its height in characters; 0 for "not stated".
        rows: u16,
    },
    /// Behind a source of entropy.
    Entropy,
}

/// The features of VIRTIO 1.2 that a device may offer, as bits of
/// [`VirtioMmio::features`](super::VirtioMmio::features).
pub mod feature {
    /// Descriptors may name tables of descriptors (VIRTIO 1.2, 6).
    pub const INDIRECT_DESC: u64 = 1 << 28;
    /// `used_event` and `avail_event` (VIRTIO 1.2, 6).
    pub const EVENT_IDX: u64 = 1 << 29;
    /// The device is not a legacy one (VIRTIO 1.2, 6).
    pub const VERSION_1: u64 = 1 << 32;

    /// Block: `size_max` is valid (VIRTIO 1.2, 5.2.3).
    pub const BLOCK_SIZE_MAX: u64 = 1 << 1;
    /// Block: `seg_max` is valid.
    pub const BLOCK_SEG_MAX: u64 = 1 << 2;
    /// Block: the device takes no writes.
    pub const BLOCK_RO: u64 = 1 << 5;
    /// Block: `blk_size` is valid.
    pub const BLOCK_BLK_SIZE: u64 = 1 << 6;
    /// Block: the flush command.
    pub const BLOCK_FLUSH: u64 = 1 << 9;
    /// Block: `topology` is valid.
    pub const BLOCK_TOPOLOGY: u64 = 1 << 10;
    /// Block: more than one request queue.
    pub const BLOCK_MQ: u64 = 1 << 12;
    /// Block: the discard command.
    pub const BLOCK_DISCARD: u64 = 1 << 13;
    /// Block: the write zeroes command.
    pub const BLOCK_WRITE_ZEROES: u64 = 1 << 14;

    /// Network: the device completes checksums (VIRTIO 1.2, 5.1.3).
    pub const NET_CSUM: u64 = 1 << 0;
    /// Network: the driver takes packets whose checksum is partial, or known to be right.
    pub const NET_GUEST_CSUM: u64 = 1 << 1;
    /// Network: `mtu` is valid.
    pub const NET_MTU: u64 = 1 << 3;
    /// Network: `mac` is valid.
    pub const NET_MAC: u64 = 1 << 5;
    /// Network: a packet may be spread over several buffers.
    pub const NET_MRG_RXBUF: u64 = 1 << 15;
    /// Network: `status` is valid.
    pub const NET_STATUS: u64 = 1 << 16;

    /// Console: `cols` and `rows` are valid (VIRTIO 1.2, 5.3.3).
    pub const CONSOLE_SIZE: u64 = 1 << 0;
}

/// The segment of a block request that costs least, in bytes, and the largest where data is copied: a page.
pub const BLOCK_SEGMENT_SIZE: u32 = 4096;
/// The most segments of a block request before anything stands behind the device.
pub const BLOCK_SEGMENTS_MAX: u32 = 64;
/// The most sectors that one request discards or zeroes: 32 MiB, so that nobody waits long behind one.
pub const BLOCK_ERASE_SECTORS_MAX: u32 = 1 << 16;

/// The size of a sector, and the smallest logical block, in bytes.
const BLOCK_SIZE_MIN: u32 = 512;
/// The largest logical block in bytes: Linux takes none that is larger than a page.
const BLOCK_SIZE_MAX: u32 = 4096;
/// The smallest `mtu` that a network card may state (VIRTIO 1.2, 5.1.4.1).
const MTU_MIN: u16 = 68;
/// A bit of the network card's `status` (VIRTIO 1.2, 5.1.4).
const LINK_UP: u16 = 1 << 0;

/// The size of the largest configuration space in words: the block device's, up to `write_zeroes_may_unmap`.
pub(super) const WORDS_MAX: usize = 15;

/// A configuration space: its fields are little-endian, and so are its words.
pub(super) type Words = [u32; WORDS_MAX];

impl Configuration {
    /// Which kind of device this is for.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Block { .. } => Kind::Block,
            Self::Network { .. } => Kind::Network,
            Self::Console { .. } => Kind::Console,
            Self::Entropy => Kind::Entropy,
        }
    }

    /// The features that a device with `queues` queues offers.
    pub(super) fn features(&self, queues: u16) -> u64 {
        use feature::*;
        let optional = |bit: u64, is_there: bool| if is_there { bit } else { 0 };
        let own = match *self {
            Self::Block { read_only, flush, discard, write_zeroes, .. } => {
                BLOCK_SIZE_MAX
                    | BLOCK_SEG_MAX
                    | BLOCK_BLK_SIZE
                    | BLOCK_TOPOLOGY
                    | optional(BLOCK_RO, read_only)
                    | optional(BLOCK_FLUSH, flush)
                    | optional(BLOCK_MQ, queues > 1)
                    | optional(BLOCK_DISCARD, discard)
                    | optional(BLOCK_WRITE_ZEROES, write_zeroes)
            }
            Self::Network { mac, mtu, .. } => {
                NET_CSUM
                    | NET_GUEST_CSUM
                    | NET_STATUS
                    | NET_MRG_RXBUF
                    | optional(NET_MAC, mac != [0; 6])
                    | optional(NET_MTU, mtu >= MTU_MIN)
            }
            Self::Console { columns, rows } => optional(CONSOLE_SIZE, columns != 0 && rows != 0),
            Self::Entropy => 0,
        };
        VERSION_1 | EVENT_IDX | INDIRECT_DESC | own
    }

    /// The configuration space of a device with `queues` queues.
    pub(super) fn words(&self, queues: u16) -> Words {
        let mut words = [0; WORDS_MAX];
        match *self {
            // VIRTIO 1.2, 5.2.4. There is no geometry, no write-back switch, and zeroes never unmap.
            Self::Block { capacity_sectors, block_size, segment_size_max, segments_max, .. } => {
                let block_size = match block_size {
                    size if size.is_power_of_two() && size <= BLOCK_SIZE_MAX => size.max(BLOCK_SIZE_MIN),
                    _ => BLOCK_SIZE_MIN,
                };
                words = [
                    capacity_sectors as u32,
                    (capacity_sectors >> 32) as u32,
                    segment_size_max,
                    segments_max,
                    0,
                    block_size,
                    // A physical block is a logical one; whole segments are what costs least (`min_io_size`, in
                    // blocks).
                    pair(0, (BLOCK_SEGMENT_SIZE >> block_size.trailing_zeros()) as u16),
                    0,
                    pair(0, queues),
                    BLOCK_ERASE_SECTORS_MAX,
                    1,
                    block_size >> BLOCK_SIZE_MIN.trailing_zeros(),
                    BLOCK_ERASE_SECTORS_MAX,
                    1,
                    0,
                ];
            }
            // VIRTIO 1.2, 5.1.4: `mac`, `status`, `max_virtqueue_pairs` (which needs a feature), `mtu`.
            Self::Network { mac: [a, b, c, d, e, f], mtu, link_up } => {
                let status = if link_up { LINK_UP } else { 0 };
                let start = [u32::from_le_bytes([a, b, c, d]), pair(u16::from_le_bytes([e, f]), status), pair(0, mtu)];
                fill(&mut words, &start);
            }
            // VIRTIO 1.2, 5.3.4: `cols`, `rows`; the rest needs features.
            Self::Console { columns, rows } => fill(&mut words, &[pair(columns, rows)]),
            Self::Entropy => {}
        }
        words
    }
}

/// Two halfwords, the first at the lower address.
const fn pair(first: u16, second: u16) -> u32 {
    first as u32 | (second as u32) << 16
}

/// Puts `start` at the start of `words`.
fn fill(words: &mut Words, start: &[u32]) {
    for (word, value) in words.iter_mut().zip(start) {
        *word = *value;
    }
}
