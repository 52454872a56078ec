//! Links every guest with the guests' linker script.

use std::{env, path::Path};

fn main() {
    let here = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let script = Path::new(&here).join("../../linker/guest.ld");
    println!("cargo:rerun-if-changed={}", script.display());
    // Only the bare-metal target has a linker that takes this script; on the host the crate is looked at, never run.
    if env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        // A guest's own relocations are done before anything could protect them.
        println!("cargo:rustc-link-arg-bins=-znorelro");
        println!("cargo:rustc-link-arg-bins=-T{}", script.display());
    }
}
