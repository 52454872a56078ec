//! The bare-metal test guests: each prints `PASS what holds` and `FAIL what does not: why`, and `DONE` at its end.

use super::{COUNTED_LIMIT_SECONDS, Damage, Scenario};
use crate::{restarts::Restarts, session::Outcome, system::Source, verdict};

/// How often a guest must have reset itself beside its neighbour.
const RESETS_MIN: usize = 10;

/// The exits of a guest that raises interrupts beside those: it starts twice, sets its controller up, and prints some
/// lines.
const OTHER_EXITS_MAX: u64 = 4000;

/// The most lines of Bulkhead's own in a run, whatever guests repeat: it says the first few times, and then one for
/// every doubling of their number.
const OWN_LINES_MAX: usize = 250;

/// The exits of a guest that computes for three seconds: its output, and what Bulkhead itself does on its core.
const NEIGHBOUR_EXITS_MAX: u64 = 1000;
/// Of so many wake-ups whose reason is taken back at once, one may interrupt the neighbour.
const ATTEMPTS_AN_EXIT: u64 = 20;

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario = |name: &str, system, limit_seconds, icount, verdict| Scenario {
        name: name.to_owned(),
        system,
        cpu: None,
        command_line: "",
        damage: Damage::None,
        limit_seconds,
        icount,
        verdict,
    };
    let expectations = |name, system| scenario(name, system, 60, None, every_guest_passes);
    // The neighbour counts its ticks. An instruction takes 2^shift ns: the longer, the less work a second is, and the
    // heavier weighs what Bulkhead does in it.
    let disturbance =
        |name, system, shift, verdict| scenario(name, system, COUNTED_LIMIT_SECONDS, Some(shift), verdict);
    vec![
        expectations("a small guest says hello and turns itself off", "test-hello"),
        expectations("a guest finds its interrupt controller as the GICv3 specification has it", "test-gic"),
        scenario("a guest finds PSCI as its specification has it", "test-psci", 60, None, |source, outcome| {
            every_guest_passes(source, outcome)?;
            says(outcome, "psci", "TRNG gives numbers")
        }),
        // Where instructions are counted, QEMU's device tree has no rng-seed, and the default core no FEAT_RNG.
        scenario(
            "a board without entropy gives its guests none",
            "test-psci",
            COUNTED_LIMIT_SECONDS,
            Some(4),
            |source, outcome| {
                every_guest_passes(source, outcome)?;
                says(outcome, "psci", "TRNG has no entropy")
            },
        ),
        expectations("a guest finds its UART as the PL011's manual has it", "test-uart"),
        Scenario {
            // One that has atomics.
            cpu: Some("max"),
            ..expectations(
                "pairs, write-back and unaligned accesses reach devices, and no more than that",
                "test-load-store",
            )
        },
        scenario(
            "whatever bytes guests send, each row of the console is its owner's, and no forged line is believed",
            "test-forger",
            60,
            None,
            nothing_is_forged,
        ),
        disturbance("every page outside a guest's memory refuses it", "test-prober", 0, attacker_ends_first),
        disturbance("a hostile guest is contained", "test-hostile", 4, contained),
        disturbance("a guest that makes random operations from all its CPUs is contained", "test-storm", 4, contained),
        scenario(
            "a guest drives the board's clock, with one exit for each interrupt",
            "test-clock",
            60,
            None,
            one_exit_each,
        ),
        expectations("the clock's interrupt finds each of two CPUs on one core", "test-clock-shared"),
        scenario(
            "a guest that resets itself in the middle of everything starts clean",
            "test-resets",
            60,
            None,
            contained,
        ),
        disturbance("a guest that only resets itself leaves its core's time to others", "test-turns", 4, contained),
        disturbance(
            "a timer is on time beside neighbours that compute, wake up and restart without end",
            "test-punctual",
            0,
            every_guest_passes,
        ),
        disturbance(
            "a timer is on time on a core of its own, whatever RAM is cleared elsewhere",
            "test-aside",
            0,
            every_guest_passes,
        ),
        disturbance(
            "a guest that its timer wakes every microsecond leaves a neighbour on its core its share",
            "test-starve",
            0,
            every_guest_passes,
        ),
        disturbance(
            "a device is polled within 2,000 instructions of its deadline where its guest has its cores alone",
            "test-device-time",
            0,
            every_guest_passes,
        ),
        disturbance(
            "a device is polled within 2,000 instructions of its deadline where its guest shares its core",
            "test-device-shared",
            0,
            every_guest_passes,
        ),
        disturbance(
            "a device that wants to be polled without end leaves a neighbour on its core its share",
            "test-device-storm",
            0,
            every_guest_passes,
        ),
        disturbance(
            "a CPU waits for a device that answers later, and its interrupts wait with it",
            "test-device-waits",
            0,
            every_guest_passes,
        ),
        disturbance("a guest that waits for its device holds no core", "test-device-holds", 0, every_guest_passes),
        disturbance(
            "a guest that starts a thousand times in the middle of an access leaves nothing behind",
            "test-device-dies",
            0,
            nothing_is_left,
        ),
        expectations("CPUs turned off and on in any state of their interrupts start clean and lose none", "test-power"),
        disturbance("a CPU that waits for what never comes sleeps", "test-waits", 4, every_guest_passes),
        scenario(
            "a device's interrupt that its owner never serves costs the owner's neighbours nothing",
            "test-alarm",
            60,
            None,
            neighbour_is_left_alone,
        ),
        scenario(
            "a guest that wakes its sleeping CPU, and takes the reason back, seldom interrupts a neighbour",
            "test-wakes",
            60,
            None,
            neighbour_is_seldom_interrupted,
        ),
        scenario(
            "a device's interrupt that its owner routes nowhere costs the owner's neighbours nothing",
            "test-nowhere",
            60,
            None,
            neighbour_is_left_alone,
        ),
        Scenario {
            // The model that has most of what must not leak.
            cpu: Some("max"),
            ..expectations("two guests that share a core see nothing of each other's registers", "test-registers")
        },
        Scenario {
            // One that has numbers of software contexts (FEAT_CSV2_2).
            cpu: Some("max"),
            ..expectations("guests that share a core meet breakpoints and watchpoints of their own alone", "test-debug")
        },
        disturbance("a guest without translation tables disturbs nobody", "test-lost", 4, every_guest_passes),
        disturbance("a guest that loops with interrupts masked disturbs nobody", "test-spinner", 4, every_guest_passes),
        disturbance("a guest that panics disturbs nobody", "test-panicker", 4, attacker_panics),
        disturbance("a guest that resets itself ten times disturbs nobody", "test-resetter", 2, attacker_resets),
    ]
}

