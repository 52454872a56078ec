//! Which interrupts are in the list registers of one virtual CPU.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::bank::{Bank, Groups, Word};
use super::detours::Detours;
use super::interrupt::{Bits, IntId, mask};
use super::spilled::Spilled;
use super::state::{News, Ready};
use super::{Kicks, LIST_REGISTERS_MAX, ListRegister, ListRegisters, ListState, Vgic, WORDS};

/// The hardware-facing half of one virtual CPU's interrupts. It belongs to the core that runs the virtual CPU; every
/// function takes the same virtual machine, virtual CPU index and list registers each time.
///
/// The list registers are live from the start (or from [`CpuInterface::load`]) until [`CpuInterface::unload`].
#[repr(C)]
pub struct CpuInterface {
    /// Why a flush has to take the long way.
    pub(super) detours: Detours,
    /// The linked PPIs whose physical interrupt is active on this core, waiting for the guest.
    pub(super) held: u32,
    /// The list registers in use, as a bitmap.
    pub(super) used: u32,
    /// Those of them whose pending state came from the latch, not from a line that is still high.
    pub(super) latched: u32,
    /// The interrupt in each register in use.
    pub(super) listed: [IntId; LIST_REGISTERS_MAX],
    /// Those of the registers in use that ask for notice when their interrupt ends.
    pub(super) watched: u32,
    /// Interrupts wait for a list register, and the no-pending interrupt is on.
    pub(super) short: bool,
    /// For each word whose interrupts wait for a list register: none of those is better than this. A word that has
    /// something new is at 0.
    pub(super) bounds: [u8; WORDS],
    /// Active interrupts that had to leave their list registers.
    pub(super) spilled: Spilled,
    /// The other virtual CPUs that have to flush, gathered until the end of a call.
    pub(super) kicks: Kicks,
    /// The list registers of a virtual CPU that is not loaded.
    pub(super) saved: [ListRegister; LIST_REGISTERS_MAX],
}

impl Default for CpuInterface {
    fn default() -> Self {
        Self::new()
    }
}

