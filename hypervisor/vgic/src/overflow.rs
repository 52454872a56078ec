//! More interrupts than list registers: who has to leave, and what becomes of those that left while active.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::bank::{Groups, Word};
use super::cpu_interface::CpuInterface;
use super::detours::Detours;
use super::interrupt::{Bits, IntId, mask};
use super::spilled::Best;
use super::state::News;
use super::{LIST_REGISTERS_MAX, ListRegister, ListRegisters, ListState, Vgic};

/// How often a flush looks for the best interrupt that waits. Each time it fills a list register, displaces a worse
/// interrupt from one, or finds a word worse than its bound promised or without anything that waits; more often than
/// this only while other cores keep changing what waits, and then they ask for another flush.
const ROUNDS_MAX: usize = 4 * LIST_REGISTERS_MAX;

/// A list register for an interrupt.
#[derive(Clone, Copy)]
enum Place {
    /// It is free.
    Free(u32),
    /// It holds a pending interrupt of this priority.
    Pending(u8, u32),
    /// It holds an active interrupt.
    Active(u32),
}

impl Place {
    /// Whether an interrupt of `priority` may have it.
    #[inline]
    const fn is_for(self, priority: u8) -> bool {
        match self {
            Self::Free(_) | Self::Active(_) => true,
            Self::Pending(worst, _) => priority < worst,
        }
    }

    /// Which list register it is.
    #[inline]
    const fn index(self) -> u32 {
        match self {
            Self::Free(index) | Self::Pending(_, index) | Self::Active(index) => index,
        }
    }
}

