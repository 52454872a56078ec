//! A virtual machine's life: prepared, running, stopping, off. A first start and a restart are one path.
//!
//! Nothing waits: whoever stops a machine marks it and kicks its cores; each core parks its virtual CPUs when it sees the
//! mark; the last to park takes the next step; preparation goes on in steps between which the core looks at its other
//! virtual CPUs.

use crate::console;
use crate::guest_cpu::{GuestCpu, Left};
use crate::machine::Machine;
use crate::vm::{Parked, Phase, Vm};
use arch::context::Vcpu;
use arch::list_registers::VirtualInterface;
use arch::{firmware, memory, timer};
use core::sync::atomic::Ordering;
use model::vgic::CpuInterface;

/// Bytes cleared or copied in one step: the longest that preparing a machine holds its core, about 0.1 ms.
const STEP_SIZE: u64 = 1 << 20;

/// How many restarts are logged one by one; after that, those whose number is a power of two.
const RESTARTS_LOGGED_MAX: u32 = 16;

/// Bytes of one seed that are drawn at once.
const SEED_CHUNK: usize = 64;

/// Stops `vm`; `phase` says what for. Does nothing if it is stopping already.
pub fn stop(machine: &'static Machine, vm: &'static Vm, phase: Phase, this_core: usize) {
    if !vm.advance(Phase::Running, phase) {
        return;
    }
    for vcpu in 0..vm.vcpu_count() {
        if let Some(core) = vm.core_of(vcpu) {
            machine.summon(core, this_core);
        }
    }
}

/// Stops the machine of `guest`, which has caused the SError `esr`.
pub fn stop_for_system_error(machine: &'static Machine, guest: &GuestCpu, esr: u64) {
    log::error!("vm {}, vcpu {}: SError, ESR {esr:#x}: the machine stops", guest.vm.name, guest.index);
    stop(machine, guest.vm, Phase::StoppingForOff, guest.core);
}

/// Notes that virtual CPU `vcpu` of the stopping `vm` runs no more; the last one takes the machine to its next phase.
/// Returns whether it was the last.
pub fn park(machine: &'static Machine, vm: &'static Vm, vcpu: usize, this_core: usize) -> bool {
    let Parked::Last(phase) = vm.park(vcpu) else { return false };
    console::flush(vm);
    // One that parked early may have been turned on by one that parked late.
    for power in &vm.power {
        power.turn_off();
    }
    match phase {
        Phase::StoppingForReset => {
            log_restart(vm);
            *vm.progress.lock() = 0;
            vm.advance(Phase::StoppingForReset, Phase::Preparing);
            if let Some(core) = vm.core_of(0) {
                machine.summon(core, this_core);
            }
        }
        Phase::StoppingForOff => {
            vm.advance(Phase::StoppingForOff, Phase::Off);
            log::info!("vm {} is off", vm.name);
            if machine.retire() {
                log::info!("every vm is off: power off");
                firmware::power_off();
            }
        }
        Phase::Preparing | Phase::Running | Phase::Off => {}
    }
    true
}

/// A guest that restarts again and again is not to fill the log.
fn log_restart(vm: &Vm) {
    let starts = vm.starts.load(Ordering::Relaxed);
    if starts <= RESTARTS_LOGGED_MAX || starts.is_power_of_two() {
        log::info!("vm {} restarts (start {})", vm.name, starts + 1);
    }
}

/// One step of preparing `vm`: its RAM is cleared, then its images are copied, then it starts.
pub fn prepare(machine: &'static Machine, vm: &'static Vm) {
    let mut progress = vm.progress.lock();
    let size = vm.ram.size();
    if *progress < size {
        *progress += vm.ram.clear(*progress, STEP_SIZE);
        return;
    }
    let mut offset = *progress - size;
    for image in &vm.images {
        let length = image.bytes.len() as u64;
        if offset < length {
            let end = length.min(offset + STEP_SIZE);
            let chunk = image.bytes.get(offset as usize..end as usize).unwrap_or(&[]);
            // `construct` checked that the image fits; a refusal here is a defect.
            vm.ram.load_image(image.address + offset, chunk).expect("images were checked to fit their RAM");
            *progress += end - offset;
            return;
        }
        offset -= length;
    }
    drop(progress);
    begin(machine, vm);
}

/// The last step: fresh devices, fresh seeds, no stale translation, and virtual CPU 0 turned on.
fn begin(machine: &'static Machine, vm: &'static Vm) {
    // The devices first: one that is polled meanwhile must not raise its line again.
    for slot in &vm.slots {
        slot.reset();
    }
    vm.vgic.reset();
    let mut pool = machine.entropy.lock();
    for (address, size) in &vm.seeds {
        for start in (0..*size).step_by(SEED_CHUNK) {
            let mut bytes = [0; SEED_CHUNK];
            let length = SEED_CHUNK.min(size - start);
            if let Some(part) = bytes.get_mut(..length) {
                pool.fill(part);
                vm.ram.load_image(address + start as u64, part).expect("seeds were checked to fit their RAM");
            }
        }
    }
    drop(pool);
    vm.stage2.invalidate();
    memory::invalidate_instruction_caches();
    vm.counter_offset.store(timer::now().0, Ordering::Release);
    let starts = vm.starts.fetch_add(1, Ordering::Relaxed) + 1;
    log::debug!("vm {} starts (start {starts})", vm.name);
    vm.advance(Phase::Preparing, Phase::Running);
    if let Some(power) = vm.power.first() {
        // All powers are off while a machine is prepared.
        let _ = power.turn_on(vm.entry, vm.device_tree);
    }
    if let Some(core) = vm.core_of(0) {
        // This one: preparation is done where virtual CPU 0 runs.
        machine.summon(core, core);
    }
}

/// Gives the virtual CPU the registers and interrupts of a core that was just turned on.
pub fn start(vcpu: &mut Vcpu<GuestCpu>, entry: u64, argument: u64) {
    vcpu.start_at(entry, argument);
    vcpu.guest.interface = CpuInterface::new();
    vcpu.guest.virtual_interface = VirtualInterface::reset();
    vcpu.guest.waiting = false;
    vcpu.guest.is_leaving = false;
    vcpu.guest.left = Left::Reschedule;
}
