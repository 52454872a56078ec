//! Debian's arm64 kernel with its modules, and busybox, for the Linux guests.

use super::apt::{self, ForeignApt};
use crate::{linux::modules, progress};
use anyhow::{Context, bail, ensure};
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The package that always depends on Debian's current arm64 kernel.
const KERNEL_META_PACKAGE: &str = "linux-image-arm64";
const BUSYBOX_PACKAGE: &str = "busybox-static";

/// Where Debian's packages come from when this machine's own sources have no arm64 kernel.
const SOURCES: &str =
    "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main\n";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The files that the Linux guests are made of.
pub(super) struct Files {
    /// The kernel, an arm64 `Image`.
    pub(super) kernel: PathBuf,
    /// busybox, statically linked for arm64.
    pub(super) busybox: PathBuf,
    /// A directory of kernel modules; the order of their names is the order to load them in.
    pub(super) modules: PathBuf,
}

/// Gives the kernel, its modules and busybox below `cache`, and fetches them where they are missing.
///
/// # Errors
/// One sentence: what is missing on this machine, or apt's own message.
pub(super) fn fetch(cache: &Path) -> anyhow::Result<Files> {
    let done = cache.join("debian");
    let files = Files { kernel: done.join("vmlinuz"), busybox: done.join("busybox"), modules: done.join("modules") };
    // The directory gets its name only when it is complete. The stamp says which modules are in it; an empty one was
    // put there by hand.
    let wanted = format!("modules {}\n", modules::WANTED.join(" "));
    let stamp = fs::read_to_string(done.join("versions")).ok();
    let complete = stamp.is_some_and(|stamp| stamp.is_empty() || stamp.ends_with(&wanted)) && files.modules.is_dir();
    if complete && files.kernel.is_file() && files.busybox.is_file() {
        return Ok(files);
    }
    for program in ["apt-get", "apt-cache", "dpkg-deb", "tar"] {
        ensure!(
            apt::exists(program),
            "the Linux guests need Debian's arm64 kernel and busybox, and this machine has no `{program}` to fetch them \
             with; run on Debian, or put an arm64 `vmlinuz`, a static arm64 `busybox`, a directory `modules` with the \
             virtio modules that are not built in and an empty file `versions` into {}, or start an image of your own with `cargo xtask run --kernel FILE`",
            done.display()
        );
    }

    let work = cache.join("debian.partial");
    if work.exists() {
        fs::remove_dir_all(&work)?;
    }
    fs::create_dir_all(work.join("packages"))?;
    let apt = lists(cache, &work)?;
    let kernel_package = kernel_package(&apt)?;
    progress::step(&format!("fetching {kernel_package} and {BUSYBOX_PACKAGE} for arm64"), || {
        apt.download(&[&kernel_package, BUSYBOX_PACKAGE], &work.join("packages"))
    })
    .context("Debian's arm64 packages cannot be fetched")?;

    let release = kernel_package.trim_start_matches("linux-image-");
    progress::step("unpacking the kernel, its modules and busybox", || {
        let packages = work.join("packages");
        let unpacked = packages.join("kernel");
        // Once over the whole package: which modules are needed is known when they have been read.
        let package = package_file(&packages, &kernel_package)?;
        apt::run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(&unpacked))?;
        fs::rename(unpacked.join(format!("boot/vmlinuz-{release}")), work.join("vmlinuz"))
            .with_context(|| format!("{kernel_package} has no kernel of its own name"))?;
        keep_modules(&unpacked.join("lib/modules").join(release), &work.join("modules"))?;
        apt::extract(&package_file(&packages, BUSYBOX_PACKAGE)?, "./bin/busybox", &work.join("busybox"))
    })?;
    check_kernel(&work.join("vmlinuz"))?;

    let version = |package: &str| apt.field(package, "Version").unwrap_or_default();
    let versions = format!(
        "{kernel_package} {}\n{BUSYBOX_PACKAGE} {}\n{wanted}",
        version(&kernel_package),
        version(BUSYBOX_PACKAGE)
    );
    fs::write(work.join("versions"), versions)?;
    fs::remove_dir_all(work.join("packages"))?;
    if done.exists() {
        fs::remove_dir_all(&done)?;
    }
    fs::rename(&work, &done)?;
    Ok(files)
}

/// Package lists that have an arm64 kernel: from this machine's sources (its mirror may be the only one it reaches), or
/// else from Debian's.
pub(super) fn lists(cache: &Path, work: &Path) -> anyhow::Result<ForeignApt> {
    let directory = cache.join("apt");
    let own = ForeignApt::new(&directory.join("machine"), None)?;
    let mut updated = progress::step("fetching Debian's package lists for arm64", || Ok(own.update()))?;
    if own.field(KERNEL_META_PACKAGE, "Depends").is_some() {
        return Ok(own);
    }
    if Path::new(KEYRING).is_file() {
        let sources = work.join("debian.list");
        fs::write(&sources, SOURCES)?;
        let debian = ForeignApt::new(&directory.join("debian"), Some(&sources))?;
        updated = progress::step("fetching package lists from deb.debian.org", || Ok(debian.update()))?;
        if debian.field(KERNEL_META_PACKAGE, "Depends").is_some() {
            return Ok(debian);
        }
    }
    updated.context("Debian's package lists for arm64 cannot be fetched")?;
    bail!(
        "this machine's apt sources have no package `{KERNEL_META_PACKAGE}`; install `debian-archive-keyring` and run the \
         command again, or start an image of your own with `cargo xtask run --kernel FILE`"
    )
}

/// The package that [`KERNEL_META_PACKAGE`] stands for at the moment, such as `linux-image-6.1.0-50-arm64`.
fn kernel_package(apt: &ForeignApt) -> anyhow::Result<String> {
    let depends = apt.field(KERNEL_META_PACKAGE, "Depends").unwrap_or_default();
    let package = depends.split([' ', ',']).find(|word| word.starts_with("linux-image-"));
    package.map(str::to_owned).with_context(|| format!("`{KERNEL_META_PACKAGE}` depends on no kernel: `{depends}`"))
}

/// Moves the modules that the guests load from below `unpacked` to `kept`, under names that give their order.
fn keep_modules(unpacked: &Path, kept: &Path) -> anyhow::Result<()> {
    fs::create_dir(kept)?;
    for (index, (name, file)) in modules::in_load_order(unpacked)?.into_iter().enumerate() {
        fs::rename(&file, kept.join(format!("{index:02}-{name}.ko")))
            .with_context(|| format!("{} cannot be kept", file.display()))?;
    }
    Ok(())
}

/// The file that apt has made of `package`: `NAME_VERSION_ARCHITECTURE.deb`.
pub(super) fn package_file(directory: &Path, package: &str) -> anyhow::Result<PathBuf> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        if name.strip_prefix(package).is_some_and(|rest| rest.starts_with('_')) && name.ends_with(".deb") {
            return Ok(path);
        }
    }
    bail!("apt-get has downloaded no file for {package}")
}

/// Refuses what Linux's boot protocol would not recognise (Documentation/arm64/booting.rst: magic at offset 56).
fn check_kernel(path: &Path) -> anyhow::Result<()> {
    let kernel = fs::read(path)?;
    let known = kernel.get(56..60) == Some(b"ARM\x64") || kernel.starts_with(&[0x1f, 0x8b]);
    ensure!(known, "{} is no arm64 kernel image", path.display());
    Ok(())
}
