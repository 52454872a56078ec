//! A virtual CPU's list registers when it leaves its core, comes back, or starts anew; and copies of them for
//! registers.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use super::cpu_interface::CpuInterface;
use super::detours::Detours;
use super::interrupt::Bits;
use super::{Frame, Kicks, ListRegister, ListRegisters, Vgic, WORDS};

impl CpuInterface {
    /// Copies the states of this virtual CPU's list registers to where an access at `offset` of `frame` looks for them.
    /// To be called before an access for which [`needs_sync`](super::needs_sync) holds; what the access writes is
    /// applied by the flush that follows. Those of a virtual CPU that is not loaded are there already.
    #[cold]
    pub fn sync(&mut self, vgic: &Vgic, vcpu: usize, frame: Frame, offset: u64, lrs: &impl ListRegisters) {
        let number = frame.word_at(offset);
        let is_loaded = !self.detours.has(Detours::UNLOADED);
        if is_loaded && Bits(self.used).any(|index| self.lists(index, number)) {
            self.publish_listed(vgic, vcpu, number, lrs);
        }
    }

    /// Whether list register `index`, which is in use, holds an interrupt of the word `number`.
    #[inline(always)]
    fn lists(&self, index: u32, number: usize) -> bool {
        self.listed.get(index as usize).is_some_and(|intid| intid.word() == number)
    }

    /// Publishes the states of all interrupts of the word `number` in list registers.
    #[inline(never)]
    fn publish_listed(&mut self, vgic: &Vgic, vcpu: usize, number: usize, lrs: &impl ListRegisters) {
        let Some(word) = vgic.word(vcpu, number) else { return };
        let (mut bits, mut pending, mut active) = (0, 0, 0);
        for index in Bits(self.used) {
            if self.lists(index, number) {
                let value = lrs.read(index as usize);
                bits |= value.intid().mask();
                pending |= value.pending_mask();
                active |= value.active_mask();
            }
        }
        self.publish(word, bits, pending, active);
    }

    /// Whether a list register holds a pending interrupt, be it loaded or not, or one waits for a list register. With
    /// [`Vgic::has_deliverable`] it says whether a virtual CPU that waits for an interrupt has one.
    #[inline(always)]
    #[must_use]
    pub fn has_pending(&self, vgic: &Vgic, vcpu: usize, lrs: &impl ListRegisters) -> bool {
        (self.used | self.detours.leftover()) != 0 && self.has_pending_in_any(vgic, vcpu, lrs)
    }

    #[inline(never)]
    fn has_pending_in_any(&self, vgic: &Vgic, vcpu: usize, lrs: &impl ListRegisters) -> bool {
        Bits(self.used).any(|index| self.listed_register(index, lrs).state().is_pending())
            || vgic.has_deliverable_in(vcpu, self.detours.leftover())
    }

    /// Whether the physical interrupt of a linked PPI may be active for this virtual CPU: it was when the list
    /// registers were last looked at.
    #[inline(always)]
    #[must_use]
    pub const fn may_hold_physical(&self) -> bool {
        self.held != 0
    }

    /// Whether the physical interrupt of a linked PPI is active for this virtual CPU, which is loaded: the guest has
    /// yet to end it, or to see it.
    #[inline]
    #[must_use]
    pub fn holds_physical(&self, vgic: &Vgic, vcpu: usize, lrs: &impl ListRegisters) -> bool {
        let waits = || vgic.own(vcpu).is_some_and(|private| self.held & private.bank.pending.load(Relaxed) != 0);
        self.may_hold_physical() && (!self.have_all_ended(lrs) || waits())
    }

    /// Takes the list registers off the core, which then runs another virtual CPU or none. Gives the PPIs (a bitmap
    /// of INTIDs 0 to 31) whose physical interrupt was active on the guest's behalf; they have been deactivated, so
    /// their source must be masked or stopped until [`CpuInterface::load`]. Shared physical interrupts stay active.
    ///
    /// While it is away, register reads find the states as they are now: there is no core that could look again.
    ///
    /// The second value names other virtual CPUs that are to flush.
    #[inline(always)]
    pub fn unload(&mut self, vgic: &Vgic, vcpu: usize, lrs: &mut impl ListRegisters) -> (u32, Kicks) {
        if self.unload_quick(vgic, vcpu, lrs) { (0, Kicks::NONE) } else { self.unload_at_length(vgic, vcpu, lrs) }
    }

    /// As [`CpuInterface::unload_at_length`], for a virtual CPU that has ended its interrupts, if all were private
    /// ones. Returns whether it was one; if not, what is at length does the rest.
    #[inline(always)]
    fn unload_quick(&mut self, vgic: &Vgic, vcpu: usize, lrs: &impl ListRegisters) -> bool {
        let Some(private) = vgic.own(vcpu) else { return false };
        let bank = &private.bank;
        // With a line that is high a look at the latch does not tell what is still wanted of a physical interrupt.
        if !self.detours.is_none() || !self.have_all_ended(lrs) || bank.line.load(Relaxed) != 0 {
            return false;
        }
        self.forget_private(bank);
        if self.held != 0 {
            return false;
        }
        debug_assert!(!self.short && self.spilled.is_empty(), "those are detours too");
        self.detours = Detours::UNLOADED;
        true
    }

