//! The flushes that matter most: one private interrupt, such as an IPI or the timer, for a virtual CPU that has ended
//! all others. Instructions are counted here (`xtask bench`).
//!
//! What these functions do is what [`CpuInterface::flush_all`] does at length; where they find more than they can do,
//! they leave it to that.

use core::num::NonZeroU32;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};

use super::bank::{Bank, Word};
use super::cpu_interface::CpuInterface;
use super::detours::Detours;
use super::interrupt::mask;
use super::{IntId, Kicks, ListRegister, ListRegisters, Vgic};

/// GICD_CTLR.EnableGrp1: the group of the interrupts of any guest that knows one group.
const ENABLE_GROUP_1: u32 = 1 << 1;
/// The SGIs in the private bank.
const SGIS: u32 = 0xffff;

impl CpuInterface {
    /// Flushes, if it takes no more than to deliver one SGI or nothing at all. Returns whether it did; if it did not,
    /// [`CpuInterface::flush_at_length`] does. No other virtual CPU is to be told of this.
    ///
    /// The order of its loads is of no concern: what others changed before their kick, it sees. Whoever takes the
    /// reason away from an interrupt meanwhile looks at the latch first and at `inflight` second; as this does the
    /// reverse, the interrupt is seen in one of them.
    #[inline(always)]
    pub(super) fn flush_quick(&mut self, vgic: &Vgic, vcpu: usize, lrs: &mut impl ListRegisters) -> bool {
        let Some(private) = vgic.own(vcpu) else { return false };
        let bank = &private.bank;
        if !self.detours.is_none() || private.ready.load(Relaxed) != 0 || bank.line.load(Relaxed) != 0 {
            return false;
        }
        let pending = bank.pending.load(Relaxed);
        let waiting = pending & bank.enabled.load(Relaxed) & !bank.active.load(Relaxed);
        let Some(one) = NonZeroU32::new(waiting) else { return true };
        if !one.is_power_of_two()
            || waiting & SGIS == 0
            || bank.group.load(Relaxed) & waiting == 0
            || vgic.control.load(Relaxed) & ENABLE_GROUP_1 == 0
            || !self.have_all_ended(lrs)
        {
            return false;
        }
        // Nobody but the owner writes the `inflight` bitmap of a private bank.
        bank.inflight.store(waiting, Relaxed);
        if bank.pending.fetch_and(!waiting, SeqCst) & waiting == 0 {
            bank.inflight.store(0, SeqCst);
            return false;
        }
        // The ends of interrupts deactivated the physical ones, unless those have come again since.
        self.held &= pending;
        let intid = IntId::new(one.trailing_zeros());
        self.list_first(intid, ListRegister::software(intid, bank.priority(intid.bit()), 1), lrs);
        true
    }

    /// Flushes, if it takes no more than to deliver one SPI to a virtual CPU that has ended all others. Returns whether
    /// it did; if it did not, [`CpuInterface::flush_all`] does. No other virtual CPU is to be told of this.
    #[inline(always)]
    pub(super) fn flush_shared_quick(&mut self, vgic: &Vgic, vcpu: usize, lrs: &mut impl ListRegisters) -> bool {
        let is_held = self.holds_one_shared();
        if !(is_held || self.detours.is_none()) || !self.have_all_ended(lrs) {
            return false;
        }
        let Some(private) = vgic.own(vcpu) else { return false };
        let bank = &private.bank;
        let ready = private.ready.load(Relaxed);
        let private_waiting = bank.pending.load(Relaxed) & bank.enabled.load(Relaxed) & !bank.active.load(Relaxed);
        // One word has something new, and nothing has changed about what is in flight.
        if !ready.is_power_of_two() || ready >> 16 != 0 || private_waiting | bank.line.load(Relaxed) != 0 {
            return false;
        }
        let Some(word) = vgic.word(vcpu, ready.trailing_zeros() as usize) else { return false };
        // What is marked from here on is for the next flush, and what was marked before is seen below.
        if private.ready.compare_exchange(ready, 0, Acquire, Relaxed).is_err() {
            return false;
        }
        let candidates = word.bank.candidates(vgic.groups());
        let is_done = if candidates == 0 {
            is_held && self.deliver_again(vgic, vcpu, word, true, lrs)
        } else {
            candidates.is_power_of_two() && self.deliver_alone(vgic, vcpu, word, candidates.trailing_zeros(), lrs)
        };
        if !is_done {
            private.ready.fetch_or(ready, Release);
        }
        is_done
    }

