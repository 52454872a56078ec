//! Para-virtual devices, from their clients' side: kind ones and hostile ones, disks that fail, and what a request
//! costs.

use super::{COUNTED_LIMIT_SECONDS, Damage, Scenario, guests};
use crate::{
    counters,
    session::Outcome,
    system::{Source, VmSource},
    verdict,
};
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The machine that serves the clients, and tests nothing itself; and one that does so badly.
const DRIVER_DOMAIN: &str = "driver-domain";
const HOSTILE_DRIVER_DOMAIN: &str = "hostile";
/// The requests of a scenario that counts exits.
const COUNTED_REQUESTS: u64 = 4000;
/// The exits that the two may have beside: they boot, set their interrupt controllers up, and print some lines.
const OTHER_EXITS_MAX: u64 = 2000;
/// The most exits of client and driver domain together for a request of 4 KiB, made one by one, and sixteen at a time.
const EXITS_MAX: u64 = 6;
const EXITS_AT_DEPTH_MAX: u64 = 3;

/// The most of a core, in percent, that one of three gets where all want it.
const CONTENDED_SHARE_MAX: u64 = 36;

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario = |name: &str, system| Scenario {
        name: name.to_owned(),
        system,
        cpu: None,
        command_line: "",
        damage: Damage::None,
        limit_seconds: 120,
        icount: None,
        verdict: every_client_passes,
    };
    let damaged = |name: &str, command_line, disks, verdict| Scenario {
        command_line,
        damage: Damage::Disks(disks),
        verdict,
        ..scenario(name, "test-io-disks")
    };
    vec![
        scenario("a client without Linux uses every kind of para-virtual device", "test-io"),
        Scenario {
            command_line: "driver-domain.calls=page",
            verdict: calls_by_page,
            ..scenario("a driver domain makes its calls by stores to a page", "test-io")
        },
        scenario("two clients with two and four CPUs share a disk and a switch", "test-io-clients"),
        scenario("clients that reset themselves in the middle of large reads start clean", "test-io-resets"),
        Scenario {
            // Ticks are counted, so a busy host must not look like a busy neighbour.
            icount: Some(4),
            limit_seconds: COUNTED_LIMIT_SECONDS,
            // One that has atomic instructions.
            cpu: Some("neoverse-n1"),
            verdict: attacker_ends_first,
            ..scenario("a hostile client of para-virtual devices is contained", "test-virtio-hostile")
        },
        Scenario {
            icount: Some(4),
            limit_seconds: COUNTED_LIMIT_SECONDS,
            verdict: few_ticks_are_lost,
            ..scenario(
                "a client that notifies without end takes next to nothing from its neighbour",
                "test-virtio-storm",
            )
        },
        Scenario {
            icount: Some(4),
            limit_seconds: COUNTED_LIMIT_SECONDS,
            verdict: client_ends_first,
            ..scenario(
                "a hostile driver domain harms nobody but its client, and that one with wrong data alone",
                "test-hostile-driver",
            )
        },
        Scenario {
            icount: Some(0),
            limit_seconds: COUNTED_LIMIT_SECONDS,
            verdict: left_alone,
            ..scenario("a loaded driver domain is held to time in which it had its shared core", "test-io-shared")
        },
        Scenario {
            icount: Some(0),
            limit_seconds: COUNTED_LIMIT_SECONDS,
            verdict: probed,
            ..scenario("a driver domain reaches no page of its client's", "test-io-probe")
        },
        Scenario {
            damage: Damage::Board(&["-global", "virtio-blk-device.queue-size=64"]),
            verdict: no_grants,
            ..scenario("a disk that no grant is for is driven by virtio-drivers' own driver", "test-io-disks")
        },
        Scenario {
            // An instruction is a nanosecond.
            icount: Some(0),
            limit_seconds: COUNTED_LIMIT_SECONDS,
            ..scenario("a timer is on time beside large requests whose data EL2 copies", "test-punctual-io")
        },
        scenario("a disk whose image is given has what was in it", "test-io-image"),
        damaged("a disk that fails gives its clients errors", "mode=errors bad=4096", failing, every_client_passes),
        damaged("a disk that is read-only is read-only for its clients", "", read_only, all_read_only),
        damaged("a disk that is too small is refused", "mode=nothing", small, nothing_served),
        Scenario {
            command_line: "driver-domain.kill=100",
            verdict: lost_for_good,
            ..scenario("a driver domain that has restarted too often leaves its client errors", "test-io-limit")
        },
        Scenario {
            verdict: lost_for_good,
            ..scenario("a client of a driver domain that is never ready starts without it", "test-io-never")
        },
        damaged("a disk that is absent is refused", "mode=nothing", absent, nothing_served),
        Scenario {
            command_line: "mode=reads disk=1 depth=1 requests=4000",
            verdict: few_exits,
            ..scenario("a request for 4 KiB costs six exits at most", "test-io")
        },
        Scenario {
            command_line: "mode=reads disk=1 depth=16 requests=4000",
            verdict: few_exits_at_depth,
            ..scenario("sixteen requests at a time cost three exits each at most", "test-io")
        },
    ]
}

