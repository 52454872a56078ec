//! A virtual machine's life: prepared, running, stopping, off. A first start and a restart are one path.
//!
//! Nothing waits: whoever stops a machine marks it and kicks its cores; each core parks its virtual CPUs when it sees
//! the mark; with the last to park the VM has stopped, and `supervision` takes it to its next phase; preparation
//! (`preparation`) goes on until an interrupt is pending.

use crate::console;
use crate::guest_cpu::{GuestCpu, Left};
use crate::machine::Machine;
use crate::vm::{Parked, Vm};
use arch::context::Vcpu;
use arch::list_registers::VirtualInterface;
use arch::{bulk, firmware, pending, timer};
use core::fmt::{self, Display, Formatter};
use core::sync::atomic::Ordering;
use terminal::repeated::Repeated;
use vdev::ResetKind;
use virtio_transport::Holdings;
use vm_lifecycle::{Phase, RestartDecision, Step};

/// Bytes of one seed that are drawn at once.
const SEED_CHUNK: usize = 8;

/// Stops `vm`; `step` says what for. Does nothing if it does not run. For [`crate::command`], which knows who may ask
/// for it.
pub fn stop(machine: &'static Machine, vm: &'static Vm, step: Step, this_core: usize) {
    if !vm.advance(step) {
        return;
    }
    for vcpu in 0..vm.vcpu_count() {
        if let Some(core) = vm.core_of(vcpu) {
            machine.summon(core, this_core);
        }
    }
}

/// Notes that virtual CPU `vcpu` of the stopping `vm` runs no more; with the last one the VM has stopped.
/// Returns what for, if this was the last: [`crate::supervision`] takes the VM to its next phase.
pub fn park(machine: &'static Machine, vm: &'static Vm, vcpu: usize) -> Option<Phase> {
    let Parked::Last(phase) = vm.park(vcpu) else { return None };
    console::flush(vm.config.console);
    vm.state.is_ready.store(false, Ordering::Release);
    for slot in &vm.io.slots {
        slot.stop();
    }
    // What its driver domain completes from now on must not land in memory that is being cleared.
    for device in &vm.io.virtio {
        if let Some(provider) = machine.backend_of(device) {
            device.reset(provider);
        }
    }
    for channel in machine.channels(vm) {
        channel.device.suspend();
    }
    vm.io.assigned.stop(&machine.gic);
    // Only now: a real device may have been writing to memory that was granted.
    for channel in machine.channels(vm) {
        channel.device.end_grants();
    }
    // One that parked early may have been turned on by one that parked late.
    for power in &vm.state.power {
        power.turn_off();
    }
    Some(phase)
}

/// `vm`, whose virtual CPUs are parked, is off for good from now on.
pub fn finish(machine: &'static Machine, vm: &'static Vm) {
    vm.advance(Step::Parked(RestartDecision::GiveUp));
    log::info!("vm {} is off", vm.config.name);
    report(vm);
    if machine.retire(vm) {
        for provider in machine.vms.iter().filter(|vm| vm.is_driver_domain()) {
            report(provider);
        }
        log::info!("every vm is off: power off");
        firmware::power_off();
    }
}

/// What the machine's devices did.
fn report(vm: &Vm) {
    if !vm.io.virtio.is_empty() || !vm.io.assigned.is_empty() || vm.is_driver_domain() {
        log::info!("vm {}: exits={}", vm.config.name, vm.exits());
    }
    for (index, device) in vm.io.virtio.iter().enumerate() {
        device.report(&vm.config.name, index);
    }
    report_left(vm);
}

/// What EL2 still keeps for the machine, which is off: a request may be with its driver domain; all else is nothing.
fn report_left(vm: &Vm) {
    let mut left = Holdings::default();
    for device in &vm.io.virtio {
        left.add(&device.holdings());
    }
    let deadlines = vm.io.slots.iter().filter(|slot| slot.has_deadline()).count();
    let (waiting, late) = {
        let accesses = vm.state.accesses.lock();
        (accesses.waiting(), accesses.late())
    };
    log::info!(
        "vm {}: left requests={} chains={} window_pages={} grants={} deadlines={deadlines} held_interrupts={} waiting_accesses={waiting} late_answers={late}",
        vm.config.name,
        left.requests,
        left.chains,
        left.window_pages,
        left.grants,
        vm.vgic.held_interrupts(),
    );
}

/// A guest that restarts again and again is not to fill the log.
pub fn log_restart(vm: &Vm) {
    let starts = vm.counters.starts.load(Ordering::Relaxed);
    if Repeated::Start.is_logged(starts) {
        log::info!("vm {} restarts (start {})", vm.config.name, starts + 1);
    }
}

