//! Fetches what a run needs and the machine lacks. Each part looks first and does nothing where nothing is missing, so
//! every command calls the parts it needs, without asking.

mod apt;
mod debian;
mod emulator;
mod file_system;
mod host;
mod package;
mod room;
mod u_boot;
mod xen;

pub(crate) use apt::run as run_quietly;
pub(crate) use emulator::{measuring_qemu, name as qemu_name, qemu};
pub(crate) use file_system::{FileSystemPrograms, file_system_programs};
pub(crate) use host::{debugger, rust_target};
pub(crate) use room::{behind, room};

use crate::{
    bare_metal,
    linux::{
        initial_archive, modules, program,
        root_file_system::{self, Entry},
    },
    progress,
    workspace::Workspace,
};
use anyhow::Context;
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// The directory of the guests' scripts.
const SCRIPTS: &str = "guests/linux";

/// What a Linux guest is started from.
pub(crate) struct LinuxImages {
    /// Debian's arm64 kernel, an arm64 `Image`.
    pub(crate) kernel: PathBuf,
    /// The first root file system, a cpio archive.
    pub(crate) initrd: PathBuf,
    /// The same with the kernel modules of virtio devices and of ext4.
    pub(crate) initrd_with_modules: PathBuf,
    /// busybox, statically linked for arm64.
    pub(crate) busybox: PathBuf,
    /// The directory of the guests' scripts.
    pub(crate) scripts: PathBuf,
}

/// Makes sure that the images of the Linux guests are in the cache. Once they are, no network is needed.
///
/// # Errors
/// One sentence that says what to install, or what went wrong; nothing half done is taken for done at the next call.
pub(crate) fn linux(workspace: &Workspace) -> anyhow::Result<LinuxImages> {
    let _lock = lock(&workspace.cache())?;
    let debian = debian::fetch(&workspace.cache())?;
    let images = LinuxImages {
        kernel: debian.kernel,
        initrd: workspace.cache().join("linux.cpio"),
        initrd_with_modules: workspace.cache().join("linux-modules.cpio"),
        busybox: debian.busybox,
        scripts: workspace.root().join(SCRIPTS),
    };
    let tree = root_file_system::tree(&images.scripts, &images.busybox)?;
    let mut drivers = root_file_system::modules(&debian.modules)?;
    drivers.retain(|module| !modules::is_for_sockets(&module.path));
    // Packing takes milliseconds, so it is not worth finding out whether a script has changed.
    replace(&images.initrd, initial_archive::pack(&tree)?)?;
    replace(&images.initrd_with_modules, initial_archive::pack(tree.iter().chain(&drivers))?)?;
    Ok(images)
}

/// As [`linux`], with the program that measures: the archive with modules and with it.
///
/// # Errors
/// As [`linux`], and when the program does not build.
pub(crate) fn linux_bench(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let measures = program::IO_BENCH.build(workspace)?;
    with_program(workspace, measures, "linux-bench.cpio", |module| !modules::is_for_sockets(module))
}

/// As [`linux`], for a guest with a socket device: the archive with modules, those for sockets among them, and with the
/// program that checks these.
///
/// # Errors
/// As [`linux_bench`].
pub(crate) fn linux_sockets(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let checks = program::SOCKET_CHECK.build(workspace)?;
    with_program(workspace, checks, "linux-sockets.cpio", |_| true)
}

/// The archive `name` with `program` and the modules that are `of_use`.
fn with_program(
    workspace: &Workspace,
    program: Entry,
    name: &str,
    of_use: fn(&str) -> bool,
) -> anyhow::Result<PathBuf> {
    let _lock = lock(&workspace.cache())?;
    let debian = debian::fetch(&workspace.cache())?;
    let mut tree = root_file_system::tree(&workspace.root().join(SCRIPTS), &debian.busybox)?;
    tree.push(program);
    tree.extend(root_file_system::modules(&debian.modules)?.into_iter().filter(|module| of_use(&module.path)));
    let archive = workspace.cache().join(name);
    replace(&archive, initial_archive::pack(&tree)?)?;
    Ok(archive)
}

/// Writes `bytes` to the file `path`, unless that is what it holds.
fn replace(path: &Path, bytes: Vec<u8>) -> anyhow::Result<()> {
    if std::fs::read(path).ok().as_ref() == Some(&bytes) {
        return Ok(());
    }
    std::fs::write(path, bytes).with_context(|| format!("{} cannot be written", path.display()))
}

/// Makes sure that Debian's Xen is in the cache, and gives its image.
///
/// # Errors
/// As [`linux`].
pub(crate) fn xen(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let _lock = lock(&workspace.cache())?;
    xen::fetch(&workspace.cache())
}

/// Makes sure that Debian's U-Boot is in the cache, and gives its image.
///
/// # Errors
/// As [`linux`].
pub(crate) fn u_boot(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let _lock = lock(&workspace.cache())?;
    u_boot::fetch(&workspace.cache())
}

/// Everything that `run`, `test` and `debug` would set up one by one.
///
/// # Errors
/// As the parts.
pub(crate) fn everything(workspace: &Workspace) -> anyhow::Result<LinuxImages> {
    rust_target(bare_metal::TARGET)?;
    qemu(workspace)?;
    file_system_programs()?;
    u_boot(workspace)?;
    linux(workspace)
}

/// Keeps a second run from fetching the same things at the same time. The lock ends with the returned file.
fn lock(cache: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(cache).with_context(|| format!("{} cannot be created", cache.display()))?;
    let file = File::create(cache.join("lock"))?;
    if file.try_lock().is_err() {
        progress::step("waiting for another run's set-up", || Ok(file.lock()?))?;
    }
    Ok(file)
}