pub(super) fn every_client_passes(source: &Source, outcome: &Outcome) -> Result<(), String> {
    if let Some(row) = outcome.unruly_rows.first() {
        return Err(format!("this row of a console is not as it should be: {row:?}"));
    }
    verdict::whole_run(source, outcome)?;
    tested(source).try_for_each(|vm| guests::passes(outcome, vm.name()))
}

/// The machines that come to an end.
fn tested(source: &Source) -> impl Iterator<Item = &VmSource> {
    source.vms().iter().filter(|vm| ![DRIVER_DOMAIN, HOSTILE_DRIVER_DOMAIN].contains(&vm.name()))
}

fn attacker_ends_first(source: &Source, outcome: &Outcome) -> Result<(), String> {
    ends_first(source, outcome, "attacker")?;
    if counters::counted(outcome, "attacker", "grants") == 0 {
        return Err("nothing was granted to the attacker's disk".to_owned());
    }
    Ok(())
}

/// The victim counts its ticks, and judges their number; it is shown here.
fn few_ticks_are_lost(source: &Source, outcome: &Outcome) -> Result<(), String> {
    every_client_passes(source, outcome)?;
    for (vm, what) in [("attacker", "notifications="), ("victim", "ticks ")] {
        let line = outcome.guest_lines(vm).find(|line| line.starts_with(what));
        println!("     {vm}: {}", line.ok_or_else(|| format!("guest `{vm}` has not said `{what}`"))?);
    }
    let end = |vm: &str| outcome.lines.iter().position(|line| *line == format!("[{vm}] DONE"));
    if end("attacker") < end("victim") {
        return Err("the storm was over before the victim had counted its ticks".to_owned());
    }
    Ok(())
}

fn client_ends_first(source: &Source, outcome: &Outcome) -> Result<(), String> {
    ends_first(source, outcome, "client")?;
    let devices = counters::collect(&outcome.lines);
    let stale: u64 =
        devices.iter().filter(|((vm, _), _)| vm == "client").filter_map(|(_, device)| device.shared.get("stale")).sum();
    if stale == 0 {
        return Err("Bulkhead has counted no stale completion".to_owned());
    }
    if counters::counted(outcome, "client", "replays") == 0 {
        return Err("no request of the client has survived a restart".to_owned());
    }
    restarts_as_stated(&outcome.lines)
}

/// The client says after each restart what must have led to it, and Bulkhead has said just that, and nothing else.
fn restarts_as_stated(lines: &[String]) -> Result<(), String> {
    let warning = format!("[bulkhead] warning: vm {HOSTILE_DRIVER_DOMAIN} ");
    let (mut reasons, mut count) = (Vec::new(), 0);
    for line in lines {
        if let Some(reason) = line.strip_prefix(&warning) {
            reasons.push(reason);
        } else if let Some(stated) = line.strip_prefix("[client] restarted: ") {
            if reasons != [stated] {
                return Err(format!("a restart for which the reason is `{stated}` was made because it {reasons:?}"));
            }
            reasons.clear();
            count += 1;
        }
    }
    if count == 0 || !reasons.is_empty() {
        return Err(format!("the client knows of {count} restarts, and Bulkhead of these beside: {reasons:?}"));
    }
    Ok(())
}

