//! The way out: chains of the frontend become requests to the backend.

use super::super::channel::RingCorrupt;
use super::super::counters::add;
use super::super::in_flight::{InFlightRequest, InFlightRequests, KeptChain, Next};
use super::outage::BackendState;
use super::partial::{Direction, Partial, PartialRequest, Progress, Taken, Waiting, copy};
use super::{Budget, MemoryPair, Outcome, ProtocolError, Service, bit, offset_of};
use crate::virtqueue::{Cursor, QueueError};
use abi::io::{LongChains, QueueDescription, Request, WINDOW_PAGE_SIZE};
use vdev::GuestMemory;

/// A request for more bytes than these is posted after a look whether an interrupt is pending. One for fewer takes no
/// longer from its store to its doorbell than others from there on.
const SMALL_MAX: u32 = 1 << 10;

/// What became of a look at a queue.
enum Step {
    Posted,
    /// A chain was taken, and its data have been moved in part.
    Interrupted,
    /// A chain was found in part.
    Walking,
    Used,
    Blocked,
    Empty,
}

/// What becomes of a chain.
enum Fate {
    /// It waits for the backend.
    Posted,
    /// It goes back with nothing written.
    GiveBack,
    /// It goes back with the tail of a chain that fails.
    Fail,
    /// There is no room now.
    NoRoom,
    /// Its data has been moved in part: the next call goes on.
    Interrupted,
}

/// Which piece of a chain is to be posted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The first, of a chain that was just taken.
    First,
    /// The next one, or the same again.
    Next,
}

/// The part of a chain that one request is about.
#[derive(Clone, Copy)]
struct Piece {
    readable: u32,
    writable: u32,
    is_last: bool,
    is_granted: bool,
}

impl Service {
    /// Posts the chains of queue `index` to the backend.
    pub(super) fn serve<M: GuestMemory>(
        &mut self,
        index: u16,
        memories: &MemoryPair<'_, M>,
    ) -> Result<Outcome, ProtocolError> {
        let mut budget = self.budget();
        if self.backend != BackendState::Serving || self.in_flight.is_any_waiting() {
            let mut outcome = Outcome::default();
            if !self.catch_up(index, &mut budget, memories, &mut outcome)? {
                return Ok(outcome);
            }
        }
        loop {
            if self.is_over(&budget, memories) {
                return Ok(self.defer(index));
            }
            budget.chains = budget.chains.wrapping_add(1);
            match self.serve_one(index, memories)? {
                Step::Posted | Step::Used => self.counters.count(index, |queue| add(&mut queue.chains, 1)),
                Step::Interrupted => {
                    self.counters.count(index, |queue| add(&mut queue.chains, 1));
                    return Ok(self.defer(index));
                }
                Step::Walking => return Ok(self.defer(index)),
                Step::Blocked => {
                    self.block(index);
                    break;
                }
                Step::Empty => {}
            }
            let Some(queue) = self.queue(index) else { break };
            if queue.has_taken_all() && !queue.enable_notifications(memories.frontend)? {
                break;
            }
        }
        Ok(Outcome::default())
    }

    /// Takes one chain of queue `index`, if there is one and room for it.
    #[inline]
    fn serve_one<M: GuestMemory>(&mut self, index: u16, memories: &MemoryPair<'_, M>) -> Result<Step, ProtocolError> {
        if !self.in_flight.has_room() {
            return Ok(Step::Blocked);
        }
        let place = match self.take_next(index, None, memories)? {
            Taken::Chain(place) => place,
            Taken::Nothing => return Ok(Step::Empty),
            Taken::NoRoom => return Ok(Step::Blocked),
            Taken::Part(place) => {
                self.interrupt(Partial::Walk { place });
                return Ok(Step::Walking);
            }
        };
        let fate = self.post(index, place, Turn::First, memories);
        match fate {
            Ok(Fate::Posted) => Ok(Step::Posted),
            Ok(Fate::Interrupted) => {
                // It is the only one: none is taken while others wait.
                self.in_flight.wait(place, Next::Post);
                Ok(Step::Interrupted)
            }
            Ok(Fate::GiveBack) => {
                self.in_flight.free_chain(place);
                let head = self.in_flight.chain(place).map_or(0, |kept| kept.chain.head);
                self.used |= bit(index);
                if let Some(queue) = self.queue(index) {
                    queue.push_used(memories.frontend, head, 0)?;
                }
                Ok(Step::Used)
            }
            Ok(Fate::Fail) => self.fail_and_free(place, memories).map(|()| Step::Used),
            Ok(Fate::NoRoom) => {
                self.in_flight.free_chain(place);
                let head = self.in_flight.chain(place).map_or(0, |kept| kept.chain.head);
                if let Some(queue) = self.queue(index) {
                    queue.put_back(head);
                }
                Ok(Step::Blocked)
            }
            Err(error) => {
                self.in_flight.free_chain(place);
                Err(error)
            }
        }
    }

