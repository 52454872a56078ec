//! The requests that are out, and the chains that wait for them: what EL2 wrote down about each when it posted it.

use super::QUEUES_MAX;
use super::policy::CHAIN_ROOM;
use super::window::Run;
use crate::virtqueue::{Chain, Cursor};
use abi::io::{HEADER_SIZE_MAX, RING_ENTRIES};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use arrayvec::ArrayVec;

/// The most requests that are out at a time: as many as the request ring has entries.
pub const REQUESTS_MAX: usize = RING_ENTRIES as usize;

/// What was written down about a request. It is copied for each, and three words need no call for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(8))]
pub struct InFlightRequest {
    /// Its queue.
    pub queue: u8,
    /// The place of the chain that waits for it. `None` where that was given back already, or its queue is gone: the
    /// request's pages are still the backend's.
    pub chain: Option<u8>,
    /// Bytes of data that go out.
    pub readable: u32,
    /// Bytes of room for data that comes in.
    pub writable: u32,
    /// Its pages of the window.
    pub run: Run,
    /// Whether a device has the frontend's own memory for the data, and the window only the list of it.
    pub is_granted: bool,
    /// Whether it is the last piece of its chain.
    pub is_last: bool,
}

/// A chain that was taken from its queue and has not been given back.
pub struct KeptChain {
    /// Its buffers.
    pub chain: Chain,
    /// What travels in its requests.
    pub header: [u8; HEADER_SIZE_MAX],
    /// Its queue.
    pub queue: u8,
    /// Bytes of data before the piece that is out, or that is next.
    pub position: u64,
    /// Where that piece begins among its buffers.
    pub start: Cursor,
    /// Bytes of data that were written into it.
    pub written: u32,
    /// What is to be done with it, where it waits for that.
    next: Next,
    /// The order in which chains wait.
    order: u64,
}

/// What is to be done with a chain that waits for no request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is the beginning of one that is still its driver's: the walk along it goes on.
    Walk,
    /// Its next piece is to be posted.
    Post,
    /// What its request has brought is to be copied on.
    CopyIn,
    /// The piece that was out when the backend ended is to be posted again.
    Replay,
    /// It is to be given back as it is.
    Drop,
    /// It is to fail.
    Fail,
}

/// No place is long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// A place for a request.
#[derive(Clone, Copy)]
pub struct Place {
    sequence: u64,
    request: Option<InFlightRequest>,
}

/// All requests of a channel that are out, and all chains that are kept.
pub struct InFlightRequests {
    requests: Box<[Place]>,
    /// Places of `requests` that are free.
    free: ArrayVec<u8, REQUESTS_MAX>,
    /// Grows with every request; its low bits are replaced by the place.
    round: u64,
    /// For each queue, the round in which its chains were forgotten last: no chain waits for a request before that.
    forgotten: [u64; QUEUES_MAX],
    /// In order of the room that they have.
    chains: Box<[KeptChain]>,
    /// Places of `chains` in use, a bit each.
    chains_used: u32,
    /// Those of them that wait for something to be done with them.
    waiting: u32,
}

/// So many requests are interrupted at once: some 800 instructions.
const INTERRUPTED_AT_ONCE: usize = 16;
/// How many steps it takes to interrupt all.
pub const INTERRUPT_STEPS: usize = REQUESTS_MAX.div_ceil(INTERRUPTED_AT_ONCE);

const PLACE_BITS: u32 = 7;
/// The most chains that are kept for a device.
pub const CHAINS_MAX: usize = u32::BITS as usize;
const _: () = assert!(REQUESTS_MAX == 1 << PLACE_BITS, "a sequence number carries its place");

