//! One virtual machine: what its virtual CPUs share.

use crate::console::GuestConsole;
use alloc::string::String;
use alloc::vec::Vec;
use arch::memory::GuestRam;
use arch::mmu::Stage2;
use arch::timer;
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use devices::AnyDevice;
use model::bus::Bus;
use model::console::GuestIndex;
use model::psci::Power;
use model::vgic::{IntId, Kicks, VCPUS_MAX, Vgic};
use spin::Mutex;
use vdev::{Device, Host, Width};

/// The most devices of one virtual machine.
pub const DEVICES_MAX: usize = manifest::DEVICES_MAX;

/// A file of the bundle and where it goes.
pub struct Image {
    /// Guest address.
    pub address: u64,
    /// The file's bytes, in the bundle.
    pub bytes: &'static [u8],
}

/// A virtual device in its place.
pub struct Slot {
    occupant: Mutex<Occupant>,
    interrupt: Option<IntId>,
}

struct Occupant {
    device: AnyDevice,
    /// The level of its line when it was last looked at.
    line: bool,
}

impl Slot {
    /// `device`, whose line is SPI `interrupt`.
    pub fn new(device: AnyDevice, interrupt: Option<IntId>) -> Self {
        Self { occupant: Mutex::new(Occupant { device, line: false }), interrupt }
    }

    /// The value of a load that changes nothing, if the device can tell at once.
    #[inline(always)]
    pub fn peek(&self, offset: u64, width: Width) -> Option<u64> {
        self.occupant.lock().device.peek(offset, width)
    }

    /// Lets `action` use the device, then samples its line: the virtual CPUs in the second result are to be told.
    #[inline(always)]
    pub fn with<R>(&self, vm: &Vm, action: impl FnOnce(&mut AnyDevice, &mut Host<'_>) -> R) -> (R, Kicks) {
        let mut console = GuestConsole::of(vm);
        let mut occupant = self.occupant.lock();
        let Occupant { device, line } = &mut *occupant;
        let mut host = Host { now: timer::now(), memory: &vm.ram, console: &mut console };
        let result = action(device, &mut host);
        let level = device.line();
        if level == *line {
            return (result, Kicks::NONE);
        }
        *line = level;
        // Under the lock, so that the vGIC hears of levels in their order.
        (result, self.interrupt.map_or(Kicks::NONE, |interrupt| vm.vgic.set_line(interrupt, 0, level)))
    }

    /// Returns the device to power-on; the vGIC, which holds its line low then, is reset too.
    pub fn reset(&self) {
        let mut occupant = self.occupant.lock();
        occupant.device.reset();
        occupant.line = false;
    }
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

impl Phase {
    fn from_bits(bits: u8) -> Self {
        [Self::Preparing, Self::Running, Self::StoppingForOff, Self::StoppingForReset]
            .into_iter()
            .find(|phase| *phase as u8 == bits)
            .unwrap_or(Self::Off)
    }
}

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
    /// Its devices; the bus names them by index.
    pub slots: Vec<Slot>,
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
    /// Preparation's progress; only virtual CPU 0's core works on it.
    pub progress: Mutex<u64>,
    /// CNTVOFF_EL2.
    pub counter_offset: AtomicU64,
    /// Faults injected since the start; the first few are logged.
    pub faults: AtomicU32,
    /// Starts so far.
    pub starts: AtomicU32,
    /// Virtual CPUs that have stopped, while the phase is a stopping one.
    pub parked: AtomicU32,
    phase: AtomicU8,
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
            power: parts.vcpus.iter().map(|_| Power::new(false)).collect(),
            console: parts.console,
            images: parts.images,
            seeds: parts.seeds,
            entry: parts.entry,
            device_tree: parts.device_tree,
            cores,
            progress: Mutex::new(0),
            counter_offset: AtomicU64::new(0),
            faults: AtomicU32::new(0),
            starts: AtomicU32::new(0),
            parked: AtomicU32::new(0),
            phase: AtomicU8::new(Phase::Preparing as u8),
        }
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

    /// Where it is in its life.
    #[inline]
    pub fn phase(&self) -> Phase {
        Phase::from_bits(self.phase.load(Ordering::Acquire))
    }

    /// Whether its virtual CPUs may run.
    #[inline]
    pub fn is_running(&self) -> bool {
        self.phase.load(Ordering::Acquire) == Phase::Running as u8
    }

    /// Goes from phase `from` to phase `to`. Returns whether it was in `from`.
    pub fn advance(&self, from: Phase, to: Phase) -> bool {
        self.phase.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
