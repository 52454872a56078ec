//! The life of a VM: its phases, what leads from one to the next, who may ask for what, and whether it starts again.
//!
//! | from | `Stop` | `Reset` | `Prepared` | `Parked(Restart)` | `Parked(GiveUp)` |
//! | --- | --- | --- | --- | --- | --- |
//! | `Preparing` | – | – | `Running` | – | – |
//! | `Running` | `StoppingForOff` | `StoppingForReset` | – | – | – |
//! | `StoppingForOff` | – | – | – | `Off` | `Off` |
//! | `StoppingForReset` | – | – | – | `Preparing` | `Off` |
//! | `Off` | – | – | – | – | – |
//!
//! [`decide`] says which step a command is; [`Phase::after`] is the table. What else a core decides about its VMs:
//!
//! | module | its one question |
//! | --- | --- |
//! | [`deadline`] | what has a core to see to next, and when? |
//! | [`preparation`] | which of the VMs that are being prepared does a core work for? |
//! | [`watch`] | is a backend VM alive? |
//! | [`access`] | which virtual CPUs wait for the answer to an access? |
//!
//! What this crate leaves out: how virtual CPUs are stopped and memory is prepared (`bulkhead`).
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

#[cfg(test)]
extern crate std;

pub mod access;
mod command;
pub mod deadline;
pub mod preparation;
mod restart;
pub mod watch;

pub use command::{CommandSource, Decision, Failure, Refused, Standing, VmCommand, decide};
pub use restart::{RestartDecision, RestartLimits, RestartPolicy};

/// Where a VM is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Its memory is being cleared and its images copied; no virtual CPU runs.
    Preparing,
    /// Its virtual CPUs run.
    Running,
    /// Its virtual CPUs are being parked; then it is off.
    StoppingForOff,
    /// Its virtual CPUs are being parked; then it starts again.
    StoppingForReset,
    /// It is off for good.
    Off,
}

/// What leads from one phase to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// It is to be off.
    Stop,
    /// It is to start again, from its images.
    Reset,
    /// Its memory is prepared.
    Prepared,
    /// The last of its virtual CPUs is parked, and this follows if it was to start again.
    Parked(RestartDecision),
}

impl Phase {
    /// The phase after `step`, or `None` if `step` leads nowhere from here, and changes nothing.
    #[must_use]
    pub const fn after(self, step: Step) -> Option<Self> {
        match (self, step) {
            (Self::Preparing, Step::Prepared) => Some(Self::Running),
            (Self::Preparing, Step::Stop | Step::Reset | Step::Parked(_)) => None,
            (Self::Running, Step::Stop) => Some(Self::StoppingForOff),
            (Self::Running, Step::Reset) => Some(Self::StoppingForReset),
            (Self::Running, Step::Prepared | Step::Parked(_)) => None,
            (Self::StoppingForOff, Step::Parked(RestartDecision::Restart | RestartDecision::GiveUp)) => Some(Self::Off),
            (Self::StoppingForOff, Step::Stop | Step::Reset | Step::Prepared) => None,
            (Self::StoppingForReset, Step::Parked(RestartDecision::Restart)) => Some(Self::Preparing),
            (Self::StoppingForReset, Step::Parked(RestartDecision::GiveUp)) => Some(Self::Off),
            (Self::StoppingForReset, Step::Stop | Step::Reset | Step::Prepared) => None,
            (Self::Off, Step::Stop | Step::Reset | Step::Prepared | Step::Parked(_)) => None,
        }
    }

    /// Whether virtual CPUs are being parked.
    #[must_use]
    pub const fn is_stopping(self) -> bool {
        match self {
            Self::StoppingForOff | Self::StoppingForReset => true,
            Self::Preparing | Self::Running | Self::Off => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::RestartDecision::{GiveUp, Restart};
    use super::{Phase, Step};

    const PHASES: [Phase; 5] =
        [Phase::Preparing, Phase::Running, Phase::StoppingForOff, Phase::StoppingForReset, Phase::Off];
    const STEPS: [Step; 5] = [Step::Stop, Step::Reset, Step::Prepared, Step::Parked(Restart), Step::Parked(GiveUp)];

    #[test]
    fn each_phase_goes_where_the_table_says_and_nowhere_else() {
        let table = [
            (Phase::Preparing, [None, None, Some(Phase::Running), None, None]),
            (Phase::Running, [Some(Phase::StoppingForOff), Some(Phase::StoppingForReset), None, None, None]),
            (Phase::StoppingForOff, [None, None, None, Some(Phase::Off), Some(Phase::Off)]),
            (Phase::StoppingForReset, [None, None, None, Some(Phase::Preparing), Some(Phase::Off)]),
            (Phase::Off, [None; 5]),
        ];
        assert_eq!(table.map(|(phase, _)| phase), PHASES);
        for (phase, row) in table {
            assert_eq!(STEPS.map(|step| phase.after(step)), row, "{phase:?}");
        }
    }

    #[test]
    fn a_stopping_vm_ends_in_preparing_or_off_and_in_one_step() {
        for phase in PHASES.into_iter().filter(|phase| phase.is_stopping()) {
            let ends: std::vec::Vec<_> = STEPS.into_iter().filter_map(|step| phase.after(step)).collect();
            assert!(!ends.is_empty(), "{phase:?} ends");
            assert!(ends.iter().all(|end| matches!(end, Phase::Preparing | Phase::Off)), "{phase:?}: {ends:?}");
        }
    }

    #[test]
    fn virtual_cpus_run_in_prepared_memory_alone() {
        for phase in PHASES {
            for step in STEPS.into_iter().filter(|step| phase.after(*step) == Some(Phase::Running)) {
                assert_eq!((phase, step), (Phase::Preparing, Step::Prepared));
            }
        }
    }

    #[test]
    fn a_vm_that_is_told_to_turn_off_does_not_start_again() {
        // All that can happen to it, however it goes on.
        let mut reached = std::vec![Phase::StoppingForOff];
        let mut seen = 0;
        while let Some(phase) = reached.get(seen).copied() {
            seen += 1;
            for next in STEPS.into_iter().filter_map(|step| phase.after(step)) {
                if !reached.contains(&next) {
                    reached.push(next);
                }
            }
        }
        assert_eq!(reached, [Phase::StoppingForOff, Phase::Off]);
    }

    #[test]
    fn no_step_leads_back_to_its_own_phase_so_that_a_repeated_command_does_nothing() {
        for phase in PHASES {
            for step in STEPS {
                assert_ne!(phase.after(step), Some(phase), "{phase:?}, {step:?}");
                let twice = phase.after(step).and_then(|next| next.after(step));
                assert_eq!(twice, None, "{phase:?}, {step:?}");
            }
        }
    }
}
