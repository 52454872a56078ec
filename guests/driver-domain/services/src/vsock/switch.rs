//! The switch between the clients' socket devices: which packet may go where, and which connections there are.
//!
//! The switch knows every connection: a request makes one, and nothing else passes without. So when one of its ends, or
//! the switch itself, has started anew, no byte of an old stream gets into a new one, and the other end hears of it at
//! once, also where it only waits.
//!
//! How much an end may send is between the two ends (VIRTIO 1.2, 5.10.6.3). A packet that its receiver has no room for
//! stays with its sender, whose other packets wait behind it. But no client can hold up another for good: one with a
//! full window that takes next to nothing for two seconds is *deaf*, loses its connections, and refuses whatever is
//! sent to it until it listens. One that takes much, and is sent more, is only busy. One that takes little because its
//! own packets wait for another has ten times as long.
//!
//! A reset waits for nobody, or a client could hold up another by what that has to refuse: where there is no room for
//! it, its connection is broken, and the receiver hears of that when it takes something.
//!
//! A client whose connections are gone because the switch has started anew, or because it was deaf, gets the event
//! [`TRANSPORT_RESET`](super::TRANSPORT_RESET), which ends all its connections. Events and packets come in two queues,
//! and a driver takes each in its own time: Linux does so in two work items. So the event could end a connection that
//! was made after it, and a reset packet that follows it could come first, which Linux takes for an orderly end. Until
//! the client has had time to act on the event, it gets no connection and no reset packet of an old one.
//!
//! What this module leaves out: the data, and where packets are. The caller carries them.

use super::{Header, Operation, STREAM};
use abi::io::RING_ENTRIES;
use arrayvec::ArrayVec;

/// The most ports of a switch: a virtual machine has one socket device.
pub const PORTS_MAX: usize = 16;
/// The most connections that one client has asked for. Those that others have asked it for do not count.
pub const CONNECTIONS_MAX: usize = 256;
/// For how long a client with a full receive window may take next to nothing: far longer than a busy board keeps it
/// waiting.
const DEAF_SECONDS: u64 = 2;
/// The same for one whose own packets wait for another that is slow: it may take no more before it has sent some. There
/// is an end to it, since two could hold up a third in this way.
const HELD_UP_SECONDS: u64 = 10 * DEAF_SECONDS;
/// A client that takes so many packets in that time listens.
pub const TAKEN_MIN: u32 = RING_ENTRIES / 2;
/// A client that has taken an event has acted on it after a tenth of a second.
const EVENTS_ACTED_ON_PER_SECOND: u64 = 10;
/// A client that does not take events for a second has no buffers for them, and does without.
const EVENT_SECONDS_MAX: u64 = 1;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It goes to the client at this port.
    Deliver(usize),
    /// Its sender gets this one instead.
    Reply(Header),
    /// It waits, with all that its sender sends after it, until the client at this port has room.
    Wait(usize),
    /// Nothing.
    Drop,
}

/// What becomes of a packet that its receiver has no room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoRoom {
    /// It stays where it is, with all that its sender sends after it.
    Wait,
    /// It is done with: its receiver hears of it later.
    Done,
    /// Its receiver is deaf: [`Switch::decide`] anew.
    Decide,
}

/// What a port has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets of the client's that were passed on.
    pub packets: u64,
    /// Packets of the client's that were refused.
    pub refused: u64,
    /// Packets with another's CID, or without a meaning.
    pub dropped: u64,
    /// Connections that the client has asked for and that were passed on.
    pub connections: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It is asked for, and not accepted yet.
    Requested,
    /// It is accepted.
    Open,
    /// One end has gone, and the other, the one who asked or the one who was asked, has to hear of it.
    Broken(End),
}

/// An end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Who has asked for it.
    Asking,
    /// Who was asked.
    Asked,
}

/// A client whose window is full.
#[derive(Clone, Copy, Debug)]
struct Blocked {
    /// Since when it has not taken [`TAKEN_MIN`] packets.
    start: u64,
    /// The same, without the time in which its own packets waited for another.
    since: u64,
    /// How many it had taken by then, modulo 2³².
    taken: u32,
}

