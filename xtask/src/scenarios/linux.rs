//! Two Debian Linux guests, side by side.

use super::{Damage, Scenario};
use crate::{
    counters,
    restarts::{ENDS, PHASES, Restarts},
    session::Outcome,
    setup,
    system::Source,
    verdict,
    workspace::Workspace,
};
use std::{path::Path, process::Command};

/// The models of cores that Bulkhead promises to run on: without and with the virtualisation host extensions, with 8
/// and 16 bits of VMID, and everything that QEMU emulates.
const CPUS: [&str; 6] = ["cortex-a53", "cortex-a57", "cortex-a72", "cortex-a76", "neoverse-n1", "max"];

pub(super) fn scenarios() -> Vec<Scenario> {
    let on_each_cpu = CPUS.map(|cpu| Scenario {
        name: format!("two Linux guests check themselves on {cpu}"),
        system: "two-linux",
        cpu: Some(cpu),
        command_line: "bulkhead.selfcheck",
        damage: Damage::None,
        limit_seconds: 150,
        icount: None,
        verdict: started_by_every_core,
    });
    let hotplug = Scenario {
        name: "Linux takes a CPU away and back fifty times".to_owned(),
        system: "two-linux",
        cpu: None,
        command_line: "bulkhead.hotplug=50",
        damage: Damage::None,
        limit_seconds: 120,
        icount: None,
        verdict: fifty_rounds,
    };
    let on_one_and_four = Scenario {
        name:
            "Linux guests with one CPU and with four, three disks, a virtio console alone and a stated address check \
               themselves"
                .to_owned(),
        system: "test-linux-cpus",
        cpu: None,
        command_line: "bulkhead.selfcheck",
        damage: Damage::None,
        limit_seconds: 150,
        icount: None,
        verdict: as_stated,
    };
    let assigned = Scenario {
        name: "Linux drives a page of real virtio slots and the board's clock beside a driver domain's client"
            .to_owned(),
        system: "test-assigned",
        cpu: None,
        command_line: "bulkhead.write=16 bulkhead.selfcheck",
        damage: Damage::None,
        limit_seconds: 300,
        icount: None,
        verdict: own_hardware,
    };
    let u_boot = Scenario {
        name: "U-Boot reads Linux from a virtio disk and starts it".to_owned(),
        system: "test-u-boot",
        cpu: None,
        command_line: "bulkhead.selfcheck",
        damage: Damage::None,
        limit_seconds: 150,
        icount: None,
        verdict: booted_by_u_boot,
    };
    let disks = |name: &str, command_line, verdict| Scenario {
        name: name.to_owned(),
        system: "two-linux",
        cpu: None,
        command_line,
        damage: Damage::None,
        limit_seconds: 300,
        icount: None,
        verdict,
    };
    // In this order: disks are kept from one start to the next.
    let written = disks(
        "two Linux guests write 64 MiB each at the same time while their driver domain restarts again and again",
        "bulkhead.write=64 driver-domain.kill=300 driver-domain.kills=26",
        written_despite_restarts,
    );
    let crash = disks(
        "a Linux guest that resets itself in the middle of writing finds its file system whole, and its neighbour notices nothing",
        "bulkhead.write=16 bulkhead.crash=alpha",
        whole_after_crash,
    );
    let reread = disks("64 MiB that two Linux guests wrote are there after a restart", "bulkhead.reread", reread);
    let sockets = |name: &str, command_line, verdict| Scenario {
        name: name.to_owned(),
        system: "test-sockets",
        cpu: None,
        command_line,
        damage: Damage::None,
        limit_seconds: 150,
        icount: None,
        verdict,
    };
    let streams = sockets(
        "two Linux guests pass 64 MiB each way over virtio sockets, and a pair that may not speak is refused",
        "bulkhead.sockets=64",
        passed_streams,
    );
    let reset_streams = sockets(
        "streams of Linux guests are reset when their driver domain restarts, and those who listen go on",
        "bulkhead.sockets=1 bulkhead.sockets-resets=1 driver-domain.kill=4000 driver-domain.kills=4",
        reset_streams,
    );
    let restarted_peer = sockets(
        "a stream of a Linux guest ends when the guest at its other end resets itself, and the next one passes",
        "bulkhead.sockets=1 bulkhead.sockets-restarts=alpha",
        restarted_peer,
    );
    on_each_cpu
        .into_iter()
        .chain([
            on_one_and_four,
            hotplug,
            assigned,
            u_boot,
            written,
            reread,
            crash,
            streams,
            reset_streams,
            restarted_peer,
        ])
        .collect()
}

