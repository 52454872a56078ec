//! PSCI: a guest's CPUs on and off, and its end.

use crate::guest_cpu::{GuestCpu, Left};
use crate::verdict::leave;
use aarch64::psci::{self, Call};
use arch::context::{Vcpu, Verdict};

/// Answers the PSCI call with id `function`.
pub(super) fn answer(vcpu: &mut Vcpu<GuestCpu>, function: u32) -> Verdict {
    let arguments = [vcpu.context.x[1], vcpu.context.x[2], vcpu.context.x[3]];
    vcpu.context.x[0] = match psci::decode(function, arguments) {
        Call::Version => psci::PSCI_VERSION,
        Call::Features { function } => psci::features(function),
        Call::MigrateInfoType => psci::MIGRATE_INFO_TYPE,
        Call::CpuOn { target, entry, context } => return turn_on(vcpu, target, entry, context),
        Call::AffinityInfo { target, lowest_level } => affinity_info(vcpu, target, lowest_level),
        Call::CpuSuspend { power_state, entry, context } => return suspend(vcpu, power_state, entry, context),
        Call::CpuOff => return leave(vcpu, Left::CpuOff),
        Call::SystemOff => return leave(vcpu, Left::SystemOff),
        Call::SystemReset => return leave(vcpu, Left::SystemReset),
        Call::SystemReset2 { kind, .. } if kind == psci::SYSTEM_WARM_RESET => return leave(vcpu, Left::SystemReset),
        Call::SystemReset2 { .. } => psci::INVALID_PARAMETERS,
        Call::Unknown => psci::NOT_SUPPORTED,
    };
    Verdict::Resume
}

fn turn_on(vcpu: &mut Vcpu<GuestCpu>, target: u64, entry: u64, context: u64) -> Verdict {
    let result = try_turn_on(&vcpu.guest, target, entry, context);
    vcpu.context.x[0] = result.err().unwrap_or(psci::SUCCESS);
    match result {
        // Nobody but the run loop of this core can start it.
        Ok(core) if core == vcpu.guest.core => {
            vcpu.guest.machine.summon(core, core);
            leave(vcpu, Left::Reschedule)
        }
        Ok(core) => {
            vcpu.guest.machine.summon(core, vcpu.guest.core);
            Verdict::Resume
        }
        Err(_) => Verdict::Resume,
    }
}

/// Turns the virtual CPU `target` on. Gives its core.
fn try_turn_on(guest: &GuestCpu, target: u64, entry: u64, context: u64) -> Result<usize, u64> {
    let vm = guest.vm;
    let index = psci::vcpu_index(target, vm.vcpu_count()).ok_or(psci::INVALID_PARAMETERS)?;
    let (power, core) = vm.state.power.get(index).zip(vm.core_of(index)).ok_or(psci::INVALID_PARAMETERS)?;
    if !vm.ram.contains(entry) {
        return Err(psci::INVALID_ADDRESS);
    }
    power.turn_on(entry, context).map(|()| core)
}

fn affinity_info(vcpu: &Vcpu<GuestCpu>, target: u64, lowest_level: u64) -> u64 {
    let vm = vcpu.guest.vm;
    // DEN0022 5.7: levels above 0 are for implementations that power clusters.
    if lowest_level != 0 {
        return psci::INVALID_PARAMETERS;
    }
    psci::vcpu_index(target, vm.vcpu_count())
        .and_then(|index| vm.state.power.get(index))
        .map_or(psci::INVALID_PARAMETERS, psci::Power::affinity_info)
}

/// Every suspend is a standby: the virtual CPU keeps its state and waits for an interrupt. A request for power-down may
/// be answered so (DEN0022 5.4.5 allows a shallower state), and then returns as a standby does.
fn suspend(vcpu: &mut Vcpu<GuestCpu>, power_state: u32, _entry: u64, _context: u64) -> Verdict {
    if !psci::is_power_state(power_state) {
        vcpu.context.x[0] = psci::INVALID_PARAMETERS;
        return Verdict::Resume;
    }
    vcpu.context.x[0] = psci::SUCCESS;
    leave(vcpu, Left::Wait)
}
