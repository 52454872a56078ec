//! Judges a run that nobody watched: what each guest reported about itself, and how the run ended.

use crate::{
    session::{Ending, Outcome},
    system::{ImageName, Source, VmSource},
};
use std::collections::BTreeMap;

/// The name under which a system asks for the root file system of `guests/linux`, whose `init` checks itself.
const LINUX_ROOT_FILE_SYSTEM: &str = "linux";

/// What a guest found out, by name: `cpus` → `2`.
pub(crate) type Findings = BTreeMap<String, String>;

/// What the Linux guest `name` reported for `check` (`selfcheck`, `hotplug` or `ticks`).
///
/// # Errors
/// A sentence, when it reported a failure or nothing at all.
pub(crate) fn findings(outcome: &Outcome, check: &str, name: &str) -> Result<Findings, String> {
    let report = outcome.reports.of(name);
    match report.check(check).map(|report| report.split_once(' ').unwrap_or((report, ""))) {
        None => Err(format!("guest `{name}` has not reported its {check}")),
        Some(("ok", found)) => Ok(found
            .split(' ')
            .filter_map(|word| word.split_once('='))
            .map(|(key, value)| (key.into(), value.into()))
            .collect()),
        Some((_, reason)) => Err(format!("the {check} of guest `{name}` failed: {reason}")),
    }
}

/// Whether `vm` is a Linux guest that checks itself when it is asked to.
pub(crate) fn checks_itself(vm: &VmSource) -> bool {
    matches!(&vm.initrd, Some(ImageName::Named(name)) if name == LINUX_ROOT_FILE_SYSTEM)
}

/// Refuses a run that did not end by itself and well.
///
/// # Errors
/// A sentence.
pub(crate) fn ended_well(outcome: &Outcome) -> Result<(), String> {
    if let Some(words) = outcome.last_words() {
        return Err(format!("Bulkhead's last words: {words}"));
    }
    match &outcome.ending {
        Ending::Exited(status) if status.success() => Ok(()),
        Ending::Exited(status) => Err(format!("QEMU failed ({status}); the last line was {}", last_line(outcome))),
        Ending::TimedOut(limit) => {
            Err(format!("it had not ended after {} s; the last line was {}", limit.as_secs(), last_line(outcome)))
        }
        Ending::Stopped => Err("Bulkhead stopped".to_owned()),
        Ending::Interrupted => Err("interrupted".to_owned()),
    }
}

/// Which virtual machines of `source` have not come to an end in a run whose time was up, and where each stands; a
/// driver domain is to have none. Then those that start again and again.
pub(crate) fn unfinished(source: &Source, outcome: &Outcome) -> Vec<String> {
    let mut sentences = Vec::new();
    if matches!(outcome.ending, Ending::TimedOut(_)) {
        for vm in source.vms() {
            let report = outcome.reports.of(vm.name());
            let is_over = report.is_off || report.is_done || vm.doorbell.is_some();
            if !is_over {
                sentences.push(format!("vm {} is not off: {}", vm.name(), report.stand()));
            }
        }
    }
    for vm in source.vms() {
        let loops = outcome.reports.of(vm.name()).loops();
        sentences.extend(loops.map(|loops| format!("vm {} {loops}", vm.name())));
    }
    sentences
}

/// The last line that says something, quoted.
fn last_line(outcome: &Outcome) -> String {
    // That it is ended is what QEMU says when a session ends it.
    let ours = |line: &&String| !line.trim().is_empty() && !line.contains("terminating on signal");
    outcome.lines.iter().rfind(ours).map_or_else(|| "nothing at all".to_owned(), |line| format!("`{line}`"))
}

/// Judges a whole run of `source`: it ended well, every Linux guest has found itself in order and as the system
/// describes it, and no bare-metal guest reported a failure.
///
/// # Errors
/// A sentence about the first thing that is wrong.
pub(crate) fn whole_run(source: &Source, outcome: &Outcome) -> Result<(), String> {
    // A guest's own reason says more than the timeout that may follow from it.
    for vm in source.vms() {
        if let Some(failure) = outcome.reports.of(vm.name()).failure {
            return Err(format!("guest `{}` reports: {failure}", vm.name()));
        }
    }
    // Where Bulkhead has stopped, or has never said a word, the guests' silence needs no other explanation.
    if outcome.last_words().is_some() || !outcome.reports.has_begun {
        ended_well(outcome)?;
    }
    let mut boot_ids: BTreeMap<String, &str> = BTreeMap::new();
    for vm in source.vms().iter().filter(|vm| checks_itself(vm)) {
        let found = match findings(outcome, "selfcheck", vm.name()) {
            Ok(found) => found,
            Err(sentence) => {
                let why = ended_well(outcome).err().map(|why| format!("; {why}")).unwrap_or_default();
                return Err(sentence + &why);
            }
        };
        agrees(vm, &found)?;
        let boot_id = found.get("boot_id").cloned().unwrap_or_default();
        if let Some(other) = boot_ids.insert(boot_id, vm.name()) {
            return Err(format!("guests `{other}` and `{}` drew the same random number: they share a seed", vm.name()));
        }
    }
    ended_well(outcome)
}

