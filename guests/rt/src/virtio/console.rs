//! A console: characters both ways.

use super::{Error, Slot, Transport};
use crate::dma::Platform;
use virtio_drivers::device::console::VirtIOConsole;

/// A console of one port.
pub struct Console(VirtIOConsole<Platform, Transport>);

impl Console {
    /// Brings the console in `slot` up.
    ///
    /// # Errors
    /// What the device or the crate objects to.
    pub fn new(slot: Slot) -> Result<Self, Error> {
        VirtIOConsole::new(slot.transport()?).map(Self)
    }

    /// Acknowledges the device's interrupt.
    pub fn acknowledge_interrupt(&mut self) {
        // What it says is whether there is something to read, and `read` finds that out itself.
        let _ = self.0.ack_interrupt();
    }

    /// Prints `bytes` and waits until the device has taken them.
    pub fn write(&mut self, bytes: &[u8]) {
        // An empty buffer is nothing to the device; a refusal means that nobody reads.
        if !bytes.is_empty() {
            let _ = self.0.send_bytes(bytes);
        }
    }

    /// Whether a character was typed that nobody has read.
    pub fn has_input(&mut self) -> bool {
        self.0.recv(false).is_ok_and(|character| character.is_some())
    }

    /// The next character that was typed, if there is one.
    pub fn read(&mut self) -> Option<u8> {
        self.0.recv(true).ok().flatten()
    }
}