/// The others have looked once more after all that `first` did, or saw done; and nobody made Bulkhead print for it.
fn ends_first(source: &Source, outcome: &Outcome, first: &str) -> Result<(), String> {
    every_client_passes(source, outcome)?;
    guests::few_own_lines(outcome)?;
    let position = |vm: &str| outcome.lines.iter().position(|line| *line == format!("[{vm}] DONE"));
    for vm in tested(source) {
        if position(first) > position(vm.name()) {
            return Err(format!("guest `{}` came to its end before `{first}`, and has seen only a part", vm.name()));
        }
    }
    Ok(())
}

/// Each of the client's disks has a serial number of its own, which says what part of which disk it is.
fn serials_are_as_stated(outcome: &Outcome) -> Result<(), String> {
    let said = outcome.guest_lines("client").filter_map(|line| line.strip_prefix("its serial number is "));
    let serials: Vec<_> = said.collect();
    if serials == ["main.400000+400000", "main.800000+800000"] {
        return Ok(());
    }
    Err(format!("the client's disks have the serial numbers {serials:?}"))
}

/// The driver domain has said that the disk takes no grants, and Bulkhead has made none.
fn no_grants(source: &Source, outcome: &Outcome) -> Result<(), String> {
    every_client_passes(source, outcome)?;
    serials_are_as_stated(outcome)?;
    if !outcome.guest_lines(DRIVER_DOMAIN).any(|line| line.ends_with("disk 0, 16 MiB, without grants")) {
        return Err("the driver domain has not said that its disk is driven without grants".to_owned());
    }
    match (counters::counted(outcome, "client", "grants"), counters::counted(outcome, "client", "copies")) {
        (0, 1..) => Ok(()),
        (grants, copies) => Err(format!("{grants} requests were granted, and {copies} copied")),
    }
}

/// Bulkhead has found nothing wrong with the driver domain, which has wanted its part of the core as the others have.
fn left_alone(source: &Source, outcome: &Outcome) -> Result<(), String> {
    every_client_passes(source, outcome)?;
    let share = guests::number_after("[computes] share=", outcome)?;
    if share > CONTENDED_SHARE_MAX {
        return Err(format!("the driver domain has left {share} % of its core to one neighbour, so it was not loaded"));
    }
    let warning = format!("[bulkhead] warning: vm {DRIVER_DOMAIN} ");
    match outcome.lines.iter().find_map(|line| line.strip_prefix(&warning)) {
        None => Ok(()),
        Some(reason) => Err(format!("the driver domain was started anew because it {reason}")),
    }
}

fn calls_by_page(source: &Source, outcome: &Outcome) -> Result<(), String> {
    every_client_passes(source, outcome)?;
    let said = "driver-domain: calls are made by stores to the page at 0x9020000";
    if outcome.guest_lines(DRIVER_DOMAIN).any(|line| line == said) {
        Ok(())
    } else {
        Err("the driver domain has not said that it makes its calls by a page".to_owned())
    }
}

fn probed(source: &Source, outcome: &Outcome) -> Result<(), String> {
    every_client_passes(source, outcome)?;
    guests::passes(outcome, DRIVER_DOMAIN)
}

/// Bulkhead has given the driver domain up, and the client has gone on and come to its end.
fn lost_for_good(_: &Source, outcome: &Outcome) -> Result<(), String> {
    guests::passes(outcome, "client")?;
    if !outcome.lines.iter().any(|line| line.starts_with("[bulkhead] error: vm driver-domain has restarted")) {
        return Err("Bulkhead has not said that it gives the driver domain up".to_owned());
    }
    verdict::ended_well(outcome)
}

/// Every disk has offered nothing but reading.
fn all_read_only(source: &Source, outcome: &Outcome) -> Result<(), String> {
    every_client_passes(source, outcome)?;
    let count = outcome.guest_lines("client").filter(|line| line.ends_with("sectors, read-only")).count();
    if count == 2 { Ok(()) } else { Err(format!("{count} of 2 disks are read-only")) }
}

