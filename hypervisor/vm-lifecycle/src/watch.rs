//! The watch over a driver domain: whether it is alive, and what it is blamed for.
//!
//! EL2 looks at it once in a heartbeat period. The driver domain has to show by then that it has run since the last
//! look, at which its doorbell was rung; that it has not kept a request for too long; and, before it serves, that it
//! is not taking too long to start. So a look costs the same whatever the load, requests carry no time, and whatever
//! goes wrong is seen a period later at most than it could be.
//!
//! What this module leaves out: clocks, how a driver domain is stopped (`bulkhead`), and how often it may start again
//! (`lifecycle`).

use crate::{Failure, RestartDecision, RestartLimits, RestartPolicy};
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
    /// For how many ticks that count the oldest request that is out has been that, whichever the channel, from the
    /// first look that found it on.
    pub age_ticks: u64,
}

/// What a driver domain has had of its core since the last look, where it shares that; nothing where it does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreTime {
    /// For how long it has wanted to run and others have, since it last woke up at the earliest.
    pub stolen_ticks: u64,
    /// For how long it counts as having run: no less than it has, and more by what each wake-up is charged.
    pub own_ticks: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    Off,
    /// For so many ticks that count.
    Starting {
        ticks: u64,
    },
    /// `beat` has stood still for so many ticks that count.
    Serving {
        beat: u32,
        ticks: u64,
    },
}

