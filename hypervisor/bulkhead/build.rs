//! Hands the linker script to the linker.
fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../linker/hypervisor.ld");
    println!("cargo:rerun-if-changed={script}");
    println!("cargo:rustc-link-arg-bins=-T{script}");
    // There is no loader that could make sections read-only after relocation: EL2's own tables do that.
    println!("cargo:rustc-link-arg-bins=-znorelro");
}
