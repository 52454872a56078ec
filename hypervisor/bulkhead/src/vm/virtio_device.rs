//! A para-virtual device of a virtual machine: a register file and a queue walker on one side, a driver domain's
//! channel on the other.
//!
//! What a device asks of others comes back as [`Reaction`], and is carried out when its lock is free again
//! ([`crate::virtio`]). Leaves out what a request means (`model::io`) and what the registers do
//! (`devices::virtio_mmio`).

use super::Vm;
use abi::io;
use arch::memory::GuestRam;
use arch::shadow::ShadowPage;
use arch::wait::InTurn;
use devices::virtio_mmio::{Configuration, Effect, Kind, Shadow, VirtioMmio, feature};
use model::io::attach::Backing;
use model::io::counters::Counters;
use model::io::service::{Broken, Wires};
use model::io::watch::Sight;
use model::io::{Outcome, Service, ServiceKind};
use model::vgic::{IntId, Kicks};
use model::virtqueue::{Features, QueueError};
use spin::mutex::{TicketMutex, TicketMutexGuard};
use vdev::Width;

/// The page that a guest reads a device's registers from.
struct Page(ShadowPage);

impl Shadow for Page {
    #[inline]
    fn set(&mut self, offset: u16, word: u32) {
        self.0.set(offset, word);
    }
}

/// A para-virtual device in its place.
pub struct VirtioDevice {
    /// In turn: or all CPUs of a client that notifies without end could keep the driver domain, and so its other
    /// clients, waiting.
    state: TicketMutex<State, InTurn>,
    interrupt: IntId,
    /// The driver domain: its place among the virtual machines.
    pub provider: usize,
    mac: [u8; 6],
}

struct State {
    registers: VirtioMmio,
    service: Service,
    page: Page,
    /// The level of the line when it was last looked at.
    line: bool,
}

/// The mistakes of a client that its device was reset for, by reason: ` refused-head=3`.
struct Refused<'a>(&'a Counters);

impl core::fmt::Display for Refused<'_> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let refused = QueueError::ALL.into_iter().map(|error| (error, self.0.refused(error)));
        refused
            .filter(|(_, count)| *count != 0)
            .try_for_each(|(error, count)| write!(formatter, " refused-{}={count}", error.name()))
    }
}

/// What others have to be told after a call.
#[derive(Clone, Copy)]
pub struct Reaction {
    /// The client's virtual CPUs.
    pub client: Kicks,
    /// The driver domain has requests that it wants to be told of.
    pub doorbell: bool,
    /// There is more to do.
    pub again: bool,
    /// The client's part is not done. A store of its own, that ended what devices of the driver domain may still be at,
    /// has to come again; a call of the driver domain's has left more to do than it is for.
    pub is_clients: bool,
    pub breach: Option<Broken>,
}

/// What stands behind the registers of a device of this kind.
pub const fn service_kind(kind: Kind) -> ServiceKind {
    match kind {
        Kind::Block => ServiceKind::Block,
        Kind::Network => ServiceKind::Network,
        Kind::Console => ServiceKind::Console,
        Kind::Entropy => ServiceKind::Entropy,
    }
}

impl VirtioDevice {
    /// A device at power-on, whose channel is `service`.
    pub fn new(kind: Kind, queues: u16, page: ShadowPage, interrupt: IntId, service: &manifest::Service) -> Self {
        let mut page = Page(page);
        let mut registers = VirtioMmio::new(kind, queues);
        registers.reset(&mut page);
        let state = State {
            registers,
            service: Service::new(service_kind(kind), service.address, service.size),
            page,
            line: false,
        };
        Self {
            state: TicketMutex::new(state),
            interrupt,
            provider: usize::from(service.provider),
            mac: service.mac.unwrap_or_default(),
        }
    }

