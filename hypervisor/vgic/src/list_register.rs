//! The list registers: their layout, and what the hardware offers around them.

use super::IntId;

/// The state of the interrupt in a list register (IHI0069, `ICH_LR<n>_EL2`, field State).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListState {
    /// The register is free.
    Invalid,
    /// The guest has not acknowledged the interrupt.
    Pending,
    /// The guest has acknowledged the interrupt and not deactivated it.
    Active,
    /// As `Active`, and the interrupt has become pending again.
    PendingActive,
}

impl ListState {
    /// The state with these two properties.
    #[inline]
    pub(super) const fn of(pending: bool, active: bool) -> Self {
        match (pending, active) {
            (false, false) => Self::Invalid,
            (true, false) => Self::Pending,
            (false, true) => Self::Active,
            (true, true) => Self::PendingActive,
        }
    }

    /// Whether the interrupt is pending, active or not.
    #[must_use]
    #[inline]
    pub const fn is_pending(self) -> bool {
        matches!(self, Self::Pending | Self::PendingActive)
    }

    /// Whether the interrupt is active, pending or not.
    #[must_use]
    #[inline]
    pub const fn is_active(self) -> bool {
        matches!(self, Self::Active | Self::PendingActive)
    }
}

/// The value of a list register, in the layout of `ICH_LR<n>_EL2` (IHI0069).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ListRegister(u64);

impl ListRegister {
    /// A free register.
    pub const EMPTY: Self = Self(0);

    const STATE_SHIFT: u32 = 62;
    const STATE_MASK: u64 = 3 << Self::STATE_SHIFT;
    const HARDWARE: u64 = 1 << 61;
    const GROUP_1: u64 = 1 << 60;
    const PRIORITY_SHIFT: u32 = 48;
    const PRIORITY_MASK: u64 = 0xff << Self::PRIORITY_SHIFT;
    const NOTIFY_EOI: u64 = 1 << 41;
    const PHYSICAL_SHIFT: u32 = 32;
    const PHYSICAL_MASK: u64 = 0x1fff;

    /// The register with the raw value `value`.
    #[must_use]
    #[inline]
    pub const fn from_bits(value: u64) -> Self {
        Self(value)
    }

    /// A pending interrupt that exists in software alone. `group` is 0 or 1.
    #[must_use]
    #[inline]
    pub const fn software(intid: IntId, priority: u8, group: u32) -> Self {
        Self(
            (1 << Self::STATE_SHIFT)
                | (((group & 1) as u64) << 60)
                | ((priority as u64) << Self::PRIORITY_SHIFT)
                | intid.raw() as u64,
        )
    }

    /// A pending interrupt whose deactivation by the guest also deactivates the physical interrupt `physical`.
    #[must_use]
    #[inline]
    pub const fn linked(intid: IntId, physical: u32, priority: u8, group: u32) -> Self {
        let physical = (physical as u64 & Self::PHYSICAL_MASK) << Self::PHYSICAL_SHIFT;
        Self(Self::software(intid, priority, group).0 | Self::HARDWARE | physical)
    }

    /// The raw value.
    #[must_use]
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The interrupt (vINTID).
    #[must_use]
    #[inline]
    pub const fn intid(self) -> IntId {
        IntId::new((self.0 & 0xffff_ffff) as u32)
    }

    /// The interrupt's state.
    #[must_use]
    #[inline]
    pub const fn state(self) -> ListState {
        ListState::of(self.0 & (1 << 62) != 0, self.0 & (1 << 63) != 0)
    }

    /// The interrupt's bit in its word, if it is pending.
    #[inline]
    pub(super) const fn pending_mask(self) -> u32 {
        if self.state().is_pending() { self.intid().mask() } else { 0 }
    }

    /// The interrupt's bit in its word, if it is active.
    #[inline]
    pub(super) const fn active_mask(self) -> u32 {
        if self.state().is_active() { self.intid().mask() } else { 0 }
    }

    /// The interrupt's priority; 0 is the highest.
    #[must_use]
    #[inline]
    pub const fn priority(self) -> u8 {
        ((self.0 & Self::PRIORITY_MASK) >> Self::PRIORITY_SHIFT) as u8
    }

