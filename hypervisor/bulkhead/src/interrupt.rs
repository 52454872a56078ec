//! Physical interrupts that arrive while a guest runs.

use crate::guest_cpu::{GuestCpu, Left};
use crate::machine::Machine;
use crate::routing;
use crate::vm::Vm;
use arch::context::Verdict;
use arch::list_registers::CoreListRegisters;
use arch::{gic, timer};
use vgic::{IntId, Kicks};

/// Takes the pending interrupt of this core, with `guest` loaded.
#[inline]
pub fn take(guest: &mut GuestCpu) -> Verdict {
    let Some(intid) = gic::acknowledge() else { return Verdict::Resume };
    gic::drop_priority(intid);
    match intid {
        gic::KICK => {
            gic::deactivate(intid);
            if guest.unfinished != 0 {
                guest.left = Left::Serve;
                return Verdict::Leave;
            }
            if guest.shares_core {
                guest.left = Left::Reschedule;
                return Verdict::Leave;
            }
            if guest.refill() { reschedule(guest) } else { Verdict::Resume }
        }
        // The guest's own EOI deactivates them: the list register links the two.
        gic::VIRTUAL_TIMER | gic::PHYSICAL_TIMER => {
            if timer::quiet_guest_timers() & 1 << intid != 0 {
                // It was the timer of whoever ran here before, or the guest has turned it off since.
                gic::deactivate(intid);
                return Verdict::Resume;
            }
            let lrs = &mut CoreListRegisters::of_this_core();
            let kicks = guest.interface.deliver_linked(guest.vm.vgic, guest.index, IntId::new(intid), lrs);
            if !kicks.is_empty() && guest.tell(kicks) { reschedule(guest) } else { Verdict::Resume }
        }
        gic::MAINTENANCE => {
            let is_other_concerned = guest.deliver(Kicks::one(guest.index));
            gic::deactivate(intid);
            if is_other_concerned { reschedule(guest) } else { Verdict::Resume }
        }
        _ => take_shared(guest, intid),
    }
}

/// Takes the SPI `intid`. Apart from the others, which need fewer registers.
#[inline(never)]
fn take_shared(guest: &mut GuestCpu, intid: u32) -> Verdict {
    if !guest.vm.io.assigned.has(intid) {
        guest.left = Left::Interrupt(intid);
        return Verdict::Leave;
    }
    // An assigned device's: ended by the guest, as a timer's is.
    let lrs = &mut CoreListRegisters::of_this_core();
    let kicks = guest.interface.deliver_linked_shared(guest.vm.vgic, guest.index, IntId::new(intid), lrs);
    if !kicks.is_empty() && guest.tell(kicks) { reschedule(guest) } else { Verdict::Resume }
}

/// Hands the interrupt of an assigned device to its owner, who is not on this core at the moment. It stays active until
/// the owner has ended it, which it may do from another core: this one is not to be interrupted by it each time.
pub fn take_for_absent(machine: &Machine, owner: &Vm, intid: u32, this_core: usize) {
    routing::hold_back(&machine.gic, owner, intid);
    let kicks = owner.vgic.inject(IntId::new(intid), 0);
    // `pick`, which runs next, sees what is for this core.
    let _ = machine.tell(owner, kicks, this_core);
}

fn reschedule(guest: &mut GuestCpu) -> Verdict {
    guest.left = Left::Reschedule;
    Verdict::Leave
}
