//! One para-virtual device between its client's queues and its channel.
//!
//! Work at one go is bounded: so many chains, so many bytes. What is left over is reported in
//! [`Outcome::again`], and whoever called calls again. What a client asks for beyond that is done in its own time,
//! whoever comes across it ([`Service::take_late`]).

mod granting;
mod landing;
mod outage;
mod posting;
mod receiving;

use super::QUEUES_MAX;
use super::block::Disk;
use super::channel::{Channel, Forged};
use super::counters::{Counters, add};
use super::flights::{FLIGHTS_MAX, Flights};
use super::window::{Run, Window};
use crate::virtqueue::{Chain, Features, QueueError, SEGMENTS_MAX, Segment, Virtqueue};
use abi::io::{self, REQUEST_WINDOW, WINDOW_PAGE_SIZE};
use outage::Provider;
use vdev::{GuestMemory, QueueLayout};

/// The most chains that are served at one go, and bytes that are copied.
const CHAINS_MAX: u32 = 24;
const BYTES_MAX: u32 = 256 << 10;
/// The most completions that are taken at one go, and receptions.
const COMPLETIONS_MAX: u32 = 64;
const RECEPTIONS_MAX: u32 = 64;
/// The most descriptors that are looked at at one go, and listed for devices, but for those of the last chain.
const DESCRIPTORS_MAX: u32 = 768;
/// How many block requests are out at a time. Those that the client has forgotten count: however often it resets its
/// device, it keeps no more of the disk busy, or of its memory granted.
const BLOCK_DEPTH: usize = 30;
/// The chains that are kept for them, and of how many segments: most requests have a few pages, and some a MiB of them.
/// They fill 32 KiB.
const BLOCK_CHAINS: [(usize, usize); 3] = [(16, 10), (8, 34), (6, SEGMENTS_MAX)];
/// The most segments of a chain of any other device.
const OTHER_SEGMENTS_MAX: usize = 66;
/// How many requests for random bytes do.
const ENTROPY_DEPTH: usize = 4;
/// The most bytes of one entropy request: a device may give less than it is asked for.
const RANDOM_SIZE_MAX: u64 = WINDOW_PAGE_SIZE;
/// The queue that a device with two receives in (VIRTIO 1.2, 5.1.2, 5.3.2).
const RECEIVE_QUEUE: u16 = 0;
/// The most chains that one frame is spread over.
const MERGED_MAX: usize = 4;
/// The queue that a network card sends from (VIRTIO 1.2, 5.1.2).
const TRANSMIT_QUEUE: u16 = 1;
/// How many frames that were sent a client need not hear of at once.
const UNTOLD_MAX: u16 = 32;

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

impl ServiceKind {
    /// The least size of a channel in bytes: its window has room for the largest request, which would else wait for
    /// ever.
    #[must_use]
    pub const fn channel_size_min(self) -> u64 {
        let window = match self {
            Self::Block => super::block::DATA_SIZE_MAX,
            Self::Network | Self::Console | Self::Entropy => WINDOW_PAGE_SIZE,
        };
        REQUEST_WINDOW.saturating_add(window)
    }

    /// How many requests are out at a time, and how many chains are kept for them, of how many segments.
    const fn depth_and_chains(self) -> (usize, &'static [(usize, usize)]) {
        match self {
            Self::Block => (BLOCK_DEPTH, &BLOCK_CHAINS),
            Self::Entropy => (ENTROPY_DEPTH, &[(ENTROPY_DEPTH, OTHER_SEGMENTS_MAX)]),
            // One chain, to look at it before it goes back; receiving takes several.
            Self::Network | Self::Console => (FLIGHTS_MAX, &[(MERGED_MAX, OTHER_SEGMENTS_MAX)]),
        }
    }

