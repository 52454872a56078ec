//! Changing hands: a virtual CPU comes on its core, with its registers, interrupts and timers, or goes off it.
//!
//! What this module leaves out: which one, and when (`scheduler`).

use crate::command;
use crate::guest_cpu::GuestCpu;
use crate::machine::Machine;
use crate::mmio;
use crate::routing;
use aarch64::psci;
use arch::context::Vcpu;
use arch::gic;
use arch::list_registers::{CoreListRegisters, VirtualInterface};
use arch::placement::Placement;
use core::sync::atomic::Ordering;

/// Takes `vcpu`, which is loaded, off its core. Returns whether another one of the core is to look at its interrupts.
#[inline(always)]
pub fn unload(machine: &'static Machine, vcpu: &mut Vcpu<GuestCpu>) -> bool {
    let is_waiting = vcpu.guest.waiting;
    // A timer that the guest has turned off, or put off, since it went off raises nothing any more. It flushes when it
    // comes back.
    let _ = mmio::withdraw_quiet_timers(&mut vcpu.guest);
    if let Some(esr) = vcpu.save() {
        blame(machine, &vcpu.guest, esr);
    }
    let guest = &mut vcpu.guest;
    // Read once: what follows are accesses to registers and atomics, past which nothing that is read is kept.
    let (vm, index) = (guest.vm, guest.index);
    let (_, kicks) = guest.interface.unload(vm.vgic, index, &mut CoreListRegisters::of_this_core());
    guest.virtual_interface = VirtualInterface::save();
    vm.set_away(index, !is_waiting);
    !kicks.is_empty() && guest.tell(kicks)
}

/// Stops the machine of `guest`, which has caused the SError `esr` and is being taken off this core.
#[cold]
#[inline(never)]
fn blame(machine: &'static Machine, guest: &GuestCpu, esr: u64) {
    command::fail_for_system_error(machine, guest, esr);
    // This core may be about to wait: it has to park the machine first.
    machine.gic.send_sgi(guest.core, gic::SUMMON);
}

/// Loads `vcpu` on core `number`, which has none loaded.
#[inline(always)]
pub fn load(machine: &Machine, number: usize, vcpu: &mut Vcpu<GuestCpu>) {
    let guest = &mut vcpu.guest;
    // As in `unload`.
    let (vm, index) = (guest.vm, guest.index);
    vm.set_loaded(index);
    if vm.io.assigned.has_displaced() {
        routing::bring_back(&machine.gic, vm, index, number);
    }
    guest.virtual_interface.load();
    let active = guest.interface.load(vm.vgic, index, &mut CoreListRegisters::of_this_core());
    if active != 0 {
        activate(machine, number, active);
    }
    if guest.unfinished != 0 {
        remind(machine, number);
    }
    // With it come the timers, whose interrupts are active again by now.
    vcpu.load(&Placement {
        stage2: vm.stage2,
        affinity: psci::mpidr(index),
        counter_offset: vm.state.counter_offset.load(Ordering::Relaxed),
        trap_wait: vcpu.guest.shares_core,
    });
    machine.set_running(number, Some((vm, index)));
}

/// Makes the private interrupts `active` of core `number` active again.
#[cold]
#[inline(never)]
fn activate(machine: &Machine, number: usize, mut active: u32) {
    while active != 0 {
        machine.gic.activate_private(number, active.trailing_zeros());
        active &= active - 1;
    }
}

/// Makes the virtual CPU that core `number` is about to run go on with what its devices have left over: the kick that
/// was to see to it has been taken by another one of the core.
#[cold]
#[inline(never)]
pub fn remind(machine: &Machine, number: usize) {
    machine.gic.send_sgi(number, gic::KICK);
}
