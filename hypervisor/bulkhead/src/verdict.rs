//! The ways in which the fast tier ends an exit, for all that answer one.

use crate::guest_cpu::{GuestCpu, Left};
use aarch64::exit::Exit;
use aarch64::inject;
use arch::context::{Vcpu, Verdict};
use arch::cpu;
use terminal::repeated::Repeated;

/// Hands over to the run loop.
pub fn leave(vcpu: &mut Vcpu<GuestCpu>, reason: Left) -> Verdict {
    vcpu.guest.left = reason;
    Verdict::Leave
}

/// Resumes the guest, which has been given an exception for `exit`, or leaves so that the refusal is logged.
pub fn refused(vcpu: &mut Vcpu<GuestCpu>, exit: Exit) -> Verdict {
    if Repeated::Refusal.count(&vcpu.guest.vm.counters.faults) {
        leave(vcpu, Left::Refused(exit))
    } else {
        Verdict::Resume
    }
}

/// Refuses an instruction as undefined.
pub fn undefined(vcpu: &mut Vcpu<GuestCpu>, exit: Exit) -> Verdict {
    cpu::inject(inject::undefined);
    refused(vcpu, exit)
}
