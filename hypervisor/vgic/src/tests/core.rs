//! A simulated core: the guest's side of the list registers, as the hardware behaves (IHI0069, "Virtual interrupt
//! handling and prioritization").

use std::collections::BTreeSet;
use std::vec::Vec;

use crate::{ListRegister, ListRegisters, ListState};

/// What the guest reads from ICC_IAR1_EL1 when there is nothing for it.
pub const SPURIOUS: u32 = 1023;

pub struct Core {
    pub registers: Vec<ListRegister>,
    pub asks_when_none_pends: bool,
    unlisted: bool,
    eoi_count: u32,
    /// The guest has EOImode = 1.
    drops_only: bool,
    /// What the guest has acknowledged and not ended: priority and INTID, the innermost last.
    pub running: Vec<(u8, u32)>,
    /// The physical interrupts that have been deactivated since somebody looked.
    pub deactivated: Vec<u32>,
    /// The physical PPIs that are active on this core.
    pub active_ppis: BTreeSet<u32>,
    pub writes: usize,
    /// A physical interrupt is pending for the core.
    pub is_interrupt_pending: bool,
}

impl Core {
    pub fn new(count: usize) -> Self {
        Self {
            registers: std::vec![ListRegister::EMPTY; count],
            asks_when_none_pends: false,
            unlisted: false,
            eoi_count: 0,
            drops_only: false,
            running: Vec::new(),
            deactivated: Vec::new(),
            active_ppis: BTreeSet::new(),
            writes: 0,
            is_interrupt_pending: false,
        }
    }

    /// The interrupt that the core signals to the guest: the best pending one that preempts what runs.
    fn signalled(&self) -> Option<usize> {
        let limit = self.running.last().map_or(0x100, |(priority, _)| u16::from(*priority));
        (0..self.registers.len())
            .filter(|index| self.registers[*index].state() == ListState::Pending)
            .filter(|index| u16::from(self.registers[*index].priority()) < limit)
            .min_by_key(|index| self.registers[*index].priority())
    }

    /// The priority of the interrupt that the core signals, if it signals one: what ends a WFI.
    pub fn signalled_priority(&self) -> Option<u8> {
        self.signalled().map(|index| self.registers[index].priority())
    }

    /// A read of ICC_IAR1_EL1.
    pub fn acknowledge(&mut self) -> u32 {
        let Some(index) = self.signalled() else { return SPURIOUS };
        let value = self.registers[index];
        self.registers[index] = value.with_state(ListState::Active);
        self.running.push((value.priority(), value.intid().raw()));
        value.intid().raw()
    }

    /// A write of ICC_EOIR1_EL1 with EOImode = 0: drops the priority and deactivates.
    pub fn end(&mut self, intid: u32) {
        let (_, top) = self.running.pop().expect("the guest ends what it acknowledged");
        assert_eq!(top, intid, "the guest ends the innermost interrupt first");
        let held = self.registers.iter_mut().find(|value| value.intid().raw() == intid && value.state().is_active());
        match held {
            None => self.eoi_count += 1,
            Some(value) => {
                if let (ListState::Active, Some(physical)) = (value.state(), value.physical()) {
                    self.deactivated.push(physical);
                    self.active_ppis.remove(&physical);
                }
                let is_pending = value.state() == ListState::PendingActive;
                *value = value.with_state(if is_pending { ListState::Pending } else { ListState::Invalid });
            }
        }
    }

    /// A write of ICC_EOIR1_EL1 with EOImode = 1: drops the priority, and nothing else. It is counted all the same.
    pub fn drop_priority(&mut self) {
        let (_, intid) = self.running.pop().expect("the guest ends what it acknowledged");
        self.drops_only = true;
        if !self.registers.iter().any(|value| value.intid().raw() == intid && value.state().is_active()) {
            self.eoi_count += 1;
        }
    }

    /// A write of ICC_DIR_EL1 for an interrupt in a list register. Where ICH_HCR_EL2.TDIR is set, it traps instead.
    pub fn deactivate(&mut self, intid: u32) {
        assert!(!self.unlisted, "the write traps");
        let held = self.registers.iter_mut().find(|value| value.intid().raw() == intid && value.state().is_active());
        let value = held.expect("the guest deactivates what is active");
        let is_pending = value.state() == ListState::PendingActive;
        *value = value.with_state(if is_pending { ListState::Pending } else { ListState::Invalid });
    }

    pub fn traps_deactivation(&self) -> bool {
        self.unlisted
    }

    /// Whether the core's maintenance interrupt is asserted.
    pub fn maintenance(&self) -> bool {
        let does_one_pend = self.registers.iter().any(|value| value.state() == ListState::Pending);
        self.ended() != 0 || (self.asks_when_none_pends && !does_one_pend) || (self.unlisted && self.eoi_count != 0)
    }

    /// The interrupts in the list registers that are not free.
    pub fn listed(&self) -> Vec<u32> {
        self.registers.iter().filter(|value| value.state() != ListState::Invalid).map(|v| v.intid().raw()).collect()
    }

    pub fn register_of(&self, intid: u32) -> Option<ListRegister> {
        self.registers.iter().copied().find(|value| value.state() != ListState::Invalid && value.intid().raw() == intid)
    }

    fn bitmap(&self, test: impl Fn(&ListRegister) -> bool) -> u32 {
        (0..).zip(&self.registers).filter(|(_, value)| test(value)).fold(0, |bits, (index, _)| bits | 1 << index)
    }
}

impl ListRegisters for Core {
    fn count(&self) -> usize {
        self.registers.len()
    }

    fn read(&self, index: usize) -> ListRegister {
        self.registers[index]
    }

    fn write(&mut self, index: usize, value: ListRegister) {
        assert_ne!(self.registers[index], value, "a write that changes nothing costs for nothing");
        self.registers[index] = value;
        self.writes += 1;
        let mut listed = self.listed();
        listed.sort_unstable();
        let count = listed.len();
        listed.dedup();
        assert_eq!(listed.len(), count, "an interrupt in two list registers is unpredictable");
        let is_both = value.state() == ListState::PendingActive;
        assert!(!(is_both && value.physical().is_some()), "pending and active with HW = 1 is unpredictable");
    }

    fn empty(&self) -> u32 {
        self.bitmap(|value| value.state() == ListState::Invalid && !value.notifies_eoi())
    }

    fn ended(&self) -> u32 {
        self.bitmap(|value| value.state() == ListState::Invalid && value.notifies_eoi())
    }

    fn set_no_pending_interrupt(&mut self, on: bool) {
        assert_ne!(self.asks_when_none_pends, on, "the control register is written only where it changes");
        self.asks_when_none_pends = on;
    }

    fn set_unlisted_eoi_interrupt(&mut self, on: bool) {
        self.unlisted = on;
    }

    fn take_unlisted_eois(&mut self) -> u32 {
        let count = std::mem::take(&mut self.eoi_count);
        if self.drops_only && self.unlisted { 0 } else { count }
    }

    fn has_pending_interrupt(&self) -> bool {
        self.is_interrupt_pending
    }

    fn deactivate_physical(&mut self, physical: u32) {
        self.deactivated.push(physical);
        self.active_ppis.remove(&physical);
    }
}