    /// Whether an SPI in the first list register is all that there is to look after. Once it has ended, it is still in
    /// flight, until another interrupt needs the register.
    #[inline(always)]
    fn holds_one_shared(&self) -> bool {
        self.detours == Detours::FIRST_SPECIAL && self.used == mask(0) && self.watched == 0
    }

    /// Delivers the SPI of `word` that has ended in the first list register, and is still in flight, once more. What
    /// makes it pending is its latch, if it `is_latched`, or else a physical interrupt that has just arrived.
    #[inline(always)]
    fn deliver_again(
        &mut self,
        vgic: &Vgic,
        vcpu: usize,
        word: Word<'_>,
        is_latched: bool,
        lrs: &mut impl ListRegisters,
    ) -> bool {
        let Some(intid) = self.listed.first().copied().filter(|intid| intid.word() == word.number) else {
            return false;
        };
        let (bank, bits) = (word.bank, intid.mask());
        // What others have read of it, or asked of it, is not for this quick a look.
        let published = bank.listed_taken.load(Relaxed) | bank.listed_active.load(Relaxed);
        let requested = bank.clear_pending.load(SeqCst) | bank.clear_active.load(SeqCst) | bank.set_active.load(SeqCst);
        if (published | requested) & bits != 0 {
            return false;
        }
        if is_latched {
            // Nor is a line.
            let is_plain = (bank.edge.load(Relaxed) | bank.linked.load(Relaxed)) & bits != 0;
            if !is_plain || bank.pending.fetch_and(!bits, SeqCst) & bits == 0 {
                return false;
            }
        }
        // Whoever changes this one sees that we hold it. What changed before, we look at now.
        let deliverable = bank.enabled.load(SeqCst) & bank.group.load(SeqCst) & !bank.active.load(SeqCst) & bits;
        if deliverable == 0 || vgic.control.load(Relaxed) & ENABLE_GROUP_1 == 0 || word.target(intid.bit()) != vcpu {
            if is_latched {
                bank.pending.fetch_or(bits, SeqCst);
            }
            return false;
        }
        let value = if is_latched {
            word.register(intid.bit())
        } else {
            ListRegister::linked(intid, word.physical(intid.bit()), bank.priority(intid.bit()), 1)
        };
        self.list_first(intid, value, lrs);
        true
    }

    /// Delivers the SPI `bit` of `word` to a virtual CPU that has ended everything in its list registers.
    #[inline(always)]
    fn deliver_alone(
        &mut self,
        vgic: &Vgic,
        vcpu: usize,
        word: Word<'_>,
        bit: u32,
        lrs: &mut impl ListRegisters,
    ) -> bool {
        if word.target(bit) != vcpu {
            return false;
        }
        if self.detours.is_none() {
            let Some(private) = vgic.own(vcpu) else { return false };
            self.forget_private(&private.bank);
        } else {
            self.vacate(vgic, vcpu, 0, false);
            if !self.detours.is_none() {
                return false;
            }
        }
        let is_listed = self.deliver(vcpu, word, bit, 0, vgic.groups(), lrs);
        if !is_listed {
            self.reconsider(vgic, vcpu, word, bit);
        }
        is_listed
    }

    /// Makes the linked interrupt `intid` pending because its physical interrupt has been acknowledged on this core,
    /// which leaves that one active, and brings the list registers up to date. See [`Vgic::link`].
    ///
    /// Gives the other virtual CPUs that are to flush.
    #[inline(always)]
    pub fn deliver_linked(&mut self, vgic: &Vgic, vcpu: usize, intid: IntId, lrs: &mut impl ListRegisters) -> Kicks {
        if self.deliver_linked_quick(vgic, vcpu, intid, lrs) {
            return Kicks::NONE;
        }
        self.deliver_linked_at_length(vgic, vcpu, intid, lrs)
    }

