//! The switch between the clients' network cards and the uplinks.
//!
//! A client's port has one address, which the manifest gives it, so there is nothing to learn about clients: a frame
//! with another source address is dropped, and a client's frames are found by its address alone. What is learned is
//! behind which uplink a station is. Frames never pass from one uplink to another, so uplinks cannot form a loop.
//!
//! What this module leaves out: the frames themselves. It says where one goes; the caller carries it there.

use crate::rate::Bucket;
use arrayvec::ArrayVec;

/// The most ports of a switch.
pub const PORTS_MAX: usize = 32;
/// The length of an Ethernet header in bytes.
pub const HEADER_SIZE: usize = 14;
/// Entries of the table of stations. A station that meets another in its entry takes its place.
const STATIONS: usize = 256;
/// How many frames for more than one port a port may send in a second, and at once. An ordinary guest sends a few.
const STORM_RATE: u64 = 2000;
const STORM_BURST: u64 = 500;

/// An Ethernet address.
pub type Address = [u8; 6];

/// What is behind a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// One client, which has this address and no other.
    Client(Address),
    /// The world.
    Uplink,
}

/// What a port has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that came in and were passed on.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Frames that went out.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Dropped: too short, too long or otherwise no frame that may be sent, or no destination for it.
    pub dropped_useless: u64,
    /// Dropped: the source address was not the port's own, or was a client's on an uplink.
    pub dropped_forged: u64,
    /// Dropped: more bytes than the port's rate.
    pub dropped_rate: u64,
    /// Dropped: more frames to all than any port may send.
    pub dropped_storm: u64,
    /// Dropped on the way out: the receiver had no room.
    pub dropped_full: u64,
}

#[derive(Clone, Debug)]
struct Port {
    side: Side,
    rate: Option<Bucket>,
    storm: Bucket,
    counters: Counters,
}

/// A set of ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports(u32);

const _: () = assert!(PORTS_MAX <= u32::BITS as usize, "a set of ports is a word");

impl Ports {
    const fn one(port: usize) -> Self {
        // A port that no word has room for is in no set.
        Self(if port < PORTS_MAX { 1u32.wrapping_shl(port as u32) } else { 0 })
    }

    const fn without(self, port: usize) -> Self {
        Self(self.0 & !Self::one(port).0)
    }

    /// Whether the frame goes nowhere.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl Iterator for Ports {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let port = self.0.trailing_zeros() as usize;
        *self = self.without(port);
        (port < PORTS_MAX).then_some(port)
    }
}

/// The switch.
#[derive(Clone, Debug)]
pub struct Switch {
    ports: ArrayVec<Port, PORTS_MAX>,
    clients: Ports,
    uplinks: Ports,
    /// An address and the uplink behind which it was last seen.
    stations: [Option<(Address, u8)>; STATIONS],
    /// Ticks of the counter a second.
    frequency: u64,
}

impl Switch {
    /// A switch without ports, by a counter of `frequency` ticks a second.
    #[must_use]
    pub const fn new(frequency: u64) -> Self {
        let ports = ArrayVec::new_const();
        Self { ports, clients: Ports(0), uplinks: Ports(0), stations: [None; STATIONS], frequency }
    }

    /// Adds a port, limited to `rate` bytes a second from it; gives its number, or `None` where all are taken.
    pub fn add(&mut self, side: Side, rate: Option<u64>, now: u64) -> Option<usize> {
        let number = self.ports.len();
        // A tenth of a second at once, and at least a few frames.
        let limit = |rate: u64| Bucket::new(rate, (rate / 10).max(16 * 1024), self.frequency, now);
        let storm = Bucket::new(STORM_RATE, STORM_BURST, self.frequency, now);
        let port = Port { side, rate: rate.map(limit), storm, counters: Counters::default() };
        self.ports.try_push(port).ok()?;
        let set = match side {
            Side::Client(_) => &mut self.clients,
            Side::Uplink => &mut self.uplinks,
        };
        set.0 |= Ports::one(number).0;
        Some(number)
    }

    /// What a port has seen.
    #[must_use]
    pub fn counters(&self, port: usize) -> Counters {
        self.ports.get(port).map_or_else(Counters::default, |port| port.counters)
    }

    /// The port of the client with this address.
    fn client(&self, address: Address) -> Option<usize> {
        self.ports.iter().position(|port| port.side == Side::Client(address))
    }

    fn station(address: Address) -> usize {
        let [_, _, _, a, b, c] = address;
        usize::from(a ^ b.rotate_left(3) ^ c)
    }

