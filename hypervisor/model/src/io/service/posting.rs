//! The way out: chains of the client become requests to the driver domain.

use super::super::block::{self, Plan};
use super::super::channel::Forged;
use super::super::counters::add;
use super::super::flights::{Flight, TooLong, Waiter};
use super::super::network;
use super::outage::Provider;
use super::{
    BYTES_MAX, Broken, CHAINS_MAX, DESCRIPTORS_MAX, Outcome, RANDOM_SIZE_MAX, Service, ServiceKind, Wires, bit,
    offset_of,
};
use crate::virtqueue::QueueError;
use abi::io::{Operation, Request, WINDOW_PAGE_SIZE};
use vdev::{GuestAddr, GuestMemory};

/// What became of a look at a queue.
enum Step {
    Posted,
    Used,
    Stalled,
    Empty,
}

/// What becomes of a chain.
enum Next {
    /// It waits for the driver domain.
    Post,
    /// It goes back with so many bytes written.
    GiveBack(u32),
    /// There is no room now.
    PutBack,
}

/// A request before it has a number and pages.
struct Order {
    operation: Operation,
    sector: u64,
    length: u32,
    /// Bytes of header before the data in the readable part.
    skip: u64,
    waiter: Waiter,
}

impl Service {
    /// Posts the chains of queue `index` to the driver domain.
    pub(super) fn serve<M: GuestMemory>(&mut self, index: u16, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        let mut outcome = Outcome::default();
        if self.provider != Provider::Serving && !self.catch_up(index, wires, &mut outcome)? {
            return Ok(outcome);
        }
        let (mut chains, copied_before, descriptors_before) = (0, self.counters.copied, self.descriptors);
        loop {
            let copied = self.counters.copied.wrapping_sub(copied_before);
            let descriptors = self.descriptors.wrapping_sub(descriptors_before);
            if chains == CHAINS_MAX || copied >= u64::from(BYTES_MAX) || descriptors >= DESCRIPTORS_MAX {
                return Ok(self.put_off(index));
            }
            chains = chains.wrapping_add(1);
            match self.serve_one(index, wires)? {
                Step::Posted => self.counters.count(index, |queue| add(&mut queue.chains, 1)),
                Step::Used => {
                    self.counters.count(index, |queue| add(&mut queue.chains, 1));
                    self.used |= bit(index);
                }
                Step::Stalled => {
                    self.stall(index);
                    break;
                }
                Step::Empty => {}
            }
            let Some(queue) = self.queue(index) else { break };
            if queue.has_taken_all() && !queue.enable_notifications(wires.client)? {
                break;
            }
        }
        Ok(outcome)
    }

    /// Takes one chain of queue `index`, if there is one and room for it.
    #[inline]
    fn serve_one<M: GuestMemory>(&mut self, index: u16, wires: &Wires<'_, M>) -> Result<Step, Broken> {
        let Some(Some(queue)) = self.queues.get_mut(usize::from(index)) else { return Ok(Step::Empty) };
        if !self.flights.has_room() {
            return Ok(Step::Stalled);
        }
        let Some(mut place) = self.flights.take_chain() else { return Ok(Step::Stalled) };
        let head = loop {
            let Some(chain) = self.flights.chain_mut(place) else { return Ok(Step::Stalled) };
            match queue.pop(wires.client, chain) {
                Ok(true) => {
                    self.descriptors = self.descriptors.wrapping_add(chain.looked_at());
                    break chain.head;
                }
                Ok(false) => {
                    self.flights.free_chain(place);
                    return Ok(Step::Empty);
                }
                Err(QueueError::ChainTooLong) => {
                    // Nothing was taken. Each turn ends in a longer place, of which there are few kinds.
                    self.descriptors = self.descriptors.wrapping_add(chain.looked_at());
                    self.flights.free_chain(place);
                    match self.flights.take_longer_chain(place) {
                        Ok(Some(longer)) => place = longer,
                        Ok(None) => return Ok(Step::Stalled),
                        Err(TooLong) => return Err(QueueError::ChainTooLong.into()),
                    }
                }
                Err(error) => {
                    self.flights.free_chain(place);
                    return Err(error.into());
                }
            }
        };
        let step = self.dispatch(index, place, wires);
        match step {
            Ok(Next::Post) => Ok(Step::Posted),
            Ok(Next::GiveBack(written)) => {
                self.flights.free_chain(place);
                if let Some(queue) = self.queue(index) {
                    queue.push_used(wires.client, head, written)?;
                }
                Ok(Step::Used)
            }
            Ok(Next::PutBack) => {
                self.flights.free_chain(place);
                if let Some(queue) = self.queue(index) {
                    queue.put_back(head);
                }
                Ok(Step::Stalled)
            }
            Err(broken) => {
                self.flights.free_chain(place);
                Err(broken)
            }
        }
    }

