//! The socket service: carries packets between the clients' channels, where the switch says.

use crate::channel::Channel;
use crate::client::Client;
use abi::io::Request;
use alloc::boxed::Box;
use arrayvec::ArrayVec;
use rt::shared::Shared;
use rt::timer;
use services::vsock::{
    Counters, Decision, HEADER_SIZE, Header, NoRoom, Operation, PIECE_SIZE_MAX, PORTS_MAX, Switch, TRANSPORT_RESET,
};

/// What a client receives arrives in the first filled queue, and events in the second (VIRTIO 1.2, 5.10.2).
const RECEIVED: u16 = 0;
const EVENTS: u16 = 1;
/// How many pieces of one client's packets are carried at one go, so that no client fills a receiver's window alone.
pub const PIECES_PER_TURN: usize = 16;
/// How many resets go out at one go.
const RESETS_PER_TURN: usize = 64;
/// How often one packet is looked at at one go: a receiver may turn out to be deaf, or has to hear of something first.
const LOOKS_MAX: usize = 4;

/// How far a packet has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is gone.
    Done,
    /// Some of it is gone; the rest goes when its sender's turn comes again.
    More,
    /// It waits for its receiver.
    Waits,
}

/// A client's port.
struct Place {
    /// The client, by the place of its channel.
    client: usize,
    /// Bytes of data of the packet that its ring begins with that have been carried.
    carried: u32,
}

/// The switch, and who is at its ports.
pub struct SocketService {
    switch: Box<Switch>,
    places: ArrayVec<Place, PORTS_MAX>,
}

impl SocketService {
    /// A switch without ports.
    #[inline(never)]
    pub fn new() -> Self {
        Self { switch: Box::new(Switch::new(timer::frequency())), places: ArrayVec::new() }
    }

    /// What each port has seen, with the client behind it, by the place of its channel.
    pub fn counters(&self) -> impl Iterator<Item = (usize, Counters)> {
        self.places.iter().enumerate().map(|(port, place)| (place.client, self.switch.counters(port)))
    }

    /// Adds the port of the client at place `client`, whose driver is in `session`; gives its number.
    #[inline(never)]
    pub fn add_client(
        &mut self,
        client: usize,
        cid: u32,
        peers: impl IntoIterator<Item = u32>,
        session: Option<u32>,
    ) -> Option<usize> {
        self.places.try_push(Place { client, carried: 0 }).ok()?;
        let port = self.switch.add(cid, peers, session);
        if port.is_none() {
            self.places.pop();
        }
        port
    }

    /// Whether something waits for a client that has no room, and of which nobody says when it has some.
    #[inline]
    pub fn is_waiting(&self) -> bool {
        !self.places.is_empty() && self.switch.is_waiting()
    }

