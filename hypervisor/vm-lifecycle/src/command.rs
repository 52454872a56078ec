//! What may be asked of a VM, by whom, and what is done about it.

use super::Step;
use core::fmt;

/// What is asked of a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmCommand {
    /// Be off, for good.
    Stop,
    /// Start again, from its images.
    Reset,
    /// Something is wrong with it: stop, and start again if others depend on it.
    Fail(Failure),
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandSource {
    /// The VM of this number in the manifest, by a call of its own or with its last virtual CPU.
    Vm(usize),
    /// The watch over a backend VM (`watch`).
    Watch,
    /// Bulkhead, on what it meets while it serves the VM.
    Bulkhead,
}

/// Why a VM fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It took too long to start.
    NeverReady,
    /// It has not run for a heartbeat period, although its doorbell was rung.
    Silent,
    /// It has kept a request for too long.
    Stuck,
    /// It has turned itself, or its last virtual CPU, off.
    TurnedOff,
    /// It has asked to start again.
    Reset,
    /// It has written nonsense into the rings of a channel.
    Damaged,
    /// It has caused an SError.
    SystemError,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NeverReady => "has not become ready in time",
            Self::Silent => "shows no sign of life",
            Self::Stuck => "keeps a request for too long",
            Self::TurnedOff => "has turned itself off",
            Self::Reset => "asks to start again",
            Self::Damaged => "has damaged the rings of a channel",
            Self::SystemError => "has caused an SError",
        })
    }
}

/// What counts of the VM that a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its number in the manifest.
    pub number: usize,
    /// It serves other VMs.
    pub is_backend: bool,
    /// One of those is not off for good.
    pub is_needed: bool,
}

/// What a command comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The step to take.
    pub step: Step,
    /// What its watch notes, and the log says: others wait for the VM meanwhile.
    pub failure: Option<Failure>,
}

/// The source has no right to give the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused;

impl CommandSource {
    /// The table of rights: whether it may give `command` to the VM `number`.
    const fn may_give(self, command: VmCommand, number: usize) -> bool {
        use Failure::{Damaged, NeverReady, Reset, Silent, Stuck, SystemError, TurnedOff};
        match (self, command) {
            (Self::Vm(own), VmCommand::Stop | VmCommand::Reset) => own == number,
            (Self::Watch, VmCommand::Fail(NeverReady | Silent | Stuck)) => true,
            (Self::Bulkhead, VmCommand::Fail(Damaged | SystemError)) => true,
            (Self::Vm(_), VmCommand::Fail(_))
            | (Self::Watch, VmCommand::Fail(TurnedOff | Reset | Damaged | SystemError))
            | (Self::Bulkhead, VmCommand::Fail(NeverReady | Silent | Stuck | TurnedOff | Reset))
            | (Self::Watch | Self::Bulkhead, VmCommand::Stop | VmCommand::Reset) => false,
        }
    }
}

