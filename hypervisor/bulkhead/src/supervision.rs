//! Driver domains are watched, and a VM that has stopped is started again, as often as it may be.
//!
//! Nothing waits for one: the core of its virtual CPU 0 has a deadline for the next look (`scheduler`), which
//! interrupts it whatever the guest does there. A driver domain that may not start again leaves its clients errors, not
//! silence.
//!
//! What this module leaves out: what is wrong (`vm_lifecycle::watch`) and what is too often (`vm_lifecycle`).

use crate::command::{self, is_logged, is_needed};
use crate::guest_cpu::GuestCpu;
use crate::machine::Machine;
use crate::vm::Vm;
use arch::timer;
use core::sync::atomic::Ordering;
use terminal::repeated::Repeated;
use vdev::Ticks;
use vm_lifecycle::watch::{CoreTime, Limits, Sight};
use vm_lifecycle::{CommandSource, RestartDecision, RestartLimits, VmCommand};

/// What `watch` says, in ticks of this board's counter.
pub fn limits(watch: &manifest::Watch) -> Limits {
    let ticks = |milliseconds: u32| timer::frequency().saturating_mul(u64::from(milliseconds)) / 1000;
    Limits {
        heartbeat_ticks: ticks(watch.heartbeat_ms),
        request_ticks: ticks(watch.request_ms),
        startup_ticks: ticks(watch.startup_ms),
        restart: RestartLimits { restarts_max: watch.restart_limit, window_ticks: ticks(watch.restart_window_ms) },
    }
}

/// Looks at the driver domain that `guest` is the first virtual CPU of, if it is one and its time has come. Gives the
/// time of the next look. `least_ticks` is as for [`GuestCpu::core_time`].
#[cold]
#[inline(never)]
pub fn look(guest: &mut GuestCpu, now: Ticks, least_ticks: u64) -> Ticks {
    let vm = guest.vm;
    if guest.index != 0 || !vm.is_driver_domain() || !vm.is_running() {
        return Ticks(u64::MAX);
    }
    if vm.watch().due() <= now {
        let core_time = guest.core_time(now, least_ticks);
        look_at(guest.machine, vm, now, core_time, guest.core);
    }
    vm.watch().due()
}

fn look_at(machine: &'static Machine, vm: &'static Vm, now: Ticks, core_time: CoreTime, core: usize) {
    let ticks = vm.watch().elapse(now, core_time);
    let mut sight = Sight { beat: 0, age_ticks: 0 };
    for (number, channel) in machine.channels(vm).enumerate() {
        let seen = channel.device.look(&vm.ram, ticks);
        if number == 0 {
            sight.beat = seen.beat;
        }
        sight.age_ticks = sight.age_ticks.max(seen.age_ticks);
    }
    let found = vm.watch().look(now, ticks, sight);
    match found {
        // This core decides next what it runs, and sees whether it is the doorbell's owner.
        Ok(()) => _ = machine.ring(vm, core),
        Err(failure) => command::request(machine, vm, VmCommand::Fail(failure), CommandSource::Watch, core),
    }
}

/// Says what follows now that `vm`, which was to start again, has stopped.
pub fn judge(machine: &Machine, vm: &Vm) -> RestartDecision {
    let is_needed = is_needed(machine, vm);
    let mut watch = vm.watch();
    let (decision, limits) = (watch.end(timer::now(), is_needed), watch.limits().restart);
    // Lines take their time: nobody waits for the watch meanwhile.
    drop(watch);
    if decision == RestartDecision::GiveUp {
        log::error!(
            "vm {} has restarted {} times within {} s, and stays off: its clients get I/O errors from now on. Look for the \
             reason above, or raise its restart_limit; then start the system again",
            vm.config.name,
            limits.restarts_max.unwrap_or(0),
            limits.window_ticks / timer::frequency()
        );
    } else if !vm.is_driver_domain() {
        log_restart(vm);
    } else if is_needed && is_logged(vm) {
        log::info!("vm {} restarts (start {})", vm.config.name, vm.counters.starts.load(Ordering::Relaxed) + 1);
    }
    decision
}

/// A guest that restarts again and again is not to fill the log.
fn log_restart(vm: &Vm) {
    let starts = vm.counters.starts.load(Ordering::Relaxed);
    if Repeated::Start.is_logged(starts) {
        log::info!("vm {} restarts (start {})", vm.config.name, starts + 1);
    }
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
