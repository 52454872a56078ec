//! A guest's debug registers: breakpoints, watchpoints, MDSCR_EL1 and the OS lock. What it reads, and what the core
//! gets.
//!
//! Every access to one is trapped (MDCR_EL2.TDA and TDOSA), so that a guest's values are checked when it stores them.
//! EL2 itself is out of reach: with MDCR_EL2.TDE clear debug exceptions are EL1's, and none is taken at EL2 (Arm ARM
//! D2.4). HMC and SSC, which name other levels, are clear all the same, and so is what names a VMID.
//!
//! The rest of the debug space reads as zero and ignores stores: the channel to an external debugger, and what could
//! keep one out.

use crate::exit::SystemRegister;

/// The most breakpoints, or watchpoints, that a core can have.
pub const COMPARATORS_MAX: usize = 16;

/// The registers of a breakpoint, `DBGBVR<n>_EL1` and `DBGBCR<n>_EL1`, or of a watchpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Comparator {
    /// What is compared with.
    pub value: u64,
    /// When.
    pub control: u64,
}

/// All breakpoints and watchpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Comparators {
    /// By their numbers.
    pub breakpoints: [Comparator; COMPARATORS_MAX],
    /// By their numbers.
    pub watchpoints: [Comparator; COMPARATORS_MAX],
}

impl Comparators {
    /// None is on.
    pub const OFF: Self = {
        let off = [Comparator { value: 0, control: 0 }; COMPARATORS_MAX];
        Self { breakpoints: off, watchpoints: off }
    };
}

/// How many breakpoints and watchpoints the core has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// At most 16.
    pub breakpoints: usize,
    /// At most 16.
    pub watchpoints: usize,
}

/// The debug registers of a virtual CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DebugRegisters {
    comparators: Comparators,
    monitor: u64,
    is_locked: bool,
}

/// MDSCR_EL1: SS, TDCC, KDE and MDE: single step and the monitor's enables, none of the external debugger's.
const MONITOR_MASK: u64 = 1 | 1 << 12 | 1 << 13 | 1 << 15;
/// `DBGBCR<n>_EL1`: E, PMC, BAS, LBN, and of BT the two bits that choose among an address and CONTEXTIDR_EL1, linked or
/// not. Clear: HMC and SSC, and the types that compare VMIDs.
const BREAKPOINT_MASK: u64 = 0b111 | 0xf << 5 | 0xf << 16 | 0b11 << 20;
/// `DBGWCR<n>_EL1`: E, PAC, LSC, BAS, LBN, WT and MASK. Clear: HMC and SSC.
const WATCHPOINT_MASK: u64 = 0b1_1111 | 0xff << 5 | 0xf << 16 | 1 << 20 | 0x1f << 24;
/// `DBGWVR<n>_EL1` has no bits 1:0.
const WATCHED_MASK: u64 = !0b11;
/// OSLSR_EL1: OSLM is 0b10, the lock is there; OSLK.
const LOCK_IS_THERE: u64 = 1 << 3;
const LOCK_IS_LOCKED: u64 = 1 << 1;

impl DebugRegisters {
    /// As after a reset; the OS lock is open, as firmware leaves it.
    #[must_use]
    pub const fn new() -> Self {
        Self { comparators: Comparators::OFF, monitor: 0, is_locked: false }
    }

    /// What a guest reads from `register`, of op0 2. `None`: there is no such register.
    #[must_use]
    pub fn read(&self, register: SystemRegister, counts: Counts) -> Option<u64> {
        Some(match register {
            SystemRegister::MDSCR_EL1 => self.monitor,
            SystemRegister::OSLSR_EL1 => LOCK_IS_THERE | if self.is_locked { LOCK_IS_LOCKED } else { 0 },
            SystemRegister { op0: 2, op1: 0, crn: 0, crm, op2: 4..=7 } => {
                let number = usize::from(crm);
                let (all, count) = if register.op2 < 6 {
                    (&self.comparators.breakpoints, counts.breakpoints)
                } else {
                    (&self.comparators.watchpoints, counts.watchpoints)
                };
                let comparator = all.get(number).filter(|_| number < count)?;
                if register.op2 & 1 == 0 { comparator.value } else { comparator.control }
            }
            _ => return rest(register),
        })
    }