    /// Where a frame of `length` bytes that begins with `header` and came in at `from` goes; nowhere if it is dropped,
    /// and then it has been counted.
    #[must_use]
    pub fn route(&mut self, from: usize, header: &[u8], length: u32, now: u64) -> Ports {
        let Some(side) = self.ports.get(from).map(|port| port.side) else { return Ports(0) };
        let route = self.decide(from, side, header);
        let Some(Port { rate, storm, counters, .. }) = self.ports.get_mut(from) else { return Ports(0) };
        let count = |counter: &mut u64| {
            *counter = counter.saturating_add(1);
            Ports(0)
        };
        let ports = match route {
            Err(Drop::Useless) => return count(&mut counters.dropped_useless),
            Err(Drop::Forged) => return count(&mut counters.dropped_forged),
            Ok(ports) => ports,
        };
        if ports.0.count_ones() > 1 && !storm.take(1, now) {
            return count(&mut counters.dropped_storm);
        }
        if rate.as_mut().is_some_and(|rate| !rate.take(u64::from(length), now)) {
            return count(&mut counters.dropped_rate);
        }
        counters.frames_in = counters.frames_in.saturating_add(1);
        counters.bytes_in = counters.bytes_in.saturating_add(u64::from(length));
        ports
    }

    fn decide(&mut self, from: usize, side: Side, header: &[u8]) -> Result<Ports, Drop> {
        let (destination, rest) = header.split_first_chunk::<6>().ok_or(Drop::Useless)?;
        let (source, rest) = rest.split_first_chunk::<6>().ok_or(Drop::Useless)?;
        // The type or length.
        rest.first_chunk::<2>().ok_or(Drop::Useless)?;
        let (destination, source) = (*destination, *source);
        let is_multicast = |[first, ..]: Address| first & 1 != 0;
        match side {
            Side::Client(own) if source != own => return Err(Drop::Forged),
            Side::Client(_) => {}
            Side::Uplink if is_multicast(source) || self.client(source).is_some() => return Err(Drop::Forged),
            Side::Uplink => {
                if let Some(entry) = self.stations.get_mut(Self::station(source)) {
                    *entry = Some((source, from as u8));
                }
            }
        }
        let all = match side {
            Side::Client(_) => Ports(self.clients.0 | self.uplinks.0).without(from),
            Side::Uplink => self.clients,
        };
        let ports = if is_multicast(destination) {
            all
        } else if let Some(client) = self.client(destination) {
            Ports::one(client)
        } else {
            // A stranger: behind the uplink where it was last seen, or behind any of them. Never a client.
            match self.stations.get(Self::station(destination)) {
                Some(&Some((address, uplink))) if address == destination => Ports::one(usize::from(uplink)),
                _ => self.uplinks,
            }
        };
        // Back to where it came from, or from uplink to uplink, is nowhere.
        let ports = Ports(ports.0 & all.0);
        if ports.is_empty() { Err(Drop::Useless) } else { Ok(ports) }
    }

    /// What came in at `port` was no frame that may be sent.
    #[cold]
    pub fn refused(&mut self, port: usize) {
        if let Some(Port { counters, .. }) = self.ports.get_mut(port) {
            counters.dropped_useless = counters.dropped_useless.saturating_add(1);
        }
    }

    /// A frame of `length` bytes went out at `port`.
    pub fn sent(&mut self, port: usize, length: u32) {
        if let Some(Port { counters, .. }) = self.ports.get_mut(port) {
            counters.frames_out = counters.frames_out.saturating_add(1);
            counters.bytes_out = counters.bytes_out.saturating_add(u64::from(length));
        }
    }

    /// A frame was to go out at `port`, which had no room.
    pub fn dropped(&mut self, port: usize) {
        if let Some(Port { counters, .. }) = self.ports.get_mut(port) {
            counters.dropped_full = counters.dropped_full.saturating_add(1);
        }
    }
}

/// Why a frame goes nowhere.
enum Drop {
    Useless,
    Forged,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    const ALPHA: Address = [2, 0, 0, 0, 0, 1];
    const BETA: Address = [2, 0, 0, 0, 0, 2];
    const ROUTER: Address = [0x52, 0x55, 10, 0, 2, 2];
    const ALL: Address = [0xff; 6];

    /// Clients at ports 0 and 1, uplinks at 2 and 3.
    fn switch() -> Switch {
        let mut switch = Switch::new(1000);
        for (number, side) in
            [Side::Client(ALPHA), Side::Client(BETA), Side::Uplink, Side::Uplink].into_iter().enumerate()
        {
            assert_eq!(switch.add(side, None, 0), Some(number));
        }
        switch
    }

    fn header(to: Address, from: Address) -> Vec<u8> {
        [&to[..], &from[..], &[8, 0]].concat()
    }