    /// Its state, for what is done seldom.
    #[inline(never)]
    fn state(&self) -> TicketMutexGuard<'_, State> {
        self.state.lock()
    }

    /// Back to power-on, with its client; the vGIC, which holds the line low then, is reset too.
    pub fn reset(&self) {
        let mut state = self.state();
        let State { registers, service, page, line } = &mut *state;
        registers.reset(page);
        service.reset();
        *line = false;
    }

    /// The driver domain is gone.
    pub fn suspend(&self) {
        self.state().service.suspend();
    }

    /// The driver domain's devices have been reset.
    pub fn end_grants(&self) {
        self.state().service.end_grants();
    }

    /// Whether devices of the driver domain may still reach into the client's memory.
    pub fn has_grants(&self) -> bool {
        self.state().service.has_grants()
    }

    /// The driver domain starts, with `memory` cleared.
    pub fn restart_channel(&self, memory: &GuestRam) {
        // Channels were checked to lie in their memory.
        let _ = self.state().service.restart_channel(memory);
    }

    /// Logs what happened so far; `vm` is the client, whose device `index` this is. One line for the device and one for
    /// each of its queues, which `cargo xtask run` turns into a table.
    pub fn report(&self, vm: &str, index: usize) {
        // A log line takes its time: nobody waits for the device meanwhile.
        let (kind, queues, counters) = {
            let state = self.state();
            (state.registers.kind(), state.registers.queue_count(), state.service.counters().clone())
        };
        log::info!(
            "vm {vm} virtio {index}: kind={} doorbells={} suppressed_doorbells={} calls={} forged={}{}",
            kind.name(),
            counters.doorbells,
            counters.suppressed_doorbells(),
            counters.calls,
            counters.forged,
            Refused(&counters)
        );
        for number in 0..queues {
            let queue = counters.queue(number);
            log::info!(
                "vm {vm} virtio {index} queue {number}: requests={} bytes={} kicks={} suppressed_kicks={} interrupts={} suppressed_interrupts={} copies={} grants={} dropped={} replays={}",
                queue.requests,
                queue.bytes,
                queue.kicks,
                queue.suppressed_kicks(),
                queue.interrupts,
                queue.suppressed_interrupts(),
                queue.copies,
                queue.grants,
                queue.dropped,
                queue.replays
            );
        }
    }

    /// A store by the client.
    #[inline]
    pub fn store(&self, offset: u64, width: Width, value: u64, client: &Vm, provider: &Vm) -> Option<Reaction> {
        let mut state = self.state.lock();
        let effect = {
            let State { registers, page, .. } = &mut *state;
            registers.write(offset, width, value, page).ok()?
        };
        let outcome = match effect {
            Effect::Notify(queue) => {
                state.service.notify(queue, &Wires { client: &client.ram, provider: &provider.ram })
            }
            Effect::None | Effect::Acknowledged => Ok(Outcome::default()),
            Effect::QueueReady(_) | Effect::QueueStopped(_) | Effect::Live | Effect::Reset => {
                state.follow(effect);
                Ok(Outcome::default())
            }
        };
        let fallen =
            if matches!(effect, Effect::Acknowledged) { state.lower(self.interrupt, client) } else { Kicks::NONE };
        let mut reaction = state.react(outcome, self.interrupt, client, provider);
        reaction.client |= fallen;
        reaction.is_clients = matches!(effect, Effect::QueueStopped(_) | Effect::Reset) && state.service.has_grants();
        Some(reaction)
    }

    /// Goes on with what a store left over.
    pub fn resume(&self, client: &Vm, provider: &Vm) -> Reaction {
        let mut state = self.state.lock();
        let outcome = state.service.resume(&Wires { client: &client.ram, provider: &provider.ram });
        state.react(outcome, self.interrupt, client, provider)
    }

    /// The watch looks: see [`Service::look`].
    pub fn look(&self, provider: &GuestRam) -> Sight {
        self.state().service.look(provider)
    }

    /// The driver domain does not come back: see [`Service::abandon`].
    pub fn abandon(&self) -> bool {
        self.state().service.abandon()
    }

    /// The driver domain is ready: see [`Service::serve_again`].
    pub fn serve_again(&self) -> bool {
        self.state().service.serve_again()
    }

    /// The driver domain has completed requests, or received something.
    pub fn complete(&self, client: &Vm, provider: &Vm) -> Reaction {
        let mut state = self.state.lock();
        let outcome = state.service.complete(&Wires { client: &client.ram, provider: &provider.ram });
        let mut reaction = state.react(outcome, self.interrupt, client, provider);
        reaction.is_clients = state.service.take_late();
        // The client's mistake ended the call, and what else was completed is still in the ring: it has to be taken, or
        // its pages are lost to whoever uses the device next.
        reaction.again |= matches!(reaction.breach, Some(Broken::Client(_)));
        reaction
    }

    /// The driver domain says what stands behind the device. `None` if that cannot be.
    pub fn attach(&self, size: u64, features: u64, block_size: u64, client: &Vm, provider: &Vm) -> Option<Reaction> {
        let mut state = self.state();
        let State { registers, service, page, .. } = &mut *state;
        let configuration = match (Backing::read(service.kind(), size, features, block_size)?, registers.kind()) {
            (Backing::Disk { capacity_sectors, block_size, features }, _) => {
                service.attach_disk(capacity_sectors, features);
                let (segments_max, segment_size_max) = service.segment_limits();
                Configuration::Block {
                    capacity_sectors,
                    block_size,
                    segment_size_max,
                    segments_max,
                    read_only: features & io::FEATURE_READ_ONLY != 0,
                    flush: features & io::FEATURE_FLUSH != 0,
                    discard: features & io::FEATURE_DISCARD != 0,
                    write_zeroes: features & io::FEATURE_WRITE_ZEROES != 0,
                }
            }
            (Backing::Card { mtu }, _) => Configuration::Network { mac: self.mac, mtu, link_up: true },
            (Backing::Plain, Kind::Console) => Configuration::Console { columns: 80, rows: 24 },
            (Backing::Plain, Kind::Entropy | Kind::Block | Kind::Network) => Configuration::Entropy,
        };
        registers.configure(configuration, page);
        service.attach();
        Some(state.react(Ok(Outcome::default()), self.interrupt, client, provider))
    }
}

