//! One para-virtual device between its client's queues and its channel.
//!
//! Work at one go is bounded: so many chains, so many bytes. What is left over is reported in [`Outcome::again`], and
//! whoever called calls again, in the time of the virtual CPU that asked for it.

use super::block::{self, Disk, Plan};
use super::channel::{Channel, Forged};
use super::flights::{Flight, Flights, Waiter};
use super::network;
use super::window::{Run, Window};
use crate::virtqueue::{Features, QueueError, Virtqueue};
use abi::io::{self, Completion, Operation, REQUEST_WINDOW, Request, Status, WINDOW_PAGE_SIZE};
use vdev::{GuestAddr, GuestMemory, QueueLayout};

/// The most queues of a device.
pub const QUEUES_MAX: usize = 8;
/// The most chains that are served at one go, and bytes that are copied.
const CHAINS_MAX: u32 = 32;
const BYTES_MAX: u32 = 256 << 10;
/// The most completions that are taken at one go, and receptions.
const COMPLETIONS_MAX: u32 = 64;
const RECEPTIONS_MAX: u32 = 64;
/// How many block requests wait for the driver domain at a time: each keeps its chain.
const BLOCK_DEPTH: usize = 32;
/// How many requests for random bytes do.
const ENTROPY_DEPTH: usize = 4;
/// The most bytes of one entropy request: a device may give less than it is asked for.
const RANDOM_SIZE_MAX: u64 = WINDOW_PAGE_SIZE;
/// The queue that a device with two receives in (VIRTIO 1.2, 5.1.2, 5.3.2).
const RECEIVE_QUEUE: u16 = 0;
/// The most chains that one frame is spread over.
const MERGED_MAX: usize = 4;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// A disk.
    Block,
    /// A network card.
    Network,
    /// A console.
    Console,
    /// A source of random numbers.
    Entropy,
}

/// Whose memory the two sides are.
pub struct Wires<'a, M> {
    /// The client's.
    pub client: &'a M,
    /// The driver domain's.
    pub provider: &'a M,
}

/// What the caller has to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Ring the driver domain's doorbell.
    pub doorbell: bool,
    /// Raise the client's interrupt: used buffers.
    pub interrupt: bool,
    /// Call again: there is more to do.
    pub again: bool,
}

impl Outcome {
    fn add(&mut self, other: Self) {
        self.doorbell |= other.doorbell;
        self.interrupt |= other.interrupt;
        self.again |= other.again;
    }
}

/// Who broke the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// The client: its device needs a reset.
    Client(QueueError),
    /// The driver domain.
    Provider,
}

impl From<QueueError> for Broken {
    fn from(error: QueueError) -> Self {
        Self::Client(error)
    }
}

impl From<Forged> for Broken {
    fn from(_: Forged) -> Self {
        Self::Provider
    }
}

/// What happened, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Chains that were posted to the driver domain.
    pub requests: u64,
    /// Bytes copied, both ways.
    pub bytes: u64,
    /// Notifications by the client.
    pub kicks: u64,
    /// Times that the driver domain's doorbell was rung.
    pub doorbells: u64,
    /// Times that the client was to be interrupted.
    pub interrupts: u64,
    /// Completions and receptions that no request or slot belonged to.
    pub forged: u64,
    /// Frames and characters dropped.
    pub dropped: u64,
    /// Requests posted again to a driver domain that was restarted.
    pub replays: u64,
}

/// A para-virtual device.
pub struct Service {
    kind: ServiceKind,
    channel: Channel,
    window: Window,
    /// The most bytes of one console request: what the window has room for when it is empty, 64 pages at most. A console
    /// has to take all that it is given.
    text_size_max: u64,
    flights: Flights,
    queues: [Option<Virtqueue>; QUEUES_MAX],
    /// Queues that wait for a request to land, or for the driver domain, a bit each.
    stalled: u8,
    /// Queues with used chains of which the client has not been told, a bit each. They outlive a call that ends early.
    used: u8,
    /// The client's driver is ready.
    is_live: bool,
    /// The driver domain serves the channel.
    is_up: bool,
    disk: Disk,
    /// The client takes frames with partial checksums.
    takes_partial: bool,
    /// The client merges receive buffers.
    merges: bool,
    counters: Counters,
}

