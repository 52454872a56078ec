//! What para-virtual devices are asked for: stores by their frontend, and calls of their driver domain.
//!
//! Loads cost nothing: the registers are a page that the guest may read. A store ends up in [`store`]. What a device
//! asks of others comes back as [`Reaction`], and is carried out here, with no lock taken.

use crate::command;
use crate::guest_cpu::{GuestCpu, Left};
use crate::lifecycle;
use crate::machine::{Channel, Machine};
use crate::supervision;
use crate::verdict::leave;
use crate::vm::{FIRST_VIRTIO_NUMBER, Reaction, Vm};
use aarch64::exit::DeviceAccess;
use aarch64::smccc::SUCCESS;
use abi::io::{self, Call};
use arch::context::{Vcpu, Verdict};
use arch::{cpu, gic, pending, wait};
use terminal::repeated::Repeated;
use vdev::guest_map::{VIRTIO_BASE, VIRTIO_SLOTS, VIRTIO_STRIDE};
use virtio_transport::ProtocolError;
use virtio_transport::policy::Refused;
use vm_lifecycle::{CommandSource, Failure, VmCommand};

/// Answers a store to the page of a para-virtual device, or to virtio slots without one, which ignore it. `None` if it
/// is none, or one that the device refuses.
#[inline(never)]
pub fn store(vcpu: &mut Vcpu<GuestCpu>, access: DeviceAccess) -> Option<Verdict> {
    let address = cpu::permission_fault_address(access)?;
    let transfer = access.transfer();
    let value = transfer.cut(vcpu.register(transfer.transfer));
    let guest = &mut vcpu.guest;
    let Some((number, offset)) = guest.vm.io.bus.find_again(&mut guest.recent, address) else {
        let is_vacant_slot = address.0.wrapping_sub(VIRTIO_BASE) < VIRTIO_STRIDE * u64::from(VIRTIO_SLOTS);
        return is_vacant_slot.then(|| {
            cpu::skip_instruction();
            Verdict::Resume
        });
    };
    let index = usize::from(number.checked_sub(FIRST_VIRTIO_NUMBER)?);
    let device = guest.vm.io.virtio.get(index)?;
    let provider = guest.machine.backend_of(device)?;
    let reaction = device.store(offset, transfer.width, value, guest.vm, provider)?;
    if reaction.is_clients {
        // When this store is done, the driver's buffers are its own again, and a driver need not ask (Linux does not).
        // A device that was granted some of them is not done yet. So the store is not done either: the guest makes it
        // again, after its interrupts and its neighbours on the core, until the last grant has landed or the devices
        // were reset.
        let _ = after_store(vcpu, index, provider, reaction);
        return Some(leave(vcpu, Left::Serve));
    }
    cpu::skip_instruction();
    Some(after_store(vcpu, index, provider, reaction))
}

/// Goes on where the last stores left off: one more round for each device, and if that is not enough, again after the
/// guest, its interrupts and its neighbours have had their chance.
pub fn resume(vcpu: &mut Vcpu<GuestCpu>) {
    let (vm, machine) = (vcpu.guest.vm, vcpu.guest.machine);
    let mut unfinished = core::mem::take(&mut vcpu.guest.unfinished);
    while unfinished != 0 {
        if pending::has_pending_interrupt() {
            // It comes first.
            vcpu.guest.unfinished |= unfinished;
            break;
        }
        let index = unfinished.trailing_zeros() as usize;
        unfinished &= unfinished - 1;
        let Some(device) = vm.io.virtio.get(index) else { continue };
        let Some(provider) = machine.backend_of(device) else { continue };
        let reaction = device.resume(vm, provider);
        // The run loop looks at everything anew, whatever the verdict.
        let _ = after_store(vcpu, index, provider, reaction);
    }
    if vcpu.guest.unfinished != 0 {
        machine.gic.send_sgi(vcpu.guest.core, gic::KICK);
    }
}

#[inline(never)]
fn after_store(vcpu: &mut Vcpu<GuestCpu>, index: usize, provider: &'static Vm, reaction: Reaction) -> Verdict {
    let guest = &mut vcpu.guest;
    let mut is_core_concerned = !reaction.client.is_empty() && guest.deliver(reaction.client);
    if let Some(error) = reaction.error {
        is_core_concerned |= report_error(guest.machine, guest.vm, provider, error, guest.core);
    }
    if reaction.doorbell {
        is_core_concerned |= guest.machine.ring(provider, guest.core);
        // A board runs the driver domain's core from here on, beside this one. An emulator that runs one core at a time
        // should.
        wait::let_others_run();
    }
    if reaction.again {
        guest.unfinished |= 1 << index;
        return leave(vcpu, Left::Serve);
    }
    if is_core_concerned { leave(vcpu, Left::Reschedule) } else { Verdict::Resume }
}

/// What the guest asks for as a driver domain, by whichever way: `call`, for channel `number`. Gives what it returns;
/// `None` if the guest is none, and has no right to calls.
#[inline(never)]
pub fn call(vcpu: &mut Vcpu<GuestCpu>, call: Call, number: u64) -> Option<(u64, Verdict)> {
    let guest = &vcpu.guest;
    let provider = guest.vm;
    if !provider.is_driver_domain() {
        return None;
    }
    // It may serve its clients for ever without another reason to leave the fast tier.
    provider.note_exits(guest.index, guest.exits);
    let channel = usize::try_from(number).ok().and_then(|number| guest.machine.channel(provider, number));
    let reaction = match (call, &channel) {
        (Call::Ready, _) => return Some(ready(vcpu)),
        (Call::Complete, Some(channel)) => Some(channel.device.complete(channel.client, provider)),
        (Call::Attach, Some(channel)) => attach(channel, provider),
        (Call::Complete | Call::Attach, None) => None,
    };
    let (Some(channel), Some(reaction)) = (channel, reaction) else {
        return Some((io::INVALID_PARAMETER, Verdict::Resume));
    };
    Some(after_call(vcpu, &channel, reaction))
}

