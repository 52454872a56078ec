//! The network service: carries frames between the clients' channels and the uplinks, where the switch says.

use crate::client::Client;
use abi::io::{RECEIVE_CHECKED, RECEIVE_PARTIAL, RECEIVE_SLOT_SIZE, Receive, Request, Status};
use alloc::boxed::Box;
use arrayvec::ArrayVec;
use rt::shared::Shared;
use rt::timer;
use rt::virtio::Network;
use services::checksum;
use services::switch::{Address, Counters, HEADER_SIZE, Ports, Side, Switch};

/// The most uplinks.
const UPLINKS_MAX: usize = 4;
/// The largest payload of a frame in bytes, which clients are told.
pub const MTU: u64 = 1500;
/// With fewer free buffers than this, an uplink takes back those that it has sent.
const REAP_BELOW: usize = 32;
/// How many frames of one uplink are taken in one round.
const FRAMES_PER_ROUND: usize = 64;

/// What is behind a port of the switch.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// A client, by the place of its channel.
    Client(usize),
    /// An uplink, by its number.
    Uplink(usize),
}

/// An uplink, and its port.
struct Uplink {
    card: Box<Network>,
    port: usize,
}

/// A partial checksum of a client's frame.
#[derive(Clone, Copy, Debug)]
struct Partial {
    start: u16,
    offset: u16,
}

impl Partial {
    /// What `Request::sector` of a transmission says (`Operation::Transmit`).
    const fn of(word: u64) -> Option<Self> {
        match word as u32 {
            0 => None,
            word => Some(Self { start: word as u16, offset: (word >> 16) as u16 }),
        }
    }
}

/// The switch, and what is at its ports.
pub struct NetworkService {
    switch: Switch,
    places: ArrayVec<Place, { services::switch::PORTS_MAX }>,
    uplinks: ArrayVec<Uplink, UPLINKS_MAX>,
}

impl NetworkService {
    /// A switch without ports.
    pub fn new() -> Self {
        Self { switch: Switch::new(timer::frequency()), places: ArrayVec::new(), uplinks: ArrayVec::new() }
    }

    /// What each port has seen, with the client behind it, by the place of its channel; `None` for an uplink.
    pub fn counters(&self) -> impl Iterator<Item = (Option<usize>, Counters)> {
        self.places.iter().enumerate().map(|(port, place)| match place {
            Place::Client(client) => (Some(*client), self.switch.counters(port)),
            Place::Uplink(_) => (None, self.switch.counters(port)),
        })
    }

    /// Adds an uplink; gives its number.
    pub fn add_uplink(&mut self, card: Box<Network>) -> Option<usize> {
        let number = self.uplinks.len();
        if self.uplinks.is_full() {
            return None;
        }
        let port = self.add(Place::Uplink(number), Side::Uplink, None)?;
        self.uplinks.push(Uplink { card, port });
        Some(number)
    }

    /// Adds the port of the client at place `client`; gives its number.
    pub fn add_client(&mut self, client: usize, address: Address, rate: Option<u64>) -> Option<usize> {
        self.add(Place::Client(client), Side::Client(address), rate)
    }

    fn add(&mut self, place: Place, side: Side, rate: Option<u64>) -> Option<usize> {
        self.places.try_push(place).ok()?;
        let port = self.switch.add(side, rate, timer::now());
        if port.is_none() {
            self.places.pop();
        }
        port
    }

    /// Acknowledges the interrupt of uplink `number`.
    pub fn acknowledge_interrupt(&mut self, number: usize) {
        if let Some(uplink) = self.uplinks.get_mut(number) {
            uplink.card.acknowledge_interrupt();
        }
    }