impl Service {
    /// A device whose channel lies at `base` in the driver domain's memory, `size` bytes of it.
    pub fn new(kind: ServiceKind, base: u64, size: u64) -> Self {
        let pages = size.saturating_sub(REQUEST_WINDOW) / WINDOW_PAGE_SIZE;
        let depth = match kind {
            ServiceKind::Block => BLOCK_DEPTH,
            ServiceKind::Entropy => ENTROPY_DEPTH,
            // One place, to look at a chain before it goes back; receiving takes several.
            ServiceKind::Network | ServiceKind::Console => MERGED_MAX,
        };
        Self {
            kind,
            channel: Channel::new(base),
            window: Window::new(usize::try_from(pages).unwrap_or(usize::MAX)),
            text_size_max: pages.min(64).wrapping_mul(WINDOW_PAGE_SIZE),
            flights: Flights::new(depth),
            queues: [const { None }; QUEUES_MAX],
            stalled: 0,
            used: 0,
            is_live: false,
            is_up: false,
            disk: Disk { capacity_sectors: 0, features: io::FEATURE_READ_ONLY },
            takes_partial: false,
            merges: false,
            counters: Counters::default(),
        }
    }

    /// What the device is.
    pub const fn kind(&self) -> ServiceKind {
        self.kind
    }

    /// What happened so far.
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Requests that are out.
    pub fn out(&self) -> u32 {
        self.flights.count()
    }

    /// What stands behind a block device: its size in sectors of 512 bytes, and `abi::io`'s feature bits.
    pub fn attach_disk(&mut self, capacity_sectors: u64, features: u64) {
        self.disk = Disk { capacity_sectors, features };
    }

    /// The driver domain is gone: what is out stays so, and what comes waits.
    pub fn suspend(&mut self) {
        self.is_up = false;
    }

    /// The driver domain starts, with zeroed rings: nothing that it completes is taken for the work of its predecessor.
    ///
    /// # Errors
    /// The channel is not in its memory.
    pub fn restart_channel(&mut self, provider: &impl GuestMemory) -> Result<(), Forged> {
        self.suspend();
        self.channel.restart(provider)
    }

    /// The driver domain serves the channel. What was out when its predecessor died is posted again, in the order in which
    /// it went out; then what has waited. Reading and writing are idempotent, so nobody can tell whether a request was
    /// done twice; frames and characters that may have been sent are not sent again.
    ///
    /// # Errors
    /// As for [`Service::notify`].
    pub fn serve_again<M: GuestMemory>(&mut self, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        if core::mem::replace(&mut self.is_up, true) {
            return Ok(Outcome::default());
        }
        let mut after = 0;
        while let Some((sequence, flight)) = self.flights.next_after(after) {
            after = sequence;
            match flight.waiter {
                Waiter::Nobody => {
                    self.flights.land(sequence);
                    self.window.give_back(flight.run);
                }
                Waiter::Chain { place, .. } => {
                    if flight.operation == Operation::Write {
                        self.copy_out(place, &flight, block::HEADER_SIZE, wires)?;
                    }
                    self.send(sequence, &flight, wires)?;
                    self.counters.replays = self.counters.replays.wrapping_add(1);
                }
            }
        }
        self.resume(wires)
    }

    /// The client's driver is ready, and has chosen features: how network frames reach it.
    pub fn negotiated(&mut self, takes_partial: bool, merges: bool) {
        self.is_live = true;
        self.takes_partial = takes_partial;
        self.merges = merges;
    }

    /// Queue `index` is ready.
    pub fn start_queue(&mut self, index: u16, layout: QueueLayout, features: Features) {
        if let Some(queue) = self.queues.get_mut(usize::from(index)) {
            *queue = Some(Virtqueue::new(layout, features));
        }
    }

    /// Queue `index` is no more: what is out for it is nobody's.
    pub fn stop_queue(&mut self, index: u16) {
        if let Some(queue) = self.queues.get_mut(usize::from(index)) {
            *queue = None;
            self.flights.orphan(Some(index));
        }
    }

    /// The client resets the device, or is itself reset.
    pub fn reset(&mut self) {
        self.queues = [const { None }; QUEUES_MAX];
        self.stalled = 0;
        self.used = 0;
        self.is_live = false;
        self.flights.orphan(None);
    }

