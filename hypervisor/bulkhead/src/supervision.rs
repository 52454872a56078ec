//! Driver domains are watched, stopped when something is wrong with them, and started again, as often as they may be.
//!
//! Nothing waits for one: the core of its virtual CPU 0 has a deadline for the next look (`scheduler`), which
//! interrupts it whatever the guest does there. A driver domain that may not start again leaves its clients errors, not
//! silence.
//!
//! What this module leaves out: what is wrong and what is too often (`model::io::watch`).

use crate::guest_cpu::GuestCpu;
use crate::lifecycle;
use crate::machine::{Channel, Machine};
use crate::vm::{Phase, Vm};
use arch::timer;
use core::sync::atomic::Ordering;
use model::io::watch::{Failure, Judgement, Limits, Sight};
use model::repeated::Repeated;
use vdev::Ticks;

/// What `watch` says, in ticks of this board's counter.
pub fn limits(watch: &manifest::Watch) -> Limits {
    let ticks = |milliseconds: u32| timer::frequency().saturating_mul(u64::from(milliseconds)) / 1000;
    Limits {
        heartbeat_ticks: ticks(watch.heartbeat_ms),
        request_ticks: ticks(watch.request_ms),
        startup_ticks: ticks(watch.startup_ms),
        restarts_max: watch.restart_limit,
        window_ticks: ticks(watch.restart_window_ms),
    }
}

/// Whether `vm` serves somebody who is not off for good.
fn is_needed(machine: &Machine, vm: &Vm) -> bool {
    machine.channels(vm).any(|channel| channel.client.phase() != Phase::Off)
}

/// Looks at the driver domains of `core` whose time it is. Gives the time of the next look.
#[cold]
#[inline(never)]
pub fn look(machine: &'static Machine, core: usize) -> Ticks {
    let now = timer::now();
    let mut next = Ticks(u64::MAX);
    for vm in machine.vms.iter().filter(|vm| vm.is_driver_domain() && vm.core_of(0) == Some(core)) {
        if !vm.is_running() {
            continue;
        }
        if vm.watch().due() <= now {
            look_at(machine, vm, now, core);
        }
        next = next.min(vm.watch().due());
    }
    next
}

fn look_at(machine: &'static Machine, vm: &'static Vm, now: Ticks, core: usize) {
    let mut sight = Sight { beat: 0, looks: 0 };
    for (number, channel) in machine.channels(vm).enumerate() {
        let seen = channel.device.look(&vm.ram);
        if number == 0 {
            sight.beat = seen.beat;
        }
        sight.looks = sight.looks.max(seen.looks);
    }
    let found = vm.watch().look(now, sight);
    match found {
        // This core decides next what it runs, and sees whether it is the doorbell's owner.
        Ok(()) => _ = machine.ring(vm, core),
        Err(failure) => fail(machine, vm, failure, core),
    }
}

/// Stops the machine of `guest`, which has caused the SError `esr`. A driver domain starts again: others wait for it.
pub fn stop_for_system_error(machine: &'static Machine, guest: &GuestCpu, esr: u64) {
    if is_logged(guest.vm) {
        log::error!("vm {}, vcpu {}: SError, ESR {esr:#x}: the machine stops", guest.vm.config.name, guest.index);
    }
    if guest.vm.is_driver_domain() {
        fail(machine, guest.vm, Failure::SystemError, guest.core);
    } else {
        lifecycle::stop(machine, guest.vm, Phase::StoppingForOff, guest.core);
    }
}

/// Stops the driver domain `vm`, so that it starts again, or not.
#[cold]
#[inline(never)]
pub fn fail(machine: &'static Machine, vm: &'static Vm, failure: Failure, this_core: usize) {
    // Before somebody else can park the last of its virtual CPUs.
    if !vm.is_running() || !vm.watch().fail(timer::now(), failure) {
        return;
    }
    if is_logged(vm) {
        log::warn!("vm {} {failure}", vm.config.name);
    }
    lifecycle::stop(machine, vm, Phase::StoppingForReset, this_core);
}