fn every_guest_passes(source: &Source, outcome: &Outcome) -> Result<(), String> {
    verdict::whole_run(source, outcome)?;
    source.vms().iter().try_for_each(|vm| passes(outcome, vm.name()))
}

/// As [`every_guest_passes`], and no guest has made Bulkhead print for it.
fn contained(source: &Source, outcome: &Outcome) -> Result<(), String> {
    every_guest_passes(source, outcome)?;
    few_own_lines(outcome)
}

/// What Bulkhead says of its own accord has an end.
pub(super) fn few_own_lines(outcome: &Outcome) -> Result<(), String> {
    match outcome.own_lines().count() {
        0..=OWN_LINES_MAX => Ok(()),
        count => Err(format!("Bulkhead has printed {count} lines of its own, more than {OWN_LINES_MAX}")),
    }
}

/// The guest's tests have all passed, and it came to its end.
pub(super) fn passes(outcome: &Outcome, guest: &str) -> Result<(), String> {
    let report = outcome.reports.of(guest);
    if let Some(failure) = report.failure {
        return Err(format!("guest `{guest}` reports: {failure}"));
    }
    if !report.has_passed {
        return Err(format!("guest `{guest}` has tested nothing"));
    }
    if !report.is_done {
        return Err(format!("guest `{guest}` has not come to its end"));
    }
    Ok(())
}

/// The guest has printed `line`.
fn says(outcome: &Outcome, guest: &str, line: &str) -> Result<(), String> {
    if outcome.guest_lines(guest).any(|other| other == line) {
        return Ok(());
    }
    Err(format!("guest `{guest}` has not said `{line}`"))
}

/// What Bulkhead says of virtual machines where nothing is wrong with any.
const PLAIN_WORDS: [&str; 6] =
    ["forger is off", "another-forger is off", "victim is off", "forger: ", "another-forger: ", "victim: "];

fn nothing_is_forged(source: &Source, outcome: &Outcome) -> Result<(), String> {
    contained(source, outcome)?;
    if let Some(row) = outcome.unruly_rows.first() {
        return Err(format!("this row of the console is not as Bulkhead writes them: {row:?}"));
    }
    let mut words = outcome.own_lines().filter_map(|line| line.strip_prefix("[bulkhead] vm "));
    if let Some(word) = words.find(|word| !PLAIN_WORDS.iter().any(|plain| word.starts_with(plain))) {
        return Err(format!("Bulkhead is taken to have said `vm {word}`"));
    }
    if !Restarts::of(source, outcome).is_empty() || source.vms().iter().any(|vm| !outcome.reports.of(vm.name()).is_off)
    {
        return Err("a restart that a guest has forged is believed, or an end is missed".to_owned());
    }
    Ok(())
}

/// The guest says how often it has raised an interrupt; Bulkhead, how often its CPUs have come to EL2. An exit for the
/// end of each would double that.
fn one_exit_each(source: &Source, outcome: &Outcome) -> Result<(), String> {
    every_guest_passes(source, outcome)?;
    let raised = number_after("[owner] raised ", outcome)?;
    let exits = number_after("[bulkhead] vm owner: exits=", outcome)?;
    println!("     exits: {exits} for {raised} interrupts");
    if exits > raised + OTHER_EXITS_MAX {
        return Err(format!("{raised} interrupts cost {exits} exits"));
    }
    Ok(())
}