/// What each guest writes where it is told to write 64 MiB, in bytes.
pub(crate) const WRITTEN_BYTES: u64 = 64 << 20;

/// Judges a run in which each Linux guest has written `bytes` and read them again.
///
/// # Errors
/// A sentence.
pub(crate) fn written(source: &Source, outcome: &Outcome, bytes: u64) -> Result<(), String> {
    same_bytes(source, outcome, "write", bytes)
}

/// Judges a run in which each Linux guest has written, or read again, so much: what it found is all of what was
/// written, and something else than its neighbour's.
///
/// # Errors
/// A sentence.
pub(crate) fn same_bytes(source: &Source, outcome: &Outcome, check: &str, bytes: u64) -> Result<(), String> {
    let bytes = bytes.to_string();
    let mut checksums = Vec::new();
    for vm in source.vms().iter().filter(|vm| checks_itself(vm)) {
        let found = findings(outcome, check, vm.name())?;
        let found = |key: &str| found.get(key).cloned().unwrap_or_else(|| "nothing".to_owned());
        if found("bytes") != bytes {
            return Err(format!("guest `{}` has {} bytes instead of {bytes}", vm.name(), found("bytes")));
        }
        if checksums.contains(&found("sha256")) {
            return Err(format!("guest `{}` has the same random bytes as its neighbour", vm.name()));
        }
        checksums.push(found("sha256"));
    }
    ended_well(outcome)
}

/// Compares what a Linux guest found with what the system gives it.
fn agrees(vm: &VmSource, found: &Findings) -> Result<(), String> {
    for (key, expected) in [("cpus", vm.vcpus().to_string()), ("memory_bytes", vm.memory_bytes().to_string())] {
        let seen = found.get(key).map_or("nothing", String::as_str);
        if seen != expected {
            return Err(format!("guest `{}` sees {key}={seen}, but the system gives it {expected}", vm.name()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus, time::Duration};

    fn outcome(lines: &[&str]) -> Outcome {
        let ending = Ending::Exited(ExitStatus::from_raw(0));
        Outcome::of(lines, ending)
    }

    #[test]
    fn findings_are_read_by_name() {
        let found = findings(&outcome(&["[a] selfcheck a: ok cpus=2 ticks=250,251"]), "selfcheck", "a").expect("ok");
        assert_eq!(found["cpus"], "2");
        assert_eq!(found["ticks"], "250,251");
    }

    #[test]
    fn a_guest_cannot_report_for_its_neighbour() {
        findings(&outcome(&["[b] selfcheck a: ok cpus=2"]), "selfcheck", "a").expect_err("said by b");
    }

    #[test]
    fn a_failure_is_told_with_its_reason() {
        let sentence =
            findings(&outcome(&["[a] selfcheck a: FAILED 1 of 2 CPUs"]), "selfcheck", "a").expect_err("failed");
        assert_eq!(sentence, "the selfcheck of guest `a` failed: 1 of 2 CPUs");
    }

    #[test]
    fn silence_is_not_success() {
        findings(&outcome(&[]), "selfcheck", "a").expect_err("nothing was said");
    }

    #[test]
    fn a_run_that_ends_with_an_epitaph_failed_whatever_qemu_says() {
        ended_well(&outcome(&["[bulkhead] BULKHEAD PANIC: out of pages"])).expect_err("a panic");
    }

    #[test]
    fn a_run_whose_time_is_up_names_who_is_stuck_and_nobody_else() {
        let workspace = crate::workspace::Workspace::find().expect("a workspace");
        let source = crate::systems::find(&workspace, "two-linux").expect("a system");
        let lines = [
            "[bulkhead] Bulkhead 0.1.0 on 5 cores",
            "[alpha] reboot: Power down",
            "[bulkhead] vm alpha is off",
            "[driver-domain] driver-domain: serving 8 devices",
            "[bulkhead] vm beta waits for its driver domain, vm driver-domain",
        ];
        let timed_out = Outcome { ending: Ending::TimedOut(Duration::from_secs(60)), ..outcome(&lines) };
        assert_eq!(
            unfinished(&source, &timed_out),
            ["vm beta is not off: Bulkhead's last word of it was `vm beta waits for its driver domain, vm \
              driver-domain`; it has printed nothing"]
        );
        assert!(unfinished(&source, &outcome(&lines)).is_empty(), "nobody is stuck in a run that ended by itself");
    }

    #[test]
    fn a_timeout_quotes_the_last_line() {
        let outcome = Outcome {
            ending: Ending::TimedOut(Duration::from_secs(60)),
            ..outcome(&["[a] booting", "", "qemu: terminating on signal 15"])
        };
        let sentence = ended_well(&outcome).expect_err("timed out");
        assert_eq!(sentence, "it had not ended after 60 s; the last line was `[a] booting`");
    }
}
