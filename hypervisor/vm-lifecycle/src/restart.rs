//! How often a VM that others depend on may start again.

use vdev::Ticks;

/// How often it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartLimits {
    /// The most restarts in a window; without it there is no limit.
    pub restarts_max: Option<u32>,
    /// The time that starts with a restart, and in which others count, in ticks of the board's counter.
    pub window_ticks: u64,
}

/// What follows when a VM that was to start again has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartDecision {
    /// It starts again.
    Restart,
    /// It has started again so often that it stays off.
    GiveUp,
}

/// The restarts of one VM.
#[derive(Debug)]
pub struct RestartPolicy {
    limits: RestartLimits,
    /// When the window began, and the restarts in it.
    window_start: Ticks,
    restarts: u32,
}

impl RestartPolicy {
    /// Of a VM that has not started again yet.
    #[must_use]
    pub const fn new(limits: RestartLimits) -> Self {
        Self { limits, window_start: Ticks(0), restarts: 0 }
    }

    /// It was to start again, and has stopped. Counts that if others need it, since then it is no wish of its own, and
    /// says what follows.
    pub fn decide(&mut self, now: Ticks, is_needed: bool) -> RestartDecision {
        if !is_needed {
            return RestartDecision::Restart;
        }
        if self.restarts == 0 || now.0.saturating_sub(self.window_start.0) >= self.limits.window_ticks {
            self.window_start = now;
            self.restarts = 0;
        }
        if self.limits.restarts_max.is_some_and(|most| self.restarts >= most) {
            return RestartDecision::GiveUp;
        }
        self.restarts = self.restarts.saturating_add(1);
        RestartDecision::Restart
    }
}

#[cfg(test)]
mod tests {
    use super::{RestartDecision, RestartLimits, RestartPolicy, Ticks};

    fn policy(restarts_max: Option<u32>) -> RestartPolicy {
        RestartPolicy::new(RestartLimits { restarts_max, window_ticks: 10_000 })
    }

    #[test]
    fn one_restart_too_many_in_the_window_is_the_end() {
        let mut policy = policy(Some(2));
        assert_eq!(policy.decide(Ticks(100), true), RestartDecision::Restart);
        assert_eq!(policy.decide(Ticks(10_099), true), RestartDecision::Restart);
        assert_eq!(policy.decide(Ticks(10_100), true), RestartDecision::Restart, "another window begins");
        assert_eq!(policy.decide(Ticks(10_200), true), RestartDecision::Restart);
        assert_eq!(policy.decide(Ticks(10_300), true), RestartDecision::GiveUp);
    }

    #[test]
    fn a_limit_of_none_is_the_end_at_once_and_without_a_limit_there_is_none() {
        assert_eq!(policy(Some(0)).decide(Ticks(5), true), RestartDecision::GiveUp);
        let mut policy = policy(None);
        for _ in 0..100 {
            assert_eq!(policy.decide(Ticks(5), true), RestartDecision::Restart);
        }
    }

    #[test]
    fn one_that_nobody_needs_may_start_again_as_often_as_it_likes_and_no_restart_of_it_counts() {
        let mut policy = policy(Some(1));
        for _ in 0..100 {
            assert_eq!(policy.decide(Ticks(5), false), RestartDecision::Restart);
        }
        assert_eq!(policy.decide(Ticks(6), true), RestartDecision::Restart);
        assert_eq!(policy.decide(Ticks(7), true), RestartDecision::GiveUp);
        assert_eq!(policy.decide(Ticks(8), false), RestartDecision::Restart);
    }
}
