//! A virtual machine's life: prepared, running, stopping, off. A first start and a restart are one path.
//!
//! Nothing waits: whoever stops a machine marks it and kicks its cores; each core parks its virtual CPUs when it sees
//! the mark; when all are parked the core of virtual CPU 0 takes it to its next phase (`ending`); that, and preparation
//! (`preparation`), go on until an interrupt is pending.

use crate::guest_cpu::{GuestCpu, Left};
use crate::machine::{Channel, Machine};
use crate::vm::Vm;
use arch::context::Vcpu;
use arch::list_registers::VirtualInterface;
use arch::{bulk, pending, timer};
use core::fmt::{self, Display, Formatter};
use core::sync::atomic::Ordering;
use terminal::repeated::Repeated;
use vdev::ResetKind;
use virtio_transport::TAKE_BACK_STEPS;
use vm_lifecycle::Step;

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
    let Some(step) = step.checked_sub(channel_steps(vm)) else {
        if let Some(channel) = take_back(machine, vm, step, false) {
            channel.device.restart_channel(&vm.ram);
            if let Some(result) = vm.io.results.get(step / (TAKE_BACK_STEPS + 1)) {
                result.store(0, Ordering::Relaxed);
            }
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

/// How many steps [`take_back`] has for the channels of `vm`.
pub fn channel_steps(vm: &Vm) -> usize {
    vm.config.channels.len() * (TAKE_BACK_STEPS + 1)
}

/// Takes back what is out to the driver domain `vm`, a little of one channel in each step from 0; `is_lost` is as for
/// [`crate::vm::VirtioDevice::take_back`]. Where the step is the one after those of a channel, gives that.
#[inline(never)]
pub fn take_back(machine: &'static Machine, vm: &Vm, step: usize, is_lost: bool) -> Option<Channel> {
    let (number, part) = (step / (TAKE_BACK_STEPS + 1), step % (TAKE_BACK_STEPS + 1));
    let channel = machine.channel_in_turn(vm, number)?;
    if part == TAKE_BACK_STEPS {
        return Some(channel);
    }
    channel.device.take_back(part, is_lost);
    None
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

/// The driver domain `provider` serves its channels from now on, or never will: whoever waits for it starts, a virtual
/// machine in each step from 0. Returns whether there was one.
#[inline(never)]
pub fn release_client(machine: &'static Machine, provider: &Vm, this_core: usize, step: usize) -> bool {
    let Some(vm) = machine.vms.get(step) else { return false };
    provider.state.is_ready.store(true, Ordering::SeqCst);
    let is_client = vm.io.virtio.iter().any(|device| device.backend() == provider.config.number);
    if is_client && waits_for(machine, vm).is_none() {
        release(machine, vm, this_core);
    }
    true
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
    vcpu.guest.announced = 0;
    vcpu.guest.unfinished = 0;
    vcpu.guest.left = Left::Reschedule;
}