/// The last steps of preparing: fresh devices, fresh seeds, no stale translation, and virtual CPU 0 turned on. By the
/// core that leads, `this_core`: virtual CPU 0 runs there. Returns whether this was the end; if not, an interrupt is
/// pending, and there are steps to do after it.
#[cold]
#[inline(never)]
pub fn begin(machine: &'static Machine, vm: &'static Vm, this_core: usize) -> bool {
    while renew(machine, vm, this_core, vm.state.preparation.take_step()) {
        if pending::has_pending_interrupt() {
            return false;
        }
    }
    vm.state.preparation.close();
    vm.stage2.invalidate();
    vm.state.counter_offset.store(timer::now().0, Ordering::Release);
    vm.counters.starts.fetch_add(1, Ordering::Relaxed);
    vm.advance(Step::Prepared);
    vm.state.is_held.store(true, Ordering::SeqCst);
    match waits_for(machine, vm) {
        None => release(machine, vm, this_core),
        Some(provider) => {
            if Repeated::Start.is_logged(vm.counters.starts.load(Ordering::Relaxed)) {
                log::info!("vm {} waits for its driver domain, vm {}", vm.config.name, provider.config.name);
            }
            machine.summon(this_core, this_core);
        }
    }
    true
}

/// Makes something new for the next start of `vm`, in as many steps as there are: each is short. Returns whether there
/// was a step `step`.
#[inline(never)]
fn renew(machine: &'static Machine, vm: &'static Vm, this_core: usize, step: usize) -> bool {
    // The devices first: one that is polled meanwhile must not raise its line again.
    let Some(step) = step.checked_sub(1) else {
        let is_first = vm.counters.starts.load(Ordering::Relaxed) == 0;
        let kind = if is_first { ResetKind::PowerOn } else { ResetKind::VmRestart };
        for slot in &vm.io.slots {
            slot.reset(kind, this_core);
        }
        return true;
    };
    let Some(step) = step.checked_sub(vm.vgic.reset_steps()) else {
        vm.vgic.reset_step(step);
        return true;
    };
    let channels = vm.config.channels.len();
    let Some(step) = step.checked_sub(channels) else {
        if let Some(channel) = machine.channel(vm, step) {
            channel.device.restart_channel(&vm.ram);
        }
        if let Some(result) = vm.io.results.get(step) {
            result.store(0, Ordering::Relaxed);
        }
        return true;
    };
    let Some(mut step) = step.checked_sub(vm.io.assigned.start_steps()) else {
        vm.io.assigned.start_step(&machine.gic, this_core, step);
        return true;
    };
    for (address, size) in &vm.config.seeds {
        let start = step * SEED_CHUNK;
        if start < *size {
            let mut bytes = [0; SEED_CHUNK];
            if let Some(part) = bytes.get_mut(..SEED_CHUNK.min(size - start)) {
                machine.entropy.lock().fill(part);
                vm.ram.load_image(address + start as u64, part).expect("seeds were checked to fit their RAM");
            }
            return true;
        }
        step -= size.div_ceil(SEED_CHUNK);
    }
    false
}

/// The driver domain that `vm` cannot start without and that is not ready.
#[inline(never)]
fn waits_for(machine: &'static Machine, vm: &Vm) -> Option<&'static Vm> {
    let providers = vm.io.virtio.iter().filter_map(|device| machine.backend_of(device));
    providers.into_iter().find(|provider| !provider.state.is_ready.load(Ordering::SeqCst))
}

/// Starts virtual CPU 0 of a machine that is prepared, once.
fn release(machine: &'static Machine, vm: &Vm, this_core: usize) {
    if !vm.state.is_held.swap(false, Ordering::SeqCst) {
        return;
    }
    if vm.is_driver_domain() {
        vm.watch().start(timer::now());
    }
    note_start(machine);
    if let Some(power) = vm.state.power.first() {
        // All powers are off while a machine is prepared.
        let _ = power.turn_on(vm.config.entry, vm.config.device_tree);
    }
    if let Some(core) = vm.core_of(0) {
        machine.summon(core, this_core);
    }
}

/// A guest starts: from now on only its own cores prepare a VM.
fn note_start(machine: &Machine) {
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

/// The driver domain `provider` serves its channels from now on, or never will: whoever waits for it starts.
pub fn release_clients(machine: &'static Machine, provider: &Vm, this_core: usize) {
    provider.state.is_ready.store(true, Ordering::SeqCst);
    for vm in machine.vms {
        let is_client = vm.io.virtio.iter().any(|device| device.backend() == provider.config.number);
        if is_client && waits_for(machine, vm).is_none() {
            release(machine, vm, this_core);
        }
    }
}

/// Gives the virtual CPU, which is not loaded and has forgotten its interrupts, the registers of a core that was just
/// turned on.
pub fn start(vcpu: &mut Vcpu<GuestCpu>, entry: u64, argument: u64) {
    // Code is new in its VM's memory, which no other VM reaches and EL2 does not run: what a core may still hold of the
    // old is there since an earlier life of the virtual CPU, on this core.
    bulk::invalidate_instruction_cache();
    vcpu.start_at(entry, argument);
    vcpu.guest.virtual_interface = VirtualInterface::reset();
    vcpu.guest.waiting = false;
    vcpu.guest.is_leaving = false;
    vcpu.guest.unfinished = 0;
    vcpu.guest.left = Left::Reschedule;
}
