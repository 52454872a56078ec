//! A client: its channel, and what stands behind it.

use crate::block::Attachment;
use crate::channel::Channel;
use abi::io::Description;
use services::describe::console::Console;
use services::describe::entropy;
use services::describe::network::Card;
use services::describe::vsock;
use services::network::MTU;
use services::switch::Address;

/// The size that a console states.
const CONSOLE: Console = Console { columns: 80, rows: 24 };

/// What stands behind a channel.
#[derive(Clone, Copy, Debug)]
pub enum Service {
    /// A slice of a disk.
    Block(Attachment),
    /// A port of the switch, by its number, and the address of the card.
    Network { port: usize, address: Address },
    /// A share of the console.
    Console,
    /// Random numbers.
    Entropy,
    /// A port of the switch of streams, by its number, and the client's CID.
    Socket { port: usize, cid: u32 },
}

impl Service {
    /// The device with `queues` queues and a request window of `window_size` bytes that the client finds; `None` if
    /// there is none like that.
    pub fn describe(&self, queues: u16, window_size: u64) -> Option<Description> {
        match self {
            Self::Block(attachment) => attachment.describe(queues, window_size),
            Self::Network { address, .. } => Card { mac: *address, mtu: MTU }.describe(),
            Self::Console => Some(CONSOLE.describe(window_size)),
            Self::Entropy => Some(entropy::describe()),
            Self::Socket { cid, .. } => vsock::describe(*cid, window_size),
        }
    }
}

/// A client's device.
#[derive(Debug)]
pub struct Client {
    /// The client's name.
    pub name: &'static str,
    /// Its channel.
    pub channel: Channel,
    /// What stands behind it.
    pub service: Service,
    /// Bytes of the request that its ring begins with that have been printed, if it is a console.
    pub printed: u64,
}
