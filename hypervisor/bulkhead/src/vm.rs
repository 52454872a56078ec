//! One virtual machine: what its virtual CPUs share.

mod config;
mod preparation;
mod slot;
mod state;
mod virtio_device;

use crate::assigned::Assigned;
use aarch64::psci::Power;
use alloc::boxed::Box;
use alloc::vec::Vec;
use arch::memory::GuestRam;
use arch::mmu::Stage2;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use devices::AnyDevice;
use spin::MutexGuard;
use state::{PARKED_MASK, QUEUED_SHIFT, life_in, phase_of};
use vdev::bus::Bus;
use vdev::{AccessId, Device};
use vgic::{Kicks, VCPUS_MAX, Vgic};
use vm_lifecycle::watch::Watch;
use vm_lifecycle::{Phase, Step};

pub use config::{Config, Image};
pub use preparation::{PIECE_SIZE, Preparation};
pub use slot::{Done, Slot};
pub use state::State;
pub use virtio_device::{Reaction, VirtioDevice};

/// The most devices of one virtual machine.
pub const DEVICES_MAX: usize = manifest::DEVICES_MAX;

/// On the bus of a virtual machine, the device numbers from here on are para-virtual devices.
pub const FIRST_VIRTIO_NUMBER: u16 = 0x100;

/// On the bus of a virtual machine, the number of the page of calls.
pub const CALLS_NUMBER: u16 = FIRST_VIRTIO_NUMBER - 1;

const _: () = assert!(DEVICES_MAX <= CALLS_NUMBER as usize, "no emulated device has the number of the page of calls");

/// One virtual machine.
pub struct Vm {
    /// What the manifest says of it, and does not change.
    pub config: Config,
    /// Its RAM.
    pub ram: GuestRam,
    /// Its stage 2.
    pub stage2: Stage2,
    /// Its interrupt controller.
    pub vgic: &'static Vgic,
    /// Where it is in its life.
    pub state: State,
    /// What has happened to it.
    pub counters: Counters,
    /// Its devices.
    pub io: Io,
}

/// The devices of a [`Vm`].
pub struct Io {
    /// The emulated ones; the bus names them by index.
    pub slots: Vec<Slot>,
    /// The para-virtual ones; the bus names them by [`FIRST_VIRTIO_NUMBER`] and their index.
    pub virtio: Vec<VirtioDevice>,
    /// The physical ones.
    pub assigned: Assigned,
    /// Of a backend with a page of calls: what the last call there for each channel has returned, since it started.
    /// No other order is kept.
    pub results: Box<[AtomicU32]>,
    /// Where they answer.
    pub bus: Bus<DEVICES_MAX>,
}

/// What has happened to a [`Vm`].
pub struct Counters {
    /// The exits of each virtual CPU, noted now and then.
    exits: [AtomicU64; VCPUS_MAX],
    /// Faults injected; the first few are logged.
    pub faults: AtomicU32,
    /// Broken virtio protocols that it is to blame for; the first few are logged.
    pub protocol_errors: AtomicU32,
    /// Starts so far.
    pub starts: AtomicU32,
}

impl Counters {
    const fn new() -> Self {
        Self {
            exits: [const { AtomicU64::new(0) }; VCPUS_MAX],
            faults: AtomicU32::new(0),
            protocol_errors: AtomicU32::new(0),
            starts: AtomicU32::new(0),
        }
    }
}

/// How a core is told of an interrupt for one of its virtual CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Not at all.
    None,
    /// The core looks at what it runs.
    Kick,
    /// The virtual CPU waits, and is queued from now on. Its core wakes it, also if the interrupt is taken back before:
    /// else a guest could have the neighbours of its waiting virtual CPUs interrupted for nothing, and pay nothing.
    Wake,
}

impl Vm {
    /// A virtual machine that waits to be prepared.
    pub fn new(config: Config, ram: GuestRam, stage2: Stage2, vgic: &'static Vgic, io: Io, state: State) -> Self {
        Self { config, ram, stage2, vgic, io, state, counters: Counters::new() }
    }

    /// Notes how often virtual CPU `vcpu` has come to EL2 so far.
    #[inline]
    pub fn note_exits(&self, vcpu: usize, exits: u64) {
        if let Some(entry) = self.counters.exits.get(vcpu) {
            entry.store(exits, Ordering::Relaxed);
        }
    }

    /// How often its virtual CPUs have come to EL2, as far as they have noted it.
    pub fn exits(&self) -> u64 {
        self.counters.exits.iter().map(|exits| exits.load(Ordering::Relaxed)).sum()
    }

    /// Whether it serves others: the system does not go on for its sake.
    pub fn is_driver_domain(&self) -> bool {
        self.config.doorbell.is_some()
    }