/// The driver domain has said that it does not serve the disks, and the client has not waited for them.
fn nothing_served(source: &Source, outcome: &Outcome) -> Result<(), String> {
    every_client_passes(source, outcome)?;
    let count = outcome.guest_lines(DRIVER_DOMAIN).filter(|line| line.ends_with("; not served")).count();
    if count == 2 { Ok(()) } else { Err(format!("the driver domain has refused {count} of 2 disks")) }
}

fn few_exits(source: &Source, outcome: &Outcome) -> Result<(), String> {
    every_client_passes(source, outcome)?;
    exits_at_most(outcome, EXITS_MAX)
}

fn few_exits_at_depth(source: &Source, outcome: &Outcome) -> Result<(), String> {
    every_client_passes(source, outcome)?;
    exits_at_most(outcome, EXITS_AT_DEPTH_MAX)
}

/// What Bulkhead counted, from start to end, for each of the requests.
fn exits_at_most(outcome: &Outcome, most: u64) -> Result<(), String> {
    let exits = |vm: &str| {
        let prefix = format!("[bulkhead] vm {vm}: exits=");
        let line = outcome.lines.iter().find_map(|line| line.strip_prefix(&prefix));
        line.and_then(|rest| rest.split(' ').next()?.parse::<u64>().ok())
            .ok_or_else(|| format!("Bulkhead has not said how many exits vm {vm} had"))
    };
    let (client, driver) = (exits("client")?, exits(DRIVER_DOMAIN)?);
    let all = client + driver;
    let share =
        |exits: u64| format!("{}.{:02}", exits / COUNTED_REQUESTS, exits % COUNTED_REQUESTS * 100 / COUNTED_REQUESTS);
    println!("     exits a request: {} of the client and {} of the driver domain", share(client), share(driver));
    if all <= most * COUNTED_REQUESTS + OTHER_EXITS_MAX {
        return Ok(());
    }
    Err(format!("{COUNTED_REQUESTS} requests cost {client} exits of the client and {driver} of the driver domain"))
}

/// QEMU fails what touches sector 4096 of each of the client's parts, which begin at 4 MiB and at 8 MiB.
fn failing(disk: &Path, directory: &Path) -> anyhow::Result<Option<PathBuf>> {
    let rule = |sector: u64| {
        format!("[inject-error]\nevent = \"none\"\nerrno = \"5\"\nsector = \"{sector}\"\nonce = \"off\"\n\n")
    };
    let rules = directory.join("rules.conf");
    fs::write(&rules, rule((4 << 11) + 4096) + &rule((8 << 11) + 4096))?;
    Ok(Some(format!("blkdebug:{}:{}", rules.display(), disk.display()).into()))
}

fn read_only(disk: &Path, directory: &Path) -> anyhow::Result<Option<PathBuf>> {
    let copy = copy(disk, directory, "read-only.img")?;
    fs::set_permissions(&copy, Permissions::from_mode(0o444))?;
    Ok(Some(copy))
}

/// Neither of the client's parts is there as a whole.
fn small(disk: &Path, directory: &Path) -> anyhow::Result<Option<PathBuf>> {
    let copy = copy(disk, directory, "small.img")?;
    fs::File::options().write(true).open(&copy)?.set_len(6 << 20)?;
    Ok(Some(copy))
}

fn absent(_: &Path, _: &Path) -> anyhow::Result<Option<PathBuf>> {
    Ok(None)
}

fn copy(disk: &Path, directory: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let copy = directory.join(name);
    // One that may not be written must not stand in the way of the next.
    let _ = fs::remove_file(&copy);
    fs::copy(disk, &copy)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(lines: &[&str]) -> Result<(), String> {
        restarts_as_stated(&lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_restart_has_the_reason_that_was_stated() {
        let warning = "[bulkhead] warning: vm hostile shows no sign of life";
        judge(&[warning, "[client] restarted: shows no sign of life"]).expect("as stated");
        judge(&[warning, "[client] restarted: asks to start again"]).expect_err("another reason");
        judge(&["[client] restarted: shows no sign of life"]).expect_err("Bulkhead has not said so");
        judge(&[warning]).expect_err("nobody has expected it");
        judge(&[]).expect_err("no restart at all");
    }
}
