//! A virtio device of a virtual machine: a register file and a queue walker on one side, a backend's channel on the
//! other.
//!
//! What a device asks of others comes back as [`Reaction`], and is carried out when its lock is free again
//! ([`crate::virtio`]). Leaves out what becomes of chains (`virtio_transport`) and what the registers do
//! (`devices::virtio_mmio`).

use super::Vm;
use arch::memory::GuestRam;
use arch::shadow::ShadowPage;
use arch::wait::InTurn;
use devices::virtio_mmio::{CONFIGURATION_SIZE, Configuration, Effect, FeaturesLost, Shadow, VirtioMmio, feature};
use spin::mutex::{TicketMutex, TicketMutexGuard};
use vdev::Width;
use vgic::{IntId, Kicks};
use virtio_transport::counters::Counters;
use virtio_transport::policy::Refused;
use virtio_transport::virtqueue::{Features, QueueError};
use virtio_transport::{Allocation, Holdings, MemoryPair, Outcome, ProtocolError, Service};
use vm_lifecycle::watch::Sight;

const _: () = {
    assert!(CONFIGURATION_SIZE == abi::io::CONFIGURATION_SIZE);
    assert!(devices::virtio_mmio::QUEUES_MAX == abi::io::QUEUES_MAX);
};

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
    /// Ticket lock: without FIFO order a client that notifies without end could starve the driver domain, and so its
    /// other clients.
    state: TicketMutex<State, InTurn>,
    interrupt: IntId,
    /// The VM that serves it: its place among the virtual machines. [`crate::machine::Machine::backend_of`] is how
    /// others learn of it.
    backend: usize,
}

struct State {
    registers: VirtioMmio,
    service: Service,
    page: Page,
    /// The level of the line when it was last looked at.
    line: bool,
}

/// The mistakes of a client that its device was reset for, by reason: ` refused-head=3`.
struct Mistakes<'a>(&'a Counters);

impl core::fmt::Display for Mistakes<'_> {
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
    pub error: Option<ProtocolError>,
}

impl VirtioDevice {
    /// A device at power-on, as `service` allocates it. `may_grant` says whether the devices of its driver domain can
    /// be reset, and may hence be granted memory.
    pub fn new(page: ShadowPage, interrupt: IntId, service: &manifest::Service, may_grant: bool) -> Self {
        let mut page = Page(page);
        let registers = VirtioMmio::new(service.device_id, service.queues);
        registers.publish_page(&mut page);
        let manifest::Service { queues, filled, requests, chains, address, size, .. } = *service;
        let allocation = Allocation { queues, filled, requests, chains };
        let state = State { registers, service: Service::new(allocation, address, size, may_grant), page, line: false };
        Self { state: TicketMutex::new(state), interrupt, backend: usize::from(service.provider) }
    }

    /// The number of the VM that serves it.
    #[inline]
    pub const fn backend(&self) -> usize {
        self.backend
    }

