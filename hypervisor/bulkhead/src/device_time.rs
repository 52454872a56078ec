//! Time for emulated devices: each is polled when its deadline has passed, and when something was typed for its guest.
//!
//! A deadline is the core's on which the device was told of it: nobody else's time is taken to set one, and the core
//! polls whatever it runs, or waits for, then. What that takes is bounded: a core polls the devices of one VM at most
//! once in a pause, however far in the past their deadlines stay.
//!
//! What this module leaves out: the core's other deadlines, and on whose account the time goes (`scheduler`).

use crate::machine::Machine;
use crate::vm::{Done, Vm};
use arch::{gic, timer};
use vdev::Ticks;
use vgic::Kicks;
use vm_lifecycle::deadline::paced;

/// How often the devices of one VM are polled on one core, in parts of a second: exit, poll and the way back are some
/// 2,000 instructions, which so are less than 3 % of a core at 1 GHz.
const ROUNDS_PER_SECOND: u64 = 12_800;

/// What came of a look at the deadlines of a VM's devices.
pub struct Round {
    /// How many devices were polled.
    pub polls: u64,
    /// When the next one is due.
    pub next: Option<Ticks>,
}

/// How often a core tries to get at a device that another core uses, when something was typed. A deadline comes again.
const ATTEMPTS_MAX: u32 = 1000;

/// Polls the devices of `vm` whose deadlines are those of `core`, which this is, and have passed. `polled` is when it
/// last did.
#[cold]
#[inline(never)]
pub fn poll(machine: &'static Machine, vm: &Vm, core: usize, now: Ticks, polled: &mut Ticks) -> Round {
    let mut round = Round { polls: 0, next: None };
    if !vm.is_running() {
        return round;
    }
    let pause_ticks = timer::frequency() / ROUNDS_PER_SECOND;
    let polled_before = *polled;
    for slot in &vm.io.slots {
        let Some(deadline) = slot.deadline(core) else { continue };
        if paced(deadline, polled_before, pause_ticks) <= now {
            *polled = now;
            if let Some(done) = slot.poll(vm, core, 1) {
                round.polls += 1;
                // The core decides next what it runs, whoever is told.
                let _ = machine.tell(vm, done.kicks, core);
                wake_answered(machine, vm, core, done.answered);
            }
        }
        let Some(deadline) = slot.deadline(core) else { continue };
        let due = paced(deadline, *polled, pause_ticks);
        round.next = Some(round.next.map_or(due, |next| next.min(due)));
    }
    round
}

/// Sees to what a call of a device of `vm` on `core`, which this is, asks of cores.
#[inline(always)]
pub fn follow_up<R>(machine: &'static Machine, vm: &Vm, core: usize, done: &Done<R>) {
    if done.is_rescheduled {
        machine.summon(core, core);
    }
    wake_answered(machine, vm, core, done.answered);
    if done.answered.iter().any(|vcpu| vm.core_of(vcpu) == Some(core)) {
        // The one that runs here goes on until something interrupts it.
        machine.gic.send_sgi(core, gic::SUMMON);
    }
}

/// The virtual CPUs `answered` of `vm` go on: their cores take the answers.
#[inline(always)]
fn wake_answered(machine: &'static Machine, vm: &Vm, this_core: usize, answered: Kicks) {
    for core in answered.iter().filter_map(|vcpu| vm.core_of(vcpu)) {
        machine.summon(core, this_core);
    }
}

/// Something was typed for `vm`: its devices look.
pub fn wake_up(machine: &'static Machine, vm: &Vm, this_core: usize) {
    // This core need not be one of the VM's.
    let Some(owner) = vm.core_of(0) else { return };
    for slot in &vm.io.slots {
        let Some(done) = slot.poll(vm, owner, ATTEMPTS_MAX) else { continue };
        // The core decides next what it runs, whoever is told.
        let _ = machine.tell(vm, done.kicks, this_core);
        wake_answered(machine, vm, this_core, done.answered);
        if done.is_rescheduled {
            machine.summon(owner, this_core);
        }
    }
}