    /// The client has notified queue `index`.
    ///
    /// # Errors
    /// Who broke the protocol. The device needs a reset, or the driver domain does.
    #[inline]
    pub fn notify<M: GuestMemory>(&mut self, index: u16, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        self.counters.kicks = self.counters.kicks.wrapping_add(1);
        let outcome = if self.receives_in(index) { self.receive(wires)? } else { self.serve(index, wires)? };
        self.conclude(outcome, wires)
    }

    /// The driver domain has completed requests, or received something.
    ///
    /// # Errors
    /// As for [`Service::notify`].
    #[inline]
    pub fn complete<M: GuestMemory>(&mut self, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        let mut outcome = Outcome::default();
        let result = self.land_all(wires, &mut outcome);
        // Whatever went wrong: what was taken is taken.
        self.channel.publish_consumed(wires.provider)?;
        result?;
        if self.stalled != 0 {
            outcome.add(self.serve_stalled(wires)?);
        }
        if matches!(self.kind, ServiceKind::Network | ServiceKind::Console) {
            outcome.add(self.receive(wires)?);
        }
        self.conclude(outcome, wires)
    }

    /// Goes on where the last call left off.
    ///
    /// # Errors
    /// As for [`Service::notify`].
    pub fn resume<M: GuestMemory>(&mut self, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        let mut outcome = self.serve_stalled(wires)?;
        if matches!(self.kind, ServiceKind::Network | ServiceKind::Console) {
            outcome.add(self.receive(wires)?);
        }
        self.conclude(outcome, wires)
    }

    fn serve_stalled<M: GuestMemory>(&mut self, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        let mut outcome = Outcome::default();
        for index in bits(core::mem::take(&mut self.stalled)) {
            outcome.add(self.serve(index, wires)?);
        }
        Ok(outcome)
    }

    /// Remembers to look into queue `index` when there is room, or time, again.
    fn stall(&mut self, index: u16) {
        self.stalled |= bit(index);
    }

    /// Tells the client of used chains, and the driver domain of requests.
    fn conclude<M: GuestMemory>(&mut self, outcome: Outcome, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        let mut outcome = outcome;
        for index in bits(core::mem::take(&mut self.used)) {
            if let Some(queue) = self.queue(index) {
                outcome.interrupt |= queue.take_interrupt(wires.client)?;
            }
        }
        outcome.doorbell = self.channel.publish(wires.provider)?;
        self.count(outcome);
        Ok(outcome)
    }

    fn count(&mut self, outcome: Outcome) {
        self.counters.doorbells = self.counters.doorbells.wrapping_add(u64::from(outcome.doorbell));
        self.counters.interrupts = self.counters.interrupts.wrapping_add(u64::from(outcome.interrupt));
    }

    fn receives_in(&self, index: u16) -> bool {
        index == RECEIVE_QUEUE && matches!(self.kind, ServiceKind::Network | ServiceKind::Console)
    }

    fn queue(&mut self, index: u16) -> Option<&mut Virtqueue> {
        self.queues.get_mut(usize::from(index))?.as_mut()
    }

