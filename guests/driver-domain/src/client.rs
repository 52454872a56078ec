//! A client: its channel, and what stands behind it.

use crate::block::Attachment;
use crate::channel::Channel;

/// What stands behind a channel.
#[derive(Clone, Copy, Debug)]
pub enum Service {
    /// A slice of a disk.
    Block(Attachment),
    /// A port of the switch, by its number.
    Network(usize),
    /// A share of the console.
    Console,
    /// Random numbers.
    Entropy,
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
}