    /// The watch over it, if it is a driver domain.
    #[inline(never)]
    pub fn watch(&self) -> MutexGuard<'_, Watch> {
        self.state.watch.lock()
    }

    /// Virtual CPU `vcpu` waits for the answer to `access` from now on. Under the lock of the device that will give it.
    pub fn await_answer(&self, vcpu: usize, access: AccessId) {
        self.state.accesses.lock().begin(vcpu, access);
    }

    /// Whether virtual CPU `vcpu` waits for an answer.
    pub fn awaits_answer(&self, vcpu: usize) -> bool {
        self.state.accesses.lock().is_waiting(vcpu)
    }

    /// Virtual CPU `vcpu` waits for no answer any more.
    pub fn end_wait(&self, vcpu: usize) {
        self.state.accesses.lock().end(vcpu);
    }

    /// Takes the answers that `device` has for accesses that were pending. Gives who has waited for them.
    #[inline(always)]
    fn take_answers(&self, device: &mut AnyDevice) -> Kicks {
        let mut answered = Kicks::NONE;
        // No more can wait.
        for _ in 0..VCPUS_MAX {
            let Some((access, value)) = device.take_answer() else { break };
            if let Some(vcpu) = self.state.accesses.lock().answer(access, value) {
                answered |= Kicks::one(vcpu);
            }
        }
        answered
    }

    /// How many virtual CPUs it has.
    pub fn vcpu_count(&self) -> usize {
        self.state.power.len()
    }

    /// The core of virtual CPU `vcpu`.
    #[inline]
    pub fn core_of(&self, vcpu: usize) -> Option<usize> {
        self.config.cores.get(vcpu).map(|core| usize::from(*core))
    }

    /// The core of virtual CPU `vcpu`, if it has it to itself: an interrupt for it is told to that core, whatever it
    /// does.
    #[inline(always)]
    pub fn undivided_core_of(&self, vcpu: usize) -> Option<usize> {
        let is_shared = self.config.sharing >> (vcpu % VCPUS_MAX) & 1 != 0;
        if is_shared { None } else { self.core_of(vcpu) }
    }

    /// Where it is in its life.
    #[inline]
    pub fn phase(&self) -> Phase {
        phase_of(self.state.life.load(Ordering::Acquire))
    }

    /// Whether its virtual CPUs may run.
    #[inline]
    pub fn is_running(&self) -> bool {
        self.state.life.load(Ordering::Acquire) == life_in(Phase::Running)
    }

    /// Takes `step` to the next phase, in which nobody is parked. Returns whether there is one, from where it is.
    #[inline(never)]
    pub fn advance(&self, step: Step) -> bool {
        let next = |life: u32| phase_of(life).after(step).map(life_in);
        self.state.life.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).is_ok()
    }

    /// Notes that virtual CPU `vcpu` is on its core.
    #[inline(always)]
    pub fn set_loaded(&self, vcpu: usize) {
        self.state.away.fetch_and(!((1 << QUEUED_SHIFT | 1) << vcpu), Ordering::SeqCst);
        // Pairs with the one in `notice_shared`: who makes an interrupt pending and finds the virtual CPU away has been
        // seen by its next flush.
        fence(Ordering::SeqCst);
    }

    /// Notes that virtual CPU `vcpu` is off its core; `is_queued` says that it will be back without being woken.
    #[inline(always)]
    pub fn set_away(&self, vcpu: usize, is_queued: bool) {
        self.state.away.fetch_or((u32::from(is_queued) << QUEUED_SHIFT | 1) << vcpu, Ordering::SeqCst);
    }

    /// How the core of virtual CPU `vcpu` is told of an interrupt. One that has its core alone, or is on it, takes the
    /// interrupt at once; one that is queued will look at its interrupts when its turn comes; one that waits is woken
    /// only by what it can take.
    #[inline]
    pub fn notice(&self, vcpu: usize) -> Notice {
        if self.config.sharing & 1 << vcpu == 0 { Notice::Kick } else { self.notice_shared(vcpu) }
    }

    /// Whether virtual CPU `vcpu` is on its core, or has it alone.
    pub fn is_at_hand(&self, vcpu: usize) -> bool {
        self.config.sharing & 1 << vcpu == 0 || self.state.away.load(Ordering::SeqCst) & 1 << vcpu == 0
    }

    #[inline(never)]
    fn notice_shared(&self, vcpu: usize) -> Notice {
        fence(Ordering::SeqCst);
        let away = self.state.away.load(Ordering::SeqCst);
        let (is_away, is_queued) = (1 << vcpu, 1 << QUEUED_SHIFT << vcpu);
        if away & is_away == 0 {
            return Notice::Kick;
        }
        // One that is off looks at its interrupts when it is turned on, which summons its core.
        let is_on = || self.state.power.get(vcpu).is_some_and(Power::is_on);
        if away & is_queued != 0 || !is_on() || !self.vgic.has_deliverable(vcpu) {
            return Notice::None;
        }
        let queue = |away: u32| (away & (is_away | is_queued) == is_away).then_some(away | is_queued);
        match self.state.away.fetch_update(Ordering::SeqCst, Ordering::SeqCst, queue) {
            Ok(_) => Notice::Wake,
            // Another core has been faster, or its own has loaded it, and looked at its interrupts since.
            Err(_) => Notice::None,
        }
    }

    /// Takes back that the waiting virtual CPU `vcpu` is queued. Returns whether it was.
    pub fn take_queued(&self, vcpu: usize) -> bool {
        let is_queued = 1 << QUEUED_SHIFT << vcpu;
        self.state.away.fetch_and(!is_queued, Ordering::SeqCst) & is_queued != 0
    }

    /// Whether virtual CPU `vcpu` is parked, or there is no stop for which it should be.
    pub fn is_parked(&self, vcpu: usize) -> bool {
        let life = self.state.life.load(Ordering::Acquire);
        !phase_of(life).is_stopping() || life & 1 << vcpu != 0
    }

    /// Parks virtual CPU `vcpu`, if the machine is stopping.
    pub fn park(&self, vcpu: usize) {
        let step = |life: u32| phase_of(life).is_stopping().then_some(life | 1 << vcpu);
        // Otherwise there is nothing to park.
        let _ = self.state.life.fetch_update(Ordering::AcqRel, Ordering::Acquire, step);
    }

    /// Whether it is stopping, and all its virtual CPUs are parked.
    pub fn has_stopped(&self) -> bool {
        let life = self.state.life.load(Ordering::Acquire);
        phase_of(life).is_stopping() && life & PARKED_MASK == (1 << self.vcpu_count()) - 1
    }
}