    /// Takes the header of the chain in `place`, which was just taken. Returns whether it has one, and room for a tail.
    #[inline]
    fn begin<M: GuestMemory>(
        &mut self,
        index: u16,
        place: u8,
        memories: &MemoryPair<'_, M>,
    ) -> Result<bool, ProtocolError> {
        let QueueDescription { header_size, tail_size, .. } = *self.policy(index);
        let Some((kept, shared)) = self.in_flight.chain_mut(place) else { return Ok(false) };
        kept.position = 0;
        kept.written = 0;
        let readable = kept.chain.readable_bytes();
        if readable < u64::from(header_size) || kept.chain.writable_bytes() < u64::from(tail_size) {
            return Ok(false);
        }
        let is_given = readable > u64::from(header_size);
        kept.start = Cursor::at(if is_given { u64::from(header_size) } else { 0 });
        kept.header = [0; abi::io::HEADER_SIZE_MAX];
        if let Some(header) = kept.header.get_mut(..usize::from(header_size)).filter(|header| !header.is_empty()) {
            let buffers = kept.chain.buffers(kept.room.segments(shared));
            buffers.read(memories.frontend, 0, header).map_err(QueueError::from)?;
        }
        Ok(true)
    }

    /// Posts a piece of the chain in `place`, or goes on with it where its data have been moved in part.
    fn post<M: GuestMemory>(
        &mut self,
        index: u16,
        place: u8,
        turn: Turn,
        memories: &MemoryPair<'_, M>,
    ) -> Result<Fate, ProtocolError> {
        if turn == Turn::First && !self.begin(index, place, memories)? {
            return Ok(Fate::Fail);
        }
        let begun = if self.partial.is_some() { self.take_begun(place) } else { None };
        let mut progress = Progress::default();
        let request = match begun {
            Some((request, so_far)) => {
                progress = so_far;
                request
            }
            None => match self.next_request(index, place, &mut progress) {
                Ok(request) => {
                    let is_large = request.readable | request.writable > SMALL_MAX;
                    if is_large && memories.backend.has_pending_interrupt() {
                        self.interrupt(Partial::Request(PartialRequest { place, request, progress, completion: None }));
                        return Ok(Fate::Interrupted);
                    }
                    request
                }
                Err(fate) => return Ok(fate),
            },
        };
        let InFlightRequest { readable, writable, run, is_granted, .. } = request;
        if let Err(error) = self.lay_out(place, &request, &mut progress, memories) {
            self.window.give_back(run);
            return Err(error);
        }
        if progress.bytes < if is_granted { readable | writable } else { readable } {
            self.interrupt(Partial::Request(PartialRequest { place, request, progress, completion: None }));
            return Ok(Fate::Interrupted);
        }
        let Some(sequence) = self.in_flight.insert(request) else {
            self.window.give_back(run);
            return Ok(Fate::NoRoom);
        };
        self.send(sequence, place, &request, progress.segments, memories)?;
        self.counters.count(index, |queue| {
            add(&mut queue.requests, 1);
            if is_granted {
                add(&mut queue.grants, 1);
                add(&mut queue.bytes, u64::from(readable).wrapping_add(u64::from(writable)));
            }
        });
        // What was copied out is the frontend's again at once; what is to come in has to wait.
        Ok(if request.chain.is_none() { Fate::GiveBack } else { Fate::Posted })
    }