/// What a client knows of the last [`TRANSPORT_RESET`](super::TRANSPORT_RESET) that is for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// There was none, or the client has acted on it.
    ActedOn,
    /// It has to go out.
    Owed,
    /// It went out at this time.
    Sent(u64),
    /// The client's driver had it at this time.
    Taken(u64),
}

/// A connection, in the list of the port that has asked for it.
#[derive(Clone, Copy, Debug)]
struct Connection {
    /// The switch's port of the one who was asked.
    to: u8,
    state: State,
    asking_port: u32,
    asked_port: u32,
}

#[derive(Clone, Debug)]
struct Port {
    cid: u32,
    /// The CIDs that it may speak to, which may speak to it.
    peers: ArrayVec<u32, PORTS_MAX>,
    connections: ArrayVec<Connection, CONNECTIONS_MAX>,
    /// The session of the client's driver, while there is one.
    session: Option<u32>,
    event: Event,
    /// The client's window is full, or was and has not been half empty since.
    blocked: Option<Blocked>,
    is_deaf: bool,
    /// The port that the packet waits for that the client's ring begins with.
    waits_for: Option<usize>,
    counters: Counters,
}

/// Where a connection is: in the list of this port, at this place.
type Place = (usize, usize);

/// The switch.
#[derive(Clone, Debug)]
pub struct Switch {
    ports: ArrayVec<Port, PORTS_MAX>,
    /// Ticks of a second.
    frequency: u64,
}

impl Switch {
    /// A switch without ports, by a counter of `frequency` ticks a second.
    #[must_use]
    pub const fn new(frequency: u64) -> Self {
        Self { ports: ArrayVec::new_const(), frequency }
    }

    /// Adds the port of the client with this CID, which may speak to `peers`; gives its number, or `None` where all are
    /// taken. A driver that is there already, in `session`, has had connections by way of an earlier switch.
    pub fn add(&mut self, cid: u32, peers: impl IntoIterator<Item = u32>, session: Option<u32>) -> Option<usize> {
        let number = self.ports.len();
        let port = Port {
            cid,
            peers: peers.into_iter().take(PORTS_MAX).collect(),
            connections: ArrayVec::new_const(),
            session,
            event: if session.is_some() { Event::Owed } else { Event::ActedOn },
            blocked: None,
            is_deaf: false,
            waits_for: None,
            counters: Counters::default(),
        };
        self.ports.try_push(port).ok()?;
        Some(number)
    }

    /// What a port has seen.
    #[must_use]
    pub fn counters(&self, port: usize) -> Counters {
        self.ports.get(port).map_or_else(Counters::default, |port| port.counters)
    }

    /// Looks at the session of the client at `number`: with a new one, all its connections are at their end.
    pub fn observe(&mut self, number: usize, session: Option<u32>) {
        let Some(port) = self.ports.get_mut(number).filter(|port| port.session != session) else { return };
        port.session = session;
        // A new driver knows of no connections.
        port.event = Event::ActedOn;
        port.is_deaf = false;
        port.blocked = None;
        port.waits_for = None;
        self.break_connections(number);
    }

    /// Ends every connection of the client at `number`; the other ends have to hear of it, the client itself has not.
    fn break_connections(&mut self, number: usize) {
        for (asking, port) in self.ports.iter_mut().enumerate() {
            if asking == number {
                port.connections.retain(|connection| connection.state != State::Broken(End::Asking));
                for connection in &mut port.connections {
                    connection.state = State::Broken(End::Asked);
                }
                continue;
            }
            let is_its = |connection: &Connection| usize::from(connection.to) == number;
            port.connections.retain(|each| !(is_its(each) && each.state == State::Broken(End::Asked)));
            for connection in port.connections.iter_mut().filter(|connection| is_its(connection)) {
                connection.state = State::Broken(End::Asking);
            }
        }
    }

    /// The session of the client at `number` as it was last observed.
    #[must_use]
    pub fn session(&self, number: usize) -> Option<u32> {
        self.ports.get(number)?.session
    }

    /// Whether the client at `number` has to get the event [`TRANSPORT_RESET`](super::TRANSPORT_RESET).
    #[must_use]
    pub fn owes_event(&self, number: usize) -> bool {
        self.ports.get(number).is_some_and(|port| port.event == Event::Owed)
    }