/// What Bulkhead keeps for a guest that is off is the same for all guests.
fn nothing_is_left(source: &Source, outcome: &Outcome) -> Result<(), String> {
    every_guest_passes(source, outcome)?;
    let left = |guest: &str| {
        let prefix = format!("[bulkhead] vm {guest}: left ");
        let mut lines = outcome.own_lines();
        lines.find_map(|line| Some(line.strip_prefix(&prefix)?.split_once(" late_answers=")?.0.to_owned()))
    };
    let (dies, calm) = (left("dies"), left("calm"));
    match &calm {
        Some(calm) if calm.split(' ').all(|word| word.ends_with("=0")) && dies.as_ref() == Some(calm) => Ok(()),
        _ => Err(format!("left of the one that starts again: {dies:?}, of the other: {calm:?}")),
    }
}

/// The number that follows `prefix` in a line.
pub(super) fn number_after(prefix: &str, outcome: &Outcome) -> Result<u64, String> {
    let rest = outcome.lines.iter().find_map(|line| line.strip_prefix(prefix));
    rest.and_then(|rest| rest.split(' ').next()?.parse().ok()).ok_or_else(|| format!("nobody has said `{prefix}`"))
}

/// A core is interrupted for an owner once in each of the owner's turns there, of which one that is off has none; and
/// for Bulkhead's own deadlines.
fn neighbour_is_left_alone(source: &Source, outcome: &Outcome) -> Result<(), String> {
    every_guest_passes(source, outcome)?;
    let rounds = number_after("[attacker] rounds=", outcome)?;
    let exits = number_after("[bulkhead] vm neighbour: exits=", outcome)?;
    println!("     exits of the neighbour: {exits} in {rounds} attempts");
    if exits > NEIGHBOUR_EXITS_MAX {
        return Err(format!("{rounds} attempts cost the neighbour {exits} exits"));
    }
    Ok(())
}

/// A core is interrupted for a virtual CPU once, and then not before that has had a turn, which it pays for.
fn neighbour_is_seldom_interrupted(source: &Source, outcome: &Outcome) -> Result<(), String> {
    every_guest_passes(source, outcome)?;
    let rounds = number_after("[attacker] rounds=", outcome)?;
    let exits = number_after("[bulkhead] vm neighbour: exits=", outcome)?;
    println!("     exits of the neighbour: {exits} in {rounds} attempts");
    if exits > NEIGHBOUR_EXITS_MAX + rounds / ATTEMPTS_AN_EXIT {
        return Err(format!("{rounds} attempts cost the neighbour {exits} exits"));
    }
    Ok(())
}

/// The neighbour has looked at its memory once more after all that the attacker did.
fn attacker_ends_first(source: &Source, outcome: &Outcome) -> Result<(), String> {
    contained(source, outcome)?;
    let position = |line: &str| outcome.lines.iter().position(|other| other == line);
    if position("[attacker] DONE") > position("[victim] DONE") {
        return Err("the victim came to its end before the attacker, and has seen only a part of the attack".to_owned());
    }
    Ok(())
}

fn attacker_panics(_: &Source, outcome: &Outcome) -> Result<(), String> {
    if !outcome.guest_lines("attacker").any(|line| line.starts_with("GUEST PANIC")) {
        return Err("the attacker has not panicked".to_owned());
    }
    passes(outcome, "victim")?;
    verdict::ended_well(outcome)
}

fn attacker_resets(source: &Source, outcome: &Outcome) -> Result<(), String> {
    contained(source, outcome)?;
    // The first start is no reset.
    let resets = outcome.guest_lines("attacker").filter(|line| *line == "reset round").count().saturating_sub(1);
    if resets < RESETS_MIN {
        return Err(format!(
            "the attacker has reset itself {resets} times in its time, which is too few to show anything"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Ending;
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    fn outcome(lines: &[&str]) -> Outcome {
        let ending = Ending::Exited(ExitStatus::from_raw(0));
        Outcome::of(lines, ending)
    }

    #[test]
    fn a_guest_that_stops_half_way_has_not_passed() {
        passes(&outcome(&["[a] PASS one thing"]), "a").expect_err("no DONE");
        passes(&outcome(&["[a] DONE"]), "a").expect_err("no test");
        passes(&outcome(&["[a] PASS one thing", "[b] DONE"]), "a").expect_err("somebody else is done");
        passes(&outcome(&["[a] PASS one thing", "[a] DONE"]), "a").expect("passed");
    }

    #[test]
    fn a_guest_that_makes_bulkhead_print_for_it_is_not_contained() {
        let lines = |own: usize, others: usize| {
            let (own, others) = (vec!["[bulkhead] warning: again"; own], vec!["[a] again"; others]);
            few_own_lines(&outcome(&[own, others].concat()))
        };
        lines(OWN_LINES_MAX, 1000).expect("as many as there may be");
        lines(OWN_LINES_MAX + 1, 0).expect_err("one too many");
    }

    #[test]
    fn one_failure_among_many_counts() {
        passes(&outcome(&["[a] PASS one", "[a] FAIL two: why", "[a] DONE"]), "a").expect_err("failed");
    }
}
