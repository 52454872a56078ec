//! HVC and SMC: each call goes to the service that owns its function id (`aarch64::smccc`). What none of them knows,
//! and what is not for this guest, gets NOT_SUPPORTED.

mod power;

use crate::guest_cpu::GuestCpu;
use crate::virtio;
use aarch64::smccc::{self, NOT_SUPPORTED, SUCCESS, Service};
use aarch64::trng;
use abi::io::Call;
use arch::context::{Vcpu, Verdict};

/// Answers the call in the guest's registers (SMCCC: function in W0, arguments from X1, result in X0).
#[inline(never)]
pub fn answer(vcpu: &mut Vcpu<GuestCpu>) -> Verdict {
    let function = vcpu.context.x[0] as u32;
    match Service::of(function) {
        Service::VendorHypervisor => vendor_hypervisor(vcpu, function),
        Service::Psci => power::answer(vcpu, function),
        Service::Trng => random_numbers(vcpu, function),
        Service::Architecture => {
            let result = smccc::answer(function, vcpu.context.x[1] as u32);
            answer_word(vcpu, result)
        }
        Service::Nobody => answer_word(vcpu, NOT_SUPPORTED),
    }
}

/// Bulkhead's own calls (`abi`).
#[inline(always)]
fn vendor_hypervisor(vcpu: &mut Vcpu<GuestCpu>, function: u32) -> Verdict {
    if let Some(call) = Call::of_function(function) {
        let channel = vcpu.context.x[1];
        return match virtio::call(vcpu, call, channel) {
            Some((result, verdict)) => {
                vcpu.context.x[0] = result;
                verdict
            }
            None => answer_word(vcpu, NOT_SUPPORTED),
        };
    }
    match function {
        abi::FUNCTION_UID => answer_words(vcpu, abi::UID.map(u64::from)),
        abi::FUNCTION_REVISION => {
            answer_words(vcpu, [u64::from(abi::ABI_VERSION.major), u64::from(abi::ABI_VERSION.minor), 0, 0])
        }
        _ => answer_word(vcpu, NOT_SUPPORTED),
    }
}

fn answer_word(vcpu: &mut Vcpu<GuestCpu>, word: u64) -> Verdict {
    vcpu.context.x[0] = word;
    Verdict::Resume
}

fn answer_words(vcpu: &mut Vcpu<GuestCpu>, words: [u64; 4]) -> Verdict {
    vcpu.context.x[..4].copy_from_slice(&words);
    Verdict::Resume
}

fn random_numbers(vcpu: &mut Vcpu<GuestCpu>, function: u32) -> Verdict {
    let result = match trng::decode(function, vcpu.context.x[1]) {
        trng::Call::Version => trng::TRNG_VERSION,
        trng::Call::Features { function } => trng::features(function),
        trng::Call::Uuid => return answer_words(vcpu, trng::TRNG_UUID.map(u64::from)),
        trng::Call::Random { bits, wide } => return random(vcpu, bits, wide),
        trng::Call::Unknown => NOT_SUPPORTED,
    };
    answer_word(vcpu, result)
}

fn random(vcpu: &mut Vcpu<GuestCpu>, bits: u64, wide: bool) -> Verdict {
    // Not a wait: if another core draws at this moment, the guest is told to ask again. A board without entropy tells
    // it so each time.
    let entropy = vcpu.guest.machine.entropy.try_lock().and_then(|mut pool| pool.words());
    let Some(entropy) = entropy else {
        vcpu.context.x[0] = trng::NO_ENTROPY;
        return Verdict::Resume;
    };
    match trng::random_words(bits, wide, entropy) {
        Ok(words) => {
            vcpu.context.x[0] = SUCCESS;
            vcpu.context.x[1..4].copy_from_slice(&words);
        }
        Err(error) => vcpu.context.x[0] = error,
    }
    Verdict::Resume
}