    #[inline(never)]
    fn unload_at_length(&mut self, vgic: &Vgic, vcpu: usize, lrs: &mut impl ListRegisters) -> (u32, Kicks) {
        if self.detours.has(Detours::UNLOADED) {
            return (self.held, Kicks::NONE);
        }
        if self.used != 0 {
            self.reap(vgic, vcpu, lrs);
        }
        if !self.spilled.is_empty() {
            self.retire_spilled(vgic, vcpu, lrs);
        }
        for index in Bits(self.used) {
            let value = lrs.read(index as usize);
            if let Some(saved) = self.saved.get_mut(index as usize) {
                *saved = value;
            }
            if let Some(word) = vgic.word(vcpu, value.intid().word()) {
                self.publish(word, value.intid().mask(), value.pending_mask(), value.active_mask());
            }
            lrs.write(index as usize, ListRegister::EMPTY);
        }
        self.silence(lrs);
        for physical in Bits(self.held) {
            lrs.deactivate_physical(physical);
        }
        self.detours.set(Detours::UNLOADED, true);
        (self.held, self.take_kicks())
    }

    /// Puts the list registers back onto a core. Gives the PPIs (a bitmap of INTIDs 0 to 31) whose physical interrupt
    /// the caller must make active on this core, so that it does not fire again before the guest has ended it. A flush
    /// must follow.
    #[inline(always)]
    pub fn load(&mut self, vgic: &Vgic, vcpu: usize, lrs: &mut impl ListRegisters) -> u32 {
        if self.detours == Detours::UNLOADED && self.used | self.held == 0 {
            self.detours = Detours::NONE;
            debug_assert!(!self.short && self.spilled.is_empty(), "those are detours too");
            return 0;
        }
        self.load_at_length(vgic, vcpu, lrs)
    }

    #[inline(never)]
    fn load_at_length(&mut self, vgic: &Vgic, vcpu: usize, lrs: &mut impl ListRegisters) -> u32 {
        if !self.detours.has(Detours::UNLOADED) {
            return self.held;
        }
        self.detours.set(Detours::UNLOADED, false);
        let mut listed = 0;
        for index in Bits(self.used) {
            let Some(saved) = self.saved.get(index as usize).copied() else { break };
            lrs.write(index as usize, saved);
            if saved.intid().is_private() {
                listed |= saved.intid().mask();
            }
        }
        if self.short {
            lrs.set_no_pending_interrupt(true);
        }
        if !self.spilled.is_empty() {
            lrs.take_unlisted_eois();
            lrs.set_unlisted_eoi_interrupt(true);
        }
        // Another virtual CPU may have taken a pending one back in the meantime.
        if let Some(word) = vgic.word(vcpu, 0) {
            self.held &= listed | word.bank.pending.load(SeqCst) | word.bank.active.load(SeqCst);
        }
        self.held
    }

    /// Empties the list registers of a virtual CPU that is turned off, and deactivates the physical interrupts that
    /// were active on the guest's behalf. Interrupts that it has not acknowledged wait in the distributor, where it
    /// finds them when it is turned on again. For a restart of the virtual machine, to be called before
    /// [`Vgic::reset_step`].
    ///
    /// To be called on the virtual CPU's core. If it is not loaded, `lrs` is used for those physical interrupts alone.
    #[cold]
    #[inline(never)]
    pub fn reset(&mut self, vgic: &Vgic, vcpu: usize, lrs: &mut impl ListRegisters) {
        let is_loaded = !self.detours.has(Detours::UNLOADED);
        let held = self.held;
        for index in Bits(self.used) {
            let value = self.listed_register(index, lrs);
            let intid = value.intid();
            if let Some(physical) = value.physical()
                && !intid.is_private()
            {
                lrs.deactivate_physical(physical);
            }
            if is_loaded {
                lrs.write(index as usize, ListRegister::EMPTY);
            }
            self.vacate(vgic, vcpu, index, value.state().is_pending() && value.physical().is_none());
        }
        if is_loaded {
            self.silence(lrs);
            for physical in Bits(held) {
                lrs.deactivate_physical(physical);
            }
        }
        // A linked interrupt that the guest could not see yet comes again with its physical one, if that has a reason.
        if let Some(word) = vgic.word(vcpu, 0) {
            word.bank.pending.fetch_and(!held, SeqCst);
        }
        // What has been left over, or was ready when it was turned off, is so again.
        vgic.mark_all(vcpu);
        let kicks = self.kicks;
        self.clear();
        self.owe(kicks);
    }

    /// All list registers are free, as in [`CpuInterface::new`], which is much to move. What is in the registers that
    /// are not in use does not matter.
    fn clear(&mut self) {
        let Self { detours, held, used, latched, listed: _, watched, short, bounds, spilled, kicks, saved: _ } = self;
        *detours = Detours::NONE;
        (*held, *used, *latched, *watched, *short) = (0, 0, 0, 0, false);
        *bounds = [0; WORDS];
        spilled.clear();
        *kicks = Kicks::NONE;
    }

    /// Turns the maintenance interrupts off that are on.
    fn silence(&mut self, lrs: &mut impl ListRegisters) {
        if self.short {
            lrs.set_no_pending_interrupt(false);
        }
        if !self.spilled.is_empty() {
            lrs.set_unlisted_eoi_interrupt(false);
        }
    }

    /// What list register `index`, which is in use, holds.
    #[inline(never)]
    fn listed_register(&self, index: u32, lrs: &impl ListRegisters) -> ListRegister {
        if self.detours.has(Detours::UNLOADED) {
            return self.saved.get(index as usize).copied().unwrap_or_default();
        }
        lrs.read(index as usize)
    }
}