    /// The event has gone out.
    pub fn event_sent(&mut self, number: usize, now: u64) {
        if let Some(port) = self.ports.get_mut(number) {
            port.event = Event::Sent(now);
        }
    }

    /// Looks whether the client at `number` has had time for the event; `is_taken` says whether its driver has it.
    pub fn observe_event(&mut self, number: usize, is_taken: bool, now: u64) {
        let frequency = self.frequency;
        let Some(port) = self.ports.get_mut(number) else { return };
        port.event = match port.event {
            Event::Sent(_) if is_taken => Event::Taken(now),
            Event::Sent(at) if now.wrapping_sub(at) >= frequency.saturating_mul(EVENT_SECONDS_MAX) => Event::ActedOn,
            Event::Taken(at) if now.wrapping_sub(at) >= frequency / EVENTS_ACTED_ON_PER_SECOND => Event::ActedOn,
            event @ (Event::ActedOn | Event::Owed | Event::Sent(_) | Event::Taken(_)) => event,
        };
    }

    /// Whether an event that ends all its connections is on its way to the client at `number`.
    #[must_use]
    pub fn awaits_event(&self, number: usize) -> bool {
        self.ports.get(number).is_some_and(|port| port.event != Event::ActedOn)
    }

    /// The next reset that a client has to get, with its port: an end of its connection has gone. `has_slot` says
    /// whether a client's window has room.
    pub fn owed_reset(&self, has_slot: impl Fn(usize) -> bool) -> Option<(usize, Header)> {
        self.ports.iter().enumerate().find_map(|(number, port)| {
            // One that is known to have no room lets the others go first.
            let has_room = |to: usize| self.ports.get(to).is_some_and(|port| port.blocked.is_none()) || has_slot(to);
            port.connections.iter().find_map(|connection| {
                let State::Broken(end) = connection.state else { return None };
                let asked = usize::from(connection.to);
                let asking_end = (u64::from(port.cid), connection.asking_port);
                let asked_end = (u64::from(self.ports.get(asked)?.cid), connection.asked_port);
                let (to, header) = match end {
                    End::Asking => (number, Header::reset(asked_end, asking_end)),
                    End::Asked => (asked, Header::reset(asking_end, asked_end)),
                };
                has_room(to).then_some((to, header))
            })
        })
    }

    /// The reset that [`Self::owed_reset`] gave has gone out, or cannot.
    pub fn reset_sent(&mut self, header: &Header) {
        let [from, to] = [header.source_cid, header.destination_cid].map(|cid| self.port_of(cid));
        if let (Some(from), Some(to)) = (from, to)
            && let Some((list, place)) = self.find(from, to, header)
            && let Some(port) = self.ports.get_mut(list)
        {
            port.connections.pop_at(place);
        }
    }

    /// What becomes of the packet with `header` and `present` bytes behind it, from the client at `from`.
    pub fn decide(&mut self, from: usize, header: &Header, present: u32) -> Decision {
        let Some(port) = self.ports.get(from) else { return Decision::Drop };
        let operation = Operation::from_number(header.operation);
        let (Some(operation), true) = (operation, header.source_cid == u64::from(port.cid)) else {
            return self.drop(from);
        };
        let to = self.port_of(header.destination_cid).filter(|_| {
            let is_peer = |cid: &u32| u64::from(*cid) == header.destination_cid;
            port.peers.iter().any(is_peer) && header.kind == STREAM
        });
        let Some(to) = to else { return self.refuse(from, header, operation) };
        if operation == Operation::Data && header.length > present {
            // A stream with bytes missing is none.
            self.break_one(from, to, header);
            return self.refuse(from, header, operation);
        }
        let state = self.find(from, to, header).and_then(|place| self.connection(place)).map(|found| found.state);
        match state {
            Some(State::Broken(end)) => self.decide_broken(from, to, header, (operation, end)),
            Some(State::Requested | State::Open) => Decision::Deliver(to),
            None if operation == Operation::Request && self.begin(from, to, header) => Decision::Deliver(to),
            None => self.refuse(from, header, operation),
        }
    }