    fn channel<'a>(&self, clients: &'a mut [Client], port: usize) -> Option<&'a mut Channel> {
        let place = self.places.get(port)?;
        clients.get_mut(place.client).map(|client| &mut client.channel)
    }

    fn has_slot(&self, clients: &[Client], port: usize) -> bool {
        let client = self.places.get(port).and_then(|place| clients.get(place.client));
        client.is_some_and(|client| client.channel.receive_slot(RECEIVED).is_some())
    }

    /// The client at `port` has no room. Returns whether it is worth waiting for.
    fn wait(&mut self, clients: &mut [Client], port: usize) -> bool {
        let taken = self.consumed(clients, port);
        self.switch.wait(port, taken, timer::now())
    }

    /// How many packets the client at `port` has taken, modulo 2³².
    fn consumed(&self, clients: &mut [Client], port: usize) -> u32 {
        self.channel(clients, port).map_or(0, |channel| channel.consumed(RECEIVED))
    }

    /// Carries the packet of `request`, whose bytes are `data` and which came in at `port`, or some of it: as many
    /// pieces as are left of the sender's turn.
    // Out of line, as `poll_ports`: most domains have no such client, and their rounds are counted.
    #[inline(never)]
    pub fn transmit(
        &mut self,
        clients: &mut [Client],
        port: usize,
        request: &Request,
        data: Option<Shared>,
        pieces_left: &mut usize,
    ) -> Progress {
        let session = self.channel(clients, port).and_then(|channel| channel.session());
        self.switch.observe(port, session);
        let mut bytes = [0; HEADER_SIZE];
        let progress = match data.filter(|data| data.read(&mut bytes) == HEADER_SIZE) {
            // What an earlier driver has sent is nobody's.
            Some(data) if session == Some(request.session) => {
                self.carry(clients, port, &Header::from_bytes(&bytes), &data, pieces_left)
            }
            Some(_) | None => Progress::Done,
        };
        if let (Progress::Done, Some(place)) = (progress, self.places.get_mut(port)) {
            place.carried = 0;
        }
        if progress != Progress::Waits {
            self.switch.set_waits_for(port, None);
        }
        progress
    }

    fn carry(
        &mut self,
        clients: &mut [Client],
        port: usize,
        header: &Header,
        data: &Shared,
        pieces_left: &mut usize,
    ) -> Progress {
        let present = data.size().saturating_sub(HEADER_SIZE as u64) as u32;
        for _ in 0..LOOKS_MAX {
            match self.switch.decide(port, header, present) {
                Decision::Drop => return Progress::Done,
                Decision::Wait(to) => {
                    if !self.send_resets(clients) {
                        self.switch.set_waits_for(port, Some(to));
                        return Progress::Waits;
                    }
                }
                Decision::Reply(reply) => {
                    if !self.put(clients, port, &reply, None) && self.wait(clients, port) {
                        return Progress::Waits;
                    }
                    self.switch.replied(port);
                    return Progress::Done;
                }
                Decision::Deliver(to) => {
                    let progress = self.deliver(clients, (port, to), header, data, pieces_left);
                    if progress != Progress::Waits {
                        return progress;
                    }
                    let taken = self.consumed(clients, to);
                    match self.switch.no_room(port, to, header, taken, timer::now()) {
                        NoRoom::Wait => return Progress::Waits,
                        NoRoom::Done => return Progress::Done,
                        NoRoom::Decide => {}
                    }
                }
            }
        }
        Progress::More
    }

    /// Carries pieces of a packet to the client at port `to`.
    fn deliver(
        &mut self,
        clients: &mut [Client],
        (port, to): (usize, usize),
        header: &Header,
        data: &Shared,
        pieces_left: &mut usize,
    ) -> Progress {
        // Nothing else has any.
        let has_data = Operation::from_number(header.operation) == Some(Operation::Data);
        let length = if has_data { header.length } else { 0 };
        while *pieces_left > 0 {
            *pieces_left -= 1;
            let carried = self.places.get(port).map_or(0, |place| place.carried).min(length);
            let piece = (length - carried).min(PIECE_SIZE_MAX);
            let bytes = data.piece(HEADER_SIZE as u64 + u64::from(carried), piece.into());
            if !self.put(clients, to, &Header { length: piece, ..*header }, bytes) {
                return Progress::Waits;
            }
            if carried + piece == length {
                self.switch.delivered(port, to, header);
                return Progress::Done;
            }
            if let Some(place) = self.places.get_mut(port) {
                place.carried = carried + piece;
            }
        }
        Progress::More
    }

    /// Puts a packet into the channel of the client at `port`; says whether there was room. It is for the session that
    /// the switch knows of: EL2 drops it if there is another.
    fn put(&self, clients: &mut [Client], port: usize, header: &Header, data: Option<Shared>) -> bool {
        let (Some(channel), Some(session)) = (self.channel(clients, port), self.switch.session(port)) else {
            return true;
        };
        let Some(slot) = channel.receive_slot(RECEIVED) else { return false };
        slot.write(&header.to_bytes());
        if let (Some(data), Some(place)) = (data, slot.piece(HEADER_SIZE as u64, PIECE_SIZE_MAX.into())) {
            data.copy_to(&place);
        }
        channel.receive(RECEIVED, session, HEADER_SIZE as u32 + header.length);
        true
    }

    /// Tells clients of connections whose other end has gone; says whether there were any.
    fn send_resets(&mut self, clients: &mut [Client]) -> bool {
        let mut found = false;
        for _ in 0..RESETS_PER_TURN {
            let Some((to, header)) = self.switch.owed_reset(|to| self.has_slot(clients, to)) else { break };
            if self.put(clients, to, &header, None) {
                self.switch.reset_sent(&header);
                found = true;
            } else {
                // Others go first now.
                let _ = self.wait(clients, to);
            }
        }
        found
    }

    /// Looks at what clients have done beside sending; says whether that changes anything.
    #[inline]
    pub fn poll(&mut self, clients: &mut [Client]) -> bool {
        !self.places.is_empty() && self.poll_ports(clients)
    }

    #[inline(never)]
    fn poll_ports(&mut self, clients: &mut [Client]) -> bool {
        let mut found = false;
        for port in 0..self.places.len() {
            let Some(channel) = self.channel(clients, port) else { continue };
            let session = channel.session();
            self.switch.observe(port, session);
            if self.switch.awaits_event(port) {
                self.switch.observe_event(port, channel.is_consumed(EVENTS), timer::now());
            }
            if self.switch.is_blocked(port) {
                // Not at the first slot: one that takes a packet now and then would hold its senders up for ever.
                if channel.has_drained(RECEIVED) {
                    self.switch.listens(port);
                    found = true;
                } else if !self.switch.is_deaf(port) {
                    found |= !self.switch.wait(port, channel.consumed(RECEIVED), timer::now());
                }
            }
            if let (true, Some(session)) = (self.switch.owes_event(port), session)
                && let Some(slot) = channel.receive_slot(EVENTS)
            {
                slot.write(&TRANSPORT_RESET.to_le_bytes());
                channel.receive(EVENTS, session, size_of_val(&TRANSPORT_RESET) as u32);
                self.switch.event_sent(port, timer::now());
                found = true;
            }
        }
        found | self.send_resets(clients)
    }
}
