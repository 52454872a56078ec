//! Fetches what a run needs and the machine lacks. Each part looks first and does nothing where nothing is missing, so
//! every command calls the parts it needs, without asking.

mod apt;
mod debian;
mod emulator;
mod host;
mod xen;

pub(crate) use emulator::{measuring_qemu, name as qemu_name, qemu};
pub(crate) use host::{debugger, rust_target};

use crate::{linux::root_file_system, progress, workspace::Workspace};
use anyhow::Context;
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// What a Linux guest is started from.
pub(crate) struct LinuxImages {
    /// Debian's arm64 kernel, an arm64 `Image`.
    pub(crate) kernel: PathBuf,
    /// The root file system, a cpio archive.
    pub(crate) initrd: PathBuf,
}

/// Makes sure that the images of the Linux guests are in the cache. Once they are, no network is needed.
///
/// # Errors
/// One sentence that says what to install, or what went wrong; nothing half done is taken for done at the next call.
pub(crate) fn linux(workspace: &Workspace) -> anyhow::Result<LinuxImages> {
    let _lock = lock(&workspace.cache())?;
    let debian = debian::fetch(&workspace.cache())?;
    let init = workspace.root().join("guests/linux/init");
    let initrd = workspace.cache().join("linux.cpio");
    let read = |path: &Path| std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
    let archive = root_file_system::pack(&read(&init)?, &read(&debian.busybox)?)?;
    // Packing takes milliseconds, so it is not worth finding out whether `init` has changed.
    if std::fs::read(&initrd).ok().as_ref() != Some(&archive) {
        std::fs::write(&initrd, archive).with_context(|| format!("{} cannot be written", initrd.display()))?;
    }
    Ok(LinuxImages { kernel: debian.kernel, initrd })
}

/// Makes sure that Debian's Xen is in the cache, and gives its image.
///
/// # Errors
/// As [`linux`].
pub(crate) fn xen(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let _lock = lock(&workspace.cache())?;
    xen::fetch(&workspace.cache())
}

/// Everything that `run`, `test` and `debug` would set up one by one.
///
/// # Errors
/// As the parts.
pub(crate) fn everything(workspace: &Workspace) -> anyhow::Result<LinuxImages> {
    rust_target()?;
    qemu(workspace)?;
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