impl CpuInterface {
    /// All list registers free.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            detours: Detours::NONE,
            held: 0,
            used: 0,
            latched: 0,
            listed: [IntId::new(0); LIST_REGISTERS_MAX],
            watched: 0,
            short: false,
            bounds: [0; WORDS],
            spilled: Spilled::new(),
            kicks: Kicks::NONE,
            saved: [ListRegister::EMPTY; LIST_REGISTERS_MAX],
        }
    }

    /// Brings the list registers up to date: takes out interrupts that ended or may no longer be delivered, puts in the
    /// best of those that wait. To be run on the virtual CPU's core when it is kicked, on a maintenance interrupt,
    /// after [`CpuInterface::load`], and after whatever the virtual CPU did itself that returned its own [`Kicks`].
    ///
    /// Gives the other virtual CPUs that are to flush. Takes a bounded time, however many interrupts wait: for each
    /// list register, a look at each word of 32.
    #[inline(always)]
    pub fn flush(&mut self, vgic: &Vgic, vcpu: usize, lrs: &mut impl ListRegisters) -> Kicks {
        if self.flush_quick(vgic, vcpu, lrs) { Kicks::NONE } else { self.flush_at_length(vgic, vcpu, lrs) }
    }

    /// A flush for what is not done quickly.
    #[inline(never)]
    pub(super) fn flush_at_length(&mut self, vgic: &Vgic, vcpu: usize, lrs: &mut impl ListRegisters) -> Kicks {
        if self.flush_shared_quick(vgic, vcpu, lrs) { Kicks::NONE } else { self.flush_all(vgic, vcpu, lrs) }
    }

    /// The whole of a flush.
    #[cold]
    #[inline(never)]
    pub(super) fn flush_all(&mut self, vgic: &Vgic, vcpu: usize, lrs: &mut impl ListRegisters) -> Kicks {
        // The list registers may be another virtual CPU's by now. What is ready stays so.
        if self.detours.has(Detours::UNLOADED) {
            return Kicks::NONE;
        }
        if self.used != 0 {
            self.reap(vgic, vcpu, lrs);
        }
        if !self.spilled.is_empty() {
            self.retire_spilled(vgic, vcpu, lrs);
        }
        self.serve(vgic, vcpu, vgic.take_ready(vcpu), lrs);
        self.detours.set(Detours::SPILLED, !self.spilled.is_empty());
        self.take_kicks()
    }

    /// Gives the other virtual CPUs that have to flush.
    pub(super) fn take_kicks(&mut self) -> Kicks {
        self.detours.set(Detours::OWED, false);
        core::mem::replace(&mut self.kicks, Kicks::NONE)
    }

    /// Lets go of the list registers whose interrupts have ended.
    #[inline(never)]
    pub(super) fn reap(&mut self, vgic: &Vgic, vcpu: usize, lrs: &mut impl ListRegisters) {
        let ended = if self.watched == 0 { 0 } else { lrs.ended() & self.watched };
        for index in Bits(self.used & (lrs.empty() | ended)) {
            if ended & mask(index) != 0 {
                // Or the notice would stay, and the maintenance interrupt with it.
                lrs.write(index as usize, ListRegister::EMPTY);
            }
            self.vacate(vgic, vcpu, index, false);
        }
    }

    /// Serves the words `ready`, and asks for notice when no list register holds a pending interrupt if they did not
    /// suffice: then the best of those that wait is due.
    #[inline]
    fn serve(&mut self, vgic: &Vgic, vcpu: usize, ready: Ready, lrs: &mut impl ListRegisters) {
        let groups = vgic.groups();
        for number in Bits(ready.words()) {
            let Some(word) = vgic.word(vcpu, number as usize) else { continue };
            let bank = word.bank;
            // An interrupt in flight that becomes pending again changes its list register too.
            if ready.revisions() & mask(number) != 0 || bank.pending.load(SeqCst) & bank.inflight.load(SeqCst) != 0 {
                self.revise(vgic, vcpu, word, groups, lrs);
            }
            self.note(word, word.waiting_for(vcpu, groups));
        }
        self.fill(vgic, vcpu, groups, lrs);
        let is_short = self.detours.leftover() != 0;
        if is_short != self.short {
            self.short = is_short;
            lrs.set_no_pending_interrupt(is_short);
            if is_short {
                self.separate(vgic, vcpu, lrs);
            }
        }
    }

    /// Puts the interrupt `bit` of `word` into list register `index`, which is free, unless it is not to be delivered
    /// any more. Returns whether it did; if not, it has to be [reconsidered](CpuInterface::reconsider).
    #[inline]
    pub(super) fn deliver(
        &mut self,
        vcpu: usize,
        word: Word<'_>,
        bit: u32,
        index: u32,
        groups: Groups,
        lrs: &mut impl ListRegisters,
    ) -> bool {
        let Some(was_latched) = word.claim(bit, vcpu, groups) else { return false };
        let slot = mask(index);
        let mut value = word.register(bit);
        // The line is high, and may still be when the guest ends the interrupt. Should it rise later, its holder hears
        // of that.
        if word.bank.raised() & mask(bit) != 0 {
            value = value.with_eoi_notice();
        }
        if value.notifies_eoi() {
            self.watched |= slot;
        }
        lrs.write(index as usize, value);
        self.used |= slot;
        if was_latched {
            self.latched |= slot;
        }
        self.detours.set(Detours::special(index), word.number != 0 || value.notifies_eoi());
        if let Some(listed) = self.listed.get_mut(index as usize) {
            *listed = word.intid(bit);
        }
        true
    }

    /// A list register that is not in use.
    #[inline]
    pub(super) fn free_register(&self, lrs: &impl ListRegisters) -> Option<u32> {
        let index = self.used.trailing_ones();
        // Two always exist, which saves most calls the question how many do.
        (index < 2 || (index as usize) < lrs.count().min(LIST_REGISTERS_MAX)).then_some(index)
    }

    /// Applies to the list registers what has changed about the in-flight interrupts of `word`, publishes their states,
    /// and deactivates the physical interrupts that the guest has let go of.
    #[inline(never)]
    fn revise(&mut self, vgic: &Vgic, vcpu: usize, word: Word<'_>, groups: Groups, lrs: &mut impl ListRegisters) {
        let bank = word.bank;
        if bank.release.load(SeqCst) != 0 {
            self.release(word, lrs);
        }
        let mut mine = 0;
        for index in Bits(self.used) {
            let Some(intid) = self.listed.get(index as usize).copied() else { break };
            if intid.word() == word.number {
                mine |= intid.mask();
                self.revise_one(vgic, vcpu, word, index, groups, lrs);
            }
        }
        // Requests that came too late for their holder are void, except that nothing stays active that shall not;
        // requests that were announced to the wrong virtual CPU are passed on.
        let requested = bank.clear_pending.load(SeqCst) | bank.clear_active.load(SeqCst) | bank.set_active.load(SeqCst);
        if requested & !mine != 0 {
            let gone = requested & !bank.inflight.load(SeqCst);
            let dropped = Bank::take(&bank.clear_pending, gone) & bank.linked.load(Relaxed);
            Bank::take(&bank.set_active, gone);
            let inactive = Bank::take(&bank.clear_active, gone);
            bank.active.fetch_and(!inactive, SeqCst);
            // The latch may have been cleared for good, with the physical interrupt active.
            for bit in Bits(dropped & !bank.pending.load(SeqCst)) {
                self.deactivate(lrs, word, bit, word.physical(bit));
            }
            self.owe(vgic.notify(word, requested & !gone & !mine));
        }
    }

    fn revise_one(
        &mut self,
        vgic: &Vgic,
        vcpu: usize,
        word: Word<'_>,
        index: u32,
        groups: Groups,
        lrs: &mut impl ListRegisters,
    ) {
        let bank = word.bank;
        let slot = mask(index);
        let current = lrs.read(index as usize);
        let (bit, bits) = (current.intid().bit(), current.intid().mask());
        let (mut pending, mut active) = (current.state().is_pending(), current.state().is_active());
        // The latch first, the requests second: whoever sees a new interrupt sees the request that came before it too.
        let raised = bank.pending.load(SeqCst) & bits != 0;
        if Bank::take(&bank.clear_pending, bits) != 0 {
            pending = false;
        }
        if Bank::take(&bank.clear_active, bits) != 0 {
            active = false;
        }
        if Bank::take(&bank.set_active, bits) != 0 {
            active = true;
        }
        let may_pend = bank.forwarded(groups) & bits != 0 && word.target(bit) == vcpu;
        let came_from_latch = self.latched & slot != 0;
        if pending && !may_pend {
            if came_from_latch {
                bank.pending.fetch_or(bits, SeqCst);
            }
            pending = false;
        } else if pending && !came_from_latch && bank.raised() & bits == 0 {
            pending = false;
        }
        // A linked list register cannot be both: its physical interrupt has one active state. And while others wait,
        // one that became pending at its end could be worse than they are. The latch waits instead.
        let may_be_both = current.physical().is_none() && !self.short;
        if raised && may_pend && (pending || (active && may_be_both)) {
            bank.pending.fetch_and(!bits, SeqCst);
            self.latched |= slot;
            pending = true;
        }
        if pending && active && !may_be_both {
            if self.latched & slot != 0 {
                bank.pending.fetch_or(bits, SeqCst);
            }
            pending = false;
        }
        if !pending && !active {
            if current != ListRegister::EMPTY {
                lrs.write(index as usize, ListRegister::EMPTY);
            }
            if let Some(physical) = current.physical()
                && bank.pending.load(SeqCst) & bits == 0
            {
                self.deactivate(lrs, word, bit, physical);
            }
            self.vacate(vgic, vcpu, index, false);
            return;
        }
        let mut wanted = current.with_state(ListState::of(pending, active));
        if !active {
            wanted = wanted.with_rank(bank.priority(bit), bank.group_of(bit));
        }
        // What is raised once more waits for this one's end, perhaps for delivery elsewhere. If the line fell before
        // the end, as drivers have it, nobody has to look then, which spares an exit. Should it rise before that, this
        // is looked at again.
        if bank.raised() & bits != 0 {
            wanted = wanted.with_eoi_notice();
        } else {
            wanted = wanted.without_eoi_notice();
            self.watched &= !slot;
        }
        if wanted.notifies_eoi() {
            self.watched |= slot;
            self.detours.set(Detours::special(index), true);
        }
        if wanted != current {
            lrs.write(index as usize, wanted);
        }
        self.publish(word, bits, wanted.pending_mask(), wanted.active_mask());
    }

    /// Publishes the states of the in-flight interrupts `bits` of `word`.
    pub(super) fn publish(&mut self, word: Word<'_>, bits: u32, pending: u32, active: u32) {
        word.bank.publish(bits, pending, active);
        if word.number == 0 && bits & (active | !pending) != 0 {
            self.detours.set(Detours::PUBLISHED, true);
        }
    }

    /// Forgets the interrupt of list register `index`, which holds it no more, and sees to it that it is looked at
    /// again if it is still pending. If `was_pending`, it goes back to its latch, if it came from there.
    #[inline(never)]
    pub(super) fn vacate(&mut self, vgic: &Vgic, vcpu: usize, index: u32, was_pending: bool) {
        let slot = mask(index);
        let goes_back = was_pending && self.latched & slot != 0;
        self.used &= !slot;
        self.watched &= !slot;
        self.latched &= !slot;
        self.detours.set(Detours::special(index), false);
        let Some(intid) = self.listed.get(index as usize).copied() else { return };
        let Some(word) = vgic.word(vcpu, intid.word()) else { return };
        let bits = intid.mask();
        if goes_back {
            word.bank.pending.fetch_or(bits, SeqCst);
        }
        let is_any_published = word.bank.unpublish(bits);
        if word.number == 0 {
            self.detours.set(Detours::PUBLISHED, is_any_published);
        }
        word.bank.inflight.fetch_and(!bits, SeqCst);
        let is_raised = word.bank.raised() & bits != 0;
        if intid.is_private() && !is_raised {
            // The guest's end of it deactivated the physical interrupt, if there was one.
            self.held &= !bits;
        }
        if is_raised {
            self.reconsider(vgic, vcpu, word, intid.bit());
        }
    }

    /// Sees to it that the raised interrupt `bit` of `word`, which is in no list register, is looked at by the virtual
    /// CPU that it shall go to. Whoever changed it while it was in flight has told nobody but its holder.
    #[inline(never)]
    pub(super) fn reconsider(&mut self, vgic: &Vgic, vcpu: usize, word: Word<'_>, bit: u32) {
        let target = word.target(bit);
        if target == vcpu {
            self.wait(word.number, word.bank.priority(bit));
        } else {
            self.owe(vgic.mark(target, word.number, News::Deliver));
        }
    }

    /// Remembers that the virtual CPUs `kicks` have to flush.
    pub(super) fn owe(&mut self, kicks: Kicks) {
        self.kicks |= kicks;
        self.detours.set(Detours::OWED, true);
    }

    /// Deactivates the physical interrupts that the guest has let go of without ending them.
    #[cold]
    fn release(&mut self, word: Word<'_>, lrs: &mut impl ListRegisters) {
        for bit in Bits(word.bank.release.swap(0, SeqCst)) {
            self.deactivate(lrs, word, bit, word.physical(bit));
        }
    }

    /// Deactivates the physical interrupt of the linked interrupt `bit`.
    pub(super) fn deactivate(&mut self, lrs: &mut impl ListRegisters, word: Word<'_>, bit: u32, physical: u32) {
        if word.number == 0 {
            self.held &= !mask(bit);
        }
        lrs.deactivate_physical(physical);
    }
}