    /// The packet belongs to a connection of which one end has to hear that it is no more.
    fn decide_broken(
        &mut self,
        from: usize,
        to: usize,
        header: &Header,
        (operation, end): (Operation, End),
    ) -> Decision {
        let is_asking = self.find(from, to, header).is_some_and(|(list, _)| list == from);
        if is_asking == (end == End::Asking) {
            // Its sender has not heard of it yet.
            return self.drop(from);
        }
        if operation != Operation::Request {
            // Its sender has ended it, or was told.
            return self.refuse(from, header, operation);
        }
        // Its sender has begun anew, with the same ports; the other end hears of the old connection first.
        Decision::Wait(to)
    }

    /// A packet has gone out to whom [`Self::decide`] said, all of it.
    pub fn delivered(&mut self, from: usize, to: usize, header: &Header) {
        if let Some(port) = self.ports.get_mut(from) {
            port.counters.packets = port.counters.packets.saturating_add(1);
        }
        let Some((list, place)) = self.find(from, to, header) else { return };
        let Some(port) = self.ports.get_mut(list) else { return };
        match Operation::from_number(header.operation) {
            Some(Operation::Reset) => {
                port.connections.pop_at(place);
            }
            Some(Operation::Response) if list != from => {
                let requested = port.connections.get_mut(place).filter(|found| found.state == State::Requested);
                if let Some(connection) = requested {
                    connection.state = State::Open;
                }
            }
            Some(_) | None => {}
        }
    }

    /// The client at `from` has got the reply that [`Self::decide`] gave, or cannot get it.
    pub fn replied(&mut self, from: usize) {
        if let Some(port) = self.ports.get_mut(from) {
            port.counters.refused = port.counters.refused.saturating_add(1);
        }
    }

    /// Whether something that goes to the client at `number` has found no room.
    #[must_use]
    pub fn is_blocked(&self, number: usize) -> bool {
        self.ports.get(number).is_some_and(|port| port.blocked.is_some())
    }

    /// Whether the client at `number` is deaf.
    #[must_use]
    pub fn is_deaf(&self, number: usize) -> bool {
        self.ports.get(number).is_some_and(|port| port.is_deaf)
    }

    /// The client at `number` has much room.
    pub fn listens(&mut self, number: usize) {
        if let Some(port) = self.ports.get_mut(number) {
            port.blocked = None;
            port.is_deaf = false;
        }
    }

    /// The packet with `header` from the client at `from` has found no room at `to`, which has taken `taken` packets so
    /// far.
    #[must_use]
    pub fn no_room(&mut self, from: usize, to: usize, header: &Header, taken: u32, now: u64) -> NoRoom {
        if Operation::from_number(header.operation) == Some(Operation::Reset) {
            self.break_one(from, to, header);
            return NoRoom::Done;
        }
        self.set_waits_for(from, Some(to));
        if self.wait(to, taken, now) { NoRoom::Wait } else { NoRoom::Decide }
    }

    /// The packet that the ring of the client at `from` begins with waits for this port.
    pub fn set_waits_for(&mut self, from: usize, to: Option<usize>) {
        if let Some(port) = self.ports.get_mut(from) {
            port.waits_for = to;
        }
    }

    /// Whether the client at `number` waits for another, and that not for this one, also by way of others.
    fn is_held_up(&self, number: usize) -> bool {
        let next = |of: &usize| self.ports.get(*of)?.waits_for;
        let mut chain = core::iter::successors(next(&number), next).take(PORTS_MAX).peekable();
        chain.peek().is_some() && chain.all(|port| port != number)
    }

    /// The client at `number`, which has taken `taken` packets so far, has no room for what is to go to it. Returns
    /// whether it is worth waiting for: one that is deaf has no connections any more, and hears of that when it
    /// listens.
    #[must_use]
    pub fn wait(&mut self, number: usize, taken: u32, now: u64) -> bool {
        let [deaf_ticks, held_up_ticks] =
            [DEAF_SECONDS, HELD_UP_SECONDS].map(|seconds| self.frequency.saturating_mul(seconds));
        let is_held_up = self.is_held_up(number);
        let Some(port) = self.ports.get_mut(number) else { return false };
        let anew = Blocked { start: now, since: now, taken };
        let blocked = port.blocked.get_or_insert(anew);
        if taken.wrapping_sub(blocked.taken) >= TAKEN_MIN {
            *blocked = anew;
        }
        if is_held_up {
            blocked.since = now;
        }
        let Blocked { start, since, .. } = *blocked;
        let is_early = now.wrapping_sub(since) < deaf_ticks && now.wrapping_sub(start) < held_up_ticks;
        if port.is_deaf || is_early {
            return !port.is_deaf;
        }
        port.is_deaf = true;
        port.event = Event::Owed;
        self.break_connections(number);
        false
    }

