//! Trapped debug registers. What they hold is `aarch64::debug`'s, and the core's registers are `arch`'s.

use crate::guest_cpu::GuestCpu;
use crate::verdict::undefined;
use aarch64::exit::{Exit, SystemRegisterAccess};
use arch::context::{Vcpu, Verdict};
use arch::cpu;
use vdev::Access;

/// Answers the access to a register of op0 2, which is `exit`.
#[cold]
#[inline(never)]
pub fn answer(vcpu: &mut Vcpu<GuestCpu>, access: SystemRegisterAccess, exit: Exit) -> Verdict {
    let SystemRegisterAccess { register, transfer, .. } = access;
    let answered = match access.access {
        Access::Read => vcpu.read_debug_register(register).map(|value| vcpu.set_register(transfer, value)),
        Access::Write => vcpu.write_debug_register(register, vcpu.register(transfer)),
    };
    if answered.is_none() {
        return undefined(vcpu, exit);
    }
    cpu::skip_instruction();
    Verdict::Resume
}
