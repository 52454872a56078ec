//! The one entry for what is asked of a VM: to stop, to start again, or to end because something is wrong with it.
//!
//! Its callers are PSCI calls of the VM itself, the watch over backend VMs, and whatever finds that a VM has failed.
//! What this module leaves out: who may ask for what, and what follows (`vm_lifecycle`).

use crate::guest_cpu::GuestCpu;
use crate::lifecycle;
use crate::machine::Machine;
use crate::vm::Vm;
use arch::timer;
use core::sync::atomic::Ordering;
use terminal::repeated::Repeated;
use vm_lifecycle::{CommandSource, Decision, Failure, Phase, Standing, VmCommand, decide};

/// Carries out `command`, which `source` gives to `vm`, unless it has no right to, or `vm` does not run. By core
/// `this_core`.
#[cold]
#[inline(never)]
pub fn request(
    machine: &'static Machine,
    vm: &'static Vm,
    command: VmCommand,
    source: CommandSource,
    this_core: usize,
) {
    let standing =
        Standing { number: vm.config.number, is_backend: vm.is_driver_domain(), is_needed: is_needed(machine, vm) };
    let Ok(Decision { step, failure }) = decide(command, source, standing) else { return };
    if let Some(failure) = failure {
        // Before somebody else can park the last of its virtual CPUs. The watch takes one of several that fail it.
        if !vm.is_running() || !vm.watch().fail(timer::now(), failure) {
            return;
        }
        if is_logged(vm) {
            log::warn!("vm {} {failure}", vm.config.name);
        }
    }
    lifecycle::stop(machine, vm, step, this_core);
}

/// Ends the VM of `guest`, which has caused the SError `esr`.
pub fn fail_for_system_error(machine: &'static Machine, guest: &GuestCpu, esr: u64) {
    if is_logged(guest.vm) {
        log::error!("vm {}, vcpu {}: SError, ESR {esr:#x}: the machine stops", guest.vm.config.name, guest.index);
    }
    let command = VmCommand::Fail(Failure::SystemError);
    request(machine, guest.vm, command, CommandSource::Bulkhead, guest.core);
}

/// Whether `vm` serves somebody who is not off for good.
pub fn is_needed(machine: &Machine, vm: &Vm) -> bool {
    machine.channels(vm).any(|channel| channel.client.phase() != Phase::Off)
}

/// Ends to be logged are bounded, like all that a guest can bring about.
pub fn is_logged(vm: &Vm) -> bool {
    Repeated::DriverDomainStart.is_logged(vm.counters.starts.load(Ordering::Relaxed))
}