impl CpuInterface {
    /// Puts the interrupts that wait in the words left over into list registers, the best first, until nobody waits or
    /// every list register holds something better. Then one of them is pending, and it is as good as any that waits:
    /// so the guest sees next what it would see with a register for each.
    pub(super) fn fill(&mut self, vgic: &Vgic, vcpu: usize, groups: Groups, lrs: &mut impl ListRegisters) {
        let mut place = self.place(lrs);
        'rounds: for _ in 0..ROUNDS_MAX {
            let Some((number, bound)) = self.most_promising() else { return };
            if !place.is_for(bound) {
                return;
            }
            let Some(word) = vgic.word(vcpu, number) else { return };
            let waiting = word.waiting_for(vcpu, groups);
            let best = self.note(word, waiting);
            // If it is not as good as promised, others may be better.
            let Some(best) = best.filter(|best| best.priority == bound) else { continue };
            let mut was_free = true;
            for bit in Bits(best.bits) {
                if !place.is_for(bound) {
                    return;
                }
                match place {
                    Place::Free(_) => {}
                    Place::Pending(_, index) => self.give_back(vgic, vcpu, index, lrs),
                    Place::Active(index) => self.spill(vgic, vcpu, index, lrs),
                }
                was_free &= matches!(place, Place::Free(_));
                let is_listed = self.deliver(vcpu, word, bit, place.index(), groups, lrs);
                place = self.place(lrs);
                if !is_listed {
                    // It has been changed meanwhile, and may wait elsewhere, or here again.
                    self.reconsider(vgic, vcpu, word.intid(bit));
                    continue 'rounds;
                }
            }
            // One that had to give way may wait in the same word.
            if was_free {
                self.note(word, waiting & !best.bits);
            }
        }
    }

    /// Notes how good the best of the interrupts `waiting` of `word` is, for which [`CpuInterface::fill`] is to find a
    /// list register.
    #[inline(never)]
    pub(super) fn note<'a>(&mut self, word: Word<'a>, waiting: u32) -> Option<Best<'a>> {
        let best = Best::of(word, waiting);
        let words = mask(word.number as u32);
        match &best {
            None => self.detours.take_up(words),
            Some(best) => {
                self.detours.leave(words);
                if let Some(bound) = self.bounds.get_mut(word.number) {
                    *bound = best.priority;
                }
            }
        }
        best
    }

    /// The word left over whose interrupts may be the best that wait, and the bound of their priorities.
    #[inline(always)]
    fn most_promising(&self) -> Option<(usize, u8)> {
        let mut most = None;
        let mut lowest = u32::MAX;
        for number in Bits(self.detours.leftover()) {
            let Some(&bound) = self.bounds.get(number as usize) else { break };
            if u32::from(bound) < lowest {
                lowest = u32::from(bound);
                most = Some((number as usize, bound));
            }
        }
        most
    }

    /// The list register that the next interrupt gets: a free one; or else that of the pending interrupt of the lowest
    /// priority, if that is worse; or, if all are active, that of the lowest of them, though the newcomer may have to
    /// wait for the end of others: it is the guest's end of those that makes room for it, and nobody but the hardware
    /// sees that.
    fn place(&self, lrs: &impl ListRegisters) -> Place {
        if let Some(index) = self.free_register(lrs) {
            return Place::Free(index);
        }
        let mut worst = Place::Active(0);
        let mut priority = 0;
        for index in Bits(self.used) {
            let value = lrs.read(index as usize);
            let is_worst = value.priority() >= priority;
            match (worst, value.state().is_active()) {
                (Place::Pending(..), true) => continue,
                (Place::Pending(..), false) | (Place::Free(_) | Place::Active(_), true) if !is_worst => continue,
                (_, true) => worst = Place::Active(index),
                (_, false) => worst = Place::Pending(value.priority(), index),
            }
            priority = value.priority();
        }
        worst
    }

    /// Takes the pending state of the interrupts that are active too back into their banks, to wait there for the end.
    #[cold]
    #[inline(never)]
    pub(super) fn separate(&mut self, vgic: &Vgic, vcpu: usize, lrs: &mut impl ListRegisters) {
        for index in Bits(self.used) {
            let value = lrs.read(index as usize);
            if value.state() != ListState::PendingActive {
                continue;
            }
            let slot = mask(index);
            if let Some(word) = vgic.word(vcpu, value.intid().word())
                && self.latched & slot != 0
            {
                word.bank.pending.fetch_or(value.intid().mask(), SeqCst);
            }
            self.latched &= !slot;
            self.watched |= slot;
            self.detours.set_special(index, true);
            lrs.write(index as usize, value.with_state(ListState::Active).with_eoi_notice());
        }
    }

    /// Takes the pending interrupt in list register `index` back into its bank, to wait there.
    fn give_back(&mut self, vgic: &Vgic, vcpu: usize, index: u32, lrs: &mut impl ListRegisters) {
        let value = lrs.read(index as usize);
        if let Some(word) = vgic.word(vcpu, value.intid().word())
            && self.latched & mask(index) != 0
        {
            word.bank.pending.fetch_or(value.intid().mask(), SeqCst);
        }
        lrs.write(index as usize, ListRegister::EMPTY);
        self.vacate(vgic, vcpu, index);
    }

    /// Takes the active interrupt in list register `index` back into its bank, where it stays active.
    fn spill(&mut self, vgic: &Vgic, vcpu: usize, index: u32, lrs: &mut impl ListRegisters) {
        let value = lrs.read(index as usize);
        let intid = value.intid();
        let Some(word) = vgic.word(vcpu, intid.word()) else { return };
        let is_first = self.spilled.is_empty();
        self.spilled.put(intid);
        if is_first {
            // Ends from before this one have nothing to do with it.
            lrs.take_unlisted_eois();
            lrs.set_unlisted_eoi_interrupt(true);
        }
        word.bank.active.fetch_or(intid.mask(), SeqCst);
        if value.state().is_pending() && self.latched & mask(index) != 0 {
            word.bank.pending.fetch_or(intid.mask(), SeqCst);
        }
        let held = self.held;
        lrs.write(index as usize, ListRegister::EMPTY);
        self.vacate(vgic, vcpu, index);
        self.held = held;
    }

    /// Deactivates as many spilled interrupts as the guest has ended without a list register.
    #[cold]
    pub(super) fn retire_spilled(&mut self, vgic: &Vgic, vcpu: usize, lrs: &mut impl ListRegisters) {
        self.spilled.forget_inactive(vgic, vcpu);
        for _ in 0..lrs.take_unlisted_eois() {
            let Some(intid) = self.spilled.take_best(vgic, vcpu) else { break };
            self.end_spilled(vgic, vcpu, intid, lrs);
        }
        if self.spilled.is_empty() {
            lrs.set_unlisted_eoi_interrupt(false);
        }
    }

    /// The interrupt `intid`, which has been spilled, ends.
    #[inline(never)]
    fn end_spilled(&mut self, vgic: &Vgic, vcpu: usize, intid: IntId, lrs: &mut impl ListRegisters) {
        let Some(word) = vgic.word(vcpu, intid.word()) else { return };
        let (bit, bits) = (intid.bit(), intid.mask());
        word.bank.active.fetch_and(!bits, SeqCst);
        if word.bank.linked.load(Relaxed) & bits != 0 {
            self.deactivate(lrs, word, bit, word.physical(bit));
        }
        if word.bank.raised() & bits != 0 {
            self.reconsider(vgic, vcpu, intid);
        }
    }

    /// Does what a trapped write of `intid` to ICC_DIR_EL1 asks for: it deactivates the interrupt, be it in a list
    /// register or spilled. One that is not active stays as it is. A flush must follow.
    pub fn deactivate_listed_or_spilled(
        &mut self,
        vgic: &Vgic,
        vcpu: usize,
        intid: IntId,
        lrs: &mut impl ListRegisters,
    ) {
        if self.spilled.take(intid) {
            self.end_spilled(vgic, vcpu, intid, lrs);
            if self.spilled.is_empty() {
                lrs.set_unlisted_eoi_interrupt(false);
            }
            return;
        }
        for index in Bits(self.used) {
            let value = lrs.read(index as usize);
            if value.intid() != intid || !value.state().is_active() {
                continue;
            }
            if let Some(physical) = value.physical() {
                lrs.deactivate_physical(physical);
            }
            if value.state().is_pending() {
                lrs.write(index as usize, value.with_state(ListState::Pending));
            } else {
                lrs.write(index as usize, ListRegister::EMPTY);
                self.vacate(vgic, vcpu, index);
            }
            return;
        }
    }

    /// Takes the linked PPI `intid` back: its source was turned off before the guest could see it. Returns whether a
    /// flush must follow, since it waits in a list register.
    pub fn withdraw_linked(&mut self, vgic: &Vgic, vcpu: usize, intid: IntId, lrs: &mut impl ListRegisters) -> bool {
        let bits = intid.mask();
        if self.detours.has(Detours::UNLOADED) || !intid.is_private() || self.held & bits == 0 {
            return false;
        }
        let Some(word) = vgic.word(vcpu, 0) else { return false };
        let bank = word.bank;
        if bank.inflight.load(SeqCst) & bits != 0 {
            bank.clear_pending.fetch_or(bits, SeqCst);
            return !vgic.mark(vcpu, 0, News::Revise).is_empty();
        }
        if bank.pending.fetch_and(!bits, SeqCst) & bits != 0 {
            self.deactivate(lrs, word, intid.bit(), intid.raw());
        }
        false
    }
}
