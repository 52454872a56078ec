//! The watch over a driver domain: whether it is alive, and what it is blamed for.
//!
//! EL2 looks at it once in a heartbeat period. The driver domain has to show by then that it has run since the last
//! look, at which its doorbell was rung; that it has not kept a request for too long; and, before it serves, that it
//! is not taking too long to start. So a look costs the same whatever the load, requests carry no time, and whatever
//! goes wrong is seen a period later at most than it could be.
//!
//! What this module leaves out: clocks, how a driver domain is stopped (`bulkhead`), and how often it may start again
//! (`lifecycle`).

use crate::lifecycle::{Failure, RestartDecision, RestartLimits, RestartPolicy};
use abi::io::HEARTBEAT_WAITING;
use vdev::Ticks;

/// What a driver domain is held to, in ticks of the board's counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The time between two looks: in it, the driver domain has to run once.
    pub heartbeat_ticks: u64,
    /// How long a request may be out to a queue that is not patient.
    pub request_ticks: u64,
    /// How long it may take from its start until it is ready.
    pub startup_ticks: u64,
    /// How often it may start again.
    pub restart: RestartLimits,
}

/// What a look finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// The heartbeat word, which is a claim like all others.
    pub beat: u32,
    /// In how many looks in a row the same request was the oldest that is out, whichever the channel; 0 for none.
    pub looks: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Off,
    Starting { since: Ticks },
    Serving { beat: u32 },
}

/// The watch over one driver domain.
#[derive(Debug)]
pub struct Watch {
    limits: Limits,
    life: Life,
    due: Ticks,
    /// When it was last looked at, or started.
    looked: Ticks,
    /// When it was last known to be alive, later by all the time that does not count.
    alive: Ticks,
    /// Since when its clients have been waiting, if they have.
    lost: Option<Ticks>,
    restarts: RestartPolicy,
}

impl Watch {
    /// A watch over a driver domain that has not started.
    #[must_use]
    pub const fn new(limits: Limits) -> Self {
        Self {
            limits,
            life: Life::Off,
            due: Ticks(0),
            looked: Ticks(0),
            alive: Ticks(0),
            lost: None,
            restarts: RestartPolicy::new(limits.restart),
        }
    }

    /// What it is held to.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// It starts.
    pub const fn start(&mut self, now: Ticks) {
        self.life = Life::Starting { since: now };
        self.due = Ticks(now.0.saturating_add(self.limits.heartbeat_ticks));
        (self.looked, self.alive) = (now, now);
    }

    /// It is ready. Gives the ticks for which its clients have been waiting, if it is not for the first time.
    pub const fn ready(&mut self, now: Ticks) -> Option<u64> {
        if !matches!(self.life, Life::Starting { .. }) {
            return None;
        }
        // Zero is what the cleared word holds, so that it has to be written by the next look but one.
        self.life = Life::Serving { beat: 0 };
        self.alive = now;
        match self.lost.take() {
            Some(lost) => Some(now.0.saturating_sub(lost.0)),
            None => None,
        }
    }

    /// When it is to be looked at next; the end of time while it is off.
    #[must_use]
    pub const fn due(&self) -> Ticks {
        match self.life {
            Life::Off => Ticks(u64::MAX),
            Life::Starting { .. } | Life::Serving { .. } => self.due,
        }
    }

