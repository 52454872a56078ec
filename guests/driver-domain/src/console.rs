//! The console service: the clients' consoles share the real ones. Each line says whose it is; what is typed goes to
//! one client at a time, and Ctrl-O chooses the next.

use crate::client::{Client, Service};
use rt::shared::Shared;
use rt::virtio::Console;
use services::lines::Lines;
use services::network::SLOT_SIZE;
use services::typed::{CHARACTERS_MAX, Typed};

/// How many characters of a client are printed in one round, if what becomes of them is not too much.
const CHUNK: usize = 1024;

/// What is typed arrives in the first filled queue, the only one (VIRTIO 1.2, 5.3.2).
const RECEIVED: u16 = 0;

const _: () = assert!(CHARACTERS_MAX as u64 <= SLOT_SIZE, "a round's characters fit one reception");

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

    /// Prints some of `data` for client `client`, called `name`, from byte `carried` on, which moves. Says whether that
    /// was the rest of it.
    pub fn print(&mut self, client: usize, name: &str, data: Option<Shared>, carried: &mut u64) -> bool {
        let (Some(console), Some(data)) = (&mut self.console, data) else { return true };
        let Some(rest) = data.piece(*carried, data.size().saturating_sub(*carried)) else { return true };
        let mut chunk = [0; CHUNK];
        let length = rest.read(&mut chunk);
        let is_listening = self.listener == Some(client);
        let bytes = chunk.get(..length).unwrap_or_default();
        *carried += self.lines.write(client, name, bytes, is_listening, |bytes| console.write(bytes)) as u64;
        *carried >= data.size()
    }

    /// Hands on what was typed; says whether there was anything.
    #[inline]
    pub fn poll(&mut self, clients: &mut [Client]) -> bool {
        let (Some(console), Some(listener)) = (&mut self.console, self.listener) else { return false };
        if !console.has_input() {
            return false;
        }
        let Some(channel) = clients.get_mut(listener).map(|client| &mut client.channel) else { return false };
        let (slot, session) = (channel.receive_slot(RECEIVED), channel.session());
        // Without a driver there is nobody to hear it.
        let receiver = slot.zip(session);
        let typed = Typed::read(receiver.is_some(), || console.read());
        if let Some((slot, session)) = receiver.filter(|_| !typed.characters.is_empty()) {
            slot.write(&typed.characters);
            channel.receive(RECEIVED, session, typed.characters.len() as u32);
        }
        if typed.chooses_next {
            self.choose_next(clients);
        }
        true
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
