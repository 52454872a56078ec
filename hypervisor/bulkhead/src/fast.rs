//! The fast tier: what is answered on the exit path itself. See `ARCHITECTURE.md`, "Trap story".
//!
//! Nothing here logs or allocates, and nothing waits but for a lock (see `ARCHITECTURE.md`, invariant 6). What it
//! cannot answer it leaves to [`crate::run`], with the reason in [`GuestCpu::left`].

use crate::guest_cpu::{GuestCpu, Left};
use crate::verdict::{leave, refused, undefined};
use crate::{hypercall, interrupt, load_store, mmio, system_register, virtio};
use aarch64::exit::{DeviceAccess, Exit, SystemRegister, decode, is_data_abort, waits_for_interrupt};
use aarch64::{inject, psci};
use arch::context::{Guest, Vcpu, Verdict};
use arch::{cpu, gic};
use vdev::Access;
use vgic::{Kicks, Vgic};

impl Guest for GuestCpu {
    #[inline]
    fn hypercall(vcpu: &mut Vcpu<Self>) -> Verdict {
        vcpu.guest.exits += 1;
        // An HVC has already moved ELR past itself.
        match psci::constant(vcpu.context.x[0] as u32) {
            Some(value) => {
                vcpu.context.x[0] = value;
                Verdict::Resume
            }
            None => hypercall::answer(vcpu),
        }
    }

    #[inline]
    fn trap(vcpu: &mut Vcpu<Self>, esr: u64) -> Verdict {
        vcpu.guest.exits += 1;
        // What takes a look alone is answered before anything needs a stack frame.
        if let Some(access) = DeviceAccess::word_load_of(esr)
            && mmio::quick_load(vcpu, access).is_some()
        {
            cpu::skip_instruction();
            return Verdict::Resume;
        }
        if is_data_abort(esr) {
            return data_abort(vcpu, esr);
        }
        if let Some(register) = SystemRegister::ICC_SGI1R_EL1.stored_by(esr) {
            if quick_sgi(vcpu, register).is_none() {
                return send_sgi(vcpu, register);
            }
            cpu::skip_instruction();
            return Verdict::ResumeUnchanged;
        }
        other_trap(vcpu, esr)
    }

    #[inline]
    fn wait(vcpu: &mut Vcpu<Self>, esr: u64) -> Verdict {
        vcpu.guest.exits += 1;
        // What its devices have left over comes first: no interrupt would end the wait for that.
        vcpu.guest.waiting = waits_for_interrupt(esr) && vcpu.guest.unfinished == 0;
        let verdict = leave(vcpu, Left::Reschedule);
        cpu::skip_instruction();
        verdict
    }

    fn interrupt(vcpu: &mut Vcpu<Self>) -> Verdict {
        vcpu.guest.exits += 1;
        interrupt::take(&mut vcpu.guest)
    }

    fn system_error(vcpu: &mut Vcpu<Self>, esr: u64) -> Verdict {
        leave(vcpu, Left::SystemError(esr))
    }
}

/// Sends the SGI that a store of `register` to ICC_SGI1R_EL1 asks for, if it is for one virtual CPU with another core
/// to itself. If not, nothing has happened.
#[inline(always)]
fn quick_sgi(vcpu: &Vcpu<GuestCpu>, register: u8) -> Option<()> {
    let value = vcpu.register(register);
    let guest = &vcpu.guest;
    let target = Vgic::sole_target(value)?;
    let core = guest.vm.undivided_core_of(target).filter(|core| *core != guest.core)?;
    if guest.vm.vgic.send_sgi_to(target, value) {
        guest.machine.gic.send_sgi(core, gic::KICK);
    }
    Some(())
}

/// Sends the SGIs that a store of `register` to ICC_SGI1R_EL1 asks for, whomever they are for.
#[inline(never)]
fn send_sgi(vcpu: &mut Vcpu<GuestCpu>, register: u8) -> Verdict {
    cpu::skip_instruction();
    let value = vcpu.register(register);
    let kicks = vcpu.guest.vm.vgic.send_sgi(vcpu.guest.index, value);
    deliver(vcpu, kicks)
}

/// A data abort: an access to a device, unless it is refused.
#[inline(never)]
fn data_abort(vcpu: &mut Vcpu<GuestCpu>, esr: u64) -> Verdict {
    if let Some(access) = DeviceAccess::of(esr) {
        if let Ok(kicks) = mmio::answer(vcpu, access) {
            cpu::skip_instruction();
            return deliver(vcpu, kicks);
        }
        if vcpu.guest.is_pending
            && let Some(verdict) = mmio::wait_for_answer(vcpu, access, load_store::is_part(esr))
        {
            return verdict;
        }
    }
    if let Some(access) = DeviceAccess::permission_store_of(esr)
        && let Some(verdict) = virtio::store(vcpu, access)
    {
        return verdict;
    }
    other_trap(vcpu, esr)
}

/// Tells the virtual CPUs in `kicks`, and resumes the guest unless another virtual CPU of this core has to be looked
/// at.
#[inline(always)]
fn deliver(vcpu: &mut Vcpu<GuestCpu>, kicks: Kicks) -> Verdict {
    if kicks.is_empty() || !vcpu.guest.deliver(kicks) {
        return Verdict::Resume;
    }
    leave(vcpu, Left::Reschedule)
}

/// Any trap but those of [`Guest::trap`] itself: refused device accesses among them.
#[inline(never)]
fn other_trap(vcpu: &mut Vcpu<GuestCpu>, esr: u64) -> Verdict {
    let exit = decode(&cpu::syndrome(esr));
    match exit {
        Exit::DataAbort(abort) => {
            if load_store::is_not_plain(esr, &abort)
                && let Some(verdict) = load_store::emulate(vcpu, esr, abort.virtual_address, data_abort)
            {
                return verdict;
            }
            cpu::inject(|target| inject::data_abort(target, abort.virtual_address, abort.access == Access::Write));
            refused(vcpu, exit)
        }
        Exit::SystemRegister(access) => system_register::answer(vcpu, access, exit),
        Exit::Smc { .. } => {
            cpu::skip_instruction();
            hypercall::answer(vcpu)
        }
        Exit::Hvc { .. } => hypercall::answer(vcpu),
        Exit::WaitForInterrupt => {
            cpu::skip_instruction();
            leave(vcpu, Left::Wait)
        }
        Exit::WaitForEvent => {
            cpu::skip_instruction();
            leave(vcpu, Left::Reschedule)
        }
        Exit::InstructionAbort(abort) => {
            cpu::inject(|target| inject::instruction_abort(target, abort.virtual_address));
            refused(vcpu, exit)
        }
        Exit::Undefined { .. } => undefined(vcpu, exit),
    }
}
