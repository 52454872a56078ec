//! The deadlines of one core: what it has to see to, and when next.
//!
//! There is one time for each kind of duty, and the earliest of them is at hand, since a core asks for it at every
//! switch. Which VM or device a duty is for, the core finds when it is due: it owns few. The end of a slice is none of
//! these: it is found anew with each decision, and [`Deadlines::or_earlier`] takes it in.
//!
//! What this module leaves out: the timer that is armed, and what is done when a deadline has passed.

use vdev::Ticks;

/// The end of time: no deadline.
const NEVER: Ticks = Ticks(u64::MAX);

/// What a core has to see to at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// The watchdogs of its driver domains.
    Watch,
    /// A preparation that had to wait.
    Preparation,
    /// The devices whose [`deadline`](vdev::Device::deadline) is this core's.
    Devices,
}

impl Duty {
    const COUNT: usize = Self::Devices as usize + 1;
}

/// The deadlines of one core.
#[derive(Clone, Debug)]
pub struct Deadlines {
    next: Ticks,
    times: [Ticks; Duty::COUNT],
}

impl Deadlines {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self { next: NEVER, times: [NEVER; Duty::COUNT] }
    }

    /// From now on `duty` is due at `time`, or (`None`) not at all.
    pub fn set(&mut self, duty: Duty, time: Option<Ticks>) {
        if let Some(entry) = self.times.get_mut(duty as usize) {
            *entry = time.unwrap_or(NEVER);
        }
        self.next = self.times.iter().copied().fold(NEVER, Ticks::min);
    }

    /// Whether anything is due.
    #[inline(always)]
    #[must_use]
    pub fn is_due(&self, now: Ticks) -> bool {
        now >= self.next
    }

    /// The earlier one of the next deadline and `time`; the end of time (`u64::MAX`) is none.
    #[inline(always)]
    #[must_use]
    pub fn or_earlier(&self, time: Ticks) -> Ticks {
        self.next.min(time)
    }
}

impl Default for Deadlines {
    fn default() -> Self {
        Self::new()
    }
}

/// When a device with the deadline `deadline` is polled, if the devices of its VM were polled at `last`: not before
/// `pause_ticks` after that. A deadline that stays in the past so takes a bounded part of its core's time.
#[must_use]
pub fn paced(deadline: Ticks, last: Ticks, pause_ticks: u64) -> Ticks {
    deadline.max(Ticks(last.0.saturating_add(pause_ticks)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_duty_is_next_whatever_the_order_in_which_they_came() {
        let mut deadlines = Deadlines::new();
        assert!(!deadlines.is_due(Ticks(u64::MAX - 1)));
        deadlines.set(Duty::Watch, Some(Ticks(30)));
        deadlines.set(Duty::Devices, Some(Ticks(20)));
        deadlines.set(Duty::Preparation, Some(Ticks(40)));
        assert!(!deadlines.is_due(Ticks(19)) && deadlines.is_due(Ticks(20)));
        deadlines.set(Duty::Devices, None);
        assert!(!deadlines.is_due(Ticks(29)) && deadlines.is_due(Ticks(30)));
        deadlines.set(Duty::Watch, Some(Ticks(50)));
        assert!(!deadlines.is_due(Ticks(39)) && deadlines.is_due(Ticks(40)));
        deadlines.set(Duty::Preparation, None);
        assert!(!deadlines.is_due(Ticks(49)) && deadlines.is_due(Ticks(50)));
    }

    #[test]
    fn the_end_of_a_slice_counts_only_if_it_comes_first() {
        let mut deadlines = Deadlines::new();
        assert_eq!(deadlines.or_earlier(Ticks(7)), Ticks(7));
        deadlines.set(Duty::Watch, Some(Ticks(5)));
        assert_eq!((deadlines.or_earlier(Ticks(7)), deadlines.or_earlier(Ticks(3))), (Ticks(5), Ticks(3)));
        assert!(!deadlines.is_due(Ticks(4)));
    }

    #[test]
    fn a_deadline_that_stays_in_the_past_is_met_once_in_each_pause() {
        let (mut last, mut polls) = (Ticks(0), 0);
        for now in (100..1100).map(Ticks) {
            if paced(Ticks(1), last, 100) <= now {
                (last, polls) = (now, polls + 1);
            }
        }
        assert_eq!(polls, 10);
        assert_eq!(paced(Ticks(5000), last, 100), Ticks(5000));
        assert_eq!(paced(Ticks(0), Ticks(u64::MAX), 100), Ticks(u64::MAX));
    }
}