    fn route(switch: &mut Switch, port: usize, to: Address, from: Address) -> Vec<usize> {
        switch.route(port, &header(to, from), 60, 0).collect()
    }

    #[test]
    fn clients_reach_each_other_and_nobody_else_hears() {
        assert_eq!(route(&mut switch(), 0, BETA, ALPHA), [1]);
        assert_eq!(route(&mut switch(), 1, ALPHA, BETA), [0]);
    }

    #[test]
    fn a_client_cannot_send_with_anothers_address() {
        let mut switch = switch();
        assert_eq!(route(&mut switch, 0, ROUTER, BETA), []);
        assert_eq!(route(&mut switch, 0, ROUTER, ROUTER), []);
        assert_eq!(switch.counters(0), Counters { dropped_forged: 2, ..Counters::default() });
    }

    #[test]
    fn the_world_cannot_send_as_a_client() {
        let mut switch = switch();
        assert_eq!(route(&mut switch, 2, BETA, ALPHA), []);
        assert_eq!(switch.counters(2).dropped_forged, 1);
    }

    #[test]
    fn what_is_for_all_reaches_every_other_port() {
        assert_eq!(route(&mut switch(), 0, ALL, ALPHA), [1, 2, 3]);
        assert_eq!(route(&mut switch(), 0, [0x33, 0x33, 0, 0, 0, 1], ALPHA), [1, 2, 3]);
    }

    #[test]
    fn nothing_passes_from_uplink_to_uplink() {
        let mut switch = switch();
        assert_eq!(route(&mut switch, 2, ALL, ROUTER), [0, 1]);
        assert_eq!(route(&mut switch, 3, ROUTER, [9 << 1; 6]), []);
        assert_eq!(switch.counters(3).dropped_useless, 1);
    }

    #[test]
    fn a_stranger_is_sought_at_the_uplinks_and_never_at_clients() {
        let mut switch = switch();
        assert_eq!(route(&mut switch, 0, ROUTER, ALPHA), [2, 3]);
        // It answers, so now it is known.
        assert_eq!(route(&mut switch, 3, ALPHA, ROUTER), [0]);
        assert_eq!(route(&mut switch, 0, ROUTER, ALPHA), [3]);
        // A station that moves is followed.
        assert_eq!(route(&mut switch, 2, ALPHA, ROUTER), [0]);
        assert_eq!(route(&mut switch, 1, ROUTER, BETA), [2]);
        assert_eq!(route(&mut switch, 2, [0x10; 6], ROUTER), []);
    }

    #[test]
    fn a_client_that_calls_itself_is_not_heard() {
        assert_eq!(route(&mut switch(), 0, ALPHA, ALPHA), []);
    }

    #[test]
    fn a_frame_without_a_whole_header_goes_nowhere() {
        let mut switch = switch();
        let header = header(BETA, ALPHA);
        for length in 0..HEADER_SIZE {
            assert!(switch.route(0, &header[..length], length as u32, 0).is_empty());
        }
        assert_eq!(switch.counters(0).dropped_useless, HEADER_SIZE as u64);
        assert!(switch.route(4, &header, 60, 0).is_empty(), "there is no port 4");
    }

    #[test]
    fn a_limited_port_sends_no_more_than_its_rate() {
        let mut switch = Switch::new(1000);
        switch.add(Side::Client(ALPHA), Some(160_000), 0);
        switch.add(Side::Client(BETA), None, 0);
        let mut passed =
            |now| (0..100).filter(|_| !switch.route(0, &header(BETA, ALPHA), 1000, now).is_empty()).count();
        assert_eq!(passed(0), 16);
        assert_eq!(passed(0), 0);
        assert_eq!(passed(50), 8);
        assert_eq!(switch.counters(0).bytes_in, 24_000);
        assert_eq!(switch.counters(0).dropped_rate, 276);
    }

    #[test]
    fn a_storm_is_bounded_and_other_frames_pass() {
        let mut switch = switch();
        let passed = (0..2000).filter(|_| !switch.route(0, &header(ALL, ALPHA), 60, 0).is_empty()).count();
        assert_eq!(passed as u64, STORM_BURST);
        assert_eq!(switch.counters(0).dropped_storm, 1500);
        assert_eq!(route(&mut switch, 0, BETA, ALPHA), [1]);
    }

    #[test]
    fn what_goes_out_is_counted() {
        let mut switch = switch();
        switch.sent(1, 60);
        switch.dropped(1);
        switch.refused(1);
        switch.sent(9, 60);
        let expected =
            Counters { dropped_useless: 1, frames_out: 1, bytes_out: 60, dropped_full: 1, ..Counters::default() };
        assert_eq!(switch.counters(1), expected);
    }
}
