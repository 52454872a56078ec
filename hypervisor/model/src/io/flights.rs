//! The requests that are out: what EL2 wrote down about each when it posted it.

use super::window::Run;
use crate::virtqueue::Chain;
use abi::io::{Operation, RING_ENTRIES};
use alloc::boxed::Box;
use alloc::vec::Vec;
use arrayvec::ArrayVec;

/// The most requests that are out at a time: as many as the request ring has entries.
pub const FLIGHTS_MAX: usize = RING_ENTRIES as usize;

/// Who waits for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiter {
    /// Nobody: its chain was given back already, or its queue is gone. Its pages are still the driver domain's.
    Nobody,
    /// A chain of this queue, kept in this place of the pool.
    Chain {
        /// The queue.
        queue: u16,
        /// The place of the chain in the pool.
        place: u8,
    },
}

/// What was written down about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flight {
    /// What it asks for.
    pub operation: Operation,
    /// Where on the disk, or what else the operation needs.
    pub sector: u64,
    /// How much.
    pub length: u32,
    /// Its pages of the window.
    pub run: Run,
    /// Whether the device has the client's own memory for the data, and the window only the list of it.
    pub is_granted: bool,
    /// Who waits.
    pub waiter: Waiter,
}

impl Flight {
    /// The bytes that it is to put into the window.
    pub const fn expected(&self) -> u32 {
        if self.operation.fills_window() { self.length } else { 0 }
    }
}

/// No place is long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// A place for a request.
#[derive(Clone, Copy)]
struct Place {
    sequence: u64,
    flight: Option<Flight>,
}

/// All requests of a channel that are out.
pub struct Flights {
    flights: [Place; FLIGHTS_MAX],
    /// Places of `flights` that are free.
    free: ArrayVec<u8, FLIGHTS_MAX>,
    /// How many places this channel has.
    depth: usize,
    /// Grows with every request; its low bits are replaced by the place.
    round: u64,
    /// In order of the room that they have.
    chains: Box<[Chain]>,
    /// Places of `chains` in use, a bit each.
    chains_used: u32,
}

const PLACE_BITS: u32 = 7;
/// The most chains that are kept for a device.
pub const CHAINS_MAX: usize = u32::BITS as usize;
const _: () = assert!(FLIGHTS_MAX == 1 << PLACE_BITS, "a sequence number carries its place");

impl Flights {
    /// Nothing out; at most `depth` requests at a time, whether anybody still waits for them or not. `chains` says how
    /// many chains can be kept that have how many segments at most, the shortest first: [`CHAINS_MAX`] in all.
    pub fn new(depth: usize, chains: &[(usize, usize)]) -> Self {
        let none = Place { sequence: 0, flight: None };
        let mut pool = Vec::with_capacity(chains.iter().map(|(count, _)| count).sum());
        for (count, segments) in chains {
            pool.extend((0..*count).map(|_| Chain::with_room(*segments)));
        }
        pool.truncate(CHAINS_MAX);
        let depth = depth.min(FLIGHTS_MAX);
        let free = (0..depth as u8).rev().collect();
        Self { flights: [none; FLIGHTS_MAX], free, depth, round: 0, chains: pool.into_boxed_slice(), chains_used: 0 }
    }

    /// Whether another request can go out.
    #[inline]
    pub const fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether any request is out.
    #[inline]
    pub const fn is_any_out(&self) -> bool {
        self.free.len() != self.depth
    }

    /// Takes a place for a chain.
    #[inline]
    pub fn take_chain(&mut self) -> Option<u8> {
        self.take_chain_from(0)
    }

    /// Takes a place for a chain that is too long for `place`. `None` where all of them are taken.
    ///
    /// # Errors
    /// [`TooLong`] if there is no such place.
    pub fn take_longer_chain(&mut self, place: u8) -> Result<Option<u8>, TooLong> {
        let room = |chain: &Chain| chain.room();
        let too_short = self.chain(place).map_or(0, room);
        let first = self.chains.iter().position(|chain| chain.room() > too_short).ok_or(TooLong)?;
        Ok(self.take_chain_from(first as u32))
    }