    /// Sends `frame`, which came in at `port` with `request`, on its way. A frame may be dropped; that is no failure.
    pub fn transmit(
        &mut self,
        clients: &mut [Client],
        port: usize,
        request: &Request,
        frame: Option<Shared>,
    ) -> Status {
        let Some(frame) = frame.filter(|frame| frame.size() <= RECEIVE_SLOT_SIZE) else { return Status::Failed };
        let mut header = [0; HEADER_SIZE];
        if frame.read(&mut header) < HEADER_SIZE {
            return Status::Failed;
        }
        let partial = Partial::of(request.sector);
        let ports = self.switch.route(port, &header, request.length, timer::now());
        for to in ports {
            let carried = match self.places.get(to) {
                Some(&Place::Client(client)) => {
                    clients.get_mut(client).is_some_and(|client| pass_on(client, &frame, partial))
                }
                Some(&Place::Uplink(uplink)) => {
                    self.uplinks.get_mut(uplink).is_some_and(|uplink| send_out(&mut uplink.card, &frame, partial))
                }
                None => false,
            };
            count(&mut self.switch, to, request.length, carried);
        }
        Status::Done
    }

    /// Takes frames from the uplinks to the clients; says whether there were any.
    #[inline]
    pub fn poll(&mut self, clients: &mut [Client]) -> bool {
        let mut found = false;
        let Self { switch, places, uplinks } = self;
        for Uplink { card, port } in uplinks {
            for _ in 0..FRAMES_PER_ROUND {
                let arrived = card.receive(|frame| {
                    let ports = switch.route(*port, frame, frame.len() as u32, timer::now());
                    deliver(switch, places, clients, ports, frame);
                });
                if arrived.is_none() {
                    break;
                }
                found = true;
            }
        }
        found
    }
}

/// Counts a frame on its way out.
fn count(switch: &mut Switch, port: usize, length: u32, carried: bool) {
    if carried {
        switch.sent(port, length);
    } else {
        switch.dropped(port);
    }
}

/// Puts a frame from an uplink into the channels of the clients behind `ports`.
fn deliver(switch: &mut Switch, places: &[Place], clients: &mut [Client], ports: Ports, frame: &[u8]) {
    let length = frame.len() as u32;
    for port in ports {
        let client = match places.get(port) {
            Some(&Place::Client(client)) => clients.get_mut(client),
            Some(Place::Uplink(_)) | None => None,
        };
        let carried = client.is_some_and(|client| {
            let Some(slot) = client.channel.receive_slot() else { return false };
            if slot.write(frame) < frame.len() {
                return false;
            }
            // The card checks nothing for us, so the client does.
            let reception = Receive { length, flags: 0, checksum_start: 0, checksum_offset: 0, reserved: [0; 5] };
            client.channel.receive(&reception);
            true
        });
        count(switch, port, length, carried);
    }
}

/// Puts a client's frame into another's channel, its checksum as it is: it never leaves this board's memory.
fn pass_on(client: &mut Client, frame: &Shared, partial: Option<Partial>) -> bool {
    let Some(slot) = client.channel.receive_slot() else { return false };
    let length = frame.copy_to(&slot) as u32;
    let (flags, Partial { start, offset }) = match partial {
        Some(partial) => (RECEIVE_CHECKED | RECEIVE_PARTIAL, partial),
        None => (0, Partial { start: 0, offset: 0 }),
    };
    let reception = Receive { length, flags, checksum_start: start, checksum_offset: offset, reserved: [0; 5] };
    client.channel.receive(&reception);
    true
}

/// Sends a client's frame out of a card, its checksum finished: the driver asks the card for nothing.
fn send_out(card: &mut Network, frame: &Shared, partial: Option<Partial>) -> bool {
    let mut is_whole = true;
    // Sent buffers are taken back only here, many at a time: the card interrupts once for all of them.
    if card.room() < REAP_BELOW {
        card.reap();
    }
    card.send(|buffer| {
        let length = frame.read(buffer);
        if let (Some(Partial { start, offset }), Some(bytes)) = (partial, buffer.get_mut(..length)) {
            // A place outside the frame is the client's mistake; its frame goes out as it is.
            is_whole = checksum::complete(bytes, start, offset);
        }
        length
    }) && is_whole
}