    /// A guest's store of `value` to `register`, of op0 2. `None`: there is no such register.
    pub fn write(&mut self, register: SystemRegister, value: u64, counts: Counts) -> Option<()> {
        match register {
            SystemRegister::MDSCR_EL1 => self.monitor = value & MONITOR_MASK,
            SystemRegister::OSLAR_EL1 => self.is_locked = value & 1 != 0,
            SystemRegister { op0: 2, op1: 0, crn: 0, crm, op2: 4..=7 } => {
                let number = usize::from(crm);
                let (all, count, masks) = if register.op2 < 6 {
                    (&mut self.comparators.breakpoints, counts.breakpoints, (u64::MAX, BREAKPOINT_MASK))
                } else {
                    (&mut self.comparators.watchpoints, counts.watchpoints, (WATCHED_MASK, WATCHPOINT_MASK))
                };
                let comparator = all.get_mut(number).filter(|_| number < count)?;
                if register.op2 & 1 == 0 {
                    comparator.value = value & masks.0;
                } else {
                    comparator.control = value & masks.1;
                }
            }
            _ => return rest(register).map(|_| ()),
        }
        Some(())
    }

    /// What the core's breakpoints and watchpoints are to be. None is on while the OS lock is locked (Arm ARM D2.5).
    #[must_use]
    pub const fn comparators(&self) -> &Comparators {
        const OFF: &Comparators = &Comparators::OFF;
        if self.is_locked { OFF } else { &self.comparators }
    }

    /// Whether one of them is on: E, in its control.
    #[must_use]
    pub fn is_on(&self) -> bool {
        let Comparators { breakpoints, watchpoints } = self.comparators();
        breakpoints.iter().chain(watchpoints).any(|comparator| comparator.control & 1 != 0)
    }

    /// What MDSCR_EL1 is to be: no single step either while the OS lock is locked.
    #[must_use]
    pub const fn monitor(&self) -> u64 {
        if self.is_locked { 0 } else { self.monitor }
    }
}

impl Default for DebugRegisters {
    fn default() -> Self {
        Self::new()
    }
}

/// What the rest of the debug space reads as: CRn 0 and 1 with op1 0, 3 and 4. Trace, op1 1, is not there.
const fn rest(register: SystemRegister) -> Option<u64> {
    if matches!(register.op1, 0 | 3 | 4) { Some(0) } else { None }
}

#[cfg(test)]
mod tests {
    use super::{COMPARATORS_MAX, Comparators, Counts, DebugRegisters};
    use crate::exit::SystemRegister;

    const COUNTS: Counts = Counts { breakpoints: 6, watchpoints: 4 };

    fn register(number: u8, op2: u8) -> SystemRegister {
        SystemRegister::new(2, 0, 0, number, op2)
    }

    const VALUE: u8 = 4;
    const CONTROL: u8 = 5;
    const WATCHED: u8 = 6;
    const WATCH_CONTROL: u8 = 7;

    #[test]
    fn each_comparator_keeps_what_its_guest_stores() {
        let mut debug = DebugRegisters::new();
        for (op2, count) in [(VALUE, 6), (CONTROL, 6), (WATCHED, 4), (WATCH_CONTROL, 4)] {
            for number in 0..count {
                let value = u64::from(number) << 5 | u64::from(op2) << 16;
                debug.write(register(number, op2), value, COUNTS).unwrap();
            }
        }
        for (op2, count) in [(VALUE, 6), (CONTROL, 6), (WATCHED, 4), (WATCH_CONTROL, 4)] {
            for number in 0..count {
                let value = u64::from(number) << 5 | u64::from(op2) << 16;
                assert_eq!(debug.read(register(number, op2), COUNTS), Some(value), "{op2} {number}");
            }
        }
        assert_eq!(debug.comparators().breakpoints[5].value, 5 << 5 | 4 << 16);
        assert_eq!(debug.comparators().watchpoints[3].control, 3 << 5 | 7 << 16);
    }

    #[test]
    fn comparators_that_the_core_lacks_are_no_registers() {
        let mut debug = DebugRegisters::new();
        for (number, op2) in [(6, VALUE), (6, CONTROL), (15, CONTROL), (4, WATCHED), (15, WATCH_CONTROL)] {
            assert_eq!(debug.read(register(number, op2), COUNTS), None);
            assert_eq!(debug.write(register(number, op2), u64::MAX, COUNTS), None);
        }
        assert_eq!(debug, DebugRegisters::new());
        // Whatever a core might say of itself.
        let many = Counts { breakpoints: usize::MAX, watchpoints: usize::MAX };
        for number in 0..COMPARATORS_MAX as u8 {
            debug.write(register(number, CONTROL), 1, many).unwrap();
        }
        assert_eq!(debug.read(SystemRegister::new(2, 0, 0, 16, CONTROL), many), None);
    }

