//! Two Debian Linux guests, side by side.

use super::{Damage, Scenario};
use crate::{session::Outcome, system::Source, verdict};

/// The models of cores that Bulkhead promises to run on: without and with the virtualisation host extensions, with 8 and
/// 16 bits of VMID, and everything that QEMU emulates.
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
        verdict: verdict::whole_run,
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
        name: "Linux guests with one CPU and with four check themselves".to_owned(),
        system: "test-linux-cpus",
        cpu: None,
        command_line: "bulkhead.selfcheck",
        damage: Damage::None,
        limit_seconds: 150,
        icount: None,
        verdict: verdict::whole_run,
    };
    let assigned = Scenario {
        name: "Linux drives a page of real virtio slots and the board's clock beside a driver domain's client"
            .to_owned(),
        system: "test-assigned",
        cpu: None,
        command_line: "bulkhead.write=64 bulkhead.selfcheck",
        damage: Damage::None,
        limit_seconds: 300,
        icount: None,
        verdict: own_hardware,
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
        "bulkhead.write=64 driver-domain.kill=800",
        written_despite_restarts,
    );
    let reread = disks("64 MiB that two Linux guests wrote are there after a restart", "bulkhead.reread", reread);
    on_each_cpu.into_iter().chain([on_one_and_four, hotplug, assigned, written, reread]).collect()
}

/// The clock's alarm has rung on each CPU of its owner's, and what was written to either disk is there.
fn own_hardware(source: &Source, outcome: &Outcome) -> Result<(), String> {
    verdict::whole_run(source, outcome)?;
    let found = verdict::findings(outcome, "selfcheck", "alpha")?;
    let found = |key: &str| found.get(key).map_or("nothing", String::as_str);
    for (key, expected) in [("alarms", "2"), ("root", "ext4"), ("net", "eth0")] {
        if found(key) != expected {
            return Err(format!("guest `alpha` has found {key}={} instead of {expected}", found(key)));
        }
    }
    same_bytes(source, outcome, "write")
}

/// What each guest writes in a scenario, in bytes.
const WRITTEN_BYTES: &str = "67108864";

/// How often the driver domain is restarted at least while its clients write.
const RESTARTS_MIN: usize = 20;

fn written_despite_restarts(source: &Source, outcome: &Outcome) -> Result<(), String> {
    let count = outcome.guest_lines("driver-domain").filter(|line| line.contains(": serving ")).count();
    if count <= RESTARTS_MIN {
        return Err(format!("the driver domain has started {count} times, which is not often enough to show anything"));
    }
    same_bytes(source, outcome, "write")
}

fn reread(source: &Source, outcome: &Outcome) -> Result<(), String> {
    same_bytes(source, outcome, "reread")
}

/// Each guest has found what was written, all of it, and something else than its neighbour.
fn same_bytes(source: &Source, outcome: &Outcome, check: &str) -> Result<(), String> {
    let mut checksums = Vec::new();
    for vm in source.vms().iter().filter(|vm| verdict::checks_itself(vm)) {
        let found = verdict::findings(outcome, check, vm.name())?;
        let found = |key: &str| found.get(key).cloned().unwrap_or_else(|| "nothing".to_owned());
        if found("bytes") != WRITTEN_BYTES {
            return Err(format!("guest `{}` has {} bytes instead of {WRITTEN_BYTES}", vm.name(), found("bytes")));
        }
        if checksums.contains(&found("sha256")) {
            return Err(format!("guest `{}` has the same random bytes as its neighbour", vm.name()));
        }
        checksums.push(found("sha256"));
    }
    verdict::ended_well(outcome)
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
