//! One virtual machine: what its virtual CPUs share.

mod preparation;
mod slot;
mod virtio_device;

use crate::assigned::Assigned;
use alloc::string::String;
use alloc::vec::Vec;
use arch::memory::GuestRam;
use arch::mmu::Stage2;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
use model::bus::Bus;
use model::console::GuestIndex;
use model::io::watch::Watch;
use model::psci::Power;
use model::vgic::{IntId, VCPUS_MAX, Vgic};
use spin::{Mutex, MutexGuard};

pub use preparation::{PIECE_SIZE, Preparation};
pub use slot::Slot;
pub use virtio_device::{Reaction, VirtioDevice, service_kind};

/// The most devices of one virtual machine.
pub const DEVICES_MAX: usize = manifest::DEVICES_MAX;

/// On the bus of a virtual machine, the device numbers from here on are para-virtual devices.
pub const FIRST_VIRTIO_NUMBER: u16 = 0x100;

/// A file of the bundle and where it goes.
pub struct Image {
    /// Guest address.
    pub address: u64,
    /// The file's bytes, in the bundle.
    pub bytes: &'static [u8],
}

/// Where a virtual machine is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Its memory is being cleared and its images copied; no virtual CPU runs.
    Preparing,
    /// Its virtual CPUs run.
    Running,
    /// Its virtual CPUs are being parked; then it is off.
    StoppingForOff,
    /// Its virtual CPUs are being parked; then it starts again.
    StoppingForReset,
    /// It is off for good.
    Off,
}

/// The bits of a machine's life that name parked virtual CPUs.
const PARKED_MASK: u32 = 0xffff;

/// What came of an attempt to park.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// There was nothing to park.
    Not,
    /// Others are still to come.
    Yes,
    /// All are parked now; the phase that this ends.
    Last(Phase),
}

impl Phase {
    const fn bits(self) -> u32 {
        (self as u32) << 16
    }

    #[inline(never)]
    fn from_bits(life: u32) -> Self {
        [Self::Preparing, Self::Running, Self::StoppingForOff, Self::StoppingForReset]
            .into_iter()
            .find(|phase| phase.bits() == life & !PARKED_MASK)
            .unwrap_or(Self::Off)
    }

    /// Whether virtual CPUs are being parked.
    pub fn is_stopping(self) -> bool {
        matches!(self, Self::StoppingForOff | Self::StoppingForReset)
    }
}

/// Where the queued virtual CPUs begin in [`Vm`]'s word of those that are away.
const QUEUED_SHIFT: u32 = 16;

const _: () = assert!(VCPUS_MAX <= QUEUED_SHIFT as usize, "each virtual CPU has a bit in either half");

/// One virtual machine.
pub struct Vm {
    /// Its place in the manifest.
    pub number: usize,
    /// Its name.
    pub name: String,
    /// Its RAM.
    pub ram: GuestRam,
    /// Its stage 2.
    pub stage2: Stage2,
    /// Its interrupt controller.
    pub vgic: &'static Vgic,
    /// Where its devices answer.
    pub bus: Bus<DEVICES_MAX>,
    /// Its emulated devices; the bus names them by index.
    pub slots: Vec<Slot>,
    /// Its para-virtual devices; the bus names them by [`FIRST_VIRTIO_NUMBER`] and their index.
    pub virtio: Vec<VirtioDevice>,
    /// What it serves, if it is a driver domain: by channel, the client's place among the virtual machines and the
    /// index of the client's device.
    pub channels: Vec<(usize, usize)>,
    /// The interrupt by which a driver domain hears of requests.
    pub doorbell: Option<IntId>,
    /// Its physical devices.
    pub assigned: Assigned,
    /// The clients of this driver domain may start: it has said that it is ready, or it never will be.
    pub is_ready: AtomicBool,
    watch: Mutex<Watch>,
    /// It is prepared, and starts as soon as its driver domain is ready.
    pub is_held: AtomicBool,
    /// Para-virtual devices at which others have left something to do, a bit each, until a virtual CPU sees to it.
    pub left_over: AtomicU64,
    /// Broken virtio protocols that it is to blame for; the first few are logged.
    pub breaches: AtomicU32,
    /// The exits of each virtual CPU, noted now and then.
    exits: [AtomicU64; VCPUS_MAX],
    /// The power state of each virtual CPU.
    pub power: Vec<Power>,
    /// Its end of the system console.
    pub console: GuestIndex,
    /// What is copied into its RAM at each start.
    pub images: Vec<Image>,
    /// Ranges of its RAM that get random bytes at each start: guest address, bytes.
    pub seeds: Vec<(u64, usize)>,
    /// Where virtual CPU 0 starts.
    pub entry: u64,
    /// What virtual CPU 0 finds in `x0`.
    pub device_tree: u64,
    /// Each virtual CPU's core.
    pub cores: [u8; VCPUS_MAX],
    /// How far the preparation of its memory is.
    pub preparation: Preparation,
    /// CNTVOFF_EL2.
    pub counter_offset: AtomicU64,
    /// Faults injected since the start; the first few are logged.
    pub faults: AtomicU32,
    /// Starts so far.
    pub starts: AtomicU32,
    /// Bits 15:0: virtual CPUs that are not loaded on their core. Bits 31:16: those of them that could run, so that
    /// their core will come to them and nobody needs to kick it.
    away: AtomicU32,
    /// Virtual CPUs whose core is shared.
    pub sharing: AtomicU32,
    /// The phase, from bit 16 up; below it, while the phase is a stopping one, the virtual CPUs that have stopped. One
    /// word, so that nobody can park for a stop that is over.
    life: AtomicU32,
}

