//! What stops a boot or ends Bulkhead, and says why.

use super::{Damage, Scenario};
use crate::{
    session::{Ending, Outcome},
    system::Source,
    verdict,
};

/// A function of the boot's.
const BOOT_FUNCTION: &str = "bulkhead::construct::build";

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenario = |name: &str, damage, verdict| Scenario {
        name: name.to_owned(),
        system: "test-hello",
        cpu: None,
        command_line: "",
        damage,
        limit_seconds: 20,
        icount: None,
        verdict,
    };
    let refused = |name, damage| scenario(name, Damage::Bundle(damage), boot_is_refused);
    vec![
        refused("a bundle with a damaged manifest stops the boot with a sentence", damage_manifest),
        refused("a bundle cut short stops the boot with a sentence", cut_short),
        refused("a bundle of random bytes stops the boot with a sentence", overwrite),
        scenario(
            "a forged bundle with more devices than the board has RAM for is refused with their sum",
            Damage::Bundle(forge),
            sum_is_refused,
        ),
        scenario("a board with a GICv2 is told so", Damage::Board(&["-M", "gic-version=2"]), |_, outcome| {
            stops(outcome, "start QEMU with gic-version=3")
        }),
        scenario(
            "a start at EL1, without virtualization=on, is told so",
            Damage::Board(&["-M", "virtualization=off"]),
            |_, outcome| stops(outcome, "started at EL1, but a hypervisor needs EL2"),
        ),
        scenario(
            "a start at EL3, in the place of the board's firmware, is told so once, whatever the number of cores",
            Damage::Firmware,
            |_, outcome| {
                stops(outcome, "started at EL3, but a hypervisor needs EL2")?;
                match outcome.lines.iter().filter(|line| line.contains("BULKHEAD STOPS")).count() {
                    1 => Ok(()),
                    count => Err(format!("{count} cores have said so")),
                }
            },
        ),
        Scenario {
            system: "test-resets",
            ..scenario(
                "a board with fewer cores than the system uses is told so",
                Damage::Board(&["-smp", "1"]),
                |_, outcome| stops(outcome, "the system uses 2 cores, but the board has 1"),
            )
        },
        scenario("a board with less RAM than the vms need is told so", Damage::Board(&["-m", "16M"]), too_little_ram),
        scenario("what was typed before the start keeps nobody busy", Damage::Uart(b"\0"), verdict::whole_run),
        scenario("any damaged device tree ends in a sentence or in a boot", Damage::Trees(28), |_, _| Ok(())),
        scenario("a Bulkhead that fails leaves an epitaph", Damage::Function("bulkhead::run::run"), epitaph_is_left),
        scenario(
            "a jump into the boot's code, which is unmapped when guests run, leaves an epitaph",
            Damage::Jump("bulkhead::hypercall::answer", BOOT_FUNCTION),
            boot_code_is_gone,
        ),
    ]
}

/// Changes one byte in the middle of `manifest.bin`, the first file: its 110-byte header and its name precede it.
fn damage_manifest(mut bundle: Vec<u8>) -> Vec<u8> {
    if let Some(byte) = bundle.get_mut(200) {
        *byte ^= 0xff;
    }
    bundle
}

/// Keeps the manifest, and loses the images it speaks of.
fn cut_short(mut bundle: Vec<u8>) -> Vec<u8> {
    bundle.truncate(16 << 10);
    bundle
}

fn overwrite(mut bundle: Vec<u8>) -> Vec<u8> {
    // A linear congruential generator: what matters is that the bytes mean nothing.
    let mut state: u32 = 1;
    for byte in bundle.iter_mut().take(1 << 20) {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = state.to_le_bytes()[3];
    }
    bundle
}

