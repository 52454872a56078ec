//! HVC and SMC: PSCI, SMCCC discovery, TRNG. Every other number gets NOT_SUPPORTED.

use crate::guest_cpu::{GuestCpu, Left};
use crate::verdict::leave;
use crate::virtio;
use arch::context::{Vcpu, Verdict};
use model::psci::{self, Call};

/// Answers the call in the guest's registers (SMCCC: function in W0, arguments from X1, result in X0).
#[inline(never)]
pub fn answer(vcpu: &mut Vcpu<GuestCpu>) -> Verdict {
    let [function, first, second, third] = [vcpu.context.x[0], vcpu.context.x[1], vcpu.context.x[2], vcpu.context.x[3]];
    // A driver domain makes that call for each request: it is not looked for among all the others.
    let call = match function as u32 {
        abi::io::FUNCTION_COMPLETE => Call::Unknown,
        function => psci::decode(function, [first, second, third]),
    };
    let result = match call {
        Call::PsciVersion => psci::PSCI_VERSION,
        Call::PsciFeatures { function } => psci::features(function),
        Call::MigrateInfoType => psci::MIGRATE_INFO_TYPE,
        Call::CpuOn { target, entry, context } => return turn_on(vcpu, target, entry, context),
        Call::AffinityInfo { target, lowest_level } => affinity_info(vcpu, target, lowest_level),
        Call::CpuSuspend { power_state, entry, context } => return suspend(vcpu, power_state, entry, context),
        Call::CpuOff => return leave(vcpu, Left::CpuOff),
        Call::SystemOff => return leave(vcpu, Left::SystemOff),
        Call::SystemReset => return leave(vcpu, Left::SystemReset),
        Call::SystemReset2 { kind, .. } if kind == psci::SYSTEM_WARM_RESET => return leave(vcpu, Left::SystemReset),
        Call::SystemReset2 { .. } => psci::INVALID_PARAMETERS,
        Call::SmcccVersion => psci::SMCCC_VERSION,
        Call::SmcccArchFeatures { function } => psci::arch_features(function),
        Call::VendorHypUid => return answer_words(vcpu, abi::UID.map(u64::from)),
        Call::VendorHypRevision => {
            return answer_words(vcpu, [u64::from(abi::ABI_VERSION.major), u64::from(abi::ABI_VERSION.minor), 0, 0]);
        }
        Call::TrngVersion => psci::TRNG_VERSION,
        Call::TrngFeatures { function } => psci::trng_features(function),
        Call::TrngUuid => return answer_words(vcpu, psci::TRNG_UUID.map(u64::from)),
        Call::TrngRandom { bits, wide } => return random(vcpu, bits, wide),
        Call::Unknown => return virtio::hypercall(vcpu),
    };
    vcpu.context.x[0] = result;
    Verdict::Resume
}

fn answer_words(vcpu: &mut Vcpu<GuestCpu>, words: [u64; 4]) -> Verdict {
    vcpu.context.x[..4].copy_from_slice(&words);
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

fn random(vcpu: &mut Vcpu<GuestCpu>, bits: u64, wide: bool) -> Verdict {
    // Not a wait: if another core draws at this moment, the guest is told to ask again. A board without entropy tells
    // it so each time.
    let entropy = vcpu.guest.machine.entropy.try_lock().and_then(|mut pool| pool.words());
    let Some(entropy) = entropy else {
        vcpu.context.x[0] = psci::NO_ENTROPY;
        return Verdict::Resume;
    };
    match psci::random_words(bits, wide, entropy) {
        Ok(words) => {
            vcpu.context.x[0] = psci::SUCCESS;
            vcpu.context.x[1..4].copy_from_slice(&words);
        }
        Err(error) => vcpu.context.x[0] = error,
    }
    Verdict::Resume
}
