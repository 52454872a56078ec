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
}

/// The word left over whose interrupts may be the best that wait.
struct Promise {
    number: usize,
    /// None of its interrupts has a better priority than this,
    bound: u8,
    /// and none of the other words' has a better one than this.
    next: u8,
}

impl CpuInterface {
    /// Puts the interrupts that wait in the words left over into list registers, the best first, until nobody waits or
    /// every list register holds something better. Then one of them is pending, and it is as good as any that waits:
    /// so the guest sees next what it would see with a register for each.
    ///
    /// If a physical interrupt is pending, that comes first: the rest waits as if there were no room, for as long as
    /// none of it is better than anything pending in a list register.
    pub(super) fn fill(&mut self, vgic: &Vgic, vcpu: usize, groups: Groups, lrs: &mut impl ListRegisters) {
        // No list register holds a pending interrupt that is worse than this.
        let mut limit = u8::MAX;
        let mut place = None;
        'rounds: for _ in 0..ROUNDS_MAX {
            let Some(promise) = self.most_promising() else { return };
            if promise.bound >= limit {
                return;
            }
            if !place.get_or_insert_with(|| self.place(lrs)).is_for(promise.bound) {
                return;
            }
            let Some(word) = vgic.word(vcpu, promise.number) else { return };
            let waiting = word.waiting_for(vcpu, groups);
            let Some(best) = self.note(word, waiting) else { continue };
            if best.priority > promise.next {
                // It is not as good as promised, and others may be better.
                continue;
            }
            self.note(word, waiting & !best.bits);
            for bit in Bits(best.bits) {
                let index = match place.take().unwrap_or_else(|| self.place(lrs)) {
                    Place::Free(index) => index,
                    Place::Pending(worst, _) if best.priority >= worst => {
                        return self.wait(word.number, best.priority);
                    }
                    Place::Pending(worst, index) => {
                        limit = worst;
                        // It goes back into its bank, to wait there.
                        lrs.write(index as usize, ListRegister::EMPTY);
                        self.vacate(vgic, vcpu, index, true);
                        index
                    }
                    Place::Active(index) => {
                        self.spill(vgic, vcpu, index, lrs);
                        index
                    }
                };
                if !self.deliver(vcpu, word, bit, index, groups, lrs) {
                    // It has been changed meanwhile, and may wait elsewhere, or here again.
                    self.reconsider(vgic, vcpu, word, bit);
                    self.wait(word.number, best.priority);
                    continue 'rounds;
                }
                if lrs.has_pending_interrupt() && !self.lowest(lrs).is_for(best.priority) {
                    return self.wait(word.number, best.priority);
                }
            }
        }
    }

    /// Notes how good the best of the interrupts `waiting` of `word` is, for which [`CpuInterface::fill`] is to find a
    /// list register.
    #[inline]
    pub(super) fn note<'a>(&mut self, word: Word<'a>, waiting: u32) -> Option<Best<'a>> {
        self.detours.set(Detours::waiting(word.number), false);
        let best = Best::of(word, waiting)?;
        self.wait(word.number, best.priority);
        Some(best)
    }

    /// An interrupt of word `number` waits for a list register, with `priority` or a worse one.
    #[inline]
    pub(super) fn wait(&mut self, number: usize, priority: u8) {
        let waiting = Detours::waiting(number);
        let Some(bound) = self.bounds.get_mut(number) else { return };
        *bound = if self.detours.has(waiting) { priority.min(*bound) } else { priority };
        self.detours.set(waiting, true);
    }

    /// The word left over that is to be looked at first.
    #[inline(always)]
    fn most_promising(&self) -> Option<Promise> {
        let mut most = None;
        let (mut bound, mut next) = (u8::MAX, u8::MAX);
        for number in Bits(self.detours.leftover()) {
            let of_word = self.bounds.get(number as usize).copied()?;
            if of_word < bound {
                (most, next, bound) = (Some(number as usize), bound, of_word);
            } else {
                next = next.min(of_word);
            }
        }
        Some(Promise { number: most?, bound, next })
    }

    /// The list register that the next interrupt gets: a free one, or else [`CpuInterface::lowest`].
    fn place(&self, lrs: &impl ListRegisters) -> Place {
        self.free_register(lrs).map_or_else(|| self.lowest(lrs), Place::Free)
    }

    /// The list register in use of the pending interrupt of the lowest priority; or, if all are active, that of the
    /// lowest of them, though the newcomer may have to wait for the end of others: it is the guest's end of those that
    /// makes room for it, and nobody but the hardware sees that.
    fn lowest(&self, lrs: &impl ListRegisters) -> Place {
        /// Any pending interrupt comes before all that are active.
        const PENDING: u32 = 0x100;
        let (mut lowest, mut found) = (0, 0);
        for index in Bits(self.used) {
            let value = lrs.read(index as usize);
            let pending = if value.state().is_active() { 0 } else { PENDING };
            let rank = pending | u32::from(value.priority());
            if rank >= lowest {
                (lowest, found) = (rank, index);
            }
        }
        if lowest < PENDING { Place::Active(found) } else { Place::Pending(lowest as u8, found) }
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
            self.detours.set(Detours::special(index), true);
            lrs.write(index as usize, value.with_state(ListState::Active).with_eoi_notice());
        }
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
        let held = self.held;
        lrs.write(index as usize, ListRegister::EMPTY);
        self.vacate(vgic, vcpu, index, value.state().is_pending());
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
            self.reconsider(vgic, vcpu, word, bit);
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
                self.vacate(vgic, vcpu, index, false);
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