/// "Ready" (`abi::io::FUNCTION_READY`), of the driver domain whose virtual CPU this is. Gives what it returns. Where an
/// interrupt is pending, the guest makes the call once more after that.
#[cold]
fn ready(vcpu: &mut Vcpu<GuestCpu>) -> (u64, Verdict) {
    let guest = &mut vcpu.guest;
    let (provider, machine) = (guest.vm, guest.machine);
    while announce(machine, provider, guest.core, guest.announced) {
        guest.announced += 1;
        if pending::has_pending_interrupt() {
            cpu::repeat_instruction();
            return (vcpu.context.x[0], Verdict::Resume);
        }
    }
    guest.announced = 0;
    (SUCCESS, leave(vcpu, Left::Reschedule))
}

/// Has `provider` serve its channels, and starts those who have waited for that, one in each step from 0. Returns
/// whether there are more steps.
fn announce(machine: &'static Machine, provider: &'static Vm, this_core: usize, step: usize) -> bool {
    let Some(step) = step.checked_sub(provider.config.channels.len()) else {
        if let Some(Channel { client, index, device }) = machine.channel_in_turn(provider, step)
            && device.serve_again()
        {
            machine.hand_over(client, 1 << index, this_core);
        }
        return true;
    };
    let Some(step) = step.checked_sub(1) else {
        supervision::note_ready(provider);
        return true;
    };
    lifecycle::release_client(machine, provider, this_core, step)
}

/// Has the device of `channel` become what its driver domain, `provider`, describes. `None` if that cannot be.
#[cold]
#[inline(never)]
fn attach(channel: &Channel, provider: &Vm) -> Option<Reaction> {
    let &Channel { client, index, device } = channel;
    let attached = device.attach(client, provider);
    if let Err(why) = attached {
        log_refused(client, index, provider, why);
    }
    attached.ok()
}

/// Carries out what the device of `channel` asks of others after a call.
#[inline(always)]
fn after_call(vcpu: &mut Vcpu<GuestCpu>, channel: &Channel, reaction: Reaction) -> (u64, Verdict) {
    let guest = &mut vcpu.guest;
    let (provider, machine) = (guest.vm, guest.machine);
    let &Channel { client, index, .. } = channel;
    let mut is_core_concerned = !reaction.client.is_empty() && machine.tell(client, reaction.client, guest.core);
    if let Some(error) = reaction.error {
        is_core_concerned |= report_error(machine, client, provider, error, guest.core);
    }
    if reaction.doorbell
        && let Some(doorbell) = provider.config.doorbell
    {
        let kicks = provider.vgic.inject(doorbell, 0);
        is_core_concerned |= !kicks.is_empty() && guest.deliver(kicks);
    }
    if reaction.is_clients {
        machine.hand_over(client, 1 << index, guest.core);
        // One of its virtual CPUs may be this core's.
        is_core_concerned = true;
    }
    let result = if reaction.again { io::COMPLETE_AGAIN } else { SUCCESS };
    (result, if is_core_concerned { leave(vcpu, Left::Reschedule) } else { Verdict::Resume })
}

/// Says who broke the protocol. A client's device needs a reset then, and is told so already; a driver domain starts
/// again: what its rings say from then on means nothing. Returns whether this core has to look at what it runs.
#[cold]
#[inline(never)]
fn report_error(
    machine: &'static Machine,
    client: &Vm,
    provider: &'static Vm,
    error: ProtocolError,
    this_core: usize,
) -> bool {
    log_error(client, provider, error);
    let is_providers = error == ProtocolError::Backend;
    if is_providers {
        let command = VmCommand::Fail(Failure::Damaged);
        command::request(machine, provider, command, CommandSource::Bulkhead, this_core);
    }
    is_providers
}

/// A driver domain that describes again and again what cannot be is not to fill the log.
#[cold]
#[inline(never)]
fn log_refused(client: &Vm, index: usize, provider: &Vm, why: Refused) {
    if Repeated::ProtocolError.count(&provider.counters.protocol_errors) {
        let (provider, client) = (&provider.config.name, &client.config.name);
        log::warn!("vm {provider}: its description of virtio {index} of vm {client} is refused: {why}");
    }
}

/// A guest that breaks the protocol again and again is not to fill the log.
fn log_error(client: &Vm, provider: &Vm, error: ProtocolError) {
    let at_fault = if error == ProtocolError::Backend { provider } else { client };
    if !Repeated::ProtocolError.count(&at_fault.counters.protocol_errors) {
        return;
    }
    match error {
        ProtocolError::Frontend(error) => {
            log::warn!("vm {}: a virtio device needs a reset: {error}", client.config.name)
        }
        ProtocolError::Backend => {
            log::warn!("vm {}: the rings of a channel to vm {} are damaged", provider.config.name, client.config.name);
        }
    }
}
