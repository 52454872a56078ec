//! The page by which a driver domain makes its calls without HVC (`abi::io::CALLS_KIND`). What a load or a store of it
//! means is decided here; the calls themselves are [`crate::virtio`]'s, as those by HVC are.

use crate::guest_cpu::GuestCpu;
use crate::virtio;
use crate::vm::CALLS_NUMBER;
use abi::io::{Call, INVALID_PARAMETER, channel_of_result};
use arch::context::{Vcpu, Verdict};
use arch::gic;
use core::sync::atomic::{AtomicU32, Ordering};
use vdev::Width;

/// Answers a load from device `number` of the guest's bus. `None` if that is not the page, or the page has nothing to
/// load there.
#[cold]
#[inline(never)]
pub fn load(guest: &GuestCpu, number: u16, offset: u64, width: Width) -> Option<u64> {
    let channel = channel_of_result(offset).filter(|_| is_page(number, width))?;
    Some(result(guest, channel).map_or(INVALID_PARAMETER as u32, |result| result.load(Ordering::Relaxed)).into())
}

/// As [`load`], for a store of `value`.
#[cold]
#[inline(never)]
pub fn store(vcpu: &mut Vcpu<GuestCpu>, number: u16, offset: u64, width: Width, value: u64) -> Option<()> {
    let call = Call::at_register(offset).filter(|_| is_page(number, width))?;
    let (answer, verdict) = virtio::call(vcpu, call, value)?;
    if call.is_for_channel()
        && let Some(result) = result(&vcpu.guest, value)
    {
        result.store(answer as u32, Ordering::Relaxed);
    }
    if verdict == Verdict::Leave {
        // The core has to decide anew what it runs, and does when the instruction is over. KICK would bring it no
        // further than to the list registers.
        vcpu.guest.machine.gic.send_sgi(vcpu.guest.core, gic::SUMMON);
    }
    Some(())
}

fn is_page(number: u16, width: Width) -> bool {
    number == CALLS_NUMBER && width == Width::Word
}

/// What the last call for `channel` has returned, if there is that channel.
fn result(guest: &GuestCpu, channel: u64) -> Option<&'static AtomicU32> {
    guest.vm.io.results.get(usize::try_from(channel).ok()?)
}