impl State {
    /// Brings the service in line with the registers.
    #[inline(never)]
    fn follow(&mut self, effect: Effect) {
        let Self { registers, service, .. } = self;
        let features = registers.features();
        match effect {
            Effect::QueueReady(index) => {
                if let Some(layout) = registers.queue(index) {
                    let features = Features {
                        event_index: features & feature::EVENT_IDX != 0,
                        indirect: features & feature::INDIRECT_DESC != 0,
                    };
                    service.start_queue(index, layout, features);
                }
            }
            Effect::QueueStopped(index) => service.stop_queue(index),
            Effect::Live => {
                service.negotiated(features & feature::NET_GUEST_CSUM != 0, features & feature::NET_MRG_RXBUF != 0)
            }
            Effect::Reset => service.reset(),
            Effect::None | Effect::Notify(_) | Effect::Acknowledged => {}
        }
    }

    /// The driver has acknowledged interrupts. If others are left, the line falls and rises again, since a driver that
    /// counts on edges would not hear of them.
    #[inline]
    fn lower(&mut self, interrupt: IntId, client: &Vm) -> Kicks {
        self.line = false;
        client.vgic.set_line(interrupt, 0, false)
    }

    /// Turns what the service says into interrupts: the registers first, then the line.
    fn react(&mut self, outcome: Result<Outcome, Broken>, interrupt: IntId, client: &Vm, provider: &Vm) -> Reaction {
        let mut reaction =
            Reaction { client: Kicks::NONE, doorbell: false, again: false, is_clients: false, breach: None };
        match outcome {
            Ok(outcome) => {
                if outcome.interrupt {
                    self.registers.raise_used(&mut self.page);
                }
                reaction.doorbell = outcome.doorbell;
                reaction.again = outcome.again;
            }
            Err(breach) => {
                reaction.doorbell = self.service.breach(breach, &provider.ram);
                if let Broken::Client(_) = breach {
                    self.registers.need_reset(&mut self.page);
                }
                reaction.breach = Some(breach);
            }
        }
        let level = self.registers.line();
        if level != self.line {
            self.line = level;
            // Under the lock, so that the vGIC hears of levels in their order.
            reaction.client = client.vgic.set_line(interrupt, 0, level);
        }
        reaction
    }
}
