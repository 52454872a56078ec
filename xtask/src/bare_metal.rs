//! Builds the bare-metal programs, Bulkhead itself and the guests, and flattens them for a boot loader.

use crate::{flat_image, system, workspace::Workspace};
use anyhow::{Context, ensure};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

/// The target of everything that runs on the board: no floating-point registers, so EL2 has none to save.
pub(crate) const TARGET: &str = "aarch64-unknown-none-softfloat";

/// What precedes the name of a bare-metal guest of this repository where a system names its kernel.
pub(crate) const GUEST: &str = "guest:";

/// The package of the EL2 binary.
const HYPERVISOR: &str = "bulkhead";

/// How Bulkhead, and no guest, is compiled: all of it lies within 1 MiB (a limit that `bench` keeps), so that one
/// instruction names any address in it. The linker refuses a larger one.
const HYPERVISOR_CODE: &[&str] = &["-Ccode-model=tiny"];

/// A built program.
#[derive(Clone)]
pub(crate) struct Program {
    /// With symbols, for a debugger and for backtraces; linked at address 0.
    pub(crate) elf: PathBuf,
    /// What a boot loader copies into memory.
    pub(crate) image: PathBuf,
}

/// Which Bulkhead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavor {
    /// The product.
    Product,
    /// With devices that are there for tests alone.
    WithTestDevices,
}

/// Builds Bulkhead.
///
/// # Errors
/// When cargo fails (it has said why), or when the ELF file cannot be flattened.
pub(crate) fn build_hypervisor(workspace: &Workspace, flavor: Flavor) -> anyhow::Result<Program> {
    let (name, features): (_, &[&str]) = match flavor {
        Flavor::Product => (HYPERVISOR, &[]),
        Flavor::WithTestDevices => ("bulkhead-with-test-devices", &["--features", "test-devices"]),
    };
    build(workspace, HYPERVISOR, HYPERVISOR, name, features, HYPERVISOR_CODE)
}

/// Builds the bare-metal guest `name`: a binary of one of the packages below `guests/`.
///
/// # Errors
/// When no package has such a binary, when cargo fails, or when the ELF file cannot be flattened.
pub(crate) fn build_guest(workspace: &Workspace, name: &str) -> anyhow::Result<Program> {
    let (package, binary) = find_guest(workspace, name).map_err(anyhow::Error::msg)?;
    build(workspace, &package, &binary, &format!("guest-{name}"), &[], &[])
}

/// The program of the guest `name` with its symbols, linked at address 0, if it has been built.
pub(crate) fn guest_elf(workspace: &Workspace, name: &str) -> Option<PathBuf> {
    let (_, binary) = find_guest(workspace, name).ok()?;
    let elf = workspace.target().join(TARGET).join("release").join(binary);
    elf.is_file().then_some(elf)
}

/// The package and the binary of the bare-metal guest `name`.
///
/// # Errors
/// A sentence, when there is none.
pub(crate) fn find_guest(workspace: &Workspace, name: &str) -> Result<(String, String), String> {
    let guests = workspace.root().join("guests");
    // What runs within a Linux guest is none itself.
    let programs = guests.join("linux");
    let is_guest = |manifest: &Path| manifest.starts_with(&guests) && !manifest.starts_with(&programs);
    let binaries = || {
        let packages = workspace.metadata.workspace_packages().into_iter();
        packages.filter(|package| is_guest(package.manifest_path.as_std_path())).flat_map(|package| {
            package.targets.iter().filter(|target| target.is_bin()).map(|target| (package.name.as_str(), &target.name))
        })
    };
    let short = |binary: &str| binary.strip_prefix("bulkhead-guest-").unwrap_or(binary).to_owned();
    match binaries().find(|(_, binary)| *binary == name || short(binary) == name) {
        Some((package, binary)) => Ok((package.to_owned(), binary.clone())),
        None => {
            let known: Vec<_> = binaries().map(|(_, binary)| short(binary)).collect();
            let choice = system::choice(name, known.iter().map(String::as_str));
            Err(format!("there is no bare-metal guest {name:?} below guests/; {choice}"))
        }
    }
}

/// Builds `binary`, once while this program runs: nobody writes an image anew from which a board is being started.
/// `code` are options for the compiler when it makes the code of the whole program.
fn build(
    workspace: &Workspace,
    package: &str,
    binary: &str,
    image_name: &str,
    features: &[&str],
    code: &[&str],
) -> anyhow::Result<Program> {
    static BUILT: Mutex<BTreeMap<String, Program>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(program) = built.get(image_name) {
        return Ok(program.clone());
    }
    let status = cargo(workspace)
        .args(["rustc", "--release", "--target", TARGET, "--package", package, "--bin", binary])
        .args(features)
        .arg("--")
        .args(code)
        .status()
        .context("cargo could not be started")?;
    ensure!(status.success(), "`{binary}` does not build for {TARGET}; the compiler's message is above");

    let mut elf = workspace.target().join(TARGET).join("release").join(binary);
    let image = workspace.cache().join("images").join(format!("{image_name}.bin"));
    flatten_file(&elf, &image).with_context(|| format!("{} cannot be made into a boot image", elf.display()))?;
    if package == HYPERVISOR {
        // Cargo knows one place for all its flavors, and each puts its own there.
        let own = workspace.cache().join("images").join(format!("{image_name}.elf"));
        std::fs::copy(&elf, &own)?;
        elf = own;
    }
    let program = Program { elf, image };
    built.insert(image_name.to_owned(), program.clone());
    Ok(program)
}

fn flatten_file(elf: &Path, image: &Path) -> anyhow::Result<()> {
    let flat = flat_image::flatten(&std::fs::read(elf)?)?;
    std::fs::create_dir_all(image.parent().context("an image has a directory")?)?;
    std::fs::write(image, flat)?;
    Ok(())
}

/// `--package NAME` for each crate that does not build on the host.
pub(crate) fn packages(workspace: &Workspace) -> Vec<String> {
    let metadata = &workspace.metadata;
    let host = metadata.workspace_default_packages();
    let all = metadata.workspace_packages().into_iter();
    let others = all.filter(|package| !host.iter().any(|other| other.id == package.id));
    others.flat_map(|package| ["--package".to_owned(), package.name.to_string()]).collect()
}

/// Cargo, to be run at the workspace's root with the toolchain that runs this program.
pub(crate) fn cargo(workspace: &Workspace) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace.root());
    // What cargo has set for this package must not leak into the build of another: build scripts look at it.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(&name);
        }
    }
    command
}
