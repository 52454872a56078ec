//! What the device tree says about this domain's clients. `abi::io::CHANNEL_COMPATIBLE` has the properties that every
//! channel has; `cargo xtask` adds `bulkhead,kind`, and by kind:
//!
//! - `"block"`: `bulkhead,disk` (a cell: the number of the virtio disk in the order of the slots; absent for a RAM
//!   disk), `bulkhead,ram-disk` (two cells: address; two cells: size), `bulkhead,partition` (the name of a GPT
//!   partition) or `bulkhead,range` (two cells: first byte; two cells: bytes) or neither (the whole disk),
//!   `bulkhead,read-only` (empty), `bulkhead,serial` (a serial number, at most
//!   [`SERIAL_SIZE`](services::block::SERIAL_SIZE) characters);
//! - `"network"`: `local-mac-address` (6 bytes), `bulkhead,rate-limit` (a cell: bytes a second, absent for none);
//! - `"socket"`: `bulkhead,cid` (a cell), `bulkhead,peers` (cells: the CIDs that it may speak to, and that may speak to
//!   it);
//! - `"console"` and `"entropy"`: nothing.

use crate::block::{Part, Serial};
use abi::io::{CALLS_COMPATIBLE, CHANNEL_COMPATIBLE, DOORBELL_COMPATIBLE};
use arrayvec::ArrayVec;
use fdt::node::FdtNode;
use rt::machine::Region;
use rt::{machine, println};

type Node<'a> = FdtNode<'a, 'static>;

/// The most channels that are served.
pub const CHANNELS_MAX: usize = 32;

/// What a channel is for.
#[derive(Clone, Copy, Debug)]
pub enum Purpose {
    /// A part of the virtio disk with this number, in the order of the slots.
    Disk { disk: usize, part: Part, read_only: bool },
    /// A disk of RAM.
    RamDisk { memory: Region, part: Part, read_only: bool },
    /// A port of the switch.
    Network { address: [u8; 6], rate: Option<u64> },
    /// A console.
    Console,
    /// Random numbers.
    Entropy,
    /// Streams to the clients whose CIDs are the cells of `peers`.
    Socket { cid: u32, peers: &'static [u8] },
}

/// A channel's node.
#[derive(Clone, Copy, Debug)]
pub struct ChannelNode {
    /// Its number.
    pub number: u32,
    /// Where it is.
    pub memory: Region,
    /// How many queues the client's device has.
    pub queues: u16,
    /// Which of them are filled, a bit each.
    pub filled: u32,
    /// The client's name.
    pub client: &'static str,
    /// What it is for.
    pub purpose: Purpose,
    /// Its disk's serial number; zeroes where it has none.
    pub serial: Serial,
}

fn bytes(node: Node<'_>, property: &str) -> Option<&'static [u8]> {
    node.property(property).map(|property| property.value)
}

fn cell(node: Node<'_>, property: &str) -> Option<u32> {
    bytes(node, property)?.first_chunk().map(|&cell| u32::from_be_bytes(cell))
}

fn text(node: Node<'_>, property: &str) -> Option<&'static str> {
    node.property(property)?.as_str()
}

/// Two pairs of cells: where something begins, and its size.
fn region(node: Node<'_>, property: &str) -> Option<Region> {
    let (start, rest) = bytes(node, property)?.split_first_chunk()?;
    let size = rest.first_chunk()?;
    Some(Region { start: u64::from_be_bytes(*start), size: u64::from_be_bytes(*size) })
}

fn purpose(node: Node<'_>) -> Option<Purpose> {
    match text(node, "bulkhead,kind")? {
        "block" => {
            let read_only = node.property("bulkhead,read-only").is_some();
            let part = match (text(node, "bulkhead,partition"), region(node, "bulkhead,range")) {
                (Some(name), _) => Part::Partition(name),
                (None, Some(range)) => Part::Range(range),
                (None, None) => Part::Whole,
            };
            Some(match region(node, "bulkhead,ram-disk") {
                Some(memory) => Purpose::RamDisk { memory, part, read_only },
                None => Purpose::Disk { disk: cell(node, "bulkhead,disk")? as usize, part, read_only },
            })
        }
        "network" => Some(Purpose::Network {
            address: *bytes(node, "local-mac-address")?.first_chunk()?,
            rate: cell(node, "bulkhead,rate-limit").map(u64::from),
        }),
        "console" => Some(Purpose::Console),
        "entropy" => Some(Purpose::Entropy),
        "socket" => Some(Purpose::Socket { cid: cell(node, "bulkhead,cid")?, peers: bytes(node, "bulkhead,peers")? }),
        _ => None,
    }
}

fn serial(node: Node<'_>) -> Serial {
    let mut serial = Serial::default();
    let text = text(node, "bulkhead,serial").unwrap_or_default();
    serial.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = byte);
    serial
}

fn channel(node: Node<'_>) -> Option<ChannelNode> {
    let window = node.reg()?.next()?;
    Some(ChannelNode {
        number: cell(node, "bulkhead,channel")?,
        memory: Region { start: window.starting_address as u64, size: window.size? as u64 },
        queues: cell(node, "bulkhead,queues")?.try_into().ok()?,
        filled: cell(node, "bulkhead,filled-queues")?,
        client: text(node, "bulkhead,client").unwrap_or("?"),
        purpose: purpose(node)?,
        serial: serial(node),
    })
}

fn is_compatible(node: Node<'_>, name: &str) -> bool {
    node.compatible().is_some_and(|all| all.all().any(|each| each == name))
}

/// The channels, in the order of the tree. A node that is none is told of and passed over.
pub fn channels() -> ArrayVec<ChannelNode, CHANNELS_MAX> {
    let mut channels = ArrayVec::new();
    let Some(tree) = machine().tree() else { return channels };
    for node in tree.all_nodes().filter(|&node| is_compatible(node, CHANNEL_COMPATIBLE)) {
        if channel(node).is_none_or(|channel| channels.try_push(channel).is_err()) {
            println!("driver-domain: {} of the device tree is no channel, or one too many; passed over", node.name);
        }
    }
    channels
}

/// The INTID of the doorbell.
pub fn doorbell() -> Option<u32> {
    let tree = machine().tree()?;
    let node = tree.all_nodes().find(|&node| is_compatible(node, DOORBELL_COMPATIBLE))?;
    rt::machine::shared_interrupt(node)
}

/// The first address of the page of calls.
pub fn call_page() -> Option<u64> {
    let tree = machine().tree()?;
    let node = tree.all_nodes().find(|&node| is_compatible(node, CALLS_COMPATIBLE))?;
    Some(node.reg()?.next()?.starting_address as u64)
}