    /// Looks, and will again a heartbeat period later. With no failure, the caller rings the doorbell.
    ///
    /// A look that comes a whole period late says that the core itself stood still, since nothing that the driver
    /// domain does delays one: a host was busy. That time does not count, and the driver domain has until the next
    /// look to answer.
    ///
    /// # Errors
    /// What it is blamed for.
    pub fn look(&mut self, now: Ticks, sight: Sight) -> Result<(), Failure> {
        let (late, passed) = (now.0.saturating_sub(self.due.0), now.0.saturating_sub(self.looked.0));
        self.due = Ticks(now.0.saturating_add(self.limits.heartbeat_ticks));
        self.looked = now;
        if late >= self.limits.heartbeat_ticks {
            self.excuse(passed);
            return Ok(());
        }
        match self.life {
            Life::Off => Ok(()),
            Life::Starting { since } => {
                let is_late = now.0.saturating_sub(since.0) >= self.limits.startup_ticks;
                if is_late { Err(Failure::NeverReady) } else { Ok(()) }
            }
            Life::Serving { beat } => {
                // The first of these looks may have come right after the request.
                let waited = u64::from(sight.looks.saturating_sub(1)).saturating_mul(self.limits.heartbeat_ticks);
                if waited >= self.limits.request_ticks {
                    return Err(Failure::Stuck);
                }
                if sight.beat == beat {
                    // One that waits for a device has as long as a request, whichever device it is.
                    let is_waiting = sight.beat & HEARTBEAT_WAITING != 0;
                    let allowed = if is_waiting { self.limits.request_ticks } else { self.limits.heartbeat_ticks };
                    let silent = now.0.saturating_sub(self.alive.0);
                    return if silent >= allowed { Err(Failure::Silent) } else { Ok(()) };
                }
                self.life = Life::Serving { beat: sight.beat };
                self.alive = now;
                Ok(())
            }
        }
    }

    /// The last `ticks` do not count.
    const fn excuse(&mut self, ticks: u64) {
        self.alive = Ticks(self.alive.0.saturating_add(ticks));
        if let Life::Starting { since } = &mut self.life {
            *since = Ticks(since.0.saturating_add(ticks));
        }
    }

    /// It is to be stopped because of `failure`. Returns false if it is being stopped already: several cores may find
    /// something at the same time.
    #[must_use]
    pub fn fail(&mut self, now: Ticks, failure: Failure) -> bool {
        if matches!(self.life, Life::Off) {
            return false;
        }
        // Whoever hangs has left its clients alone since the last sign of life.
        let since = if failure == Failure::Silent { self.alive } else { now };
        self.lost.get_or_insert(since);
        self.life = Life::Off;
        true
    }