    /// Takes a place for a chain that may be as long as there are.
    pub fn take_longest_chain(&mut self) -> Option<u8> {
        self.take_chain_from(self.chains.len().checked_sub(1)? as u32)
    }

    #[inline]
    fn take_chain_from(&mut self, first: u32) -> Option<u8> {
        let free = !self.chains_used & u32::MAX.checked_shl(first)?;
        let place = free.trailing_zeros();
        if place as usize >= self.chains.len() {
            return None;
        }
        self.chains_used |= 1u32.wrapping_shl(place);
        Some(place as u8)
    }

    /// The chain in `place`.
    #[inline]
    pub fn chain(&self, place: u8) -> Option<&Chain> {
        self.chains.get(usize::from(place))
    }

    /// The chain in `place`, to be filled.
    #[inline]
    pub fn chain_mut(&mut self, place: u8) -> Option<&mut Chain> {
        self.chains.get_mut(usize::from(place))
    }

    /// Frees `place`.
    #[inline]
    pub fn free_chain(&mut self, place: u8) {
        self.chains_used &= !1u32.wrapping_shl(u32::from(place));
    }

    /// Writes a request down, and gives its sequence number. `None` if too many are out.
    #[inline]
    pub fn depart(&mut self, flight: Flight) -> Option<u64> {
        let place = self.free.pop()?;
        let entry = self.flights.get_mut(usize::from(place))?;
        self.round = self.round.wrapping_add(1);
        let sequence = self.round.wrapping_shl(PLACE_BITS) | u64::from(place);
        *entry = Place { sequence, flight: Some(flight) };
        Some(sequence)
    }

    /// Takes the request with this sequence number off the list. `None` if none that is out has it: it is forged, or
    /// completed twice.
    #[inline]
    pub fn land(&mut self, sequence: u64) -> Option<Flight> {
        let place = sequence as usize & FLIGHTS_MAX.wrapping_sub(1);
        let entry = self.flights.get_mut(place).filter(|entry| entry.sequence == sequence)?;
        let flight = entry.flight.take()?;
        // It came from there.
        let _ = self.free.try_push(place as u8);
        Some(flight)
    }

    /// The earliest request that is out and has a higher sequence number than `after`, with its number.
    pub fn next_after(&self, after: u64) -> Option<(u64, Flight)> {
        let out = self.flights.iter().filter_map(|entry| Some((entry.sequence, entry.flight?)));
        out.filter(|(sequence, _)| *sequence > after).min_by_key(|(sequence, _)| *sequence)
    }

    /// Forgets who waits, for `queue` or (`None`) for all: the chains are no more.
    pub fn orphan(&mut self, queue: Option<u16>) {
        for flight in self.flights.iter_mut().filter_map(|entry| entry.flight.as_mut()) {
            if let Waiter::Chain { queue: waiting, place } = flight.waiter
                && queue.is_none_or(|queue| queue == waiting)
            {
                flight.waiter = Waiter::Nobody;
                self.chains_used &= !1u32.wrapping_shl(u32::from(place));
            }
        }
    }

