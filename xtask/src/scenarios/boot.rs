//! What stops a boot or ends Bulkhead, and says why.

use super::{Damage, Scenario};
use crate::{
    session::{Ending, Outcome},
    system::Source,
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

fn boot_is_refused(_: &Source, outcome: &Outcome) -> Result<(), String> {
    if !outcome.lines.iter().any(|line| line.contains("bundle")) {
        return Err("no line says that the bundle is to blame".to_owned());
    }
    qemu_fails(outcome)
}

/// Reason, registers, and a backtrace whose addresses are explained.
fn epitaph_is_left(_: &Source, outcome: &Outcome) -> Result<(), String> {
    for part in
        ["BULKHEAD PANIC on core", "ESR_EL2", "frame 0: bulkhead+0x", "at bulkhead::run::run", "at bulkhead::primary"]
    {
        if !outcome.lines.iter().any(|line| line.contains(part)) {
            return Err(format!("the epitaph has no `{part}`"));
        }
    }
    qemu_fails(outcome)
}

/// The guest has started, and its first call that is not answered at once ends in the function that is no more.
fn boot_code_is_gone(_: &Source, outcome: &Outcome) -> Result<(), String> {
    // Exception class 0x21, an instruction abort at EL2; fault status 0b000111, a translation fault at level 3.
    for part in ["ESR_EL2  0x0000000086000007", &format!("at {BOOT_FUNCTION}")] {
        if !outcome.lines.iter().any(|line| line.contains(part)) {
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
