//! Para-virtual devices, from their clients' side: kind ones, and hostile ones.

use super::{Damage, Scenario, guests};
use crate::{session::Outcome, system::Source, verdict};

/// The machine that serves the clients, and tests nothing itself.
const DRIVER_DOMAIN: &str = "driver-domain";

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario = |name: &str, system| Scenario {
        name: name.to_owned(),
        system,
        cpu: None,
        command_line: "",
        damage: Damage::None,
        limit_seconds: 180,
        icount: None,
        verdict: every_client_passes,
    };
    vec![
        scenario("a client without Linux uses every kind of para-virtual device", "test-io"),
        scenario("two clients with two and four CPUs share a disk and a switch", "test-io-clients"),
    ]
}

fn every_client_passes(source: &Source, outcome: &Outcome) -> Result<(), String> {
    verdict::whole_run(source, outcome)?;
    let clients = source.vms().iter().filter(|vm| vm.name() != DRIVER_DOMAIN);
    clients.map(|vm| guests::passes(outcome, vm.name())).collect()
}