    /// What those chains take of a heap whose blocks are powers of two, in bytes.
    #[must_use]
    pub const fn chain_bytes(self) -> u64 {
        let (_, mut rest) = self.depth_and_chains();
        let (mut chains, mut bytes) = (0_usize, 0_usize);
        while let [(count, segments), others @ ..] = rest {
            let each = segments.saturating_mul(size_of::<Segment>()).next_power_of_two();
            bytes = bytes.saturating_add(count.saturating_mul(each));
            chains = chains.saturating_add(*count);
            rest = others;
        }
        bytes.saturating_add(chains.saturating_mul(size_of::<Chain>()).next_power_of_two()) as u64
    }
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

/// A para-virtual device.
pub struct Service {
    kind: ServiceKind,
    channel: Channel,
    window: Window,
    /// The most bytes of one console request: what the window has room for when it is empty, 64 pages at most. A
    /// console has to take all that it is given.
    text_size_max: u64,
    flights: Flights,
    /// Requests that are out with the client's own memory, which devices may write to.
    grants_out: u16,
    /// Descriptors that were looked at or listed, modulo 2³².
    descriptors: u32,
    queues: [Option<Virtqueue>; QUEUES_MAX],
    /// Queues that wait for a request to land, or for the driver domain, a bit each.
    stalled: u8,
    /// Queues that the last go had no time for, a bit each: the client comes back to them.
    late: u8,
    /// The client does not know yet that it has to come back to some.
    is_news: bool,
    /// Queues with used chains of which the client has not been told, a bit each. They outlive a call that ends early.
    used: u8,
    /// The client's driver is ready.
    is_live: bool,
    /// The driver domain has said in this life of it what is behind the channel.
    is_attached: bool,
    /// How the driver domain stands to the channel.
    provider: Provider,
    /// The oldest request at the watch's last look, and in how many looks in a row it has been that.
    watched: (u64, u32),
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
        let (depth, chains) = kind.depth_and_chains();
        Self {
            kind,
            channel: Channel::new(base),
            window: Window::new(usize::try_from(pages).unwrap_or(usize::MAX)),
            text_size_max: pages.min(64).wrapping_mul(WINDOW_PAGE_SIZE),
            flights: Flights::new(depth, chains),
            grants_out: 0,
            descriptors: 0,
            queues: [const { None }; QUEUES_MAX],
            stalled: 0,
            late: 0,
            is_news: false,
            used: 0,
            is_live: false,
            is_attached: false,
            provider: Provider::Away,
            watched: (0, 0),
            disk: Disk { capacity_sectors: 0, features: io::FEATURE_READ_ONLY },
            takes_partial: false,
            merges: false,
            counters: Counters::NONE,
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
    pub fn out(&self) -> usize {
        self.flights.count()
    }

    /// What stands behind a block device: its size in sectors of 512 bytes, and `abi::io`'s feature bits.
    pub fn attach_disk(&mut self, capacity_sectors: u64, features: u64) {
        self.disk = Disk { capacity_sectors, features };
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
        self.late = 0;
        self.used = 0;
        self.is_live = false;
        self.flights.orphan(None);
    }

    /// The client, or the driver domain, has broken the protocol. The client's device needs a reset then; a driver
    /// domain's claim is disregarded. Returns whether the driver domain wants its doorbell rung.
    #[cold]
    pub fn breach(&mut self, breach: Broken, provider: &impl GuestMemory) -> bool {
        match breach {
            Broken::Client(error) => {
                self.counters.refuse(error);
                self.reset();
                // What was posted before the client's mistake is out. A driver domain that does not hear of it would be
                // blamed for keeping it.
                let doorbell = self.channel.publish(provider).unwrap_or(false);
                add(&mut self.counters.doorbells, u64::from(doorbell));
                doorbell
            }
            Broken::Provider => {
                add(&mut self.counters.forged, 1);
                false
            }
        }
    }

    /// The client has notified queue `index`.
    ///
    /// # Errors
    /// Who broke the protocol. The device needs a reset, or the driver domain does.
    #[inline]
    pub fn notify<M: GuestMemory>(&mut self, index: u16, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        self.counters.count(index, |queue| add(&mut queue.kicks, 1));
        let outcome = if self.receives_in(index) { self.receive(wires)? } else { self.serve(index, wires)? };
        if self.kind == ServiceKind::Network && self.may_tell_later() {
            return self.ring(outcome, wires);
        }
        self.conclude(outcome, wires)
    }

    /// Whether the client has nothing to hear of but frames that it has sent, which it minds little: when it sends
    /// again it looks by itself, and what it receives interrupts it for both. The driver domain calls soon after each
    /// frame, and brings that about even if nothing comes.
    fn may_tell_later(&mut self) -> bool {
        self.used == bit(TRANSMIT_QUEUE)
            && self.flights.is_any_out()
            && self.queue(TRANSMIT_QUEUE).is_some_and(|queue| queue.untold() < UNTOLD_MAX)
    }

    /// The driver domain has completed requests, or received something.
    ///
    /// # Errors
    /// As for [`Service::notify`].
    #[inline]
    pub fn complete<M: GuestMemory>(&mut self, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        add(&mut self.counters.calls, 1);
        let mut outcome = Outcome::default();
        let result = self.land_all(wires, &mut outcome);
        // Whatever went wrong: what was taken is taken.
        self.channel.publish_consumed(wires.provider)?;
        result?;
        self.go_on(outcome, wires)
    }

    /// Goes on where the last call left off, in the client's time.
    ///
    /// # Errors
    /// As for [`Service::notify`].
    pub fn resume<M: GuestMemory>(&mut self, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        self.stalled |= core::mem::take(&mut self.late);
        let mut outcome = self.go_on(Outcome::default(), wires)?;
        outcome.again |= self.take_late();
        Ok(outcome)
    }

    /// After a call of the driver domain's: whether the client has to [`resume`](Service::resume), since there is more
    /// to do for it than its driver domain should have to.
    #[inline]
    pub fn take_late(&mut self) -> bool {
        // A plain load first: it is nearly always false.
        self.is_news && core::mem::take(&mut self.is_news)
    }

    #[inline]
    fn go_on<M: GuestMemory>(&mut self, outcome: Outcome, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        let mut outcome = outcome;
        if self.provider != Provider::Serving && !self.settle(wires)? {
            outcome.again = true;
            return self.conclude(outcome, wires);
        }
        if self.stalled != 0 {
            self.serve_stalled(wires)?;
        }
        if matches!(self.kind, ServiceKind::Network | ServiceKind::Console) {
            outcome.add(self.receive(wires)?);
        }
        self.conclude(outcome, wires)
    }

    /// Looks into the queues that wait for room, until they have had one go together; what is left then is late.
    fn serve_stalled<M: GuestMemory>(&mut self, wires: &Wires<'_, M>) -> Result<(), Broken> {
        let mut chains = 0u64;
        let (copied, descriptors) = (self.counters.copied, self.descriptors);
        for index in bits(core::mem::take(&mut self.stalled)) {
            if chains >= u64::from(CHAINS_MAX)
                || self.counters.copied.wrapping_sub(copied) >= u64::from(BYTES_MAX)
                || self.descriptors.wrapping_sub(descriptors) >= DESCRIPTORS_MAX
            {
                self.late |= bit(index);
                self.is_news = true;
                continue;
            }
            let before = self.counters.queue(index).chains;
            self.is_news |= self.serve(index, wires)?.again;
            chains = chains.wrapping_add(self.counters.queue(index).chains.wrapping_sub(before));
        }
        Ok(())
    }

    /// Remembers to look into queue `index` when there is time again.
    #[cold]
    #[inline(never)]
    fn put_off(&mut self, index: u16) -> Outcome {
        self.late |= bit(index);
        Outcome { again: true, ..Outcome::default() }
    }

    /// Remembers to look into queue `index` when there is room again.
    fn stall(&mut self, index: u16) {
        self.stalled |= bit(index);
    }

    /// Tells the client of used chains, and the driver domain of requests.
    fn conclude<M: GuestMemory>(&mut self, outcome: Outcome, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        let mut outcome = outcome;
        for index in bits(core::mem::take(&mut self.used)) {
            let Some(queue) = self.queue(index) else { continue };
            let used = u64::from(queue.untold());
            let interrupt = queue.take_interrupt(wires.client)?;
            outcome.interrupt |= interrupt;
            self.counters.count(index, |queue| {
                add(&mut queue.used, used);
                add(&mut queue.interrupts, u64::from(interrupt));
            });
        }
        self.ring(outcome, wires)
    }

    /// Tells the driver domain of requests.
    #[inline]
    fn ring<M: GuestMemory>(&mut self, outcome: Outcome, wires: &Wires<'_, M>) -> Result<Outcome, Broken> {
        let mut outcome = outcome;
        outcome.doorbell = self.channel.publish(wires.provider)?;
        add(&mut self.counters.doorbells, u64::from(outcome.doorbell));
        Ok(outcome)
    }

    fn receives_in(&self, index: u16) -> bool {
        index == RECEIVE_QUEUE && matches!(self.kind, ServiceKind::Network | ServiceKind::Console)
    }

    fn queue(&mut self, index: u16) -> Option<&mut Virtqueue> {
        self.queues.get_mut(usize::from(index))?.as_mut()
    }
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