/// Parks virtual CPU `vcpu` of the stopping `vm`; with the last one the VM goes to its next phase. Returns whether it
/// was the last.
pub fn park(machine: &'static Machine, vm: &'static Vm, vcpu: usize, this_core: usize) -> bool {
    let Some(phase) = lifecycle::park(machine, vm, vcpu) else { return false };
    match phase {
        Phase::StoppingForReset => {
            if !vm.is_driver_domain() {
                lifecycle::log_restart(vm);
            } else if judge(machine, vm) == Judgement::GiveUp {
                abandon(machine, vm, this_core);
                return true;
            }
            vm.advance(Phase::StoppingForReset, Phase::Preparing);
            if let Some(core) = vm.core_of(0) {
                machine.summon(core, this_core);
            }
        }
        Phase::StoppingForOff => lifecycle::finish(machine, vm, Phase::StoppingForOff),
        Phase::Preparing | Phase::Running | Phase::Off => {}
    }
    true
}

/// Ends to be logged are bounded, like all that a guest can bring about.
pub fn is_logged(vm: &Vm) -> bool {
    Repeated::DriverDomainStart.is_logged(vm.counters.starts.load(Ordering::Relaxed))
}

/// The guest `vm` wants to be off. One that others depend on starts again.
pub fn turn_off(machine: &'static Machine, vm: &'static Vm, this_core: usize) {
    end(machine, vm, Failure::TurnedOff, Phase::StoppingForOff, this_core);
}

/// The guest `vm` wants to start again.
pub fn restart(machine: &'static Machine, vm: &'static Vm, this_core: usize) {
    end(machine, vm, Failure::Reset, Phase::StoppingForReset, this_core);
}

/// Stops `vm` for `phase`, or, if others depend on it, because of `failure`.
#[inline(never)]
fn end(machine: &'static Machine, vm: &'static Vm, failure: Failure, phase: Phase, this_core: usize) {
    if is_needed(machine, vm) {
        fail(machine, vm, failure, this_core);
    } else {
        lifecycle::stop(machine, vm, phase, this_core);
    }
}

/// Says what follows now that `vm`, which was to start again, has stopped.
fn judge(machine: &Machine, vm: &Vm) -> Judgement {
    if !is_needed(machine, vm) {
        return Judgement::Restart;
    }
    let mut watch = vm.watch();
    let (judgement, limits) = (watch.end(timer::now()), *watch.limits());
    // Lines take their time: nobody waits for the watch meanwhile.
    drop(watch);
    if judgement == Judgement::GiveUp {
        log::error!(
            "vm {} has restarted {} times within {} s, and stays off: its clients get I/O errors from now on. Look for the \
             reason above, or raise its restart_limit; then start the system again",
            vm.config.name,
            limits.restarts_max.unwrap_or(0),
            limits.window_ticks / timer::frequency()
        );
    } else if is_logged(vm) {
        log::info!("vm {} restarts (start {})", vm.config.name, vm.counters.starts.load(Ordering::Relaxed) + 1);
    }
    judgement
}

/// The driver domain `vm` serves its channels from now on.
pub fn note_ready(vm: &Vm) {
    let pause = vm.watch().ready(timer::now());
    if let Some(pause) = pause.filter(|_| is_logged(vm)) {
        // 64 bits hold a pause of hours, at 1 GHz; numbers of 128 bits would cost 2 KiB of code.
        let microseconds = pause.saturating_mul(1_000_000) / timer::frequency();
        log::info!("vm {} serves again after {microseconds} us", vm.config.name);
    }
}

/// The driver domain `vm` does not come back. What its clients wait for fails, in their own time.
#[cold]
fn abandon(machine: &'static Machine, vm: &'static Vm, this_core: usize) {
    for Channel { client, index, device } in machine.channels(vm) {
        if device.abandon() {
            machine.hand_over(client, 1 << index, this_core);
        }
    }
    lifecycle::release_clients(machine, vm, this_core);
    lifecycle::finish(machine, vm, Phase::StoppingForReset);
}
