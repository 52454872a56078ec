//! The kinds of device that a system may name; of the virtio ones, what each needs of Bulkhead, which knows no kinds:
//! queues, room for requests, a window.
//!
//! What this module leaves out: features and configuration spaces, which a device's backend describes.

use abi::io::{CALLS_COMPATIBLE, CALLS_KIND, CALLS_SIZE};
use vdev::DeviceNode;
use vdev::guest_map::VIRTIO_STRIDE;

/// A kind of virtio device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VirtioKind {
    Block,
    Network,
    Console,
    Entropy,
    Socket,
}

/// What a device needs, beside a slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    /// DeviceID (VIRTIO 1.2, 5).
    pub(crate) device_id: u32,
    /// Queues; more where the system asks for them.
    pub(crate) queues: u16,
    /// Those that are filled unasked, a bit each.
    pub(crate) filled: u32,
    /// Requests that are out at a time.
    pub(crate) requests: u16,
    /// Chains that are kept.
    pub(crate) chains: u8,
    /// The size of the request window in bytes.
    pub(crate) window_size: u64,
}

impl VirtioKind {
    pub(crate) const ALL: [Self; 5] = [Self::Block, Self::Network, Self::Console, Self::Entropy, Self::Socket];

    /// The name in a system's TOML file.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Block => "virtio-blk",
            Self::Network => "virtio-net",
            Self::Console => "virtio-console",
            Self::Entropy => "virtio-rng",
            Self::Socket => "virtio-vsock",
        }
    }

    /// The kind called `name`.
    pub(crate) fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What a device of this kind needs. What a card, a console or a socket sends goes back when it is copied, so one
    /// chain is kept to look at; receiving takes several.
    pub(crate) const fn needs(self) -> Needs {
        match self {
            Self::Block => Needs { device_id: 2, queues: 1, filled: 0, requests: 30, chains: 30, window_size: 2 << 20 },
            Self::Network => Needs { device_id: 1, window_size: 512 << 10, ..Self::Console.needs() },
            Self::Console => {
                Needs { device_id: 3, queues: 2, filled: 1, requests: 128, chains: 4, window_size: 64 << 10 }
            }
            Self::Entropy => {
                Needs { device_id: 4, queues: 1, filled: 0, requests: 4, chains: 4, window_size: 64 << 10 }
            }
            // Of its three queues, two are filled: with packets, and with events.
            Self::Socket => Needs { device_id: 19, queues: 3, filled: 0b101, ..Self::Network.needs() },
        }
    }
}

/// The name of the kind with this DeviceID.
pub(crate) fn name_of(device_id: u32) -> Option<&'static str> {
    VirtioKind::ALL.into_iter().find(|kind| kind.needs().device_id == device_id).map(VirtioKind::name)
}

/// The device-tree node of the page by which a backend makes its calls without HVC.
const CALLS_NODE: DeviceNode = DeviceNode {
    name: CALLS_KIND,
    compatible: &[CALLS_COMPATIBLE],
    trigger: None,
    clocks: &[],
    properties: &[],
    console: false,
};

/// What a system may name as a device.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DeviceKind {
    /// A model at EL2.
    Emulated(&'static devices::Kind),
    /// A register file at EL2 with a backend behind it.
    Virtio(VirtioKind),
    /// The page of a backend's calls.
    Calls,
}

impl DeviceKind {
    /// The kind called `name`.
    pub(crate) fn find(name: &str) -> Option<Self> {
        let calls = || (name == CALLS_KIND).then_some(Self::Calls);
        devices::find(name).map(Self::Emulated).or_else(|| VirtioKind::find(name).map(Self::Virtio)).or_else(calls)
    }

    /// Every name but those for tests.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        devices::KINDS
            .iter()
            .filter(|kind| !kind.for_tests)
            .map(|kind| kind.name)
            .chain(VirtioKind::ALL.map(VirtioKind::name))
            .chain([CALLS_KIND])
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Emulated(kind) => kind.name,
            Self::Virtio(kind) => kind.name(),
            Self::Calls => CALLS_KIND,
        }
    }

    /// The size of its window in bytes.
    pub(crate) const fn window_size(self) -> u64 {
        match self {
            Self::Emulated(kind) => kind.window_size,
            Self::Virtio(_) => VIRTIO_STRIDE,
            Self::Calls => CALLS_SIZE,
        }
    }

    /// Its device-tree node.
    pub(crate) const fn node(self) -> &'static DeviceNode {
        match self {
            Self::Emulated(kind) => &kind.node,
            Self::Virtio(_) => &devices::VIRTIO_NODE,
            Self::Calls => &CALLS_NODE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_name_and_a_number_of_its_own() {
        for name in DeviceKind::names() {
            assert_eq!(DeviceKind::names().filter(|other| *other == name).count(), 1, "{name}");
            assert_eq!(DeviceKind::find(name).map(DeviceKind::name), Some(name));
        }
        for kind in VirtioKind::ALL {
            assert_eq!(name_of(kind.needs().device_id), Some(kind.name()));
        }
        assert_eq!(name_of(0), None);
    }

    #[test]
    fn what_is_filled_is_among_the_queues() {
        for kind in VirtioKind::ALL {
            let Needs { queues, filled, .. } = kind.needs();
            assert_eq!(filled >> queues, 0, "{kind:?}");
        }
    }

    #[test]
    fn a_device_takes_no_more_than_16_kib_of_the_heap() {
        for kind in VirtioKind::ALL {
            let Needs { chains, requests, .. } = kind.needs();
            let bytes = manifest::takes::virtio_device(chains, requests);
            assert!(bytes <= 16 << 10, "{} takes {bytes} bytes", kind.name());
        }
    }
}
