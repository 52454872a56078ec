//! A device for tests of what `vdev` promises: it wants to be polled at times that its guest chooses, says how late
//! each poll came, and shows what else its host gives it. It is in no Bulkhead but those that are built for tests.
//!
//! | offset | name | load | store |
//! | --- | --- | --- | --- |
//! | 0x00 | DELAY | – | the deadline is so many ticks from now; the line rises when it has passed |
//! | 0x04 | STUCK | – | the deadline is now, and stays there |
//! | 0x08 | STOP | – | no deadline, and the line is low |
//! | 0x0c | POLLS | how many polls there were since the last start | – |
//! | 0x10 | LATE | the most ticks from a deadline to its poll | 0 from now on |
//! | 0x14 | FREQUENCY | of the counter, in Hz | – |
//! | 0x18 | CLOCK | the wall clock in seconds, or 0 | – |
//! | 0x1c | RESTARTS | of the guest since power-on | – |
//! | 0x20 | CONFIGURATION | the first four bytes of what the system says of it | – |
//! | 0x24 | PATIENCE | – | how many ticks LATER takes |
//! | 0x40 | LATER | is answered later, with 0x1a7e | is done later |
//! | 0x80 | NEVER | is never answered | is never done |
//!
//! All are words.

use core::task::Poll;
use vdev::{
    AccessId, Description, Device, DeviceNode, GuestFault, Host, Model, ResetKind, Ticks, Trigger, Width, guest_map,
};

/// The offsets of the registers.
pub mod register {
    /// DELAY.
    pub const DELAY: u64 = 0x00;
    /// STUCK.
    pub const STUCK: u64 = 0x04;
    /// STOP.
    pub const STOP: u64 = 0x08;
    /// POLLS.
    pub const POLLS: u64 = 0x0c;
    /// LATE.
    pub const LATE: u64 = 0x10;
    /// FREQUENCY.
    pub const FREQUENCY: u64 = 0x14;
    /// CLOCK.
    pub const CLOCK: u64 = 0x18;
    /// RESTARTS.
    pub const RESTARTS: u64 = 0x1c;
    /// CONFIGURATION.
    pub const CONFIGURATION: u64 = 0x20;
    /// PATIENCE.
    pub const PATIENCE: u64 = 0x24;
    /// LATER.
    pub const LATER: u64 = 0x40;
    /// NEVER.
    pub const NEVER: u64 = 0x80;
}

/// What a load of LATER returns.
pub const LATER_VALUE: u64 = 0x1a7e;
/// How many accesses are answered later at a time.
const QUESTIONS_MAX: usize = 2;

/// An access that is answered later.
#[derive(Clone, Copy, Debug)]
struct Question {
    access: AccessId,
    due: Ticks,
}

/// The device.
#[derive(Debug)]
pub struct TestTimer {
    questions: [Option<Question>; QUESTIONS_MAX],
    /// How long an answer that comes later takes.
    patience_ticks: u32,
    /// When it was polled last.
    polled: Ticks,
    deadline: Option<Ticks>,
    /// The deadline is not met by a poll.
    is_stuck: bool,
    line: bool,
    polls: u32,
    late_ticks: u32,
    restarts: u32,
}

impl Default for TestTimer {
    fn default() -> Self {
        Self {
            questions: [None; QUESTIONS_MAX],
            patience_ticks: 0,
            polled: Ticks(0),
            deadline: None,
            is_stuck: false,
            line: false,
            polls: 0,
            late_ticks: 0,
            restarts: 0,
        }
    }
}

impl Model for TestTimer {
    const DESCRIPTION: Description = Description {
        name: "test-timer",
        window_size: 0x1000,
        // Free on every guest's map, behind the clock.
        default_address: guest_map::PL031_BASE + guest_map::PL031_SIZE,
        default_interrupt: Some(guest_map::PL031_INTID + 1),
        node: DeviceNode {
            name: "timer",
            compatible: &["bulkhead,test-timer"],
            trigger: Some(Trigger::LevelHigh),
            clocks: &[],
            properties: &[],
            console: false,
        },
        configuration_max: 16,
        for_tests: true,
    };

    fn create() -> Self {
        Self::default()
    }
}