    #[test]
    fn no_comparator_names_another_exception_level_or_a_vmid() {
        let mut debug = DebugRegisters::new();
        debug.write(register(0, CONTROL), u64::MAX, COUNTS).unwrap();
        debug.write(register(0, WATCH_CONTROL), u64::MAX, COUNTS).unwrap();
        debug.write(register(0, WATCHED), u64::MAX, COUNTS).unwrap();
        let (breakpoint, watchpoint) = (debug.comparators().breakpoints[0], debug.comparators().watchpoints[0]);
        for control in [breakpoint.control, watchpoint.control] {
            // HMC, SSC, SSCE.
            assert_eq!(control & (0b111 << 13 | 1 << 29), 0, "{control:#x}");
            assert_eq!(control >> 32, 0);
        }
        // BT of 4 and above: address mismatch, CONTEXTIDR_EL2, VMID.
        assert_eq!(breakpoint.control >> 22 & 0b11, 0);
        assert_eq!(breakpoint.control, 0x003f_01e7);
        assert_eq!(watchpoint.control, 0x1f1f_1fff);
        assert_eq!(watchpoint.value, !0b11);
    }

    #[test]
    fn a_core_is_concerned_while_a_comparator_is_on() {
        // As Linux does at boot: everything off.
        let mut debug = DebugRegisters::new();
        for number in 0..4 {
            for op2 in [VALUE, CONTROL, WATCHED, WATCH_CONTROL] {
                debug.write(register(number, op2), 0, COUNTS).unwrap();
            }
        }
        debug.write(SystemRegister::MDSCR_EL1, 1 << 15, COUNTS).unwrap();
        assert!(!debug.is_on());
        for (number, op2) in [(5, CONTROL), (3, WATCH_CONTROL)] {
            debug.write(register(number, op2), 0x1e6, COUNTS).unwrap();
            assert!(!debug.is_on());
            debug.write(register(number, op2), 0x1e7, COUNTS).unwrap();
            assert!(debug.is_on());
            debug.write(SystemRegister::OSLAR_EL1, 1, COUNTS).unwrap();
            assert!(!debug.is_on());
            debug.write(SystemRegister::OSLAR_EL1, 0, COUNTS).unwrap();
            debug.write(register(number, op2), 0, COUNTS).unwrap();
            assert!(!debug.is_on());
        }
    }

    #[test]
    fn os_lock_turns_everything_off_and_forgets_nothing() {
        let mut debug = DebugRegisters::new();
        debug.write(register(1, CONTROL), 0x1e7, COUNTS).unwrap();
        debug.write(SystemRegister::MDSCR_EL1, u64::MAX, COUNTS).unwrap();
        assert_eq!(debug.read(SystemRegister::OSLSR_EL1, COUNTS), Some(0b1000));
        assert_eq!(debug.monitor(), 0xb001);
        debug.write(SystemRegister::OSLAR_EL1, 1, COUNTS).unwrap();
        assert_eq!(debug.read(SystemRegister::OSLSR_EL1, COUNTS), Some(0b1010));
        assert_eq!((debug.comparators(), debug.monitor()), (&Comparators::OFF, 0));
        assert_eq!(debug.read(register(1, CONTROL), COUNTS), Some(0x1e7));
        assert_eq!(debug.read(SystemRegister::MDSCR_EL1, COUNTS), Some(0xb001));
        debug.write(SystemRegister::OSLAR_EL1, 0, COUNTS).unwrap();
        assert_eq!((debug.comparators().breakpoints[1].control, debug.monitor()), (0x1e7, 0xb001));
    }

    #[test]
    fn rest_of_the_debug_space_reads_as_zero_and_trace_is_not_there() {
        let mut debug = DebugRegisters::new();
        // OSDLR_EL1, DBGCLAIMSET_EL1, MDCCSR_EL0, MDCCINT_EL1.
        for (op1, crn, crm, op2) in [(0, 1, 3, 4), (0, 7, 8, 6), (3, 0, 1, 0), (0, 0, 2, 0)] {
            let register = SystemRegister::new(2, op1, crn, crm, op2);
            debug.write(register, u64::MAX, COUNTS).unwrap();
            assert_eq!(debug.read(register, COUNTS), Some(0), "{register}");
        }
        assert_eq!(debug, DebugRegisters::new());
        let trace = SystemRegister::new(2, 1, 0, 1, 0);
        assert_eq!((debug.read(trace, COUNTS), debug.write(trace, 1, COUNTS)), (None, None));
    }
}