/// U-Boot has found flash that is erased and the disk; Linux, which came from there, has found itself in order.
fn booted_by_u_boot(source: &Source, outcome: &Outcome) -> Result<(), String> {
    verdict::whole_run(source, outcome)?;
    for said in ["U-Boot 20", "bad CRC, using default environment", "Bulk VirtIO Block Device", "Starting kernel ..."] {
        if !outcome.guest_lines("alpha").any(|line| line.contains(said)) {
            return Err(format!("guest `alpha` has never said {said:?}"));
        }
    }
    verdict::findings(outcome, "selfcheck", "alpha").map(|_| ())
}

/// Each has found what is its own alone.
fn as_stated(source: &Source, outcome: &Outcome) -> Result<(), String> {
    verdict::whole_run(source, outcome)?;
    finds(outcome, "alpha", &[("disks", "3"), ("root", "ext4"), ("console", "hvc0"), ("uplink", "10.0.2.2")])?;
    finds(outcome, "beta", &[("disks", "1"), ("root", "ext4"), ("uplink", "10.0.2.2")])
}

/// Refuses a guest whose self-check has found anything else than `expected`.
fn finds(outcome: &Outcome, name: &str, expected: &[(&str, &str)]) -> Result<(), String> {
    let found = verdict::findings(outcome, "selfcheck", name)?;
    let found = |key: &str| found.get(key).map_or("nothing", String::as_str);
    match expected.iter().find(|(key, value)| found(key) != *value) {
        None => Ok(()),
        Some((key, value)) => Err(format!("guest `{name}` has found {key}={} instead of {value}", found(key))),
    }
}

/// What each guest writes to its disk, its own or a driver domain's.
const OWN_BYTES: u64 = 16 << 20;

/// The clock's alarm has rung on each CPU of its owner's, and what was written to either disk is there.
fn own_hardware(source: &Source, outcome: &Outcome) -> Result<(), String> {
    verdict::whole_run(source, outcome)?;
    finds(outcome, "alpha", &[("alarms", "2"), ("root", "ext4"), ("net", "eth0"), ("uplink", "10.0.2.2")])?;
    // The one asks for its address through the driver domain's switch, and has that one alone.
    if !verdict::findings(outcome, "selfcheck", "beta")?.contains_key("dhcp") {
        return Err("guest `beta` has not asked for an address".to_owned());
    }
    verdict::written(source, outcome, OWN_BYTES)
}

/// How often the driver domain is restarted at least while its clients write.
const RESTARTS_MIN: usize = 20;

fn written_despite_restarts(source: &Source, outcome: &Outcome) -> Result<(), String> {
    let restarts = Restarts::of(source, outcome);
    println!("     {restarts}");
    if restarts.pauses.len() < RESTARTS_MIN {
        let count = restarts.pauses.len();
        return Err(format!(
            "the driver domain has restarted {count} times, which is not often enough to show anything"
        ));
    }
    if let Some(phase) = PHASES.iter().find(|phase| !restarts.phases.contains_key(**phase)) {
        return Err(format!("the driver domain has never ended itself while a request was {phase}"));
    }
    if let Some(end) = ENDS.iter().find(|end| !restarts.ends.contains_key(**end)) {
        return Err(format!("the driver domain has never ended by {end}"));
    }
    // Small writes are copied and large ones are granted; either kind has to survive.
    for (name, what) in [("grants", "granted to a device"), ("replays", "posted again after a restart")] {
        for vm in source.vms().iter().filter(|vm| verdict::checks_itself(vm)) {
            if counters::counted(outcome, vm.name(), name) == 0 {
                return Err(format!("no request of vm {} was {what}", vm.name()));
            }
        }
    }
    verdict::written(source, outcome, verdict::WRITTEN_BYTES)
}

/// What each guest sends over a socket, in bytes.
const STREAM_BYTES: u64 = 64 << 20;

/// What one has sent has come to the other as it was, both ways, and nobody has reached whom it may not.
fn passed_streams(source: &Source, outcome: &Outcome) -> Result<(), String> {
    streams_of(source, outcome, STREAM_BYTES, &[])?;
    match Restarts::of(source, outcome).pauses.len() {
        0 => Ok(()),
        count => Err(format!("the driver domain has restarted {count} times, which nobody asked for")),
    }
}

/// An open connection has been reset, at both ends, and then another 1 MiB has gone each way.
fn reset_streams(source: &Source, outcome: &Outcome) -> Result<(), String> {
    streams_of(source, outcome, 1 << 20, &[("resets", 1), ("resets_served", 1)])
}