/// The watch over one driver domain.
#[derive(Debug)]
pub struct Watch {
    limits: Limits,
    life: Life,
    due: Ticks,
    /// When it was last looked at, or started.
    looked: Ticks,
    /// When it was last known to be alive.
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
        self.life = Life::Starting { ticks: 0 };
        self.due = Ticks(now.0.saturating_add(self.limits.heartbeat_ticks));
        (self.looked, self.alive) = (now, now);
    }

    /// It is ready. Gives the ticks for which its clients have been waiting, if it is not for the first time.
    pub const fn ready(&mut self, now: Ticks) -> Option<u64> {
        if !matches!(self.life, Life::Starting { .. }) {
            return None;
        }
        // Zero is what the cleared word holds, so that it has to be written by the next look but one.
        self.life = Life::Serving { beat: 0, ticks: 0 };
        (self.looked, self.alive) = (now, now);
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

    /// The time of a look has come, and of another one a heartbeat period later. Gives the ticks since the last one
    /// that count: all but those that `core_time` says were others'. What it counts as having run counts in any case,
    /// or it could put itself behind others by waking up often, and be looked at as one that waits for its turn.
    ///
    /// A look that comes a whole period late says that the core itself stood still, since nothing that the driver
    /// domain does delays one: a host was busy. All that time does not count, and the driver domain has until the next
    /// look to answer.
    #[must_use]
    pub fn elapse(&mut self, now: Ticks, core_time: CoreTime) -> u64 {
        let (late, passed) = (now.0.saturating_sub(self.due.0), now.0.saturating_sub(self.looked.0));
        self.due = Ticks(now.0.saturating_add(self.limits.heartbeat_ticks));
        self.looked = now;
        if late >= self.limits.heartbeat_ticks {
            return 0;
        }
        passed.saturating_sub(core_time.stolen_ticks).max(core_time.own_ticks.min(passed))
    }

    /// Looks, at `now`; `ticks` is what [`Watch::elapse`] gave. With no failure, the caller rings the doorbell.
    ///
    /// # Errors
    /// What it is blamed for.
    pub const fn look(&mut self, now: Ticks, ticks: u64, sight: Sight) -> Result<(), Failure> {
        match &mut self.life {
            Life::Off => Ok(()),
            Life::Starting { ticks: sum } => {
                *sum = sum.saturating_add(ticks);
                if *sum >= self.limits.startup_ticks { Err(Failure::NeverReady) } else { Ok(()) }
            }
            Life::Serving { beat, ticks: sum } => {
                if sight.age_ticks >= self.limits.request_ticks {
                    return Err(Failure::Stuck);
                }
                if sight.beat == *beat {
                    // One that waits for a device has as long as a request, whichever device it is.
                    let is_waiting = sight.beat & HEARTBEAT_WAITING != 0;
                    let allowed = if is_waiting { self.limits.request_ticks } else { self.limits.heartbeat_ticks };
                    *sum = sum.saturating_add(ticks);
                    return if *sum >= allowed { Err(Failure::Silent) } else { Ok(()) };
                }
                self.life = Life::Serving { beat: sight.beat, ticks: 0 };
                self.alive = now;
                Ok(())
            }
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
        look_beside(watch, now, 0, beat)
    }

    /// A look after a period in which others had the core for `stolen` ticks.
    fn look_beside(watch: &mut Watch, now: u64, stolen: u64, beat: u32) -> Result<(), Failure> {
        let ticks = watch.elapse(Ticks(now), CoreTime { stolen_ticks: stolen, own_ticks: 0 });
        watch.look(Ticks(now), ticks, Sight { beat, age_ticks: 0 })
    }

    /// As [`look_beside`] for a domain that is lively, with a request out since the look at which `age` was 0.
    fn look_at_request(watch: &mut Watch, now: u64, stolen: u64, age: &mut u64) -> Result<(), Failure> {
        let ticks = watch.elapse(Ticks(now), CoreTime { stolen_ticks: stolen, own_ticks: 0 });
        *age += ticks;
        watch.look(Ticks(now), ticks, Sight { beat: now as u32, age_ticks: *age })
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
    fn a_core_that_stood_still_makes_no_request_older() {
        let (mut watch, mut age) = (serving(), 0);
        for now in 1..=9 {
            assert_eq!(look_at_request(&mut watch, now * 100, 0, &mut age), Ok(()));
        }
        // A host that was busy for fifty periods, with a tenth of the request's time left.
        assert_eq!(look_at_request(&mut watch, 6000, 0, &mut age), Ok(()));
        assert_eq!(look_at_request(&mut watch, 6050, 0, &mut age), Ok(()));
        assert_eq!(look_at_request(&mut watch, 6150, 0, &mut age), Err(Failure::Stuck));
    }

    #[test]
    fn time_that_others_of_its_core_took_is_held_against_nobody_and_a_hang_is_found_all_the_same() {
        let mut watch = serving();
        assert_eq!(look(&mut watch, 100, 7), Ok(()));
        // Looks are punctual, and it has not run between them.
        for turn in 2..50 {
            assert_eq!(look_beside(&mut watch, turn * 100, 100, 7), Ok(()));
        }
        // It gets half of the core, and hangs.
        assert_eq!(look_beside(&mut watch, 5000, 50, 7), Ok(()));
        assert_eq!(look_beside(&mut watch, 5100, 50, 7), Err(Failure::Silent));
    }

    #[test]
    fn time_that_others_of_its_core_took_makes_no_request_older_and_is_no_time_to_start() {
        let (mut watch, mut age) = (serving(), 0);
        for turn in 1..20 {
            assert_eq!(look_at_request(&mut watch, turn * 100, 50, &mut age), Ok(()));
        }
        assert_eq!(look_at_request(&mut watch, 2000, 0, &mut age), Err(Failure::Stuck));

        let mut watch = Watch::new(LIMITS);
        watch.start(Ticks(0));
        for turn in 1..10 {
            assert_eq!(look_beside(&mut watch, turn * 100, 50, 0), Ok(()));
        }
        assert_eq!(look_beside(&mut watch, 1000, 50, 0), Err(Failure::NeverReady));
    }

    #[test]
    fn one_that_sleeps_although_its_doorbell_was_rung_is_found_whatever_others_take() {
        let mut watch = serving();
        assert_eq!(look(&mut watch, 100, 7), Ok(()));
        // It did not want the core that others had.
        assert_eq!(look_beside(&mut watch, 200, 0, 7), Err(Failure::Silent));
    }

    #[test]
    fn one_that_wakes_up_so_often_that_it_has_to_wait_for_its_core_is_found() {
        let mut watch = serving();
        assert_eq!(look(&mut watch, 100, 7), Ok(()));
        // It has hardly run, but its wake-ups were charged with half of the core's time.
        let core_time = CoreTime { stolen_ticks: 95, own_ticks: 50 };
        let mut again = |now| {
            let ticks = watch.elapse(Ticks(now), core_time);
            watch.look(Ticks(now), ticks, Sight { beat: 7, age_ticks: 0 })
        };
        assert_eq!([again(200), again(300)], [Ok(()), Err(Failure::Silent)]);
    }

    #[test]
    fn what_it_is_charged_is_no_more_than_the_time_that_has_passed() {
        let mut watch = serving();
        assert_eq!(watch.elapse(Ticks(100), CoreTime { stolen_ticks: 0, own_ticks: 1000 }), 50);
        assert_eq!(watch.elapse(Ticks(200), CoreTime { stolen_ticks: 1000, own_ticks: 0 }), 0);
        assert_eq!(watch.elapse(Ticks(300), CoreTime::default()), 100);
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
        let stuck = Sight { beat: HEARTBEAT_WAITING | 5, age_ticks: 1000 };
        assert_eq!(watch.look(Ticks(800), 100, stuck), Err(Failure::Stuck));
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
        let (mut watch, mut age) = (serving(), 0);
        for turn in 1..=9 {
            assert_eq!(look_at_request(&mut watch, turn * 100, 0, &mut age), Ok(()));
        }
        assert_eq!(look_at_request(&mut watch, 1050, 0, &mut age), Err(Failure::Stuck));
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
