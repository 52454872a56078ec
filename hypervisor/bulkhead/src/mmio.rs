//! Loads and stores to the guest's device windows: the vGIC's frames first, then the bus.

use crate::console::GuestConsole;
use crate::guest_cpu::GuestCpu;
use arch::context::Vcpu;
use arch::list_registers::CoreListRegisters;
use arch::{gic, timer};
use model::exit::{DataAbort, MmioAccess};
use model::vgic::{Frame, IntId, Kicks, needs_sync};
use vdev::guest_map::{GICD_BASE, GICD_SIZE, GICR_BASE, GICR_STRIDE};
use vdev::{Access, Device, Host};

/// The access is answered by a synchronous external abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal;

/// Answers the access behind `abort`. `Ok(true)` asks the run loop to look at this core's other virtual CPUs.
///
/// # Errors
/// Nothing answers at this address, not at this width, or the instruction left no syndrome to answer it by.
pub fn access(vcpu: &mut Vcpu<GuestCpu>, abort: &DataAbort) -> Result<bool, Refusal> {
    let Some(mmio) = abort.mmio else { return Err(Refusal) };
    if abort.on_table_walk || abort.cache_maintenance {
        return Err(Refusal);
    }
    let address = abort.address.0;
    if address & (mmio.width.bytes() - 1) != 0 {
        return Err(Refusal);
    }
    let store = match abort.access {
        Access::Read => None,
        Access::Write => Some(mmio.cut(vcpu.register(mmio.transfer))),
    };
    let guest = &mut vcpu.guest;
    let (value, kicks) = if let Some(offset) = address.checked_sub(GICD_BASE).filter(|offset| *offset < GICD_SIZE) {
        interrupt_controller(guest, Frame::Distributor, offset, &mmio, store)?
    } else if let Some((frame, offset)) = redistributor(guest, address) {
        interrupt_controller(guest, Frame::Redistributor(frame), offset, &mmio, store)?
    } else {
        device(guest, abort, &mmio, store)?
    };
    if store.is_none() {
        vcpu.set_register(mmio.transfer, mmio.extend(value));
    }
    Ok(!kicks.is_empty() && vcpu.guest.deliver(kicks))
}

fn redistributor(guest: &GuestCpu, address: u64) -> Option<(usize, u64)> {
    let offset = address.checked_sub(GICR_BASE)?;
    let frame = (offset / GICR_STRIDE) as usize;
    (frame < guest.vm.vcpu_count()).then_some((frame, offset % GICR_STRIDE))
}

fn interrupt_controller(
    guest: &mut GuestCpu,
    frame: Frame,
    offset: u64,
    mmio: &MmioAccess,
    store: Option<u64>,
) -> Result<(u64, Kicks), Refusal> {
    let vgic = guest.vm.vgic;
    if needs_sync(frame, offset) {
        guest.interface.sync(vgic, guest.index, &CoreListRegisters::of_this_core());
        let stale = vgic.stale(guest.index, frame, offset);
        guest.deliver(stale);
    }
    match store {
        None => {
            let value = match frame {
                Frame::Distributor => vgic.distributor_read(guest.index, offset, mmio.width),
                Frame::Redistributor(vcpu) => vgic.redistributor_read(vcpu, offset, mmio.width),
            };
            value.map(|value| (value, Kicks::NONE)).ok_or(Refusal)
        }
        Some(value) => {
            let kicks = match frame {
                Frame::Distributor => vgic.distributor_write(guest.index, offset, mmio.width, value),
                Frame::Redistributor(vcpu) => vgic.redistributor_write(vcpu, offset, mmio.width, value),
            };
            if frame == Frame::Redistributor(guest.index) {
                withdraw_quiet_timers(guest);
            }
            kicks.map(|kicks| (0, kicks)).ok_or(Refusal)
        }
    }
}

/// A timer interrupt that came while it was disabled must not reach the guest if the timer has been turned off since.
fn withdraw_quiet_timers(guest: &mut GuestCpu) {
    let quiet = timer::quiet_guest_timers();
    for intid in [gic::VIRTUAL_TIMER, gic::PHYSICAL_TIMER] {
        if quiet & (1 << intid) != 0 {
            let lrs = &mut CoreListRegisters::of_this_core();
            guest.interface.withdraw_linked(guest.vm.vgic, guest.index, IntId::new(intid), lrs);
        }
    }
}

fn device(
    guest: &mut GuestCpu,
    abort: &DataAbort,
    mmio: &MmioAccess,
    store: Option<u64>,
) -> Result<(u64, Kicks), Refusal> {
    let vm = guest.vm;
    let (index, offset) = vm.bus.find(abort.address, mmio.width).ok_or(Refusal)?;
    let slot = vm.slots.get(usize::from(index)).ok_or(Refusal)?;
    let mut console = GuestConsole::of(vm);
    let mut device = slot.device.lock();
    let mut host = Host { now: timer::now(), memory: &vm.ram, console: &mut console };
    let value = match store {
        None => device.read(offset, mmio.width, &mut host).map_err(|_| Refusal)?,
        Some(value) => device.write(offset, mmio.width, value, &mut host).map(|()| 0).map_err(|_| Refusal)?,
    };
    let kicks = match slot.interrupt {
        Some(interrupt) => vm.vgic.set_line(interrupt, guest.index, device.line()),
        None => Kicks::NONE,
    };
    Ok((value, kicks))
}