    /// How many are out.
    pub const fn count(&self) -> usize {
        self.depth.wrapping_sub(self.free.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Run = Run { first: 3, count: 2 };

    fn flight(waiter: Waiter) -> Flight {
        Flight { operation: Operation::Read, sector: 1, length: 512, run: RUN, is_granted: false, waiter }
    }

    #[test]
    fn a_request_lands_once() {
        let mut flights = Flights::new(FLIGHTS_MAX, &[(4, 3)]);
        let sequence = flights.depart(flight(Waiter::Nobody)).unwrap();
        assert_eq!(flights.land(sequence), Some(flight(Waiter::Nobody)));
        assert_eq!(flights.land(sequence), None);
    }

    #[test]
    fn the_number_of_an_earlier_request_in_the_same_place_is_forged() {
        let mut flights = Flights::new(FLIGHTS_MAX, &[(4, 3)]);
        let first = flights.depart(flight(Waiter::Nobody)).unwrap();
        flights.land(first);
        let second = flights.depart(flight(Waiter::Nobody)).unwrap();
        assert_eq!(first % 128, second % 128);
        assert_eq!(flights.land(first), None);
        assert!(flights.land(second).is_some());
    }

    #[test]
    fn no_more_go_out_than_the_ring_holds() {
        let mut flights = Flights::new(FLIGHTS_MAX, &[]);
        let all: Vec<_> = core::iter::from_fn(|| flights.depart(flight(Waiter::Nobody))).collect();
        assert_eq!(all.len(), FLIGHTS_MAX);
        assert!(!flights.has_room());
        flights.land(all[77]).unwrap();
        assert!(flights.has_room());
        assert_eq!(flights.count(), 127);
    }

    #[test]
    fn no_more_go_out_than_the_channel_is_deep_whoever_waits() {
        let mut flights = Flights::new(2, &[(2, 3)]);
        let mut depart = || {
            let place = flights.take_chain().unwrap();
            let sequence = flights.depart(flight(Waiter::Chain { queue: 0, place }));
            flights.orphan(None);
            sequence
        };
        let first = depart().unwrap();
        assert!(depart().is_some());
        assert_eq!(depart(), None);
        assert_eq!((flights.has_room(), flights.count()), (false, 2));
        flights.land(first).unwrap();
        assert!(flights.has_room());
    }

    #[test]
    fn what_is_out_is_found_in_the_order_in_which_it_went() {
        let mut flights = Flights::new(FLIGHTS_MAX, &[]);
        let numbers: Vec<_> = (0..3).filter_map(|_| flights.depart(flight(Waiter::Nobody))).collect();
        flights.land(numbers[0]);
        // Takes the place of the first, and is the last all the same.
        let last = flights.depart(flight(Waiter::Nobody)).unwrap();
        let mut after = 0;
        let order: Vec<_> = core::iter::from_fn(|| {
            after = flights.next_after(after)?.0;
            Some(after)
        })
        .collect();
        assert_eq!(order, [numbers[1], numbers[2], last]);
    }

    #[test]
    fn chains_of_a_queue_that_is_gone_are_free_again_and_its_requests_still_land() {
        let mut flights = Flights::new(FLIGHTS_MAX, &[(2, 3)]);
        let places = [flights.take_chain().unwrap(), flights.take_chain().unwrap()];
        assert_eq!(flights.take_chain(), None);
        let first = flights.depart(flight(Waiter::Chain { queue: 0, place: places[0] })).unwrap();
        let second = flights.depart(flight(Waiter::Chain { queue: 1, place: places[1] })).unwrap();
        flights.orphan(Some(1));
        assert_eq!(flights.take_chain(), Some(places[1]));
        assert_eq!(flights.land(second).unwrap().waiter, Waiter::Nobody);
        assert_eq!(flights.land(first).unwrap().waiter, Waiter::Chain { queue: 0, place: places[0] });
    }

    #[test]
    fn a_chain_that_is_too_long_finds_a_longer_place_and_short_ones_take_what_is_free() {
        let mut flights = Flights::new(FLIGHTS_MAX, &[(2, 3), (1, 9), (1, 20)]);
        let room = |flights: &Flights, place| flights.chain(place).unwrap().room();
        let short = flights.take_chain().unwrap();
        let longer = flights.take_longer_chain(short).unwrap().unwrap();
        let longest = flights.take_longer_chain(longer).unwrap().unwrap();
        assert_eq!([short, longer, longest].map(|place| room(&flights, place)), [3, 9, 20]);
        assert_eq!(flights.take_longer_chain(longest), Err(TooLong));
        assert_eq!(flights.take_longer_chain(short), Ok(None));
        flights.free_chain(longest);
        assert_eq!(flights.take_longer_chain(short), Ok(Some(longest)));
        flights.free_chain(longest);
        let rest: Vec<_> = core::iter::from_fn(|| flights.take_chain()).collect();
        assert_eq!(rest, [1, longest]);
    }
}
