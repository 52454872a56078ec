//! The network service: carries frames between the clients' channels and the uplinks, where the switch says.

use crate::channel::Channel;
use crate::client::Client;
use abi::io::Request;
use alloc::boxed::Box;
use arrayvec::ArrayVec;
use rt::shared::Shared;
use rt::timer;
use rt::virtio::Network;
use services::checksum;
use services::network::{self, FRAME_SIZE_MAX, Frame, GUEST_CSUM, Partial};
use services::switch::{Address, Counters, HEADER_SIZE, Ports, Side, Switch};

/// The most uplinks.
const UPLINKS_MAX: usize = 4;
/// What a client receives arrives in the first filled queue, the only one (VIRTIO 1.2, 5.1.2).
const RECEIVED: u16 = 0;
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

    /// Sends the frame of `request`, whose bytes are `data` and which came in at `port`, on its way. It may be dropped.
    pub fn transmit(&mut self, clients: &mut [Client], port: usize, request: &Request, data: Option<Shared>) {
        let mut header = [0; HEADER_SIZE];
        let frame = data.and_then(|data| {
            data.read(&mut header);
            Some((network::frame(request, &header)?, data))
        });
        let Some((Frame { length, partial }, data)) = frame else { return self.switch.refused(port) };
        let ports = self.switch.route(port, &header, length, timer::now());
        for to in ports {
            let carried = match self.places.get(to) {
                Some(&Place::Client(client)) => {
                    clients.get_mut(client).is_some_and(|client| pass_on(client, &data, partial))
                }
                Some(&Place::Uplink(uplink)) => {
                    self.uplinks.get_mut(uplink).is_some_and(|uplink| send_out(&mut uplink.card, &data, partial))
                }
                None => false,
            };
            count(&mut self.switch, to, length, carried);
        }
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
        let carried = client.is_some_and(|Client { channel, .. }| {
            // The card checks nothing for us, so the client does.
            let session = channel.session();
            session.is_some_and(|session| receive(channel, session, None, length, |place| place.write(frame) as u64))
        });
        count(switch, port, length, carried);
    }
}

/// Puts a client's frame into another's channel. Its checksum stays as it is if the driver there takes it so: it never
/// leaves this board's memory.
fn pass_on(Client { channel, .. }: &mut Client, frame: &Shared, partial: Option<Partial>) -> bool {
    let length = frame.size() as u32;
    let Some(session) = channel.session() else { return false };
    match partial {
        Some(partial) if !channel.has_accepted(GUEST_CSUM) => {
            receive(channel, session, None, length, |place| copy_finished(frame, partial, place))
        }
        _ => receive(channel, session, partial, length, |place| frame.copy_to(place)),
    }
}

/// Puts a frame of `length` bytes and its header into the channel of a client's `session`. `copy` puts the frame in its
/// place, and says how much of it. Says whether there was room.
#[inline]
fn receive(
    channel: &mut Channel,
    session: u32,
    partial: Option<Partial>,
    length: u32,
    copy: impl FnOnce(&Shared) -> u64,
) -> bool {
    let Some(slot) = channel.receive_slot(RECEIVED) else { return false };
    let Some(place) = slot.piece(network::HEADER_SIZE.into(), FRAME_SIZE_MAX.into()) else { return false };
    // More than the header: the frame comes after, and over it.
    slot.store_pair(0, network::header(partial));
    if copy(&place) < u64::from(length) {
        return false;
    }
    channel.receive(RECEIVED, session, u32::from(network::HEADER_SIZE) + length);
    true
}

/// Copies a frame to `place`, its checksum finished. Linux takes it partial.
#[cold]
#[inline(never)]
fn copy_finished(frame: &Shared, Partial { start, offset }: Partial, place: &Shared) -> u64 {
    let mut bytes = [0; FRAME_SIZE_MAX as usize];
    let length = frame.read(&mut bytes);
    let Some(bytes) = bytes.get_mut(..length) else { return 0 };
    if checksum::complete(bytes, start, offset) { place.write(bytes) as u64 } else { 0 }
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
            is_whole = checksum::complete(bytes, start, offset);
        }
        length
    }) && is_whole
}
