//! The board's PL031 real-time clock (Arm DDI0224), as a device with an interrupt: its alarm.
//!
//! The alarm is due in the second that it is set to, the present one included. From then on its interrupt is raised for
//! as long as it is not masked, so [`Clock::raise`] and [`Clock::lower`] take effect at once.

use rt::machine::{self, machine};
use rt::register::Register;

/// Register offsets in bytes (DDI0224 3.2).
mod offset {
    /// RTCDR: seconds.
    pub const DATA: u64 = 0x00;
    /// RTCMR: when the alarm is due.
    pub const MATCH: u64 = 0x04;
    /// RTCCR: bit 0 starts the clock.
    pub const CONTROL: u64 = 0x0c;
    /// RTCIMSC: bit 0 lets the interrupt out.
    pub const MASK: u64 = 0x10;
    /// RTCRIS: bit 0 says that the alarm was due.
    pub const RAW_STATUS: u64 = 0x14;
    /// RTCICR: bit 0 ends the alarm.
    pub const CLEAR: u64 = 0x1c;
}

/// Attempts to set the alarm to a second that is not over before it is set.
const ATTEMPTS: u32 = 10;

/// The clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    data: Register,
    match_: Register,
    control: Register,
    mask: Register,
    raw_status: Register,
    clear: Register,
    interrupt: u32,
}

impl Clock {
    /// The clock of this machine, if it has one.
    #[must_use]
    pub fn find() -> Option<Self> {
        let tree = machine().tree()?;
        let node = tree.find_compatible(&["arm,pl031"])?;
        let base = node.reg()?.next()?.starting_address as u64;
        let register = |offset| Register::at(base + offset);
        Some(Self {
            data: register(offset::DATA)?,
            match_: register(offset::MATCH)?,
            control: register(offset::CONTROL)?,
            mask: register(offset::MASK)?,
            raw_status: register(offset::RAW_STATUS)?,
            clear: register(offset::CLEAR)?,
            interrupt: machine::shared_interrupt(node)?,
        })
    }

    /// The INTID of its interrupt.
    #[must_use]
    pub const fn interrupt(&self) -> u32 {
        self.interrupt
    }

    /// The seconds that it counts.
    #[must_use]
    pub fn seconds(&self) -> u32 {
        self.data.read()
    }

    /// Whether the interrupt is not masked.
    #[must_use]
    pub fn is_unmasked(&self) -> bool {
        self.mask.read() & 1 != 0
    }

    /// Whether the alarm was due.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.raw_status.read() & 1 != 0
    }

    /// The second that the alarm is set to.
    #[must_use]
    pub fn alarm(&self) -> u32 {
        self.match_.read()
    }

    /// Sets the alarm to another second; one that is due already stays so.
    pub fn set_alarm(&self, seconds: u32) {
        self.match_.write(seconds);
    }

    /// Makes the alarm due, its interrupt masked. Gives whether it is.
    #[must_use]
    pub fn prepare(&self) -> bool {
        self.lower();
        self.control.write(1);
        for _ in 0..ATTEMPTS {
            self.match_.write(self.data.read());
            if self.is_due() {
                return true;
            }
        }
        false
    }

    /// Ends the alarm.
    pub fn end(&self) {
        self.lower();
        self.clear.write(1);
    }

    /// Raises the interrupt of an alarm that is due.
    #[inline(always)]
    pub fn raise(&self) {
        self.mask.write(1);
    }

    /// Takes the interrupt back; the alarm stays due.
    #[inline(always)]
    pub fn lower(&self) {
        self.mask.write(0);
    }
}