impl InFlightRequests {
    /// Nothing out; at most `depth` requests at a time, whether their chains still wait for them or not. `chains` says
    /// how many chains can be kept of each length in [`CHAIN_ROOM`]: [`CHAINS_MAX`] in all.
    pub fn new(depth: u16, chains: [u8; CHAIN_ROOM.len()]) -> Self {
        let mut kept = Vec::with_capacity(chains.iter().map(|count| usize::from(*count)).sum());
        for (count, segments) in chains.into_iter().zip(CHAIN_ROOM) {
            kept.extend((0..count).map(|_| KeptChain {
                chain: Chain::with_room(segments),
                header: [0; HEADER_SIZE_MAX],
                queue: 0,
                position: 0,
                start: Cursor::default(),
                written: 0,
                next: Next::Post,
                order: 0,
            }));
        }
        kept.truncate(CHAINS_MAX);
        let depth = usize::from(depth).min(REQUESTS_MAX);
        let requests = vec![Place { sequence: 0, request: None }; depth].into_boxed_slice();
        let chains = kept.into_boxed_slice();
        let free = (0..depth as u8).rev().collect();
        Self { requests, free, round: 0, forgotten: [0; QUEUES_MAX], chains, chains_used: 0, waiting: 0 }
    }

    /// Whether another request can go out.
    #[inline]
    pub const fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Whether any request is out.
    #[inline]
    pub const fn is_any_out(&self) -> bool {
        self.count_out() != 0
    }

    /// Takes a place for a chain.
    #[inline]
    pub fn take_chain(&mut self) -> Option<u8> {
        self.take_chain_from(0)
    }