    /// Decides what becomes of the chain in `place` and does it.
    #[inline]
    fn dispatch<M: GuestMemory>(&mut self, index: u16, place: u8, wires: &Wires<'_, M>) -> Result<Next, Broken> {
        let Some(chain) = self.flights.chain(place) else { return Ok(Next::PutBack) };
        let waiter = Waiter::Chain { queue: index, place };
        let order = match self.kind {
            ServiceKind::Block => match block::plan(chain, wires.client, &self.disk).map_err(QueueError::from)? {
                Plan::Answered(written) => return Ok(Next::GiveBack(written)),
                Plan::Post { operation, sector, length } => {
                    Order { operation, sector, length, skip: block::HEADER_SIZE, waiter }
                }
            },
            ServiceKind::Network => match network::frame(chain, wires.client).map_err(QueueError::from)? {
                Some(frame) => Order {
                    operation: Operation::Transmit,
                    sector: frame.checksum,
                    length: frame.length,
                    skip: network::HEADER_SIZE,
                    waiter: Waiter::Nobody,
                },
                None => {
                    self.counters.count(index, |queue| add(&mut queue.dropped, 1));
                    return Ok(Next::GiveBack(0));
                }
            },
            ServiceKind::Console => Order {
                operation: Operation::Print,
                sector: 0,
                length: chain.readable_bytes().min(self.text_size_max) as u32,
                skip: 0,
                waiter: Waiter::Nobody,
            },
            ServiceKind::Entropy => Order {
                operation: Operation::Random,
                sector: 0,
                length: chain.writable_bytes().min(RANDOM_SIZE_MAX) as u32,
                skip: 0,
                waiter,
            },
        };
        if order.length == 0 && matches!(order.operation, Operation::Print | Operation::Random) {
            return Ok(Next::GiveBack(0));
        }
        self.post(index, place, &order, wires)
    }

    /// Copies what goes out, or grants it, and posts the request.
    #[inline]
    fn post<M: GuestMemory>(
        &mut self,
        queue: u16,
        place: u8,
        order: &Order,
        wires: &Wires<'_, M>,
    ) -> Result<Next, Broken> {
        let Order { operation, sector, length, waiter, skip } = *order;
        let is_granted = self.is_grant(operation, length);
        let pages = match operation {
            Operation::Flush | Operation::Discard | Operation::WriteZeroes => 0,
            Operation::Read | Operation::Write if is_granted => 1,
            Operation::Read
            | Operation::Write
            | Operation::Transmit
            | Operation::Print
            | Operation::Random
            | Operation::Identify => u64::from(length).div_ceil(WINDOW_PAGE_SIZE) as u16,
        };
        let Some(run) = self.window.take(pages) else { return Ok(Next::PutBack) };
        let flight = Flight { operation, sector, length, run, is_granted, waiter };
        let segments = match self.lay_out(queue, place, &flight, skip, wires) {
            Ok(segments) => segments,
            Err(broken) => {
                self.window.give_back(run);
                return Err(broken);
            }
        };
        let Some(sequence) = self.flights.depart(flight) else {
            self.window.give_back(run);
            return Ok(Next::PutBack);
        };
        self.send(sequence, &flight, segments, wires)?;
        self.counters.count(queue, |queue| {
            add(&mut queue.requests, 1);
            if is_granted {
                add(&mut queue.grants, 1);
                add(&mut queue.bytes, u64::from(length));
            }
        });
        // What was copied out is the client's again at once; what is to come in has to wait.
        Ok(if order.waiter == Waiter::Nobody { Next::GiveBack(0) } else { Next::Post })
    }

    /// Prepares the window for a request whose chain is in `place`, with `skip` bytes of header before what goes out.
    /// Gives the number of segments that were granted, 0 for none.
    #[inline]
    pub(super) fn lay_out<M: GuestMemory>(
        &mut self,
        queue: u16,
        place: u8,
        flight: &Flight,
        skip: u64,
        wires: &Wires<'_, M>,
    ) -> Result<u16, Broken> {
        match flight.operation {
            Operation::Read | Operation::Write if flight.is_granted => self.grant(place, flight, skip, wires),
            Operation::Write | Operation::Transmit | Operation::Print => {
                self.copy_out(queue, place, flight, skip, wires).map(|()| 0)
            }
            Operation::Read
            | Operation::Flush
            | Operation::Discard
            | Operation::WriteZeroes
            | Operation::Random
            | Operation::Identify => Ok(0),
        }
    }

    /// Copies the data of a request from the chain in `place`, behind `skip` bytes of header, into the window.
    #[inline]
    fn copy_out<M: GuestMemory>(
        &mut self,
        queue: u16,
        place: u8,
        flight: &Flight,
        skip: u64,
        wires: &Wires<'_, M>,
    ) -> Result<(), Broken> {
        let Some(chain) = self.flights.chain(place) else { return Ok(()) };
        let mut at = self.channel.at(offset_of(flight.run));
        for segment in chain.readable_range(skip, u64::from(flight.length)) {
            let copied = wires.client.copy_to(segment.address, wires.provider, at, segment.length);
            copied.map_err(QueueError::from)?;
            at = GuestAddr(at.0.wrapping_add(u64::from(segment.length)));
        }
        self.counters.count_copy(queue, u64::from(flight.length));
        Ok(())
    }

    /// Puts a request into the ring.
    #[inline]
    pub(super) fn send<M: GuestMemory>(
        &mut self,
        sequence: u64,
        flight: &Flight,
        segments: u16,
        wires: &Wires<'_, M>,
    ) -> Result<(), Forged> {
        self.grants_out = self.grants_out.saturating_add(u16::from(flight.is_granted));
        let request = Request {
            sequence,
            sector: flight.sector,
            generation: self.channel.generation(),
            offset: offset_of(flight.run) as u32,
            length: flight.length,
            operation: flight.operation as u16,
            segments,
        };
        self.channel.post(wires.provider, &request)
    }
}
