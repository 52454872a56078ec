//! Para-virtual devices: what stands behind each, as a system states it.

use manifest::Span;
use std::fmt;

use super::{ip::Stated, virtio::VirtioKind};

/// A para-virtual device, beyond what its registers need.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// The name of its driver domain, where the system states it.
    pub(crate) driver: Option<String>,
    pub(crate) backend: Backend,
    /// Request queues.
    pub(crate) queues: u16,
    /// A network card's address: as the system states it, or chosen for it.
    pub(crate) mac: Option<[u8; 6]>,
    /// Where a network card's IPv4 address comes from, where the system states it.
    pub(crate) addressing: Option<Stated>,
}

/// What stands behind a para-virtual device.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    /// A slice of the real disk with this number.
    Disk { disk: usize, slice: Slice, read_only: bool, shared: bool },
    /// Memory of the driver domain; its address is known once channels are placed.
    RamDisk { span: Span, read_only: bool },
    /// A port of the switch; bytes a second at most, where there is a limit.
    Network { rate_limit: Option<u32> },
    /// The real console.
    Console,
    /// The real source of entropy.
    Entropy,
    /// A port of the switch of streams, and the names of the machines that it may speak to.
    Socket { cid: u32, peers: Vec<String> },
}

/// A part of a disk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Slice {
    /// All of it.
    Whole,
    /// The partition with this place in [`super::storage::Disk::partitions`].
    Partition(usize),
    /// These bytes.
    Range(Span),
}

impl Backend {
    /// The kind of device that it stands behind.
    pub(crate) const fn kind(&self) -> VirtioKind {
        match self {
            Self::Disk { .. } | Self::RamDisk { .. } => VirtioKind::Block,
            Self::Network { .. } => VirtioKind::Network,
            Self::Console => VirtioKind::Console,
            Self::Entropy => VirtioKind::Entropy,
            Self::Socket { .. } => VirtioKind::Socket,
        }
    }

    /// What the driver domain's device tree calls it (`bulkhead,kind`).
    pub(crate) const fn tree_name(&self) -> &'static str {
        match self {
            Self::Disk { .. } | Self::RamDisk { .. } => "block",
            Self::Network { .. } => "network",
            Self::Console => "console",
            Self::Entropy => "entropy",
            Self::Socket { .. } => "socket",
        }
    }
}

/// A network card's address as people write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mac(pub(crate) [u8; 6]);

impl Mac {
    /// Reads `52:54:00:12:34:56`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part =
                parts.next().filter(|part| part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }

    /// An address for the card `card` of `system`: the same each time, locally administered, and not one of `taken`.
    pub(crate) fn generate(system: &str, card: &str, taken: &[[u8; 6]]) -> Self {
        // FNV-1a: spread evenly, and nothing to keep secret.
        let hash = [system, "/", card]
            .into_iter()
            .flat_map(str::bytes)
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let address = |number: u64| {
            let [low, middle, high, ..] = number.to_le_bytes();
            [0x52, 0x54, 0, high, middle, low]
        };
        // More attempts than there can be cards: one of them is free.
        let mut candidates = (0..=taken.len() as u64).map(|attempt| address(hash.wrapping_add(attempt)));
        Self(candidates.find(|candidate| !taken.contains(candidate)).unwrap_or_else(|| address(hash)))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            write!(formatter, "{}{byte:02x}", if index == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_as_it_is_written() {
        let mac = Mac::parse("52:54:00:AB:cd:01").unwrap();
        assert_eq!(mac.to_string(), "52:54:00:ab:cd:01");
        assert_eq!(Mac::parse(&mac.to_string()), Some(mac));
        for text in ["", "52:54:00:ab:cd", "52:54:00:ab:cd:01:02", "52:54:0:ab:cd:01", "+2:54:00:ab:cd:01", "x"] {
            assert_eq!(Mac::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_generated_address_is_stable_local_and_free() {
        let first = Mac::generate("two", "alpha", &[]);
        assert_eq!(first, Mac::generate("two", "alpha", &[]));
        assert_ne!(first, Mac::generate("two", "beta", &[]));
        assert_eq!(first.0[0] & 3, 2, "locally administered, of one card");
        assert_ne!(first, Mac::generate("two", "alpha", &[first.0]));
    }
}