/// One guest has restarted once, the other has seen its connection end, and then 1 MiB has gone each way.
fn restarted_peer(source: &Source, outcome: &Outcome) -> Result<(), String> {
    streams_of(source, outcome, 1 << 20, &[])?;
    match verdict::findings(outcome, "sockets", "beta")?.get("peer_restarts").map(String::as_str) {
        Some("1") => Ok(()),
        _ => Err("guest `beta` has not seen its peer restart".to_owned()),
    }
}

/// Each Linux guest has sent so many bytes, has got at least as many, and has counted as many as `least` says.
fn streams_of(source: &Source, outcome: &Outcome, bytes: u64, least: &[(&str, u64)]) -> Result<(), String> {
    for vm in source.vms().iter().filter(|vm| verdict::checks_itself(vm)) {
        let found = verdict::findings(outcome, "sockets", vm.name())?;
        let number = |key: &str| found.get(key).and_then(|value| value.parse().ok()).unwrap_or(0_u64);
        for (key, least) in [("bytes", bytes), ("received", bytes)].iter().chain(least) {
            if number(key) < *least {
                return Err(format!("guest `{}` has {key}={} and not {least}", vm.name(), number(key)));
            }
        }
        if found.get("refused").map(String::as_str) != Some("ECONNRESET") {
            return Err(format!("guest `{}` has not been refused", vm.name()));
        }
    }
    let third = outcome.reports.of("gamma");
    match (third.failure, third.is_done) {
        (Some(failure), _) => Err(format!("guest `gamma` reports: {failure}")),
        (None, false) => Err("guest `gamma` has not come to an end".to_owned()),
        (None, true) => verdict::ended_well(outcome),
    }
}

/// What the neighbour writes while a guest resets itself, in bytes.
const BESIDE_CRASH_BYTES: &str = "16777216";

fn whole_after_crash(source: &Source, outcome: &Outcome) -> Result<(), String> {
    let neighbour = verdict::findings(outcome, "write", "beta")?;
    verdict::findings(outcome, "crash", "alpha")?;
    if neighbour.get("bytes").map(String::as_str) != Some(BESIDE_CRASH_BYTES) {
        return Err("guest `beta` has not written as much as it was to".to_owned());
    }
    verdict::ended_well(outcome)?;
    // What the guest thinks of its file system is one thing; the other is what is on the disk.
    let workspace = Workspace::find().map_err(|error| error.to_string())?;
    for disk in source.disks() {
        let image = workspace.cache().join("disks").join(source.name()).join(format!("{}.img", disk.name));
        for partition in &disk.partitions {
            check_file_system(&image, partition.span.base)
                .map_err(|reason| format!("the file system of {} is damaged: {reason}", partition.name))?;
        }
    }
    Ok(())
}

/// Has e2fsck look at the file system `offset` bytes into `image`, and change nothing.
fn check_file_system(image: &Path, offset: u64) -> Result<(), String> {
    let programs = setup::file_system_programs().map_err(|error| error.to_string())?;
    let file_system = format!("{}?offset={offset}", image.display());
    let output = Command::new(programs.e2fsck).args(["-f", "-n", &file_system]).output();
    let output = output.map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stdout).into_owned()) }
}

fn reread(source: &Source, outcome: &Outcome) -> Result<(), String> {
    verdict::same_bytes(source, outcome, "reread", verdict::WRITTEN_BYTES)
}

/// Before the first guest runs, each core of the board clears a part of the guests' RAM.
fn started_by_every_core(source: &Source, outcome: &Outcome) -> Result<(), String> {
    verdict::whole_run(source, outcome)?;
    let prefix = "[bulkhead] RAM cleared before the first guest, in KiB by each core: ";
    let shares = outcome.own_lines().find_map(|line| line.strip_prefix(prefix));
    let shares = shares.ok_or("Bulkhead has not said which core has cleared how much RAM")?;
    let cleared: Vec<u64> = shares.split(", ").filter_map(|share| share.parse().ok()).collect();
    if cleared.len() != usize::from(source.cores()) || cleared.contains(&0) {
        return Err(format!("not each of {} cores has cleared RAM: {shares}", source.cores()));
    }
    Ok(())
}

fn fifty_rounds(source: &Source, outcome: &Outcome) -> Result<(), String> {
    for vm in source.vms().iter().filter(|vm| verdict::checks_itself(vm)) {
        let found = verdict::findings(outcome, "hotplug", vm.name())?;
        let rounds = found.get("rounds").map_or("none", String::as_str);
        if rounds != "50" {
            return Err(format!("guest `{}` counted {rounds} rounds", vm.name()));
        }
    }
    verdict::ended_well(outcome)
}