/// Refuses all but aligned words within the window.
fn check(offset: u64, width: Width) -> Result<(), GuestFault> {
    if width != Width::Word || offset & 0b11 != 0 {
        return Err(GuestFault::BadWidth);
    }
    if offset < TestTimer::DESCRIPTION.window_size { Ok(()) } else { Err(GuestFault::NoRegister) }
}

impl TestTimer {
    /// The access of `host` is answered when the patience is over: by its number, so that each has an answer of its
    /// own.
    fn answer_later(&mut self, host: &Host<'_>) -> Result<(), GuestFault> {
        let due = Ticks(host.now.0.saturating_add(self.patience_ticks.into()));
        let place = self.questions.iter_mut().find(|place| place.is_none()).ok_or(GuestFault::NoRegister)?;
        *place = Some(Question { access: host.access, due });
        Ok(())
    }
}

impl Device for TestTimer {
    fn read(&mut self, offset: u64, width: Width, host: &mut Host<'_>) -> Result<Poll<u64>, GuestFault> {
        check(offset, width)?;
        let value = match offset {
            register::POLLS => self.polls.into(),
            register::LATE => self.late_ticks.into(),
            register::FREQUENCY => host.clock.frequency,
            register::CLOCK => host.clock.wall_seconds(host.now).unwrap_or(0),
            register::RESTARTS => self.restarts.into(),
            register::CONFIGURATION => {
                host.configuration.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes).into())
            }
            register::LATER => return self.answer_later(host).map(|()| Poll::Pending),
            register::NEVER => return Ok(Poll::Pending),
            _ => return Err(GuestFault::NoRegister),
        };
        Ok(Poll::Ready(value))
    }

    fn write(&mut self, offset: u64, width: Width, value: u64, host: &mut Host<'_>) -> Result<Poll<()>, GuestFault> {
        check(offset, width)?;
        match offset {
            register::DELAY => self.deadline = Some(Ticks(host.now.0.saturating_add(value))),
            register::STUCK => (self.deadline, self.is_stuck) = (Some(host.now), true),
            register::STOP => (self.deadline, self.is_stuck, self.line) = (None, false, false),
            register::LATE => self.late_ticks = 0,
            register::PATIENCE => self.patience_ticks = value as u32,
            register::LATER => return self.answer_later(host).map(|()| Poll::Pending),
            register::NEVER => return Ok(Poll::Pending),
            _ => return Err(GuestFault::NoRegister),
        }
        Ok(Poll::Ready(()))
    }

    fn take_answer(&mut self) -> Option<(AccessId, u64)> {
        let due = |question: &Option<Question>| question.is_some_and(|question| question.due <= self.polled);
        let place = self.questions.iter().position(due)?;
        let question = self.questions.get_mut(place)?.take()?;
        Some((question.access, LATER_VALUE))
    }

    fn line(&self) -> bool {
        self.line
    }

    fn deadline(&self) -> Option<Ticks> {
        let questions = self.questions.iter().flatten().map(|question| question.due);
        self.deadline.into_iter().chain(questions).min()
    }

    fn poll(&mut self, host: &mut Host<'_>) {
        self.polled = host.now;
        let Some(deadline) = self.deadline else { return };
        let Some(late_ticks) = host.now.0.checked_sub(deadline.0) else { return };
        self.polls = self.polls.saturating_add(1);
        self.line = true;
        if !self.is_stuck {
            self.late_ticks = self.late_ticks.max(u32::try_from(late_ticks).unwrap_or(u32::MAX));
            self.deadline = None;
        }
    }

    fn reset(&mut self, kind: ResetKind) {
        let restarts = match kind {
            ResetKind::PowerOn => 0,
            ResetKind::VmRestart => self.restarts.saturating_add(1),
        };
        *self = Self { restarts, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdev::testkit::{Bench, FREQUENCY, POLLS_MAX};

    fn bench() -> Bench<TestTimer> {
        Bench::new(TestTimer::create())
    }

    #[test]
    fn a_deadline_is_polled_once_and_raises_the_line() {
        let mut bench = bench();
        bench.now = Ticks(100);
        bench.write32(register::DELAY, 50);
        assert_eq!(bench.device.deadline(), Some(Ticks(150)));
        assert_eq!((bench.go_on_until(Ticks(149)), bench.line()), (0, false));
        assert_eq!((bench.go_on_until(Ticks(1000)), bench.line()), (1, true));
        assert_eq!((bench.read32(register::POLLS), bench.read32(register::LATE)), (1, 0));
        bench.write32(register::STOP, 0);
        assert!(!bench.line());
    }

    #[test]
    fn a_poll_before_the_deadline_changes_nothing_and_a_late_one_is_noticed() {
        let mut bench = bench();
        bench.write32(register::DELAY, 50);
        bench.now = Ticks(49);
        bench.poll();
        assert_eq!((bench.read32(register::POLLS), bench.line()), (0, false));
        bench.now = Ticks(57);
        bench.poll();
        assert_eq!((bench.read32(register::POLLS), bench.read32(register::LATE)), (1, 7));
    }

    #[test]
    fn a_stuck_deadline_is_polled_as_often_as_its_host_likes() {
        let mut bench = bench();
        bench.write32(register::STUCK, 0);
        assert_eq!(bench.go_on_until(Ticks(1)), POLLS_MAX);
        bench.write32(register::STOP, 0);
        assert_eq!(bench.go_on_until(Ticks(2)), 0);
    }

    #[test]
    fn an_access_that_waits_gets_the_answer_to_its_own_number() {
        let mut bench = bench();
        bench.write32(register::PATIENCE, 50);
        assert_eq!(bench.load(register::LATER, Width::Word), Ok(Poll::Pending));
        let load = bench.access;
        bench.now = Ticks(20);
        assert_eq!(bench.store(register::LATER, Width::Word, 1), Ok(Poll::Pending));
        let store = bench.access;
        assert_eq!((bench.go_on_until(Ticks(49)), bench.answers.len()), (0, 0));
        assert_eq!(bench.go_on_until(Ticks(69)), 1);
        assert_eq!(bench.answers, [(load, LATER_VALUE)]);
        assert_eq!(bench.go_on_until(Ticks(1000)), 1);
        assert_eq!(bench.answers, [(load, LATER_VALUE), (store, LATER_VALUE)]);
    }

    #[test]
    fn what_waits_is_forgotten_at_a_reset() {
        let mut bench = bench();
        bench.write32(register::PATIENCE, 50);
        assert_eq!(bench.load(register::LATER, Width::Word), Ok(Poll::Pending));
        assert_eq!(bench.load(register::NEVER, Width::Word), Ok(Poll::Pending));
        bench.reset(ResetKind::VmRestart);
        assert_eq!((bench.go_on_until(Ticks(1000)), bench.answers.len()), (0, 0));
        bench.write32(register::PATIENCE, 50);
        for _ in 0..QUESTIONS_MAX {
            assert_eq!(bench.load(register::LATER, Width::Word), Ok(Poll::Pending));
        }
        assert_eq!(bench.load(register::LATER, Width::Word), Err(GuestFault::NoRegister));
    }

    #[test]
    fn what_the_host_knows_is_shown() {
        let mut bench = bench();
        assert_eq!((bench.read32(register::FREQUENCY), bench.read32(register::CLOCK)), (FREQUENCY as u32, 0));
        assert_eq!(bench.read32(register::CONFIGURATION), 0);
        bench.clock.epoch_seconds = Some(1_000_000_000);
        bench.now = Ticks(3 * FREQUENCY);
        bench.configuration = b"abcde";
        assert_eq!(bench.read32(register::CLOCK), 1_000_000_003);
        assert_eq!(bench.read32(register::CONFIGURATION), u32::from_le_bytes(*b"abcd"));
    }

    #[test]
    fn restarts_are_counted_from_power_on() {
        let mut bench = bench();
        for (kind, restarts) in [(ResetKind::VmRestart, 1), (ResetKind::VmRestart, 2), (ResetKind::PowerOn, 0)] {
            bench.write32(register::STUCK, 0);
            bench.reset(kind);
            assert_eq!((bench.read32(register::RESTARTS), bench.device.deadline()), (restarts, None));
        }
    }
}
