//! Loads and stores to the guest's device windows: the vGIC's frames first, then the bus.
//!
//! What is marked `inline(always)` is the exit path of a device register, whose instructions are counted
//! (`xtask bench`).

use crate::call_page;
use crate::device_time;
use crate::guest_cpu::{Awaited, GuestCpu, Left};
use crate::routing;
use crate::verdict::leave;
use crate::vm::Slot;
use aarch64::exit::DeviceAccess;
use arch::context::{Vcpu, Verdict};
use arch::list_registers::CoreListRegisters;
use arch::{cpu, gic, timer};
use core::task::Poll;
use devices::AnyDevice;
use vdev::guest_map::{GICD_BASE, GICD_SIZE, GICR_BASE, GICR_STRIDE};
use vdev::{Access, AccessId, Device, GuestFault, Host};
use vdev::{GuestAddr, Width};
use vgic::{Frame, IntId, Kicks, VCPUS_MAX, Vgic, needs_sync};

/// The access has no answer: nothing answers at this address, or not at this width; or, if [`GuestCpu::is_pending`]
/// says so, the answer comes later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswered;

/// Answers `access`. The virtual CPUs in the result are to be told.
///
/// # Errors
/// [`Unanswered`].
#[inline(always)]
pub fn answer(vcpu: &mut Vcpu<GuestCpu>, access: DeviceAccess) -> Result<Kicks, Unanswered> {
    let address = cpu::fault_address(access).ok_or(Unanswered)?;
    let transfer = access.transfer();
    match access.direction() {
        Access::Read => {
            let (value, kicks) = load(&mut vcpu.guest, address, transfer.width)?;
            vcpu.set_register(transfer.transfer, transfer.extend(value));
            Ok(kicks)
        }
        Access::Write => {
            let value = transfer.cut(vcpu.register(transfer.transfer));
            store(vcpu, address, transfer.width, value)
        }
    }
}

#[inline(always)]
fn load(guest: &mut GuestCpu, address: GuestAddr, width: Width) -> Result<(u64, Kicks), Unanswered> {
    let vgic = guest.vm.vgic;
    let value = if let Some(offset) = distributor_offset(address) {
        if needs_sync(Frame::Distributor, offset) {
            sync(guest, Frame::Distributor, offset);
        }
        vgic.distributor_read(offset, width)
    } else if let Some((vcpu, offset)) = redistributor_offset(address) {
        let (lines, kicks) = if needs_sync(Frame::Redistributor(vcpu), offset) {
            sync_redistributor(guest, vcpu, offset)
        } else {
            (0, Kicks::NONE)
        };
        let value = vgic.redistributor_read(vcpu, offset, width).ok_or(Unanswered)?;
        return Ok((value | u64::from(lines), kicks));
    } else {
        let (number, offset) = find(guest, address)?;
        let Some(slot) = guest.vm.io.slots.get(usize::from(number)) else {
            return call_page::load(guest, number, offset, width).map(|value| (value, Kicks::NONE)).ok_or(Unanswered);
        };
        if let Some(value) = slot.peek(offset, width) {
            return Ok((value, Kicks::NONE));
        }
        return load_device(guest, slot, offset, width);
    };
    value.map(|value| (value, Kicks::NONE)).ok_or(Unanswered)
}

/// As [`sync`], before a load from the redistributor of virtual CPU `vcpu`. Gives the PPIs that it shows as pending
/// whatever the vGIC says: the lines of this virtual CPU's own timers are known to the timers alone. The virtual CPUs
/// in the second value are to be told.
#[inline(never)]
fn sync_redistributor(guest: &mut GuestCpu, vcpu: usize, offset: u64) -> (u32, Kicks) {
    let vgic = guest.vm.vgic;
    let is_own = vcpu == guest.index;
    let mut kicks = Kicks::NONE;
    if is_own && withdraw_quiet_timers(guest) {
        kicks = guest.interface.flush(vgic, vcpu, &mut CoreListRegisters::of_this_core());
    }
    sync(guest, Frame::Redistributor(vcpu), offset);
    (if is_own { vgic.pending_by_line(vcpu, offset, !timer::quiet_guest_timers()) } else { 0 }, kicks)
}