/// What `command`, given by `source`, comes to for a VM of this `standing`.
///
/// A backend VM that others need is not its own master: if it stops, for whatever reason, that is a failure, and it
/// starts again. So does a backend VM that fails. Any other VM is off then.
///
/// # Errors
/// The source has no right to the command.
pub const fn decide(command: VmCommand, source: CommandSource, standing: Standing) -> Result<Decision, Refused> {
    if !source.may_give(command, standing.number) {
        return Err(Refused);
    }
    let (step, failure) = match (command, standing.is_needed, standing.is_backend) {
        (VmCommand::Stop, true, _) => (Step::Reset, Some(Failure::TurnedOff)),
        (VmCommand::Stop, false, _) => (Step::Stop, None),
        (VmCommand::Reset, true, _) => (Step::Reset, Some(Failure::Reset)),
        (VmCommand::Reset, false, _) => (Step::Reset, None),
        (VmCommand::Fail(failure), _, true) => (Step::Reset, Some(failure)),
        (VmCommand::Fail(_), _, false) => (Step::Stop, None),
    };
    Ok(Decision { step, failure })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Phase;

    const FAILURES: [Failure; 7] = [
        Failure::NeverReady,
        Failure::Silent,
        Failure::Stuck,
        Failure::TurnedOff,
        Failure::Reset,
        Failure::Damaged,
        Failure::SystemError,
    ];

    /// A VM, number 3, that serves nobody; one whose clients are off; one with clients.
    const PLAIN: Standing = Standing { number: 3, is_backend: false, is_needed: false };
    const IDLE: Standing = Standing { is_backend: true, ..PLAIN };
    const NEEDED: Standing = Standing { is_needed: true, ..IDLE };
    const SOURCES: [CommandSource; 4] =
        [CommandSource::Vm(3), CommandSource::Vm(2), CommandSource::Watch, CommandSource::Bulkhead];

    fn commands() -> impl Iterator<Item = VmCommand> {
        [VmCommand::Stop, VmCommand::Reset].into_iter().chain(FAILURES.map(VmCommand::Fail))
    }

    #[test]
    fn each_source_may_give_what_the_table_of_rights_says_and_nothing_else() {
        for command in commands() {
            let [own, other, watch, bulkhead] = SOURCES.map(|source| decide(command, source, NEEDED).is_ok());
            let expected = match command {
                VmCommand::Stop | VmCommand::Reset => [true, false, false, false],
                VmCommand::Fail(Failure::NeverReady | Failure::Silent | Failure::Stuck) => [false, false, true, false],
                VmCommand::Fail(Failure::Damaged | Failure::SystemError) => [false, false, false, true],
                VmCommand::Fail(Failure::TurnedOff | Failure::Reset) => [false; 4],
            };
            assert_eq!([own, other, watch, bulkhead], expected, "{command:?}");
        }
    }

    #[test]
    fn no_vm_stops_another_one_whatever_that_one_is() {
        for standing in [PLAIN, IDLE, NEEDED] {
            for command in commands() {
                assert_eq!(decide(command, CommandSource::Vm(2), standing), Err(Refused), "{command:?}, {standing:?}");
            }
        }
    }

    #[test]
    fn a_guest_turns_itself_off_and_resets_itself() {
        let own = CommandSource::Vm(3);
        for standing in [PLAIN, IDLE] {
            let off = Decision { step: Step::Stop, failure: None };
            assert_eq!(decide(VmCommand::Stop, own, standing), Ok(off));
            let again = Decision { step: Step::Reset, failure: None };
            assert_eq!(decide(VmCommand::Reset, own, standing), Ok(again));
        }
    }

    #[test]
    fn a_vm_that_others_need_never_steps_towards_off() {
        for command in commands() {
            for source in SOURCES {
                if let Ok(decision) = decide(command, source, NEEDED) {
                    assert_eq!(decision.step, Step::Reset, "{command:?}");
                    assert!(decision.failure.is_some(), "{command:?}: its clients are told, and the watch counts");
                }
            }
        }
        let turned_off = decide(VmCommand::Stop, CommandSource::Vm(3), NEEDED);
        assert_eq!(turned_off, Ok(Decision { step: Step::Reset, failure: Some(Failure::TurnedOff) }));
        let reset = decide(VmCommand::Reset, CommandSource::Vm(3), NEEDED);
        assert_eq!(reset, Ok(Decision { step: Step::Reset, failure: Some(Failure::Reset) }));
    }

    #[test]
    fn a_vm_that_fails_is_off_unless_it_serves_others() {
        let failure = VmCommand::Fail(Failure::SystemError);
        let decide = |standing| decide(failure, CommandSource::Bulkhead, standing);
        assert_eq!(decide(PLAIN), Ok(Decision { step: Step::Stop, failure: None }));
        let again = Decision { step: Step::Reset, failure: Some(Failure::SystemError) };
        assert_eq!((decide(IDLE), decide(NEEDED)), (Ok(again), Ok(again)));
    }

    #[test]
    fn whatever_is_decided_does_something_to_a_vm_that_runs_and_nothing_to_any_other() {
        for standing in [PLAIN, IDLE, NEEDED] {
            for (command, source) in commands().flat_map(|command| SOURCES.map(|source| (command, source))) {
                let Ok(Decision { step, .. }) = decide(command, source, standing) else { continue };
                assert!(Phase::Running.after(step).is_some_and(Phase::is_stopping), "{command:?}");
                for phase in [Phase::Preparing, Phase::StoppingForOff, Phase::StoppingForReset, Phase::Off] {
                    assert_eq!(phase.after(step), None, "{command:?}, {phase:?}");
                }
            }
        }
    }
}
