//! What this domain shows EL2 of itself: a word that moves with every round (`abi::io::control::HEARTBEAT`).

use abi::io::{HEARTBEAT_WAITING, control};
use rt::shared::Shared;

/// The heartbeat.
#[derive(Default)]
pub struct Heartbeat {
    /// Channel 0.
    channel: Option<Shared>,
    count: u32,
}

impl Heartbeat {
    /// The heartbeat of a domain whose channel 0 is `channel`.
    pub const fn new(channel: Shared) -> Self {
        Self { channel: Some(channel), count: 0 }
    }

    /// Shows that the domain runs.
    #[inline]
    pub fn beat(&mut self) {
        self.count = self.count.wrapping_add(1) & !HEARTBEAT_WAITING;
        self.store(self.count);
    }

    /// Shows that the domain is about to wait for a device, until the next [`Self::beat`].
    pub fn wait(&self) {
        self.store(self.count | HEARTBEAT_WAITING);
    }

    fn store(&self, word: u32) {
        if let Some(channel) = &self.channel {
            channel.store(control::HEARTBEAT, word);
        }
    }

    /// The number of this start of the domain, counted from 1.
    pub fn generation(&self) -> u32 {
        self.channel.map_or(0, |channel| channel.load(control::GENERATION))
    }
}
