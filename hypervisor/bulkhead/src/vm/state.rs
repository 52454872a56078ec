//! Where a virtual machine is in its life.

use super::Preparation;
use aarch64::psci::Power;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use spin::Mutex;
use vgic::VCPUS_MAX;
use virtio_transport::Holdings;
use vm_lifecycle::Phase;
use vm_lifecycle::access::Accesses;
use vm_lifecycle::watch::Watch;

/// The bits of a machine's life that name parked virtual CPUs.
pub(super) const PARKED_MASK: u32 = (1 << PHASE_SHIFT) - 1;
/// Where the phase begins, above them.
const PHASE_SHIFT: u32 = 16;

/// The bits of a machine's life in which it is in `phase` and nobody is parked.
pub(super) const fn life_in(phase: Phase) -> u32 {
    (phase as u32) << PHASE_SHIFT
}

/// The phase of a machine whose life is `life`.
#[inline(never)]
pub(super) fn phase_of(life: u32) -> Phase {
    match life >> PHASE_SHIFT {
        phase if phase == Phase::Preparing as u32 => Phase::Preparing,
        phase if phase == Phase::Running as u32 => Phase::Running,
        phase if phase == Phase::StoppingForOff as u32 => Phase::StoppingForOff,
        phase if phase == Phase::StoppingForReset as u32 => Phase::StoppingForReset,
        _ => Phase::Off,
    }
}

/// Where the queued virtual CPUs begin in [`State`]'s word of those that are away.
pub(super) const QUEUED_SHIFT: u32 = 16;

const _: () = assert!(VCPUS_MAX <= QUEUED_SHIFT as usize, "each virtual CPU has a bit in either half");

/// What changes from start to start, and while it runs.
pub struct State {
    /// The phase, from bit 16 up; below it, while the phase is a stopping one, the virtual CPUs that have stopped. One
    /// word, so that nobody can park for a stop that is over.
    pub(super) life: AtomicU32,
    /// The power state of each virtual CPU.
    pub power: Vec<Power>,
    /// Bits 15:0: virtual CPUs that are not loaded on their core. Bits 31:16: those of them that could run, so that
    /// their core will come to them and nobody needs to kick it.
    pub(super) away: AtomicU32,
    /// How far the preparation of its memory is.
    pub preparation: Preparation,
    /// CNTVOFF_EL2.
    pub counter_offset: AtomicU64,
    /// Which of its virtual CPUs wait for the answer to an access. Taken last, and held for a moment.
    pub accesses: Mutex<Accesses>,
    /// It is prepared, and starts as soon as its driver domain is ready.
    pub is_held: AtomicBool,
    /// Para-virtual devices at which others have left something to do, a bit each, until a virtual CPU sees to it.
    pub left_over: AtomicU64,
    /// The clients of this driver domain may start: it has said that it is ready, or it never will be.
    pub is_ready: AtomicBool,
    /// What its devices were found to hold when it was off.
    pub left: Mutex<Holdings>,
    pub(super) watch: Mutex<Watch>,
}

impl State {
    /// Of a VM with so many virtual CPUs that waits to be prepared, and over which `watch` is.
    pub fn new(vcpus: usize, watch: Watch) -> Self {
        Self {
            life: AtomicU32::new(life_in(Phase::Preparing)),
            power: (0..vcpus).map(|_| Power::new(false)).collect(),
            away: AtomicU32::new((1 << QUEUED_SHIFT) - 1),
            preparation: Preparation::new(),
            counter_offset: AtomicU64::new(0),
            accesses: Mutex::new(Accesses::new()),
            is_held: AtomicBool::new(false),
            left_over: AtomicU64::new(0),
            is_ready: AtomicBool::new(false),
            left: Mutex::default(),
            watch: Mutex::new(watch),
        }
    }
}