    /// Whether something waits for room.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.ports.iter().any(|port| port.blocked.is_some() && !port.is_deaf)
    }

    fn port_of(&self, cid: u64) -> Option<usize> {
        self.ports.iter().position(|port| u64::from(port.cid) == cid)
    }

    fn connection(&self, (list, place): Place) -> Option<&Connection> {
        self.ports.get(list)?.connections.get(place)
    }

    /// The connection that a packet from `from` to `to` belongs to.
    fn find(&self, from: usize, to: usize, header: &Header) -> Option<Place> {
        let look = |list: usize, asked: usize, ports: [u32; 2]| {
            let is_it =
                |each: &Connection| usize::from(each.to) == asked && [each.asking_port, each.asked_port] == ports;
            let place = self.ports.get(list)?.connections.iter().position(is_it)?;
            Some((list, place))
        };
        let (source, destination) = (header.source_port, header.destination_port);
        look(from, to, [source, destination]).or_else(|| look(to, from, [destination, source]))
    }

    /// Remembers a connection that `from` asks `to` for. Returns whether there is room: one that nobody has answered
    /// gives way to it.
    fn begin(&mut self, from: usize, to: usize, header: &Header) -> bool {
        if self.ports.get(to).is_none_or(|port| port.session.is_none() || port.is_deaf) {
            return false;
        }
        if self.awaits_event(from) || self.awaits_event(to) {
            return false;
        }
        let Some(port) = self.ports.get_mut(from) else { return false };
        if port.connections.is_full() {
            let unanswered = port.connections.iter().position(|each| each.state == State::Requested);
            let Some(unanswered) = unanswered else { return false };
            port.connections.pop_at(unanswered);
        }
        port.counters.connections = port.counters.connections.saturating_add(1);
        let (asking_port, asked_port) = (header.source_port, header.destination_port);
        // There are fewer ports than a byte counts.
        let connection = Connection { to: to as u8, state: State::Requested, asking_port, asked_port };
        port.connections.try_push(connection).is_ok()
    }

    /// Ends the connection that a packet from `from` to `to` belongs to; `to` has to hear of it.
    fn break_one(&mut self, from: usize, to: usize, header: &Header) {
        let Some((list, place)) = self.find(from, to, header) else { return };
        let end = if list == to { End::Asking } else { End::Asked };
        let connection = self.ports.get_mut(list).and_then(|port| port.connections.get_mut(place));
        if let Some(connection) = connection.filter(|connection| !matches!(connection.state, State::Broken(_))) {
            connection.state = State::Broken(end);
        }
    }

    /// The sender at `from` hears that there is no such connection; but not of one that it has ended itself, or that an
    /// event ends. A request has an answer in any case: no event ends a connection that is only asked for.
    fn refuse(&mut self, from: usize, header: &Header, operation: Operation) -> Decision {
        match operation {
            Operation::Reset => Decision::Drop,
            Operation::Response
            | Operation::Shutdown
            | Operation::Data
            | Operation::CreditUpdate
            | Operation::CreditRequest
                if self.awaits_event(from) =>
            {
                self.drop(from)
            }
            Operation::Request
            | Operation::Response
            | Operation::Shutdown
            | Operation::Data
            | Operation::CreditUpdate
            | Operation::CreditRequest => Decision::Reply(header.refusal()),
        }
    }

    fn drop(&mut self, from: usize) -> Decision {
        if let Some(port) = self.ports.get_mut(from) {
            port.counters.dropped = port.counters.dropped.saturating_add(1);
        }
        Decision::Drop
    }
}

const _: () = assert!(PORTS_MAX <= u8::MAX as usize, "a port is a byte");

#[cfg(test)]
mod tests;
