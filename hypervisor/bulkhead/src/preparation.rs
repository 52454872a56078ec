//! Preparing a machine's memory: its RAM is cleared, its images are copied, then it begins. A first start and a
//! restart are one path.
//!
//! The core of virtual CPU 0 leads. Others take pieces of the RAM and clear them beside it: every core before the
//! first guest runs, and the cores of the machine's own virtual CPUs later. Between two pieces each looks whether an
//! interrupt is pending for it, and sees to that first.

use crate::lifecycle;
use crate::machine::Machine;
use crate::virtio::VirtioDevice;
use crate::vm::{Phase, Vm};
use arch::cpu;
use core::fmt::{self, Display, Formatter};
use core::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are cleared or copied between two looks for interrupts: some 500 instructions, or 1000.
const PIECE_SIZE: u64 = 8 << 10;

/// How far the preparation of a machine's memory is.
pub struct Preparation {
    /// Where the next piece to be cleared begins, counted through all regions; [`CLOSED`] as long as nothing may be.
    next: AtomicU64,
    /// Bytes that have been cleared.
    cleared: AtomicU64,
    /// Bytes of images that have been copied. Only the leader copies.
    copied: AtomicU64,
}

/// No RAM is as large.
const CLOSED: u64 = u64::MAX;

impl Preparation {
    /// Nothing may be cleared yet.
    pub const fn new() -> Self {
        Self { next: AtomicU64::new(CLOSED), cleared: AtomicU64::new(0), copied: AtomicU64::new(0) }
    }

    fn is_open(&self) -> bool {
        self.next.load(Ordering::Acquire) != CLOSED
    }

    /// From now on RAM may be cleared. By the leader: no virtual CPU runs, and no device writes there.
    fn open(&self) {
        self.cleared.store(0, Ordering::Relaxed);
        self.copied.store(0, Ordering::Relaxed);
        self.next.store(0, Ordering::Release);
    }

    /// Takes the next of the pieces of `size` bytes of RAM, for the caller alone.
    fn take_piece(&self, size: u64) -> Option<u64> {
        let step = |next: u64| (next < size).then_some(next.saturating_add(PIECE_SIZE));
        self.next.fetch_update(Ordering::AcqRel, Ordering::Acquire, step).ok()
    }
}

/// What came of an attempt to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do, after the interrupts of this core.
    Going,
    /// Devices may still write to the memory.
    Waiting,
    /// There is nothing to do here any more, or not before this core is summoned.
    Done,
}

/// Whether another core than that of virtual CPU 0 finds something to clear in the memory of `vm`.
pub fn can_help(vm: &Vm) -> bool {
    vm.phase() == Phase::Preparing && vm.preparation.next.load(Ordering::Acquire) < vm.ram.size()
}

/// Whether devices of its driver domain may still write to the memory of `vm`.
pub fn has_granted(vm: &Vm) -> bool {
    vm.virtio.iter().any(VirtioDevice::has_grants)
}

/// Goes on with preparing `vm`, until an interrupt is pending for `core`, which this is.
#[inline(never)]
pub fn advance(machine: &'static Machine, vm: &'static Vm, core: usize) -> Progress {
    let leader = vm.core_of(0).unwrap_or(core);
    let preparation = &vm.preparation;
    if core == leader && !preparation.is_open() {
        if has_granted(vm) {
            return Progress::Waiting;
        }
        preparation.open();
        summon_helpers(machine, vm, core);
    }
    let size = vm.ram.size();
    while let Some(start) = preparation.take_piece(size) {
        let (mut offset, end) = (start, size.min(start.saturating_add(PIECE_SIZE)));
        while offset < end {
            offset += vm.ram.clear(offset, end - offset);
        }
        machine.note_cleared(core, end - start);
        let cleared = preparation.cleared.fetch_add(end - start, Ordering::AcqRel) + (end - start);
        if cleared == size && core != leader {
            machine.summon(leader, core);
        }
        if cpu::has_pending_interrupt() {
            return Progress::Going;
        }
    }
    if core != leader || preparation.cleared.load(Ordering::Acquire) < size {
        // Whoever clears the last piece summons the leader.
        return Progress::Done;
    }
    copy_images(machine, vm)
}

fn copy_images(machine: &'static Machine, vm: &'static Vm) -> Progress {
    let copied = &vm.preparation.copied;
    let mut offset = copied.load(Ordering::Relaxed);
    for image in &vm.images {
        let length = image.bytes.len() as u64;
        while offset < length {
            let end = length.min(offset + PIECE_SIZE);
            let piece = image.bytes.get(offset as usize..end as usize).unwrap_or(&[]);
            // `construct` checked that the image fits; a refusal here is a defect.
            vm.ram.load_image(image.address + offset, piece).expect("images were checked to fit their RAM");
            copied.fetch_add(end - offset, Ordering::Relaxed);
            offset = end;
            if cpu::has_pending_interrupt() {
                return Progress::Going;
            }
        }
        offset -= length;
    }
    vm.preparation.next.store(CLOSED, Ordering::Release);
    lifecycle::begin(machine, vm);
    Progress::Done
}

/// Calls those who clear RAM beside `core`, the leader.
fn summon_helpers(machine: &'static Machine, vm: &Vm, core: usize) {
    let is_first = !machine.has_started();
    for helper in 0..machine.cores {
        let is_own = || (0..vm.vcpu_count()).any(|vcpu| vm.core_of(vcpu) == Some(helper));
        if helper != core && (is_first || is_own()) {
            machine.summon(helper, core);
        }
    }
}

/// A guest starts: from now on only its own cores prepare a machine.
pub fn note_start(machine: &Machine) {
    if machine.start() {
        log::info!("RAM cleared before the first guest, in KiB by each core: {}", Shares(machine));
    }
}

/// How much each core has cleared.
struct Shares<'a>(&'a Machine);

impl Display for Shares<'_> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        (0..self.0.cores).try_for_each(|core| {
            let separator = if core == 0 { "" } else { ", " };
            write!(formatter, "{separator}{}", self.0.cleared(core) >> 10)
        })
    }
}
