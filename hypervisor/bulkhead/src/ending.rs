//! The end of a VM's life: nothing of it goes on, then it starts again or is off for good.
//!
//! The core of virtual CPU 0 leads, in short steps, as it does when it prepares: an interrupt comes between any two.

use crate::console;
use crate::lifecycle::{channel_steps, release_client, take_back};
use crate::machine::Machine;
use crate::supervision::judge;
use crate::vm::{Slot, Vm};
use aarch64::psci::Power;
use abi::io::QUEUES_MAX;
use arch::{firmware, pending};
use core::sync::atomic::Ordering;
use virtio_transport::Holdings;
use vm_lifecycle::{Phase, RestartDecision, Step};

/// The most lines that there are of one device: its own, and one of each of its queues.
const DEVICE_LINES: usize = 1 + QUEUES_MAX;

/// Ends the life of `vm`, all of whose virtual CPUs are parked. By the core that leads, `this_core`. Returns whether
/// this was the end of the end; if not, an interrupt is pending, and there are steps to do after it.
#[cold]
#[inline(never)]
pub fn end(machine: &'static Machine, vm: &'static Vm, this_core: usize) -> bool {
    while end_step(machine, vm, this_core, vm.state.preparation.take_step()) {
        if pending::has_pending_interrupt() {
            return false;
        }
    }
    // What is next for this VM, or for another one of this core that has waited.
    machine.summon(this_core, this_core);
    true
}

/// Does one of the steps, which are as many as there are: each is short. Returns whether there are more.
#[inline(never)]
fn end_step(machine: &'static Machine, vm: &'static Vm, this_core: usize, step: usize) -> bool {
    let devices = vm.io.virtio.len();
    let channels = vm.config.channels.len();
    let Some(step) = step.checked_sub(1) else {
        console::flush(vm.config.console);
        vm.state.is_ready.store(false, Ordering::Release);
        vm.io.slots.iter().for_each(Slot::stop);
        // One that parked early may have been turned on by one that parked late.
        vm.state.power.iter().for_each(Power::turn_off);
        return true;
    };
    // What its driver domain completes from now on must not land in memory that is being cleared.
    let Some(step) = step.checked_sub(devices) else {
        if let Some(device) = vm.io.virtio.get(step)
            && let Some(provider) = machine.backend_of(device)
        {
            device.reset(provider);
        }
        return true;
    };
    let Some(step) = step.checked_sub(1) else {
        vm.io.assigned.stop(&machine.gic);
        return true;
    };
    // Only now: a real device may have been writing to memory that was granted.
    let Some(step) = step.checked_sub(channels) else {
        machine.channel_in_turn(vm, step).iter().for_each(|channel| channel.device.suspend());
        return true;
    };
    let Some(step) = step.checked_sub(1) else {
        let goes_on = vm.phase() == Phase::StoppingForReset && judge(machine, vm) == RestartDecision::Restart;
        if goes_on {
            vm.advance(Step::Parked(RestartDecision::Restart));
        }
        return !goes_on;
    };
    // It does not come back. What its clients wait for fails, in their own time.
    let Some(step) = step.checked_sub(channel_steps(vm)) else {
        if let Some(channel) = take_back(machine, vm, step, true)
            && channel.device.abandon()
        {
            machine.hand_over(channel.client, 1 << channel.index, this_core);
        }
        return true;
    };
    if release_client(machine, vm, this_core, step) {
        return true;
    }
    let step = step - machine.vms.len();
    let Some(step) = step.checked_sub(1) else {
        log::info!("vm {} is off", vm.config.name);
        return true;
    };
    if report(vm, step) {
        return true;
    }
    vm.advance(Step::Parked(RestartDecision::GiveUp));
    if machine.retire(vm) {
        for provider in machine.vms.iter().filter(|vm| vm.is_driver_domain()) {
            let _ = (0..).find(|step| !report(provider, *step));
        }
        log::info!("every vm is off: power off");
        firmware::power_off();
    }
    false
}

/// Says what the devices of `vm` did, a line at a time, in steps from 0. Returns whether there are more.
#[inline(never)]
fn report(vm: &Vm, step: usize) -> bool {
    let mut left = vm.state.left.lock();
    let Some(step) = step.checked_sub(1) else {
        *left = Holdings::default();
        if !vm.io.virtio.is_empty() || !vm.io.assigned.is_empty() || vm.is_driver_domain() {
            log::info!("vm {}: exits={}", vm.config.name, vm.exits());
        }
        return true;
    };
    let (index, line) = (step / DEVICE_LINES, step % DEVICE_LINES);
    let Some(device) = vm.io.virtio.get(index) else {
        report_left(vm, &left);
        return false;
    };
    if line == 0 {
        left.add(&device.holdings());
    }
    device.report(&vm.config.name, index, line);
    true
}

/// What EL2 still keeps for the machine, which is off: a request may be with its driver domain; all else is nothing.
fn report_left(vm: &Vm, left: &Holdings) {
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
