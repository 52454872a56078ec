//! Finds the images that a system names: fetches, builds or just opens them.

use crate::{
    bare_metal, setup,
    system::{Contents, Images, VmSource},
    workspace::Workspace,
};
use std::path::PathBuf;

/// Debian's arm64 kernel.
const DEBIAN: &str = "debian";
/// The root file system of `guests/linux`.
const LINUX: &str = "linux";
/// The same with the modules for devices and with the program that measures these.
const LINUX_BENCH: &str = "linux-bench";
/// What the names of the kinds of virtio devices begin with.
const VIRTIO: &str = "virtio-";
/// What precedes the name of a bare-metal guest of this repository.
const GUEST: &str = "guest:";

/// The images that this machine has or can make.
pub(crate) struct HostImages<'a> {
    workspace: &'a Workspace,
}

impl<'a> HostImages<'a> {
    /// Nothing is fetched before it is asked for.
    pub(crate) const fn new(workspace: &'a Workspace) -> Self {
        Self { workspace }
    }

    fn file(&self, name: &str, known: &str) -> Result<PathBuf, String> {
        let path = self.workspace.root().join(name);
        if path.is_file() {
            return Ok(path);
        }
        Err(format!("there is no file {name:?} in the repository; write {known}, or the path of a file"))
    }
}

impl Images for HostImages<'_> {
    fn kernel(&self, name: &str) -> Result<PathBuf, String> {
        if name == DEBIAN {
            return setup::linux(self.workspace).map(|linux| linux.kernel).map_err(|error| format!("{error:#}"));
        }
        if let Some(guest) = name.strip_prefix(GUEST) {
            let built = bare_metal::build_guest(self.workspace, guest);
            return built.map(|program| program.image).map_err(|error| format!("{error:#}"));
        }
        self.file(name, "\"debian\", \"guest:NAME\"")
    }

    fn initrd(&self, name: &str, vm: &VmSource) -> Result<Contents, String> {
        if name == LINUX {
            let linux = setup::linux(self.workspace).map_err(|error| format!("{error:#}"))?;
            // Modules cost a guest without devices memory and time.
            let kinds = vm.devices.iter().map(|device| &device.kind);
            let mut names = kinds.chain(vm.assigned.iter().map(|device| &device.name));
            let has_virtio = names.any(|name| name.starts_with(VIRTIO));
            return Ok(Contents::File(if has_virtio { linux.initrd_with_modules } else { linux.initrd }));
        }
        if name == LINUX_BENCH {
            return setup::linux_bench(self.workspace).map(Contents::File).map_err(|error| format!("{error:#}"));
        }
        self.file(name, "\"linux\", \"linux-bench\"").map(Contents::File)
    }
}