    /// Posts the chains of queue `index` to the driver domain.
    fn serve<M: GuestMemory>(&mut self, index: u16, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        let mut outcome = Outcome::default();
        if !self.is_up {
            self.stall(index);
            return Ok(outcome);
        }
        let (mut chains, bytes) = (0, self.counters.bytes);
        loop {
            let copied = self.counters.bytes.wrapping_sub(bytes);
            if chains == CHAINS_MAX || copied >= u64::from(BYTES_MAX) {
                self.stall(index);
                outcome.again = true;
                break;
            }
            chains = chains.wrapping_add(1);
            match self.serve_one(index, wires)? {
                Step::Posted => {}
                Step::Used => self.used |= bit(index),
                Step::Stalled => {
                    self.stall(index);
                    break;
                }
                Step::Empty => {
                    let Some(queue) = self.queue(index) else { break };
                    if !queue.enable_notifications(wires.client)? {
                        break;
                    }
                }
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
        let Some(place) = self.flights.take_chain() else { return Ok(Step::Stalled) };
        let Some(chain) = self.flights.chain_mut(place) else { return Ok(Step::Stalled) };
        match queue.pop(wires.client, chain) {
            Ok(true) => {}
            Ok(false) => {
                self.flights.free_chain(place);
                return Ok(Step::Empty);
            }
            Err(error) => {
                self.flights.free_chain(place);
                return Err(error.into());
            }
        }
        let head = chain.head;
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
                    self.counters.dropped = self.counters.dropped.wrapping_add(1);
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
        self.post(place, &order, wires)
    }

    /// Copies what goes out and posts the request.
    #[inline]
    fn post<M: GuestMemory>(&mut self, place: u8, order: &Order, wires: &Wires<'_, M>) -> Result<Next, Broken> {
        let has_data = !matches!(order.operation, Operation::Flush | Operation::Discard | Operation::WriteZeroes);
        let pages = if has_data { u64::from(order.length).div_ceil(WINDOW_PAGE_SIZE) as u16 } else { 0 };
        let Some(run) = self.window.take(pages) else { return Ok(Next::PutBack) };
        let Order { operation, sector, length, waiter, skip } = *order;
        let flight = Flight { operation, sector, length, run, waiter };
        if has_data
            && !operation.fills_window()
            && let Err(broken) = self.copy_out(place, &flight, skip, wires)
        {
            self.window.give_back(run);
            return Err(broken);
        }
        let Some(sequence) = self.flights.depart(flight) else {
            self.window.give_back(run);
            return Ok(Next::PutBack);
        };
        self.send(sequence, &flight, wires)?;
        self.counters.requests = self.counters.requests.wrapping_add(1);
        // What was copied out is the client's again at once; what is to come in has to wait.
        Ok(if order.waiter == Waiter::Nobody { Next::GiveBack(0) } else { Next::Post })
    }

    /// Copies the data of a request from the chain in `place`, behind `skip` bytes of header, into the window.
    #[inline]
    fn copy_out<M: GuestMemory>(
        &mut self,
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
        self.counters.bytes = self.counters.bytes.wrapping_add(u64::from(flight.length));
        Ok(())
    }

    /// Puts a request into the ring.
    #[inline]
    fn send<M: GuestMemory>(&mut self, sequence: u64, flight: &Flight, wires: &Wires<'_, M>) -> Result<(), Forged> {
        let request = Request {
            sequence,
            sector: flight.sector,
            generation: self.channel.generation(),
            offset: offset_of(flight.run) as u32,
            length: flight.length,
            operation: flight.operation as u16,
            reserved: 0,
        };
        self.channel.post(wires.provider, &request)
    }

    /// Takes what the driver domain has completed.
    fn land_all<M: GuestMemory>(&mut self, wires: &Wires<'_, M>, outcome: &mut Outcome) -> Result<(), Broken> {
        let bytes = self.counters.bytes;
        for _ in 0..COMPLETIONS_MAX {
            let Some(completion) = self.channel.next_completion(wires.provider)? else { return Ok(()) };
            self.land(&completion, wires)?;
            if self.counters.bytes.wrapping_sub(bytes) >= u64::from(BYTES_MAX) {
                break;
            }
        }
        outcome.again = true;
        Ok(())
    }

    #[inline]
    fn land<M: GuestMemory>(&mut self, completion: &Completion, wires: &Wires<'_, M>) -> Result<(), Broken> {
        let landed = if completion.generation == self.channel.generation() {
            self.flights.land(completion.sequence)
        } else {
            None
        };
        let Some(landed) = landed else {
            self.counters.forged = self.counters.forged.wrapping_add(1);
            return Ok(());
        };
        let result = match landed.waiter {
            Waiter::Nobody => Ok(()),
            Waiter::Chain { queue, place } => {
                self.used |= bit(queue);
                let result = self.give(queue, place, &landed, completion, wires);
                self.flights.free_chain(place);
                result
            }
        };
        self.window.give_back(landed.run);
        result
    }

    /// Gives a chain back to the client, with what the driver domain put into the window.
    #[inline]
    fn give<M: GuestMemory>(
        &mut self,
        index: u16,
        place: u8,
        flight: &Flight,
        completion: &Completion,
        wires: &Wires<'_, M>,
    ) -> Result<(), Broken> {
        let Some(chain) = self.flights.chain(place) else { return Ok(()) };
        let (status, expected) = (Status::from_number(completion.status), flight.expected());
        // A short read of a disk is none: the client must not take what it did not get for data.
        let is_whole = completion.length >= expected || self.kind == ServiceKind::Entropy;
        let is_done = status == Status::Done && is_whole;
        let length = if is_done { expected.min(completion.length) } else { 0 };
        let mut at = self.channel.at(offset_of(flight.run));
        for segment in chain.writable_range(0, u64::from(length)) {
            let copied = wires.provider.copy_to(at, wires.client, segment.address, segment.length);
            copied.map_err(QueueError::from)?;
            at = GuestAddr(at.0.wrapping_add(u64::from(segment.length)));
        }
        let mut written = length;
        if self.kind == ServiceKind::Block {
            let status = match status {
                Status::Done if is_done => block::STATUS_OK,
                Status::Unsupported => block::STATUS_UNSUPPORTED,
                Status::Done | Status::Failed => block::STATUS_FAILED,
            };
            block::put_status(chain, wires.client, status).map_err(QueueError::from)?;
            written = written.saturating_add(1);
        }
        let head = chain.head;
        self.counters.bytes = self.counters.bytes.wrapping_add(u64::from(length));
        if let Some(queue) = self.queue(index) {
            queue.push_used(wires.client, head, written)?;
        }
        Ok(())
    }

    /// Moves what was received into the client's buffers, as far as there are any.
    fn receive<M: GuestMemory>(&mut self, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        let mut outcome = Outcome::default();
        if !self.is_up {
            return Ok(outcome);
        }
        for step in 0..=RECEPTIONS_MAX {
            let Some((receive, offset)) = self.channel.peek_reception(wires.provider)? else { break };
            if step == RECEPTIONS_MAX {
                outcome.again = true;
                break;
            }
            match self.receive_one(&receive, offset, wires)? {
                Received::Delivered => {}
                Received::Dropped => self.counters.dropped = self.counters.dropped.wrapping_add(1),
                Received::NoBuffer => {
                    let Some(queue) = self.queue(RECEIVE_QUEUE) else { break };
                    if !queue.ask_for_more(wires.client)? {
                        break;
                    }
                    continue;
                }
            }
            self.channel.consume_reception();
        }
        self.channel.publish_consumed(wires.provider)?;
        Ok(outcome)
    }

    fn receive_one<M: GuestMemory>(
        &mut self,
        receive: &io::Receive,
        offset: u64,
        wires: &Wires<'_, M>,
    ) -> Result<Received, Broken> {
        let is_network = self.kind == ServiceKind::Network;
        let length = u64::from(receive.length);
        let length_min = if is_network { network::FRAME_SIZE_MIN } else { 1 };
        if length < length_min || length > io::RECEIVE_SLOT_SIZE {
            return Ok(Received::Dropped);
        }
        let header_size = if is_network { network::HEADER_SIZE } else { 0 };
        let total = header_size.wrapping_add(length);
        // Nothing is used before DRIVER_OK (VIRTIO 1.2, 3.1.1): its interrupt would be lost.
        let (true, Some(Some(queue))) = (self.is_live, self.queues.get_mut(usize::from(RECEIVE_QUEUE))) else {
            return Ok(Received::Dropped);
        };

        let mut places = [0; MERGED_MAX];
        let mut room = 0u64;
        let mut count = 0usize;
        while room < total {
            if count != 0 && !self.merges {
                break;
            }
            let Some(place) = self.flights.take_chain() else { break };
            let Some(chain) = self.flights.chain_mut(place) else { break };
            match queue.pop(wires.client, chain) {
                Ok(true) => {}
                Ok(false) => {
                    self.flights.free_chain(place);
                    for place in places.iter().take(count).rev() {
                        if let Some(chain) = self.flights.chain(*place) {
                            queue.put_back(chain.head);
                        }
                        self.flights.free_chain(*place);
                    }
                    return Ok(Received::NoBuffer);
                }
                Err(error) => {
                    self.flights.free_chain(place);
                    for place in places.iter().take(count) {
                        self.flights.free_chain(*place);
                    }
                    return Err(error.into());
                }
            }
            room = room.saturating_add(chain.writable_bytes());
            if let Some(entry) = places.get_mut(count) {
                *entry = place;
            }
            count = count.wrapping_add(1);
        }
        let places = places.get(..count).unwrap_or(&[]);
        self.used |= bit(RECEIVE_QUEUE);
        let result = if room < total {
            // Buffers that cannot hold it: they go back empty, and the frame is lost.
            give_back_empty(queue, &self.flights, places, wires.client).map(|()| Received::Dropped)
        } else {
            let slot = self.channel.at(offset);
            let parcel = Parcel { receive, slot, header_size, takes_partial: self.takes_partial };
            spread(queue, &self.flights, places, &parcel, wires).map(|()| Received::Delivered)
        };
        for place in places {
            self.flights.free_chain(*place);
        }
        if result.is_ok() {
            self.counters.bytes = self.counters.bytes.wrapping_add(length);
        }
        Ok(result?)
    }
}

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

enum Received {
    Delivered,
    Dropped,
    NoBuffer,
}

/// Something received and how the client is to get it.
struct Parcel<'a> {
    receive: &'a io::Receive,
    slot: GuestAddr,
    header_size: u64,
    takes_partial: bool,
}

/// Where a run of window pages starts, in bytes from the start of the channel.
fn offset_of(run: Run) -> u64 {
    REQUEST_WINDOW.wrapping_add(u64::from(run.first).wrapping_mul(WINDOW_PAGE_SIZE))
}

/// The numbers of the bits that are set.
fn bits(mut set: u8) -> impl Iterator<Item = u16> {
    core::iter::from_fn(move || {
        let lowest = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (lowest < u8::BITS).then_some(lowest as u16)
    })
}

/// The bit of queue `index`.
const fn bit(index: u16) -> u8 {
    1u8.wrapping_shl(index as u32)
}

const _: () = assert!(QUEUES_MAX == u8::BITS as usize, "sets of queues are bytes");

fn give_back_empty<M: GuestMemory>(
    queue: &mut Virtqueue,
    flights: &Flights,
    places: &[u8],
    client: &M,
) -> Result<(), QueueError> {
    for chain in places.iter().filter_map(|place| flights.chain(*place)) {
        queue.push_used(client, chain.head, 0)?;
    }
    Ok(())
}

/// Writes header and contents over the chains in `places`, which have room for them.
fn spread<M: GuestMemory>(
    queue: &mut Virtqueue,
    flights: &Flights,
    places: &[u8],
    parcel: &Parcel<'_>,
    wires: &Wires<'_, M>,
) -> Result<(), QueueError> {
    let receive = parcel.receive;
    let total = parcel.header_size.saturating_add(u64::from(receive.length));
    let patch = if network::is_partial(receive) && !parcel.takes_partial && parcel.header_size != 0 {
        let start = u32::from(receive.checksum_start);
        let from = GuestAddr(parcel.slot.0.wrapping_add(u64::from(start)));
        let sum = network::checksum(wires.provider, from, receive.length.saturating_sub(start))?;
        let at = u64::from(start).saturating_add(u64::from(receive.checksum_offset));
        Some((parcel.header_size.saturating_add(at), sum))
    } else {
        None
    };
    let mut done = 0u64;
    for chain in places.iter().filter_map(|place| flights.chain(*place)) {
        let here = chain.writable_bytes().min(total.saturating_sub(done));
        let header_here = if done == 0 { parcel.header_size } else { 0 };
        if header_here != 0 {
            let header = network::header(receive, places.len() as u16, parcel.takes_partial);
            chain.write(wires.client, 0, &header)?;
        }
        let mut from = done.saturating_add(header_here).saturating_sub(parcel.header_size);
        for segment in chain.writable_range(header_here, here.saturating_sub(header_here)) {
            let at = GuestAddr(parcel.slot.0.wrapping_add(from));
            wires.provider.copy_to(at, wires.client, segment.address, segment.length)?;
            from = from.saturating_add(u64::from(segment.length));
        }
        if let Some((at, sum)) = patch
            && let Some(offset) = at.checked_sub(done)
            && offset.saturating_add(2) <= here
        {
            chain.write(wires.client, offset, &sum)?;
        }
        queue.push_used(wires.client, chain.head, here as u32)?;
        done = done.saturating_add(here);
    }
    Ok(())
}