    /// It has been stopped, and was to start again; says whether it does. `is_needed`: it has clients.
    pub fn end(&mut self, now: Ticks, is_needed: bool) -> RestartDecision {
        self.life = Life::Off;
        self.restarts.decide(now, is_needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        heartbeat_ticks: 100,
        request_ticks: 1000,
        startup_ticks: 500,
        restart: RestartLimits { restarts_max: Some(2), window_ticks: 10_000 },
    };

    fn serving() -> Watch {
        let mut watch = Watch::new(LIMITS);
        watch.start(Ticks(0));
        assert_eq!(watch.ready(Ticks(50)), None);
        watch
    }

    fn look(watch: &mut Watch, now: u64, beat: u32) -> Result<(), Failure> {
        watch.look(Ticks(now), Sight { beat, looks: 0 })
    }

    #[test]
    fn a_driver_domain_that_runs_now_and_then_is_left_alone() {
        let mut watch = serving();
        for turn in 1..50 {
            assert_eq!(look(&mut watch, turn * 100, turn as u32), Ok(()));
        }
    }

    #[test]
    fn a_core_that_stood_still_is_held_against_nobody_and_a_hang_is_found_all_the_same() {
        let mut watch = serving();
        assert_eq!(look(&mut watch, 100, 7), Ok(()));
        // A host that was busy for fifty periods: the driver domain has not run either.
        assert_eq!(look(&mut watch, 5200, 7), Ok(()));
        assert_eq!(look(&mut watch, 5300, 7), Err(Failure::Silent));
    }

    #[test]
    fn time_in_which_the_core_stood_still_is_no_time_to_start() {
        let mut watch = Watch::new(LIMITS);
        watch.start(Ticks(0));
        assert_eq!(look(&mut watch, 100, 0), Ok(()));
        assert_eq!(look(&mut watch, 9100, 0), Ok(()));
        for now in [9200, 9300, 9400] {
            assert_eq!(look(&mut watch, now, 0), Ok(()));
        }
        assert_eq!(look(&mut watch, 9500, 0), Err(Failure::NeverReady));
    }

    #[test]
    fn one_that_hangs_is_found_two_periods_later_at_most() {
        let mut watch = serving();
        assert_eq!(look(&mut watch, 100, 7), Ok(()));
        assert_eq!(look(&mut watch, 200, 8), Ok(()));
        assert_eq!(look(&mut watch, 300, 8), Err(Failure::Silent));
        assert!(watch.fail(Ticks(300), Failure::Silent));
        watch.start(Ticks(320));
        assert_eq!(watch.ready(Ticks(350)), Some(150), "its clients have waited since the last sign of life");
    }

    #[test]
    fn what_two_cores_find_at_the_same_time_is_one_failure() {
        let mut watch = serving();
        assert!(watch.fail(Ticks(100), Failure::Damaged));
        assert!(!watch.fail(Ticks(100), Failure::Damaged));
        watch.start(Ticks(110));
        assert!(watch.fail(Ticks(120), Failure::Reset));
    }

    #[test]
    fn one_that_never_beats_is_found() {
        let mut watch = serving();
        assert_eq!(look(&mut watch, 100, 0), Ok(()), "it was ready 50 ticks ago");
        assert_eq!(look(&mut watch, 200, 0), Err(Failure::Silent));
    }

    #[test]
    fn a_beat_that_goes_back_is_a_beat() {
        let mut watch = serving();
        assert_eq!(look(&mut watch, 100, 9), Ok(()));
        assert_eq!(look(&mut watch, 200, 3), Ok(()));
    }

    #[test]
    fn one_that_waits_for_a_device_has_as_long_as_a_request() {
        let mut watch = serving();
        for turn in 1..8 {
            assert_eq!(look(&mut watch, turn * 100, HEARTBEAT_WAITING | 5), Ok(()));
        }
        let stuck = Sight { beat: HEARTBEAT_WAITING | 5, looks: 11 };
        assert_eq!(watch.look(Ticks(800), stuck), Err(Failure::Stuck));
    }

    #[test]
    fn one_that_waits_for_a_console_for_ever_is_found_though_no_request_says_so() {
        let mut watch = serving();
        for turn in 1..=10 {
            assert_eq!(look(&mut watch, turn * 100, HEARTBEAT_WAITING | 5), Ok(()));
        }
        assert_eq!(look(&mut watch, 1100, HEARTBEAT_WAITING | 5), Err(Failure::Silent));
    }

    #[test]
    fn one_that_keeps_a_request_is_found_however_lively_it_is() {
        let mut watch = serving();
        for looks in 1..=10 {
            assert_eq!(watch.look(Ticks(u64::from(looks) * 100), Sight { beat: looks, looks }), Ok(()));
        }
        assert_eq!(watch.look(Ticks(1100), Sight { beat: 99, looks: 11 }), Err(Failure::Stuck));
    }

    #[test]
    fn one_that_is_never_ready_is_found() {
        let mut watch = Watch::new(LIMITS);
        assert_eq!(watch.due(), Ticks(u64::MAX));
        watch.start(Ticks(1000));
        assert_eq!(watch.due(), Ticks(1100));
        for now in [1100, 1200, 1300, 1400, 1499] {
            assert_eq!(look(&mut watch, now, 0), Ok(()));
        }
        assert_eq!(look(&mut watch, 1500, 1), Err(Failure::NeverReady));
        assert_eq!(watch.due(), Ticks(1600));
    }

    #[test]
    fn ready_counts_once() {
        let mut watch = serving();
        assert!(watch.fail(Ticks(100), Failure::Reset));
        watch.start(Ticks(110));
        assert_eq!(watch.ready(Ticks(130)), Some(30));
        assert_eq!(watch.ready(Ticks(140)), None);
    }

    #[test]
    fn a_second_failure_before_it_is_ready_makes_the_pause_longer() {
        let mut watch = serving();
        assert!(watch.fail(Ticks(100), Failure::TurnedOff));
        watch.start(Ticks(110));
        assert!(watch.fail(Ticks(610), Failure::NeverReady));
        watch.start(Ticks(620));
        assert_eq!(watch.ready(Ticks(700)), Some(600));
    }

    #[test]
    fn one_that_has_ended_is_not_looked_at_until_it_starts() {
        let mut watch = serving();
        assert_eq!(watch.end(Ticks(100), true), RestartDecision::Restart);
        assert_eq!(watch.due(), Ticks(u64::MAX));
        assert!(!watch.fail(Ticks(110), Failure::Damaged));
        watch.start(Ticks(120));
        assert_eq!(watch.due(), Ticks(220));
    }
}