    /// The request for the next piece of the chain in `place`, with pages of the window; or what becomes of the chain
    /// where there is none. `progress` is where it begins.
    #[inline]
    fn next_request(&mut self, index: u16, place: u8, progress: &mut Progress) -> Result<InFlightRequest, Fate> {
        let policy = self.policy(index);
        let returns_early = policy.returns_early;
        let Some(kept) = self.in_flight.chain(place) else { return Err(Fate::NoRoom) };
        let Some(piece) = next_piece(policy, kept, &self.in_flight, self.may_grant) else { return Err(Fate::Fail) };
        let Piece { readable, writable, is_last, is_granted } = piece;
        progress.cursor = kept.start;
        if readable | writable == 0 && policy.header_size | policy.tail_size == 0 {
            return Err(Fate::GiveBack);
        }
        let bytes = u64::from(Request::writable_offset(readable)).wrapping_add(u64::from(writable));
        let pages = if is_granted { 1 } else { bytes.div_ceil(WINDOW_PAGE_SIZE) as u16 };
        let Some(run) = self.window.take(pages) else { return Err(Fate::NoRoom) };
        let chain = (!(returns_early && is_last)).then_some(place);
        Ok(InFlightRequest { queue: index as u8, chain, readable, writable, run, is_granted, is_last })
    }

    /// The chain that waits and comes first: the one that was interrupted, which has what others may wait for; else the
    /// one that has waited longest.
    fn first_waiting(&self) -> Option<(u8, Next)> {
        let interrupted = self.partial.as_ref().and_then(|partial| self.in_flight.waiting(partial.place()));
        interrupted.or_else(|| self.in_flight.first_waiting())
    }

    /// Goes on with the chains that wait for something to be done with them, in their order.
    #[cold]
    #[inline(never)]
    pub(super) fn serve_waiting<M: GuestMemory>(
        &mut self,
        budget: &mut Budget,
        memories: &MemoryPair<'_, M>,
    ) -> Result<Waiting, ProtocolError> {
        while let Some((place, next)) = self.first_waiting() {
            if self.backend == BackendState::Away {
                return Ok(Waiting::NoRoom);
            }
            if self.is_over(budget, memories) {
                return Ok(Waiting::Over);
            }
            budget.chains = budget.chains.wrapping_add(1);
            let Some(index) = self.in_flight.chain(place).map(|kept| u16::from(kept.queue)) else { break };
            let fate = match next {
                Next::Walk => {
                    self.in_flight.stop_waiting(place);
                    self.partial = None;
                    match self.take_next(index, Some(place), memories)? {
                        Taken::Chain(_) => {}
                        Taken::Part(place) => {
                            self.interrupt(Partial::Walk { place });
                            return Ok(Waiting::Over);
                        }
                        Taken::NoRoom | Taken::Nothing => {
                            self.block(index);
                            return Ok(Waiting::NoRoom);
                        }
                    }
                    self.counters.count(index, |queue| add(&mut queue.chains, 1));
                    self.in_flight.wait(place, Next::Post);
                    match self.backend {
                        BackendState::Serving => self.post(index, place, Turn::First, memories),
                        BackendState::Away | BackendState::Absent | BackendState::Gone => Ok(Fate::Fail),
                    }
                }
                Next::Post | Next::Replay if !self.in_flight.has_room() => return Ok(Waiting::NoRoom),
                Next::Post | Next::Replay if self.backend == BackendState::Serving => {
                    self.post(index, place, Turn::Next, memories)
                }
                Next::CopyIn => {
                    // First off the list: it may come to wait for its next piece.
                    self.in_flight.stop_waiting(place);
                    self.copy_on(place, memories)?;
                    if self.partial.is_some() {
                        return Ok(Waiting::Over);
                    }
                    continue;
                }
                Next::Drop => Ok(Fate::GiveBack),
                Next::Post | Next::Replay | Next::Fail => Ok(Fate::Fail),
            };
            match fate {
                Ok(Fate::NoRoom) => return Ok(Waiting::NoRoom),
                Ok(Fate::Interrupted) => return Ok(Waiting::Over),
                Ok(Fate::Posted | Fate::GiveBack | Fate::Fail) | Err(_) => {}
            }
            // First off the list, so that an error cannot repeat it.
            self.in_flight.stop_waiting(place);
            let result = match fate {
                Ok(Fate::Posted) => {
                    if next == Next::Replay {
                        self.counters.count(index, |queue| add(&mut queue.replays, 1));
                    }
                    continue;
                }
                Ok(Fate::GiveBack) => self.give_back(place, memories),
                Ok(Fate::Fail | Fate::NoRoom | Fate::Interrupted) => self.fail(place, memories),
                Err(error) => Err(error),
            };
            self.in_flight.free_chain(place);
            result?;
        }
        // What came last may have taken long.
        Ok(if self.is_over(budget, memories) { Waiting::Over } else { Waiting::Done })
    }

