//! Preparing a VM's memory: its RAM is cleared, its images are copied, then it begins. A first start and a restart are
//! one path; before a restart, its last life is ended (`ending`).
//!
//! The core of virtual CPU 0 leads. Others take pieces of the RAM and clear them beside it: every core before the
//! first guest runs, and the cores of the VM's own virtual CPUs later. Between two pieces each looks whether an
//! interrupt is pending for it, and sees to that first.

use crate::ending;
use crate::machine::Machine;
use crate::vm::{PIECE_SIZE, VirtioDevice, Vm};
use arch::pending;
use core::sync::atomic::Ordering;
use vm_lifecycle::Phase;

/// What came of an attempt to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// There is more to do, after the interrupts of this core.
    Going,
    /// Devices may still write to the memory.
    Waiting,
    /// The memory is prepared: the VM is about to begin.
    Prepared,
    /// There is nothing to do here any more, or not before this core is summoned.
    Done,
}

/// Whether another core than that of virtual CPU 0 finds something to clear in the memory of `vm`.
pub fn can_help(vm: &Vm) -> bool {
    vm.phase() == Phase::Preparing && vm.state.preparation.next() < vm.ram.size()
}

/// Whether devices of its driver domain may still write to the memory of `vm`.
pub fn has_granted(vm: &Vm) -> bool {
    vm.io.virtio.iter().any(VirtioDevice::has_grants)
}

/// Goes on with preparing `vm`, until an interrupt is pending for `core`, which this is.
#[inline(never)]
pub fn advance(machine: &'static Machine, vm: &'static Vm, core: usize) -> Progress {
    let leader = vm.core_of(0).unwrap_or(core);
    if core == leader && vm.has_stopped() {
        return if ending::end(machine, vm, core) { Progress::Done } else { Progress::Going };
    }
    let preparation = &vm.state.preparation;
    if core == leader && !preparation.is_open() {
        if has_granted(vm) {
            return Progress::Waiting;
        }
        preparation.open();
        request_helpers(machine, vm, core);
        // To ask all devices may have taken long.
        return Progress::Going;
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
        if pending::has_pending_interrupt() {
            return Progress::Going;
        }
    }
    if core != leader || preparation.cleared.load(Ordering::Acquire) < size {
        // Whoever clears the last piece summons the leader.
        return Progress::Done;
    }
    copy_images(vm)
}

fn copy_images(vm: &Vm) -> Progress {
    let copied = &vm.state.preparation.copied;
    let mut offset = copied.load(Ordering::Relaxed);
    for image in &vm.config.images {
        let length = image.bytes.len() as u64;
        while offset < length {
            let end = length.min(offset + PIECE_SIZE);
            let piece = image.bytes.get(offset as usize..end as usize).unwrap_or(&[]);
            // `construct` checked that the image fits; a refusal here is a defect.
            vm.ram.load_image(image.address + offset, piece).expect("images were checked to fit their RAM");
            copied.fetch_add(end - offset, Ordering::Relaxed);
            offset = end;
            if pending::has_pending_interrupt() {
                return Progress::Going;
            }
        }
        offset -= length;
    }
    Progress::Prepared
}

/// Calls those who clear RAM beside `core`, the leader.
fn request_helpers(machine: &'static Machine, vm: &Vm, core: usize) {
    let is_first = !machine.has_started();
    for helper in 0..machine.cores {
        let is_own = || (0..vm.vcpu_count()).any(|vcpu| vm.core_of(vcpu) == Some(helper));
        if helper != core && (is_first || is_own()) {
            machine.summon(helper, core);
        }
    }
}