    /// The physical interrupt that the guest's deactivation also deactivates, if there is one.
    #[must_use]
    #[inline]
    pub const fn physical(self) -> Option<u32> {
        if self.0 & Self::HARDWARE == 0 {
            return None;
        }
        Some(((self.0 >> Self::PHYSICAL_SHIFT) & Self::PHYSICAL_MASK) as u32)
    }

    /// Whether the end of this interrupt asks for a maintenance interrupt.
    #[must_use]
    #[inline]
    pub const fn notifies_eoi(self) -> bool {
        self.0 & Self::HARDWARE == 0 && self.0 & Self::NOTIFY_EOI != 0
    }

    /// This register with another state.
    #[must_use]
    #[inline]
    pub const fn with_state(self, state: ListState) -> Self {
        Self((self.0 & !Self::STATE_MASK) | ((state as u64) << Self::STATE_SHIFT))
    }

    /// This register with another priority and group, as for an interrupt that is still only pending.
    #[must_use]
    pub(super) const fn with_rank(self, priority: u8, group: u32) -> Self {
        let rest = self.0 & !(Self::PRIORITY_MASK | Self::GROUP_1);
        Self(rest | (((group & 1) as u64) << 60) | ((priority as u64) << Self::PRIORITY_SHIFT))
    }

    /// This register, asking for a maintenance interrupt at the end of its interrupt. A linked interrupt has no such
    /// bit (it is part of the physical number) and stays as it is.
    #[must_use]
    #[inline]
    pub const fn with_eoi_notice(self) -> Self {
        if self.0 & Self::HARDWARE != 0 {
            return self;
        }
        Self(self.0 | Self::NOTIFY_EOI)
    }

    /// This register, ending its interrupt without notice. A linked interrupt stays as it is.
    #[must_use]
    #[inline]
    pub const fn without_eoi_notice(self) -> Self {
        if self.0 & Self::HARDWARE != 0 {
            return self;
        }
        Self(self.0 & !Self::NOTIFY_EOI)
    }
}

/// The list registers of the core that runs a virtual CPU, and what belongs to them. `arch` implements it on the real
/// ICH_ registers, the tests on a simulated CPU interface.
pub trait ListRegisters {
    /// The number of implemented list registers (ICH_VTR_EL2.ListRegs + 1), 2 to 16.
    fn count(&self) -> usize;

    /// Reads list register `index`.
    fn read(&self, index: usize) -> ListRegister;

    /// Writes list register `index`.
    fn write(&mut self, index: usize, value: ListRegister);

    /// ICH_ELRSR_EL2: a bitmap of the registers that are free and have no end-of-interrupt notice outstanding.
    fn empty(&self) -> u32;

    /// ICH_EISR_EL2: a bitmap of the registers whose interrupt has ended and that asked for notice of it.
    fn ended(&self) -> u32;

    /// ICH_HCR_EL2.NPIE: ask for a maintenance interrupt for as long as no register holds a pending interrupt, those
    /// that are active too apart.
    fn set_no_pending_interrupt(&mut self, on: bool);

    /// ICH_HCR_EL2.LRENPIE: ask for a maintenance interrupt for as long as ICH_HCR_EL2.EOIcount is not zero. And
    /// ICH_HCR_EL2.TDIR, where it exists: trap the guest's ICC_DIR_EL1, to be given to
    /// [`CpuInterface::deactivate_listed_or_spilled`](super::CpuInterface::deactivate_listed_or_spilled).
    fn set_unlisted_eoi_interrupt(&mut self, on: bool);

    /// Reads ICH_HCR_EL2.EOIcount, the number of interrupts that the guest ended and no register held, and zeroes it.
    /// Zero if the guest's EOIs only drop the priority (EOImode = 1) and its writes to ICC_DIR_EL1 trap.
    fn take_unlisted_eois(&mut self) -> u32;

    /// ISR_EL1: whether a physical interrupt is pending for this core. A flush then ends as early as it can.
    fn has_pending_interrupt(&self) -> bool;

    /// ICC_DIR_EL1: deactivates the physical interrupt `physical`. No effect on one that is not active.
    fn deactivate_physical(&mut self, physical: u32);
}