/// The parts of a [`Vm`] that the manifest does not decide at run time.
pub struct Parts {
    /// As in [`Vm`].
    pub number: usize,
    /// As in [`Vm`].
    pub name: String,
    /// As in [`Vm`].
    pub ram: GuestRam,
    /// As in [`Vm`].
    pub stage2: Stage2,
    /// As in [`Vm`].
    pub vgic: &'static Vgic,
    /// As in [`Vm`].
    pub bus: Bus<DEVICES_MAX>,
    /// As in [`Vm`].
    pub slots: Vec<Slot>,
    /// As in [`Vm`].
    pub virtio: Vec<VirtioDevice>,
    /// As in [`Vm`].
    pub channels: Vec<(usize, usize)>,
    /// As in [`Vm`].
    pub doorbell: Option<IntId>,
    /// As in [`Vm`].
    pub watch: Watch,
    /// As in [`Vm`].
    pub assigned: Assigned,
    /// As in [`Vm`].
    pub console: GuestIndex,
    /// As in [`Vm`].
    pub images: Vec<Image>,
    /// As in [`Vm`].
    pub seeds: Vec<(u64, usize)>,
    /// As in [`Vm`].
    pub entry: u64,
    /// As in [`Vm`].
    pub device_tree: u64,
    /// Each virtual CPU's core.
    pub vcpus: Vec<u8>,
}

impl Vm {
    /// A virtual machine that waits to be prepared.
    pub fn new(parts: Parts) -> Self {
        let mut cores = [0; VCPUS_MAX];
        for (entry, core) in cores.iter_mut().zip(&parts.vcpus) {
            *entry = *core;
        }
        Self {
            number: parts.number,
            name: parts.name,
            ram: parts.ram,
            stage2: parts.stage2,
            vgic: parts.vgic,
            bus: parts.bus,
            slots: parts.slots,
            virtio: parts.virtio,
            channels: parts.channels,
            doorbell: parts.doorbell,
            assigned: parts.assigned,
            is_ready: AtomicBool::new(false),
            watch: Mutex::new(parts.watch),
            is_held: AtomicBool::new(false),
            left_over: AtomicU64::new(0),
            breaches: AtomicU32::new(0),
            exits: [const { AtomicU64::new(0) }; VCPUS_MAX],
            power: parts.vcpus.iter().map(|_| Power::new(false)).collect(),
            console: parts.console,
            images: parts.images,
            seeds: parts.seeds,
            entry: parts.entry,
            device_tree: parts.device_tree,
            cores,
            preparation: Preparation::new(),
            counter_offset: AtomicU64::new(0),
            faults: AtomicU32::new(0),
            starts: AtomicU32::new(0),
            away: AtomicU32::new((1 << QUEUED_SHIFT) - 1),
            sharing: AtomicU32::new(0),
            life: AtomicU32::new(Phase::Preparing.bits()),
        }
    }

    /// Notes how often virtual CPU `vcpu` has come to EL2 so far.
    #[inline]
    pub fn note_exits(&self, vcpu: usize, exits: u64) {
        if let Some(entry) = self.exits.get(vcpu) {
            entry.store(exits, Ordering::Relaxed);
        }
    }

    /// How often its virtual CPUs have come to EL2, as far as they have noted it.
    pub fn exits(&self) -> u64 {
        self.exits.iter().map(|exits| exits.load(Ordering::Relaxed)).sum()
    }

    /// Whether it serves others: the system does not go on for its sake.
    pub fn is_driver_domain(&self) -> bool {
        self.doorbell.is_some()
    }

