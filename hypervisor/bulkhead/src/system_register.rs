//! Trapped system registers: SGIs, the ID space, debug (`debug_registers`). Everything else is undefined to a guest.

use crate::debug_registers;
use crate::guest_cpu::{GuestCpu, Left};
use crate::verdict::{leave, undefined};
use aarch64::exit::{Exit, SystemRegister, SystemRegisterAccess};
use aarch64::id_registers;
use arch::context::{Vcpu, Verdict};
use arch::cpu;
use arch::list_registers::CoreListRegisters;
use vdev::Access;
use vgic::{IntId, Kicks};

/// What a register does.
enum Answer {
    /// A read gives this, a write is ignored.
    Value(u64),
    /// No such register for a guest.
    Undefined,
}

/// Answers the access, which is `exit`.
pub fn answer(vcpu: &mut Vcpu<GuestCpu>, access: SystemRegisterAccess, exit: Exit) -> Verdict {
    let register = access.register;
    if access.access == Access::Write {
        let value = vcpu.register(access.transfer);
        match register {
            // Traps only while there are more active interrupts than list registers.
            SystemRegister::ICC_DIR_EL1 => {
                cpu::skip_instruction();
                return deactivate(vcpu, value);
            }
            // Group 0 and the other security state have no interrupts here (IHI 0069 12.2.14): nothing is sent.
            SystemRegister::ICC_SGI0R_EL1 | SystemRegister::ICC_ASGI1R_EL1 => return ignored(),
            _ => {}
        }
    }
    match value(register, access.access) {
        Answer::Value(value) => {
            if access.access == Access::Read {
                vcpu.set_register(access.transfer, value);
            }
            cpu::skip_instruction();
            Verdict::Resume
        }
        Answer::Undefined => match register {
            SystemRegister { op0: 2, .. } => debug_registers::answer(vcpu, access, exit),
            // Made again, without a trap.
            SystemRegister::SCXTNUM_EL0 | SystemRegister::SCXTNUM_EL1 if vcpu.enable_software_context() => {
                Verdict::Resume
            }
            _ => undefined(vcpu, exit),
        },
    }
}

fn deactivate(vcpu: &mut Vcpu<GuestCpu>, value: u64) -> Verdict {
    let guest = &mut vcpu.guest;
    let intid = IntId::new((value & 0xff_ffff) as u32);
    let lrs = &mut CoreListRegisters::of_this_core();
    guest.interface.deactivate_listed_or_spilled(guest.vm.vgic, guest.index, intid, lrs);
    if guest.deliver(Kicks::one(guest.index)) { leave(vcpu, Left::Reschedule) } else { Verdict::Resume }
}

fn ignored() -> Verdict {
    cpu::skip_instruction();
    Verdict::Resume
}

fn value(register: SystemRegister, access: Access) -> Answer {
    if register.is_identification() {
        // Writing an ID register is undefined on hardware too.
        return match access {
            Access::Read => {
                let hardware = cpu::id_register(register.crm, register.op2);
                Answer::Value(id_registers::shown(register, hardware))
            }
            Access::Write => Answer::Undefined,
        };
    }
    match register {
        // SRE, DFB and DIB: the system-register interface is on and nothing bypasses it, whatever a guest writes.
        SystemRegister::ICC_SRE_EL1 => Answer::Value(0b111),
        // ACTLR_EL1 has nothing that a guest may set.
        SystemRegister::ACTLR_EL1 => Answer::Value(0),
        _ => Answer::Undefined,
    }
}
