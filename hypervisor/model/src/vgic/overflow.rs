//! More interrupts than list registers: who has to leave, and what becomes of those that left while active.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::cpu_interface::CpuInterface;
use super::detours::Detours;
use super::interrupt::{Bits, IntId, mask};
use super::{ListRegister, ListRegisters, ListState, Vgic};

/// The most active interrupts that can be outside the list registers: one for each priority level, for interrupts that
/// are active on top of one another differ in priority. With EOImode = 1 there can be more; then no more are
/// acknowledged until some are deactivated.
const SPILLED_MAX: usize = 32;

/// Interrupts that are active for the guest and have had to leave their list registers. Since no register holds them,
/// the guest's end of one is only counted (ICH_HCR_EL2.EOIcount); it is the one of the highest priority, because a
/// guest ends what it acknowledged last. With EOImode = 1 a guest may deactivate in any order, and ICC_DIR_EL1 traps
/// while there are spilled interrupts.
pub(super) struct Spilled {
    /// The first `count` are in use: priority and INTID.
    entries: [(u8, IntId); SPILLED_MAX],
    count: usize,
}

impl Spilled {
    pub(super) const fn new() -> Self {
        Self { entries: [(0, IntId::new(0)); SPILLED_MAX], count: 0 }
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Priority and INTID of the interrupt at `position`, if there is one.
    #[inline(never)]
    fn at(&self, position: usize) -> Option<(u8, IntId)> {
        self.entries.get(position).copied().filter(|_| position < self.count)
    }

    fn put(&mut self, priority: u8, intid: IntId) -> bool {
        let Some(entry) = self.entries.get_mut(self.count) else { return false };
        *entry = (priority, intid);
        self.count = self.count.wrapping_add(1);
        true
    }

    /// Takes out the interrupt at `position`, which exists.
    #[inline(never)]
    fn remove(&mut self, position: usize) {
        let last = self.count.saturating_sub(1);
        if let Some(moved) = self.entries.get(last).copied()
            && let Some(entry) = self.entries.get_mut(position)
        {
            *entry = moved;
            self.count = last;
        }
    }

    /// Takes out the interrupt of the highest priority.
    fn take_best(&mut self) -> Option<IntId> {
        let best = (0..self.count).min_by_key(|position| self.at(*position))?;
        let (_, intid) = self.at(best)?;
        self.remove(best);
        Some(intid)
    }

    /// Takes out `intid`. Returns whether it was there.
    fn take(&mut self, intid: IntId) -> bool {
        let found = (0..self.count).find(|position| self.at(*position).is_some_and(|(_, spilled)| spilled == intid));
        if let Some(position) = found {
            self.remove(position);
        }
        found.is_some()
    }

    /// Keeps only the interrupts that `keep` names.
    fn retain(&mut self, keep: impl Fn(IntId) -> bool) {
        for position in (0..self.count).rev() {
            // From the back: what `remove` moves has been looked at.
            if self.at(position).is_some_and(|(_, intid)| !keep(intid)) {
                self.remove(position);
            }
        }
    }
}

impl CpuInterface {
    /// Frees a list register for an interrupt of `priority`, when all are in use, and gives its index. A pending
    /// interrupt of lower priority leaves first. If all are active and the newcomer would be signalled all the same,
    /// because it is better than what runs or because the guest has dropped the priority of all (EOImode = 1), the
    /// lowest of them leaves.
    #[cold]
    pub(super) fn make_room(
        &mut self,
        vgic: &Vgic,
        vcpu: usize,
        priority: u8,
        lrs: &mut impl ListRegisters,
    ) -> Option<u32> {
        let mut worst_pending: Option<(u8, u32)> = None;
        let mut worst_active: Option<(u8, u32)> = None;
        for index in Bits(self.used) {
            let value = lrs.read(index as usize);
            let rank = (value.priority(), index);
            if value.state().is_active() {
                worst_active = worst_active.max(Some(rank));
            } else {
                worst_pending = worst_pending.max(Some(rank));
            }
        }
        match (worst_pending, worst_active) {
            (Some((worst, index)), _) if worst > priority => {
                self.give_back(vgic, vcpu, index, lrs);
                Some(index)
            }
            (None, Some((_, index)))
                if lrs.running_priority() > u16::from(priority) && self.spill(vgic, vcpu, index, lrs) =>
            {
                Some(index)
            }
            (Some(_) | None, _) => None,
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
    fn spill(&mut self, vgic: &Vgic, vcpu: usize, index: u32, lrs: &mut impl ListRegisters) -> bool {
        let value = lrs.read(index as usize);
        let intid = value.intid();
        let Some(word) = vgic.word(vcpu, intid.word()) else { return false };
        let is_first = self.spilled.is_empty();
        if !self.spilled.put(value.priority(), intid) {
            return false;
        }
        if is_first {
            // Ends from before this one have nothing to do with it.
            lrs.take_unlisted_eois();
            lrs.set_unlisted_eoi_interrupt(true);
        }
        word.bank.active.fetch_or(intid.mask(), SeqCst);
        if value.state().is_pending() {
            word.bank.pending.fetch_or(intid.mask(), SeqCst);
        }
        let held = self.held;
        lrs.write(index as usize, ListRegister::EMPTY);
        self.vacate(vgic, vcpu, index);
        self.held = held;
        true
    }

    /// Deactivates as many spilled interrupts as the guest has ended without a list register.
    #[cold]
    pub(super) fn retire_spilled(&mut self, vgic: &Vgic, vcpu: usize, lrs: &mut impl ListRegisters) {
        let is_active = |intid: IntId| {
            vgic.word(vcpu, intid.word()).is_some_and(|word| word.bank.active.load(SeqCst) & intid.mask() != 0)
        };
        // The guest may have deactivated some through GICx_ICACTIVER.
        self.spilled.retain(is_active);
        let ended = lrs.take_unlisted_eois().min(SPILLED_MAX as u32);
        for _ in 0..ended {
            let Some(intid) = self.spilled.take_best() else { break };
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
                self.vacate(vgic, vcpu, index);
            }
            return;
        }
    }

    /// Takes the linked PPI `intid` back if it waits in no list register: its source was turned off before the guest
    /// could see it. To be called before a flush that the guest's own register write asks for.
    pub fn withdraw_linked(&mut self, vgic: &Vgic, vcpu: usize, intid: IntId, lrs: &mut impl ListRegisters) {
        let bits = intid.mask();
        if self.detours.has(Detours::UNLOADED) || !intid.is_private() || self.held & bits == 0 {
            return;
        }
        let Some(word) = vgic.word(vcpu, 0) else { return };
        if word.bank.inflight.load(SeqCst) & bits == 0 && word.bank.pending.fetch_and(!bits, SeqCst) & bits != 0 {
            self.deactivate(lrs, word, intid.bit(), intid.raw());
        }
    }
}