    /// The watch over it, if it is a driver domain.
    #[inline(never)]
    pub fn watch(&self) -> MutexGuard<'_, Watch> {
        self.watch.lock()
    }

    /// How many virtual CPUs it has.
    pub fn vcpu_count(&self) -> usize {
        self.power.len()
    }

    /// The core of virtual CPU `vcpu`.
    #[inline]
    pub fn core_of(&self, vcpu: usize) -> Option<usize> {
        self.cores.get(vcpu).map(|core| usize::from(*core))
    }

    /// The core of virtual CPU `vcpu`, if it has it to itself: an interrupt for it is told to that core, whatever it
    /// does.
    #[inline(always)]
    pub fn undivided_core_of(&self, vcpu: usize) -> Option<usize> {
        let is_shared = self.sharing.load(Ordering::Relaxed) >> (vcpu % VCPUS_MAX) & 1 != 0;
        if is_shared { None } else { self.core_of(vcpu) }
    }

    /// Where it is in its life.
    #[inline]
    pub fn phase(&self) -> Phase {
        Phase::from_bits(self.life.load(Ordering::Acquire))
    }

    /// Whether its virtual CPUs may run.
    #[inline]
    pub fn is_running(&self) -> bool {
        self.life.load(Ordering::Acquire) == Phase::Running.bits()
    }

    /// Goes from phase `from` to phase `to`, in which nobody is parked. Returns whether it was in `from`.
    #[inline(never)]
    pub fn advance(&self, from: Phase, to: Phase) -> bool {
        let step = |life: u32| (life & !PARKED_MASK == from.bits()).then_some(to.bits());
        self.life.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).is_ok()
    }

    /// Notes that virtual CPU `vcpu` is on its core.
    #[inline(always)]
    pub fn set_loaded(&self, vcpu: usize) {
        self.away.fetch_and(!((1 << QUEUED_SHIFT | 1) << vcpu), Ordering::SeqCst);
        // Pairs with the one in `needs_kick`: who makes an interrupt pending and finds the virtual CPU away has been
        // seen by its next flush.
        fence(Ordering::SeqCst);
    }

    /// Notes that virtual CPU `vcpu` is off its core; `is_queued` says that it will be back without being woken.
    #[inline(always)]
    pub fn set_away(&self, vcpu: usize, is_queued: bool) {
        self.away.fetch_or((u32::from(is_queued) << QUEUED_SHIFT | 1) << vcpu, Ordering::SeqCst);
    }

    /// Whether the core of virtual CPU `vcpu` must be told of an interrupt. One that has its core alone, or is on it,
    /// must; one that is queued will look at its interrupts when its turn comes; one that waits is woken only by what
    /// it can take. So a guest cannot have the neighbours of its sleeping virtual CPUs interrupted for nothing.
    #[inline]
    pub fn needs_kick(&self, vcpu: usize) -> bool {
        self.sharing.load(Ordering::Relaxed) & 1 << vcpu == 0 || self.needs_wake(vcpu)
    }

    /// Whether virtual CPU `vcpu` is on its core, or has it alone.
    pub fn is_at_hand(&self, vcpu: usize) -> bool {
        self.sharing.load(Ordering::Relaxed) & 1 << vcpu == 0 || self.away.load(Ordering::SeqCst) & 1 << vcpu == 0
    }

    #[inline(never)]
    fn needs_wake(&self, vcpu: usize) -> bool {
        fence(Ordering::SeqCst);
        let away = self.away.load(Ordering::SeqCst) >> vcpu;
        if away & 1 == 0 {
            return true;
        }
        // One that is off looks at its interrupts when it is turned on, which summons its core.
        let is_on = || self.power.get(vcpu).is_some_and(Power::is_on);
        away & 1 << QUEUED_SHIFT == 0 && is_on() && self.vgic.has_deliverable(vcpu)
    }

    /// Whether virtual CPU `vcpu` is parked, or there is no stop for which it should be.
    pub fn is_parked(&self, vcpu: usize) -> bool {
        let life = self.life.load(Ordering::Acquire);
        !Phase::from_bits(life).is_stopping() || life & 1 << vcpu != 0
    }

    /// Parks virtual CPU `vcpu`, if the machine is stopping and it is not parked yet. Says which stop it is, once all
    /// are parked by this.
    pub fn park(&self, vcpu: usize) -> Parked {
        let step =
            |life: u32| (Phase::from_bits(life).is_stopping() && life & 1 << vcpu == 0).then_some(life | 1 << vcpu);
        let Ok(before) = self.life.fetch_update(Ordering::AcqRel, Ordering::Acquire, step) else { return Parked::Not };
        let parked = (before | 1 << vcpu) & PARKED_MASK;
        if parked == (1 << self.vcpu_count()) - 1 { Parked::Last(Phase::from_bits(before)) } else { Parked::Yes }
    }
}
