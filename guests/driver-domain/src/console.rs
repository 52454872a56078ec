//! The console service: the clients' consoles share the real ones. Each line says whose it is; what is typed goes to
//! one client at a time, and Ctrl-O chooses the next.

use crate::client::{Client, Service};
use rt::shared::Shared;
use rt::virtio::Console;
use services::lines::Lines;
use services::network::SLOT_SIZE;

/// Ctrl-O: what is typed goes to the next client from here on.
const NEXT_CLIENT: u8 = 0x0f;
/// How many characters go to the device at a time.
const CHUNK: usize = 512;
/// How many typed characters are taken in one round.
const CHARACTERS_PER_ROUND: usize = 256;

/// What is typed arrives in the first filled queue, the only one (VIRTIO 1.2, 5.3.2).
const RECEIVED: u16 = 0;

const _: () = assert!(CHARACTERS_PER_ROUND as u64 <= SLOT_SIZE, "a round's characters fit one reception");

/// The console service.
#[derive(Default)]
pub struct ConsoleService {
    console: Option<Console>,
    lines: Lines,
    /// The client that gets what is typed, by the place of its channel.
    listener: Option<usize>,
}

impl ConsoleService {
    /// Sets the real console.
    pub fn set(&mut self, console: Console) {
        self.console = Some(console);
    }

    /// Whether there is one.
    pub const fn is_present(&self) -> bool {
        self.console.is_some()
    }

    /// Client `client` has a console; the first to say so gets what is typed.
    pub fn add_client(&mut self, client: usize) {
        self.listener.get_or_insert(client);
    }

    /// Acknowledges the console's interrupt.
    pub fn acknowledge_interrupt(&mut self) {
        if let Some(console) = &mut self.console {
            console.acknowledge_interrupt();
        }
    }

    /// Prints `data` for client `client`, called `name`.
    pub fn print(&mut self, client: usize, name: &str, data: Option<Shared>) {
        let (Some(console), Some(data)) = (&mut self.console, data) else { return };
        let mut chunk = [0; CHUNK];
        let mut done = 0;
        while let Some(rest) = data.piece(done, data.size() - done).filter(|rest| rest.size() > 0) {
            let length = rest.read(&mut chunk);
            let is_listening = self.listener == Some(client);
            self.lines.write(client, name, &chunk[..length], is_listening, |bytes| console.write(bytes));
            done += length as u64;
        }
    }

    /// Hands on what was typed; says whether there was anything.
    #[inline]
    pub fn poll(&mut self, clients: &mut [Client]) -> bool {
        let (Some(console), Some(listener)) = (&mut self.console, self.listener) else { return false };
        if !console.has_input() {
            return false;
        }
        // What is typed waits in the device until there is room for it.
        let Some(channel) = clients.get_mut(listener).map(|client| &mut client.channel) else { return false };
        let Some(slot) = channel.receive_slot(RECEIVED) else { return false };
        let session = channel.session();
        let mut typed = [0; CHARACTERS_PER_ROUND];
        let mut length = 0;
        let mut switch = false;
        while let Some(place) = typed.get_mut(length) {
            let Some(byte) = console.read() else { break };
            if byte == NEXT_CLIENT {
                switch = true;
                break;
            }
            *place = byte;
            length += 1;
        }
        // Without a driver there is nobody to hear it, and what chooses the next client comes behind it.
        if let (1.., Some(session)) = (length, session) {
            slot.write(&typed[..length]);
            channel.receive(RECEIVED, session, length as u32);
        }
        if switch {
            self.choose_next(clients);
        }
        length > 0 || switch
    }

    fn choose_next(&mut self, clients: &[Client]) {
        let after = self.listener.map_or(0, |listener| listener + 1);
        let is_console =
            |&place: &usize| clients.get(place).is_some_and(|client| matches!(client.service, Service::Console));
        let next = (after..clients.len()).chain(0..after).find(is_console);
        if let (Some(next), Some(console)) = (next, &mut self.console) {
            self.listener = Some(next);
            let name = clients.get(next).map_or("", |client| client.name);
            self.lines.announce(&["[now typing to ", name, "]"], |bytes| console.write(bytes));
        }
    }
}