#[inline(never)]
fn load_device(guest: &mut GuestCpu, slot: &Slot, offset: u64, width: Width) -> Result<(u64, Kicks), Unanswered> {
    call(guest, slot, |device, host| device.read(offset, width, host))
}

#[inline(always)]
fn store_device(guest: &mut GuestCpu, slot: &Slot, offset: u64, width: Width, value: u64) -> Result<Kicks, Unanswered> {
    call(guest, slot, |device, host| device.write(offset, width, value, host)).map(|((), kicks)| kicks)
}

/// Lets `action` use the device for an access of `guest`.
#[inline(always)]
fn call<R>(
    guest: &mut GuestCpu,
    slot: &Slot,
    action: impl FnOnce(&mut AnyDevice, &mut Host<'_>) -> Result<Poll<R>, GuestFault>,
) -> Result<(R, Kicks), Unanswered> {
    let (vm, index, access) = (guest.vm, guest.index, AccessId(guest.next_access));
    let done = slot.with(vm, guest.core, access, |device, host| {
        let result = action(device, host);
        if let Ok(Poll::Pending) = result {
            // Under the device's lock: no answer comes before.
            vm.await_answer(index, access);
        }
        result
    });
    device_time::follow_up(guest.machine, vm, guest.core, &done);
    match done.result {
        Ok(Poll::Ready(value)) => Ok((value, done.kicks)),
        Ok(Poll::Pending) => {
            note_pending(guest, done.kicks);
            Err(Unanswered)
        }
        Err(_) => Err(Unanswered),
    }
}

/// The answer to the access comes later; `kicks` are to be told now.
#[cold]
#[inline(never)]
fn note_pending(guest: &mut GuestCpu, kicks: Kicks) {
    guest.is_pending = true;
    guest.next_access = guest.next_access.wrapping_add(VCPUS_MAX as u64);
    if guest.deliver(kicks) {
        guest.machine.gic.send_sgi(guest.core, gic::KICK);
    }
}

/// The device of `access` answers later: until then the virtual CPU is not run, and its core is others'. It goes on
/// with the next instruction then. `None` if the access is a part of an instruction, whose parts are answered one by
/// one: such an instruction cannot wait and is refused, and the answer will find nobody.
#[cold]
#[inline(never)]
pub fn wait_for_answer(vcpu: &mut Vcpu<GuestCpu>, access: DeviceAccess, is_part: bool) -> Option<Verdict> {
    vcpu.guest.is_pending = false;
    if is_part {
        vcpu.guest.vm.end_wait(vcpu.guest.index);
        return None;
    }
    vcpu.guest.awaits = Some(match access.direction() {
        Access::Read => Awaited::Load(access.transfer()),
        Access::Write => Awaited::Store,
    });
    cpu::skip_instruction();
    let (machine, core) = (vcpu.guest.machine, vcpu.guest.core);
    machine.summon(core, core);
    Some(leave(vcpu, Left::Reschedule))
}

/// Loads a word from the vGIC or from the device that was used last, if it takes no more than a look. Nothing here
/// calls a function.
#[inline(always)]
pub fn quick_load(vcpu: &mut Vcpu<GuestCpu>, access: DeviceAccess) -> Option<()> {
    let address = cpu::fault_address(access)?;
    let vm = vcpu.guest.vm;
    let value = if let Some(offset) = distributor_offset(address) {
        vm.vgic.distributor_quick_read(offset)?
    } else if let Some((frame, offset)) = redistributor_offset(address) {
        vm.vgic.redistributor_quick_read(frame, offset)?
    } else {
        let (slot, offset) = vcpu.guest.recent.find(address)?;
        (vm.io.slots.get(usize::from(slot))?.peek(offset, Width::Word)? & Width::Word.mask()) as u32
    };
    vcpu.set_register(access.register(), u64::from(value));
    Some(())
}

#[inline(never)]
fn store(vcpu: &mut Vcpu<GuestCpu>, address: GuestAddr, width: Width, value: u64) -> Result<Kicks, Unanswered> {
    let guest = &mut vcpu.guest;
    let vgic = guest.vm.vgic;
    if let Some(offset) = distributor_offset(address) {
        if needs_sync(Frame::Distributor, offset) {
            sync(guest, Frame::Distributor, offset);
        }
        let kicks = vgic.distributor_write(offset, width, value).ok_or(Unanswered)?;
        if let Some(intid) = Vgic::routed_at(offset) {
            routing::reroute(&guest.machine.gic, guest.vm, intid);
        }
        Ok(kicks)
    } else if let Some((vcpu, offset)) = redistributor_offset(address) {
        if needs_sync(Frame::Redistributor(vcpu), offset) {
            sync(guest, Frame::Redistributor(vcpu), offset);
        }
        let mut kicks = vgic.redistributor_write(vcpu, offset, width, value).ok_or(Unanswered)?;
        if vcpu == guest.index && withdraw_quiet_timers(guest) {
            kicks |= Kicks::one(vcpu);
        }
        Ok(kicks)
    } else {
        let (number, offset) = find(guest, address)?;
        match guest.vm.io.slots.get(usize::from(number)) {
            Some(slot) => store_device(guest, slot, offset, width, value),
            None => call_page::store(vcpu, number, offset, width, value).map(|()| Kicks::NONE).ok_or(Unanswered),
        }
    }
}

#[inline(always)]
fn distributor_offset(address: GuestAddr) -> Option<u64> {
    let offset = address.0.wrapping_sub(GICD_BASE);
    (offset < GICD_SIZE).then_some(offset)
}

/// The virtual CPU whose redistributor is at `address`, and the offset into its frames. The vGIC refuses one that does
/// not exist.
#[inline(always)]
fn redistributor_offset(address: GuestAddr) -> Option<(usize, u64)> {
    let offset = address.0.wrapping_sub(GICR_BASE);
    let vcpu = (offset / GICR_STRIDE) as usize;
    (vcpu < vgic::VCPUS_MAX).then_some((vcpu, offset % GICR_STRIDE))
}

/// The number of the device at `address`, and the offset into its window.
#[inline(always)]
fn find(guest: &mut GuestCpu, address: GuestAddr) -> Result<(u16, u64), Unanswered> {
    guest.vm.io.bus.find_again(&mut guest.recent, address).ok_or(Unanswered)
}

/// Brings what the vGIC knows of list registers up to date, before a register that speaks of them is used.
#[inline(never)]
fn sync(guest: &mut GuestCpu, frame: Frame, offset: u64) {
    guest.interface.sync(guest.vm.vgic, guest.index, frame, offset, &CoreListRegisters::of_this_core());
    let stale = guest.vm.vgic.stale(guest.index, frame, offset);
    if !stale.is_empty() {
        // Another virtual CPU of this core is not loaded: it has nothing that this could bring up to date.
        let _ = guest.deliver(stale);
    }
}

/// A timer interrupt that the guest could not see yet must not reach it if the timer has been turned off since. Returns
/// whether this virtual CPU, which is loaded, has to flush.
#[inline(always)]
pub fn withdraw_quiet_timers(guest: &mut GuestCpu) -> bool {
    guest.interface.may_hold_physical() && withdraw_quiet_held_timers(guest)
}

#[inline(never)]
fn withdraw_quiet_held_timers(guest: &mut GuestCpu) -> bool {
    let lrs = &CoreListRegisters::of_this_core();
    if !guest.interface.holds_physical(guest.vm.vgic, guest.index, lrs) {
        return false;
    }
    let quiet = timer::quiet_guest_timers();
    let mut must_flush = false;
    for intid in [gic::VIRTUAL_TIMER, gic::PHYSICAL_TIMER] {
        if quiet & (1 << intid) != 0 {
            let lrs = &mut CoreListRegisters::of_this_core();
            must_flush |= guest.interface.withdraw_linked(guest.vm.vgic, guest.index, IntId::new(intid), lrs);
        }
    }
    must_flush
}
