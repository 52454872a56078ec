//! The flush that matters most: one edge or linked interrupt of the private bank, such as an IPI or the timer.

use core::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};

use super::cpu_interface::{CpuInterface, all};
use super::interrupt::{Bits, mask};
use super::state::Ready;
use super::{ListRegister, ListRegisters, Vgic};

/// What became of the attempt.
pub(super) enum Shortcut {
    /// Everything has been done.
    Done,
    /// Not everything; these words have been taken and not been served.
    Left(Ready),
}

impl CpuInterface {
    /// Flushes if nothing but the private bank has news, nothing waits for a list register, and at most one interrupt
    /// is to be delivered. It does what [`CpuInterface::flush`] does at length, in the same order, except for what a
    /// maintenance interrupt announces and therefore brings about itself: ends with notice, and unlisted ones.
    ///
    /// Only its owner writes the `inflight` bitmap of a private bank, so that plain stores are enough here.
    #[inline]
    pub(super) fn shortcut(&mut self, vgic: &Vgic, vcpu: usize, lrs: &mut impl ListRegisters) -> Shortcut {
        let nothing = Shortcut::Left(Ready(0));
        if self.leftover != 0 || self.is_unloaded {
            return nothing;
        }
        let Some(private) = vgic.private(vcpu) else { return nothing };
        let bank = &private.bank;
        if private.ready.load(Relaxed) != Ready::PRIVATE.0 {
            return nothing;
        }
        let ready = Ready(private.ready.swap(0, Acquire));
        if ready != Ready::PRIVATE {
            return Shortcut::Left(ready);
        }
        let done = self.used & lrs.empty();
        let mut ended = 0;
        for index in Bits(done) {
            let Some(intid) = self.listed.get(index as usize).filter(|intid| intid.is_private()) else {
                return Shortcut::Left(ready);
            };
            ended |= intid.mask();
        }
        let inflight = bank.inflight.load(Relaxed) & !ended;
        if ended != 0 {
            bank.unpublish(ended);
            bank.inflight.store(inflight, SeqCst);
            self.used &= !done;
            self.latched &= !done;
        }
        let pending = bank.pending.load(SeqCst);
        // The guest's end of an interrupt deactivated the physical one, unless that has come again since.
        self.held &= !ended | pending;
        let by_line = bank.line.load(SeqCst) & !bank.edge.load(Relaxed);
        let waiting = (pending | by_line) & bank.forwarded(vgic.groups()) & !bank.active.load(SeqCst) & !inflight;
        let free = all(lrs) & !self.used;
        let is_one = waiting.is_power_of_two();
        if pending & inflight != 0 || free == 0 || !is_one {
            return if waiting == 0 && pending & inflight == 0 { Shortcut::Done } else { Shortcut::Left(ready) };
        }
        // Here too: first in flight, then no longer latched. Whoever masks it meanwhile sees one of the two.
        bank.inflight.store(inflight | waiting, SeqCst);
        if bank.pending.fetch_and(!waiting, SeqCst) & waiting == 0 {
            // It was pending by its line, or is so no more.
            bank.inflight.store(inflight, SeqCst);
            return Shortcut::Left(ready);
        }
        let bit = waiting.trailing_zeros();
        let index = free.trailing_zeros();
        let intid = super::IntId::new(bit);
        let (priority, group) = (bank.priority(bit), bank.group_of(bit));
        let value = if bank.linked.load(Relaxed) & waiting != 0 {
            ListRegister::linked(intid, bit, priority, group)
        } else {
            let software = ListRegister::software(intid, priority, group);
            if bank.edge.load(Relaxed) & waiting == 0 {
                self.watched |= mask(index);
                software.with_eoi_notice()
            } else {
                software
            }
        };
        lrs.write(index as usize, value);
        self.used |= mask(index);
        self.latched |= mask(index);
        if let Some(listed) = self.listed.get_mut(index as usize) {
            *listed = intid;
        }
        Shortcut::Done
    }
}