    /// Prepares the window for `request`, the next piece of the chain in `place`, from where `progress` says on, which
    /// says how far that went then.
    #[inline]
    fn lay_out<M: GuestMemory>(
        &mut self,
        place: u8,
        request: &InFlightRequest,
        progress: &mut Progress,
        memories: &MemoryPair<'_, M>,
    ) -> Result<(), ProtocolError> {
        if request.is_granted {
            return self.grant(place, request, progress, memories);
        }
        if request.readable == 0 {
            return Ok(());
        }
        let Some(kept) = self.in_flight.chain(place) else { return Ok(()) };
        let at = self.channel.at(offset_of(self.channel.layout(), request.run));
        let before = progress.bytes;
        copy(self.in_flight.buffers(kept).readable(), progress, request.readable, at, Direction::Out, memories)?;
        let more = u64::from(progress.bytes.wrapping_sub(before));
        match progress.bytes < request.readable {
            true => self.counters.count_part(u16::from(request.queue), more),
            false => self.counters.count_copy(u16::from(request.queue), more),
        }
        Ok(())
    }

    /// Puts a request into the ring.
    #[inline]
    fn send<M: GuestMemory>(
        &mut self,
        sequence: u64,
        place: u8,
        request: &InFlightRequest,
        segments: u16,
        memories: &MemoryPair<'_, M>,
    ) -> Result<(), RingCorrupt> {
        self.grants_out = self.grants_out.saturating_add(u16::from(request.is_granted));
        let Some(kept) = self.in_flight.chain(place) else { return Ok(()) };
        let entry = Request {
            sequence,
            session: self.state.session,
            generation: self.channel.generation(),
            queue: u16::from(request.queue),
            is_last: request.is_last,
            segments,
            readable: request.readable,
            writable: request.writable,
            offset: offset_of(self.channel.layout(), request.run) as u32,
            position: kept.position,
            header: kept.header,
        };
        self.channel.post(memories.backend, &entry)
    }
}

/// The next piece of a chain; `None` if there is none that its queue takes.
#[inline]
fn next_piece(
    policy: &QueueDescription,
    kept: &KeptChain,
    in_flight: &InFlightRequests,
    may_grant: bool,
) -> Option<Piece> {
    let readable = kept.chain.readable_bytes().checked_sub(u64::from(policy.header_size))?;
    let writable = match policy.returns_early {
        true => 0,
        false => kept.chain.writable_bytes().checked_sub(u64::from(policy.tail_size))?,
    };
    if readable != 0 && writable != 0 {
        let bytes = u64::from(Request::ALIGNMENT).saturating_add(readable).saturating_add(writable);
        // It has one piece.
        let fits = bytes <= u64::from(policy.size_max) && kept.position == 0;
        return fits.then_some(Piece {
            readable: readable as u32,
            writable: writable as u32,
            is_last: true,
            is_granted: false,
        });
    }
    let rest = (readable | writable).checked_sub(kept.position)?;
    let granted = match policy.grant_min {
        Some(least) if may_grant && rest >= u64::from(least) => {
            let bytes = super::granting::length(policy, kept, in_flight, readable != 0, rest);
            bytes.filter(|bytes| *bytes >= u64::from(least))
        }
        Some(_) | None => None,
    };
    let limit = u64::from(policy.size_max);
    let (length, is_last) = match (granted, policy.long_chains) {
        (Some(bytes), _) => (bytes, bytes == rest),
        (None, _) if rest <= limit => (rest, true),
        (None, LongChains::Refuse) => return None,
        (None, LongChains::Cut) => (limit, true),
        (None, LongChains::Split) => (limit & !u64::from(policy.piece_unit.wrapping_sub(1)), false),
    };
    let length = length as u32;
    let (readable, writable) = if readable != 0 { (length, 0) } else { (0, length) };
    Some(Piece { readable, writable, is_last, is_granted: granted.is_some() })
}