    /// A linked PPI that can be delivered goes past the latch: nobody else has to do with it.
    #[inline(always)]
    fn deliver_linked_quick(&mut self, vgic: &Vgic, vcpu: usize, intid: IntId, lrs: &mut impl ListRegisters) -> bool {
        let Some(private) = vgic.own(vcpu) else { return false };
        let bank = &private.bank;
        let bits = intid.mask();
        if !intid.is_private()
            || !self.detours.is_none()
            || (bank.active.load(Relaxed) | !bank.linked.load(Relaxed)) & bits != 0
            || !self.have_all_ended(lrs)
        {
            return false;
        }
        // First in flight, then the look at what others may take away: so one of the two sees the other.
        bank.inflight.store(bits, SeqCst);
        let enabled = bank.enabled.load(SeqCst) & bank.group.load(SeqCst) & bits;
        // Whoever changes this one tells everybody, whatever is in flight.
        if enabled == 0 || vgic.control.load(Relaxed) & ENABLE_GROUP_1 == 0 {
            bank.inflight.store(0, SeqCst);
            return false;
        }
        self.held = (self.held & bank.pending.load(Relaxed)) | bits;
        let value = ListRegister::linked(intid, intid.raw(), bank.priority(intid.bit()), 1);
        self.list_first(intid, value, lrs);
        true
    }

    /// As [`CpuInterface::deliver_linked`], for the SPI `intid` of an assigned device.
    #[inline]
    pub fn deliver_linked_shared(
        &mut self,
        vgic: &Vgic,
        vcpu: usize,
        intid: IntId,
        lrs: &mut impl ListRegisters,
    ) -> Kicks {
        if self.holds_one_shared()
            && self.listed.first() == Some(&intid)
            && self.have_all_ended(lrs)
            && let Some(word) = vgic.word(vcpu, intid.word())
            && self.deliver_again(vgic, vcpu, word, false, lrs)
        {
            return Kicks::NONE;
        }
        self.deliver_linked_at_length(vgic, vcpu, intid, lrs)
    }

    /// The linked interrupt `intid` goes the long way: through its latch, and a flush.
    #[inline(never)]
    fn deliver_linked_at_length(
        &mut self,
        vgic: &Vgic,
        vcpu: usize,
        intid: IntId,
        lrs: &mut impl ListRegisters,
    ) -> Kicks {
        if intid.is_private() {
            self.held |= intid.mask();
        }
        let kicks = vgic.inject(intid, vcpu);
        let own = if kicks.contains(vcpu) { self.flush_at_length(vgic, vcpu, lrs) } else { self.take_kicks() };
        kicks.without(vcpu) | own
    }

    /// Lets go of the private interrupts in the list registers, all of which have ended.
    #[inline(always)]
    pub(super) fn forget_private(&mut self, bank: &Bank) {
        if self.used != 0 {
            self.used = 0;
            self.latched = 0;
            // Nobody but the owner writes the `inflight` bitmap of a private bank.
            bank.inflight.store(0, SeqCst);
        }
        if self.held != 0 {
            // The ends of interrupts deactivated the physical ones, unless those have come again since.
            self.held &= bank.pending.load(SeqCst);
        }
    }

    /// Whether the guest has ended every interrupt in the list registers. If so, and without detours, nothing is in
    /// flight.
    #[inline(always)]
    pub(super) fn have_all_ended(&self, lrs: &impl ListRegisters) -> bool {
        self.used & !lrs.empty() == 0
    }

    /// Puts `intid` into the first list register, as the only interrupt.
    #[inline(always)]
    fn list_first(&mut self, intid: IntId, value: ListRegister, lrs: &mut impl ListRegisters) {
        lrs.write(0, value);
        self.used = mask(0);
        self.latched = mask(0);
        if let Some(listed) = self.listed.first_mut() {
            *listed = intid;
        }
    }
}