    /// Moves the chain in `place` to one with more room, and frees `place`. `None` where all of them are taken.
    ///
    /// # Errors
    /// [`TooLong`] if there is no such place; the chain stays where it is.
    #[cold]
    #[inline(never)]
    pub fn lengthen(&mut self, place: u8) -> Result<Option<u8>, TooLong> {
        let room = |kept: &KeptChain| kept.chain.room();
        let too_short = self.chain(place).map_or(0, room);
        let first = self.chains.iter().position(|kept| room(kept) > too_short).ok_or(TooLong)?;
        let longer = self.take_chain_from(first as u32);
        // It lies behind.
        if let Some((shorter, longer)) = longer.and_then(|place| self.chains.split_at_mut_checked(usize::from(place)))
            && let (Some(from), Some(to)) = (shorter.get(usize::from(place)), longer.first_mut())
        {
            to.queue = from.queue;
            to.chain.copy_from(&from.chain);
        }
        self.free_chain(place);
        Ok(longer)
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
    pub fn chain(&self, place: u8) -> Option<&KeptChain> {
        self.chains.get(usize::from(place))
    }

    /// The chain in `place`, to be filled.
    #[inline]
    pub fn chain_mut(&mut self, place: u8) -> Option<&mut KeptChain> {
        self.chains.get_mut(usize::from(place))
    }

    /// Frees `place`.
    #[inline]
    pub fn free_chain(&mut self, place: u8) {
        self.chains_used &= !1u32.wrapping_shl(u32::from(place));
    }

    /// Has the chain in `place` wait for `next` to be done with it, behind those that wait already.
    pub fn wait(&mut self, place: u8, next: Next) {
        self.round = self.round.wrapping_add(1);
        let order = self.round;
        if let Some(kept) = self.chain_mut(place) {
            kept.next = next;
            kept.order = order;
            self.waiting |= 1u32.wrapping_shl(u32::from(place));
        }
    }

    /// Has the chain in `place` wait for `next` to be done with it, before those that wait already.
    pub fn wait_first(&mut self, place: u8, next: Next) {
        self.wait(place, next);
        if let Some(kept) = self.chain_mut(place) {
            kept.order = 0;
        }
    }

    /// Whether a chain waits for something to be done with it.
    #[inline]
    pub const fn is_any_waiting(&self) -> bool {
        self.waiting != 0
    }

    /// The chain that has waited longest, with what is to be done with it.
    pub fn first_waiting(&self) -> Option<(u8, Next)> {
        let mut rest = self.waiting;
        let places = core::iter::from_fn(|| {
            let place = rest.trailing_zeros();
            rest &= rest.wrapping_sub(1);
            (place < u32::BITS).then_some(place as u8)
        });
        let kept = places.filter_map(|place| self.chain(place).map(|kept| (place, kept)));
        kept.min_by_key(|(_, kept)| kept.order).map(|(place, kept)| (place, kept.next))
    }

    /// The chain in `place` waits no longer.
    pub fn stop_waiting(&mut self, place: u8) {
        self.waiting &= !1u32.wrapping_shl(u32::from(place));
    }

    /// Writes a request down, and gives its sequence number. `None` if too many are out.
    #[inline]
    pub fn insert(&mut self, request: InFlightRequest) -> Option<u64> {
        let place = self.free.pop()?;
        let entry = self.requests.get_mut(usize::from(place))?;
        self.round = self.round.wrapping_add(1);
        let sequence = self.round.wrapping_shl(PLACE_BITS) | u64::from(place);
        *entry = Place { sequence, request: Some(request) };
        Some(sequence)
    }

    /// Takes the request with this sequence number off the list. `None` if none that is out has it: the number is
    /// stale or forged.
    #[inline]
    pub fn complete(&mut self, sequence: u64) -> Option<InFlightRequest> {
        let place = sequence as usize & REQUESTS_MAX.wrapping_sub(1);
        let entry = self.requests.get_mut(place).filter(|entry| entry.sequence == sequence)?;
        let mut request = entry.request.take()?;
        if is_forgotten(&self.forgotten, sequence, &request) {
            request.chain = None;
        }
        // It came from there.
        let _ = self.free.try_push(place as u8);
        Some(request)
    }

    /// The request that has been out longest, of those that are granted or to queues in the set `queues`: its sequence
    /// number. Grants count in any case: a frontend waits for them when it resets its device.
    pub fn oldest(&self, queues: u8) -> Option<u64> {
        let out = self.requests.iter().filter_map(|entry| Some((entry.sequence, entry.request?)));
        out.filter(|(_, request)| request.is_granted || queues >> request.queue & 1 != 0)
            .map(|(sequence, _)| sequence)
            .min()
    }

    /// Takes requests off the list, and has their chains wait for what `next` says, in the order in which the requests
    /// went out: all of them in [`INTERRUPT_STEPS`] steps from 0.
    pub fn interrupt(&mut self, step: usize, mut next: impl FnMut(&InFlightRequest) -> Next) {
        let places = (0..).zip(&mut *self.requests);
        for (place, entry) in places.skip(step.wrapping_mul(INTERRUPTED_AT_ONCE)).take(INTERRUPTED_AT_ONCE) {
            let Some(request) = entry.request.take() else { continue };
            let next = next(&request);
            let _ = self.free.try_push(place);
            let Some(place) = request.chain else { continue };
            if is_forgotten(&self.forgotten, entry.sequence, &request) {
                continue;
            }
            if let Some(kept) = self.chains.get_mut(usize::from(place)) {
                kept.next = next;
                kept.order = entry.sequence >> PLACE_BITS;
                self.waiting |= 1u32.wrapping_shl(u32::from(place));
            }
        }
    }

    /// Forgets the chains of `queue` or (`None`) of all. However many requests are out, none is looked at: each finds
    /// out when it completes.
    pub fn forget_chains(&mut self, queue: Option<u16>) {
        let Some(queue) = queue else {
            self.chains_used = 0;
            self.waiting = 0;
            self.forgotten = [self.round; QUEUES_MAX];
            return;
        };
        let mut rest = self.chains_used;
        while rest != 0 {
            let place = rest.trailing_zeros();
            rest &= rest.wrapping_sub(1);
            if self.chain(place as u8).is_some_and(|kept| u16::from(kept.queue) == queue) {
                let freed = 1u32.wrapping_shl(place);
                self.chains_used &= !freed;
                self.waiting &= !freed;
            }
        }
        if let Some(forgotten) = self.forgotten.get_mut(usize::from(queue)) {
            *forgotten = self.round;
        }
    }

    /// How many requests are out.
    pub const fn count_out(&self) -> usize {
        self.requests.len().wrapping_sub(self.free.len())
    }

    /// How many chains are kept.
    pub const fn chains_kept(&self) -> u32 {
        self.chains_used.count_ones()
    }

    /// How many requests are out, and how many chains wait for something to be done with them.
    pub const fn count(&self) -> usize {
        self.count_out().saturating_add(self.waiting.count_ones() as usize)
    }
}

/// Whether the queue of `request`, whose number is `sequence`, has forgotten its chains since that went out.
#[inline]
fn is_forgotten(forgotten: &[u64; QUEUES_MAX], sequence: u64, request: &InFlightRequest) -> bool {
    forgotten.get(usize::from(request.queue)).is_some_and(|round| sequence.wrapping_shr(PLACE_BITS) <= *round)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: Run = Run { first: 3, count: 2 };
    const CHAINS: [u8; 3] = [4, 0, 0];

    fn request(chain: Option<u8>) -> InFlightRequest {
        InFlightRequest { queue: 0, chain, readable: 0, writable: 512, run: RUN, is_granted: false, is_last: true }
    }

    fn room(requests: &InFlightRequests, place: u8) -> usize {
        requests.chain(place).unwrap().chain.room()
    }

    #[test]
    fn a_request_completes_once() {
        let mut requests = InFlightRequests::new(128, CHAINS);
        let sequence = requests.insert(request(None)).unwrap();
        assert_eq!(requests.complete(sequence), Some(request(None)));
        assert_eq!(requests.complete(sequence), None);
    }

    #[test]
    fn the_number_of_an_earlier_request_in_the_same_place_is_stale() {
        let mut requests = InFlightRequests::new(128, CHAINS);
        let first = requests.insert(request(None)).unwrap();
        requests.complete(first);
        let second = requests.insert(request(None)).unwrap();
        assert_eq!(first % 128, second % 128);
        assert_eq!(requests.complete(first), None);
        assert!(requests.complete(second).is_some());
    }

    #[test]
    fn no_more_go_out_than_the_ring_holds() {
        let mut requests = InFlightRequests::new(u16::MAX, [0; 3]);
        let all: Vec<_> = core::iter::from_fn(|| requests.insert(request(None))).collect();
        assert_eq!(all.len(), REQUESTS_MAX);
        assert!(!requests.has_room());
        requests.complete(all[77]).unwrap();
        assert!(requests.has_room());
        assert_eq!(requests.count(), 127);
    }

    #[test]
    fn no_more_go_out_than_the_device_is_deep_whether_their_chains_wait_or_not() {
        let mut requests = InFlightRequests::new(2, [2, 0, 0]);
        let mut insert = || {
            let place = requests.take_chain().unwrap();
            let sequence = requests.insert(request(Some(place)));
            requests.forget_chains(None);
            sequence
        };
        let first = insert().unwrap();
        assert!(insert().is_some());
        assert_eq!(insert(), None);
        assert_eq!((requests.has_room(), requests.count()), (false, 2));
        requests.complete(first).unwrap();
        assert!(requests.has_room());
    }

    #[test]
    fn the_oldest_request_of_the_queues_in_question_is_found() {
        let mut requests = InFlightRequests::new(128, CHAINS);
        let numbers: Vec<_> =
            (0..3).filter_map(|queue| requests.insert(InFlightRequest { queue, ..request(None) })).collect();
        requests.complete(numbers[0]);
        // Takes the place of the first, and is the youngest all the same.
        let last = requests.insert(request(None)).unwrap();
        assert_eq!(
            [0b111, 0b001, 0b100, 0].map(|set| requests.oldest(set)),
            [Some(numbers[1]), Some(last), Some(numbers[2]), None]
        );
    }

    #[test]
    fn chains_wait_in_order_and_are_forgotten_with_their_queue() {
        let mut requests = InFlightRequests::new(128, CHAINS);
        let places = [(); 3].map(|()| requests.take_chain().unwrap());
        requests.chain_mut(places[1]).unwrap().queue = 1;
        for (place, next) in [(places[2], Next::Post), (places[1], Next::Fail), (places[0], Next::Replay)] {
            requests.wait(place, next);
        }
        assert_eq!((requests.first_waiting(), requests.count()), (Some((places[2], Next::Post)), 3));
        requests.stop_waiting(places[2]);
        requests.forget_chains(Some(1));
        assert_eq!(requests.first_waiting(), Some((places[0], Next::Replay)));
        assert_eq!(requests.take_chain(), Some(places[1]));
    }

    #[test]
    fn chains_of_a_queue_that_is_gone_are_free_again_and_its_requests_still_complete() {
        let mut requests = InFlightRequests::new(128, [2, 0, 0]);
        let places = [requests.take_chain().unwrap(), requests.take_chain().unwrap()];
        assert_eq!(requests.take_chain(), None);
        requests.chain_mut(places[1]).unwrap().queue = 1;
        let first = requests.insert(request(Some(places[0]))).unwrap();
        let second = requests.insert(InFlightRequest { queue: 1, ..request(Some(places[1])) }).unwrap();
        requests.forget_chains(Some(1));
        assert_eq!(requests.take_chain(), Some(places[1]));
        assert_eq!(requests.complete(second).unwrap().chain, None);
        assert_eq!(requests.complete(first).unwrap().chain, Some(places[0]));
    }

    #[test]
    fn what_goes_out_after_its_queue_was_forgotten_has_its_chain() {
        let mut requests = InFlightRequests::new(128, [2, 0, 0]);
        let old = requests.take_chain().unwrap();
        let first = requests.insert(request(Some(old))).unwrap();
        requests.forget_chains(None);
        // The same place serves again, and only who took it last has it.
        let new = requests.take_chain().unwrap();
        assert_eq!(new, old);
        let second = requests.insert(request(Some(new))).unwrap();
        let third = requests.insert(InFlightRequest { queue: 1, ..request(Some(old)) }).unwrap();
        requests.forget_chains(Some(1));
        assert_eq!(requests.complete(first).unwrap().chain, None);
        let mut ended = Vec::new();
        for step in 0..INTERRUPT_STEPS {
            requests.interrupt(step, |request| {
                ended.push(request.queue);
                Next::Replay
            });
        }
        assert_eq!((ended, requests.first_waiting()), ([0, 1].into(), Some((new, Next::Replay))));
        assert_eq!((requests.complete(second), requests.complete(third)), (None, None));
    }

    #[test]
    fn a_chain_that_is_too_long_finds_a_longer_place_and_short_ones_take_what_is_free() {
        let mut requests = InFlightRequests::new(128, [2, 1, 1]);
        let short = requests.take_chain().unwrap();
        requests.chain_mut(short).unwrap().queue = 7;
        let longer = requests.lengthen(short).unwrap().unwrap();
        let longest = requests.lengthen(longer).unwrap().unwrap();
        assert_eq!([short, longer, longest].map(|place| room(&requests, place)), CHAIN_ROOM);
        assert_eq!(requests.chain(longest).unwrap().queue, 7);
        assert_eq!(requests.lengthen(longest), Err(TooLong));
        // What was left is free, and what finds no room leaves its place, too.
        let rest: Vec<_> = core::iter::from_fn(|| requests.take_chain()).collect();
        assert_eq!(rest, [short, 1, longer]);
        assert_eq!(requests.lengthen(longer), Ok(None));
        assert_eq!(requests.take_chain(), Some(longer));
    }
}