    /// Its state, for what is done seldom.
    #[inline(never)]
    fn state(&self) -> TicketMutexGuard<'_, State> {
        self.state.lock()
    }

    /// Back to power-on, with its client; the vGIC, which holds the line low then, is reset too. `provider` is the
    /// driver domain, which is told.
    pub fn reset(&self, provider: &Vm) {
        let mut state = self.state();
        let State { registers, service, page, line } = &mut *state;
        registers.reset(page);
        service.reset();
        // Its doorbell need not be rung: it hears of the session with the first request of it.
        let _ = service.publish_state(&provider.ram);
        *line = false;
    }

    /// The driver domain is gone, and its devices have been reset.
    pub fn suspend(&self) {
        let mut state = self.state();
        state.service.suspend();
        state.service.end_grants();
    }

    /// Whether devices of the driver domain may still reach into the client's memory.
    pub fn has_grants(&self) -> bool {
        self.state().service.has_grants()
    }

    /// What the device holds of its frontend's and its backend's.
    pub fn holdings(&self) -> Holdings {
        self.state().service.holdings()
    }

    /// The driver domain is gone: see [`Service::take_back`].
    pub fn take_back(&self, step: usize, is_lost: bool) {
        self.state().service.take_back(step, is_lost);
    }

    /// The driver domain starts, with `memory` cleared.
    pub fn restart_channel(&self, memory: &GuestRam) {
        // Channels were checked to lie in their memory.
        let _ = self.state().service.restart_channel(memory);
    }

    /// Logs what happened so far, one line: in steps from 0 one for the device, and one for each of its queues, which
    /// `cargo xtask run` turns into a table. `vm` is the client, whose device `index` this is.
    pub fn report(&self, vm: &str, index: usize, step: usize) {
        // A log line takes its time: nobody waits for the device meanwhile.
        let (id, queues, counters) = {
            let state = self.state();
            (state.registers.device_id(), state.registers.queue_count(), state.service.counters().clone())
        };
        let Some(number) = step.checked_sub(1) else {
            log::info!(
                "vm {vm} virtio {index}: id={id} doorbells={} suppressed_doorbells={} calls={} stale={}{}",
                counters.doorbells,
                counters.suppressed_doorbells(),
                counters.calls,
                counters.stale,
                Mistakes(&counters)
            );
            return;
        };
        if number < usize::from(queues) {
            let queue = counters.queue(number as u16);
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
                state.service.notify(queue, &MemoryPair { frontend: &client.ram, backend: &provider.ram })
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
        if matches!(effect, Effect::Live | Effect::Reset) {
            reaction.doorbell |= state.service.publish_state(&provider.ram);
        }
        Some(reaction)
    }

    /// Goes on with what a store left over.
    pub fn resume(&self, client: &Vm, provider: &Vm) -> Reaction {
        let mut state = self.state.lock();
        let outcome = state.service.resume(&MemoryPair { frontend: &client.ram, backend: &provider.ram });
        state.react(outcome, self.interrupt, client, provider)
    }

    /// The watch looks: see [`Service::look`].
    pub fn look(&self, provider: &GuestRam, ticks: u64) -> Sight {
        self.state().service.look(provider, ticks)
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
        let outcome = state.service.complete(&MemoryPair { frontend: &client.ram, backend: &provider.ram });
        let mut reaction = state.react(outcome, self.interrupt, client, provider);
        reaction.is_clients = state.service.take_deferred();
        // The client's mistake ended the call, and what else was completed is still in the ring: it has to be taken, or
        // its pages are lost to whoever uses the device next.
        reaction.again |= matches!(reaction.error, Some(ProtocolError::Frontend(_)));
        reaction
    }

    /// The driver domain says in the channel what stands behind the device.
    ///
    /// # Errors
    /// That cannot be.
    pub fn attach(&self, client: &Vm, provider: &Vm) -> Result<Reaction, Refused> {
        let mut state = self.state();
        let State { registers, service, page, .. } = &mut *state;
        let mut outcome = Outcome::default();
        if let Some(description) = service.description(&provider.ram)? {
            let (features, live_size) = (description.features(), description.live_size());
            let configuration = Configuration { features, words: description.configuration(), live_size };
            registers.configure(&configuration, page).map_err(|FeaturesLost| Refused::FeaturesLost)?;
            service.attach();
        } else {
            outcome.again = true;
        }
        Ok(state.react(Ok(outcome), self.interrupt, client, provider))
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
            Effect::Live => service.negotiated(features),
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
    fn react(
        &mut self,
        outcome: Result<Outcome, ProtocolError>,
        interrupt: IntId,
        client: &Vm,
        provider: &Vm,
    ) -> Reaction {
        let mut reaction =
            Reaction { client: Kicks::NONE, doorbell: false, again: false, is_clients: false, error: None };
        match outcome {
            Ok(outcome) => {
                if outcome.interrupt {
                    self.registers.raise_used(&mut self.page);
                }
                reaction.doorbell = outcome.doorbell;
                reaction.again = outcome.again;
            }
            Err(error) => {
                reaction.doorbell = self.service.report_error(error, &provider.ram);
                if let ProtocolError::Frontend(_) = error {
                    self.registers.need_reset(&mut self.page);
                }
                reaction.error = Some(error);
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