/// A manifest that `check` refuses: sixteen machines with 31 disks each, and RAM that is there but for these disks.
fn forge(bundle: Vec<u8>) -> Vec<u8> {
    let Ok(mut system) = manifest::Bundle::new(&bundle).manifest() else { return Vec::new() };
    let Some(first) = system.vms.first_mut() else { return Vec::new() };
    first.memory.iter_mut().for_each(|region| region.size = 30 << 20);
    first.devices.extend((0..31).map(|number| manifest::Device {
        kind: "virtio-blk".to_owned(),
        address: 0x0a00_0000 + u64::from(number) * 0x1000,
        size: 0x1000,
        interrupt: Some(48 + u32::from(number)),
        service: Some(manifest::Service {
            provider: 0,
            channel: number,
            address: 0,
            size: 0x10_0000,
            device_id: 2,
            queues: 1,
            filled: 0,
            requests: 30,
            chains: 30,
        }),
        configuration: Vec::new(),
    }));
    let vm = first.clone();
    system.vms = (0..16).map(|number| manifest::Vm { name: format!("forged-{number}"), ..vm.clone() }).collect();
    system.vms.iter_mut().take(1).flat_map(|vm| &mut vm.memory).for_each(|region| region.size = 52 << 20);
    let Ok(encoded) = manifest::encode(&system) else { return Vec::new() };
    let mut forged = Vec::new();
    for (name, data) in [(manifest::MANIFEST_FILE, encoded.as_slice()), ("TRAILER!!!", &[])] {
        let numbers = [1, 0o100_644, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        forged.extend_from_slice(b"070701");
        numbers.iter().for_each(|number| forged.extend_from_slice(format!("{number:08X}").as_bytes()));
        for part in [format!("{name}\0").as_bytes(), data] {
            forged.extend_from_slice(part);
            forged.resize(forged.len().next_multiple_of(4), 0);
        }
    }
    forged
}

/// Bulkhead's last words contain `part`.
fn stops(outcome: &Outcome, part: &str) -> Result<(), String> {
    match outcome.last_words() {
        Some(words) if words.contains(part) => Ok(()),
        Some(words) => Err(format!("`{part}` is not in `{words}`")),
        None => Err("Bulkhead has said nothing".to_owned()),
    }
}

fn sum_is_refused(_: &Source, outcome: &Outcome) -> Result<(), String> {
    let words = outcome.last_words().ok_or("Bulkhead has said nothing")?;
    for part in ["the vms need 502 MiB of memory", "of which 31 virtio-blk of vm \"forged-"] {
        if !words.contains(part) {
            return Err(format!("`{part}` is not in `{words}`"));
        }
    }
    qemu_fails(outcome)
}

fn too_little_ram(_: &Source, outcome: &Outcome) -> Result<(), String> {
    stops(outcome, "the vms need 16 MiB of memory")?;
    qemu_fails(outcome)
}

fn boot_is_refused(_: &Source, outcome: &Outcome) -> Result<(), String> {
    if !outcome.own_lines().any(|line| line.contains("bundle")) {
        return Err("no line says that the bundle is to blame".to_owned());
    }
    qemu_fails(outcome)
}

/// Reason, registers, and a backtrace whose addresses are explained.
fn epitaph_is_left(_: &Source, outcome: &Outcome) -> Result<(), String> {
    for part in
        ["BULKHEAD PANIC on core", "ESR_EL2", "frame 0: bulkhead+0x", "at bulkhead::run::run", "at bulkhead::primary"]
    {
        if !outcome.own_lines().any(|line| line.contains(part)) {
            return Err(format!("the epitaph has no `{part}`"));
        }
    }
    qemu_fails(outcome)
}

/// The guest has started, and its first call that is not answered at once ends in the function that is no more.
fn boot_code_is_gone(_: &Source, outcome: &Outcome) -> Result<(), String> {
    // Exception class 0x21, an instruction abort at EL2; fault status 0b000111, a translation fault at level 3.
    for part in ["ESR_EL2  0x0000000086000007", &format!("at {BOOT_FUNCTION}")] {
        if !outcome.own_lines().any(|line| line.contains(part)) {
            return Err(format!("the epitaph has no `{part}`"));
        }
    }
    qemu_fails(outcome)
}

/// A script that starts QEMU must see that something is wrong.
fn qemu_fails(outcome: &Outcome) -> Result<(), String> {
    if matches!(&outcome.ending, Ending::Exited(status) if !status.success()) {
        return Ok(());
    }
    Err(format!("QEMU was to end with a failing status, but it ended so: {:?}", outcome.ending))
}
