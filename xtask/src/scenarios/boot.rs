//! What stops a boot, and says why.

use super::Scenario;
use crate::{
    session::{Ending, Outcome},
    system::Source,
};

pub(super) fn scenarios() -> Vec<Scenario> {
    let refused = |name: &str, tamper| Scenario {
        name: name.to_owned(),
        system: "two-linux",
        cpu: None,
        command_line: "",
        tamper: Some(tamper),
        limit_seconds: 20,
        icount: None,
        verdict: boot_is_refused,
    };
    vec![
        refused("a bundle with a damaged manifest stops the boot with a sentence", damage_manifest),
        refused("a bundle cut short stops the boot with a sentence", cut_short),
        refused("a bundle of random bytes stops the boot with a sentence", overwrite),
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
    bundle.truncate(64 << 10);
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
    if matches!(&outcome.ending, Ending::Exited(status) if !status.success()) {
        return Ok(());
    }
    Err(format!("QEMU was to end with a failing status, but it ended so: {:?}", outcome.ending))
}
