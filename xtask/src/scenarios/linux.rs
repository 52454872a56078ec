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
    on_each_cpu.into_iter().chain([hotplug]).collect()
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
