//! The requests that are out, and the chains that wait for them: what EL2 wrote down about each when it posted it.

use super::QUEUES_MAX;
use super::room::{Room, SharedRoom, UNITS, Units};
use super::window::Run;
use crate::virtqueue::{Buffers, Chain, Cursor, SEGMENTS_MAX, Segment};
use abi::io::{HEADER_SIZE_MAX, RING_ENTRIES};
use alloc::boxed::Box;
use alloc::vec;
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
    /// What is known of it.
    pub chain: Chain,
    /// Where its buffers are.
    pub room: Room,
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

impl KeptChain {
    /// A place for a chain.
    fn new() -> Self {
        Self {
            chain: Chain::NONE,
            room: Room::new(),
            header: [0; HEADER_SIZE_MAX],
            queue: 0,
            position: 0,
            start: Cursor::default(),
            written: 0,
            next: Next::Post,
            order: 0,
        }
    }
}

/// Other chains have the room for a chain's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom;

/// The queue whose chain has found no room for its buffers. As long as others have some, no further one gets any: else
/// they could take what it waits for, each time.
#[derive(Clone, Copy, Default)]
struct Starved {
    /// Its bit; 0 where there is none.
    queue: u8,
    /// So many units of room were too few: it is not walked again for no more.
    units: u8,
}

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
    chains: Box<[KeptChain]>,
    /// The room for those of them that are long.
    shared: SharedRoom,
    starved: Starved,
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
    /// how many chains can be kept, [`CHAINS_MAX`] at most.
    pub fn new(depth: u16, chains: u8) -> Self {
        let depth = usize::from(depth).min(REQUESTS_MAX);
        let requests = vec![Place { sequence: 0, request: None }; depth].into_boxed_slice();
        let chains = (0..usize::from(chains).min(CHAINS_MAX)).map(|_| KeptChain::new()).collect();
        Self {
            requests,
            free: (0..depth as u8).rev().collect(),
            round: 0,
            forgotten: [0; QUEUES_MAX],
            chains,
            shared: Box::new([Segment::EMPTY; SEGMENTS_MAX]),
            starved: Starved::default(),
            chains_used: 0,
            waiting: 0,
        }
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

    /// Takes a place for a chain of `queue`.
    #[inline]
    pub fn take_chain(&mut self, queue: u16) -> Option<(u8, &mut KeptChain)> {
        let place = (!self.chains_used).trailing_zeros();
        let kept = self.chains.get_mut(place as usize)?;
        kept.queue = queue as u8;
        kept.room.own();
        self.chains_used |= 1u32.wrapping_shl(place);
        Some((place as u8, kept))
    }

    /// Whether the chain in `place` has room for no further buffer.
    pub fn is_full(&self, place: u8) -> bool {
        self.chain(place).is_some_and(|kept| kept.chain.segments() as usize == kept.room.segments(&self.shared).len())
    }

    /// Gives the chain in `place`, which has none left, room for more buffers, if there can be more.
    ///
    /// # Errors
    /// [`NoRoom`] if others have it; the place is free then.
    #[cold]
    #[inline(never)]
    pub fn lengthen(&mut self, place: u8) -> Result<(), NoRoom> {
        self.free_chain(place);
        let free = self.free_units();
        let kept = self.chains.get_mut(usize::from(place)).ok_or(NoRoom)?;
        let (queue, had) = (bit(kept.queue), kept.room.units());
        let least = match self.starved.queue {
            0 => 0,
            starved if starved == queue => self.starved.units,
            // All of the room has to be free.
            _ => const { UNITS - 1 },
        };
        if !kept.room.lengthen(&mut self.shared, free, least) {
            if self.starved.queue & !queue == 0 {
                self.starved = Starved { queue, units: had.max(least) };
            }
            return Err(NoRoom);
        }
        self.chains_used |= 1u32.wrapping_shl(place.into());
        Ok(())
    }

    /// A long chain of `queue` has found room.
    pub const fn feed(&mut self, queue: u8) {
        self.starved.queue &= !bit(queue);
    }

    /// The shared room that no chain has.
    fn free_units(&self) -> Units {
        let (mut free, mut rest) = (Units::ALL, self.chains_used);
        while let Some(kept) = self.chains.get(rest.trailing_zeros() as usize) {
            free = free.without(&kept.room);
            rest &= rest.wrapping_sub(1);
        }
        free
    }

    /// The queue that is to be looked at before others, since its chain found too little room: a bit.
    #[inline]
    pub const fn starved(&self) -> u8 {
        self.starved.queue
    }

    /// The chain in `place`.
    #[inline]
    pub fn chain(&self, place: u8) -> Option<&KeptChain> {
        self.chains.get(usize::from(place))
    }

    /// The buffers of `kept`.
    #[inline]
    pub fn buffers<'a>(&'a self, kept: &'a KeptChain) -> Buffers<'a> {
        kept.chain.buffers(kept.room.segments(&self.shared))
    }

    /// The chain in `place`, to be filled, and the room that is shared.
    #[inline]
    pub fn chain_mut(&mut self, place: u8) -> Option<(&mut KeptChain, &mut SharedRoom)> {
        Some((self.chains.get_mut(usize::from(place))?, &mut self.shared))
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
        if let Some(kept) = self.chains.get_mut(usize::from(place)) {
            kept.next = next;
            kept.order = order;
            self.waiting |= 1u32.wrapping_shl(u32::from(place));
        }
    }

    /// Has the chain in `place` wait for `next` to be done with it, before those that wait already.
    pub fn wait_first(&mut self, place: u8, next: Next) {
        self.wait(place, next);
        if let Some((kept, _)) = self.chain_mut(place) {
            kept.order = 0;
        }
    }

    /// Whether a chain waits for something to be done with it.
    #[inline]
    pub const fn is_any_waiting(&self) -> bool {
        self.waiting != 0
    }

    /// What is to be done with the chain in `place`, if it waits for something.
    pub fn waiting(&self, place: u8) -> Option<(u8, Next)> {
        let is_waiting = self.waiting & 1u32.wrapping_shl(place.into()) != 0;
        self.chain(place).filter(|_| is_waiting).map(|kept| (place, kept.next))
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
            self.starved.queue = 0;
            self.forgotten = [self.round; QUEUES_MAX];
            return;
        };
        self.feed(queue as u8);
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

/// The bit of `queue`.
#[inline]
const fn bit(queue: u8) -> u8 {
    1u8.wrapping_shl(queue as u32)
}

/// Whether the queue of `request`, whose number is `sequence`, has forgotten its chains since that went out.
#[inline]
fn is_forgotten(forgotten: &[u64; QUEUES_MAX], sequence: u64, request: &InFlightRequest) -> bool {
    forgotten.get(usize::from(request.queue)).is_some_and(|round| sequence.wrapping_shr(PLACE_BITS) <= *round)
}

#[cfg(test)]
mod tests;
