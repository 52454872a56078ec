//! Finds the images that a system names: fetches, builds or just opens them.

use crate::{
    bare_metal::{self, GUEST},
    setup,
    system::{self, Contents, DEBIAN, ImageName, Images, Problems, Source, VmSource},
    workspace::Workspace,
};
use std::path::{Path, PathBuf};

/// Debian's U-Boot.
const U_BOOT: &str = "u-boot";
/// The root file system of `guests/linux`.
const LINUX: &str = "linux";
/// The same with the modules for devices and with the program that measures these.
const LINUX_BENCH: &str = "linux-bench";
/// What the names of the kinds of virtio devices begin with.
const VIRTIO: &str = "virtio-";
/// The kind of device that takes modules of its own.
const SOCKETS: &str = "virtio-vsock";
/// How sentences call a kernel.
const KERNEL: &str = "kernel";
/// The names that are no paths; a file of such a name is `./NAME`.
const KERNELS: &[&str] = &[DEBIAN, U_BOOT, "guest:NAME"];
const INITRDS: &[&str] = &[LINUX, LINUX_BENCH];

/// The images that this machine has or can make.
pub(crate) struct HostImages<'a> {
    workspace: &'a Workspace,
}

impl<'a> HostImages<'a> {
    /// Nothing is fetched before it is asked for.
    pub(crate) const fn new(workspace: &'a Workspace) -> Self {
        Self { workspace }
    }

    /// The file `name` of a system in `directory`, where there is none of the names in `known`.
    fn file(&self, name: &str, directory: &Path, known: &[&str]) -> Result<PathBuf, String> {
        let path = directory.join(name);
        if path.is_file() {
            return Ok(path);
        }
        if path.is_dir() {
            return Err(format!("{} is a directory; write the path of a file in it", path.display()));
        }
        if self.workspace.root().join(name).is_file() {
            let (there, here) = (self.workspace.root().join(name), path.display());
            return Err(format!("there is no file {here}; paths are relative to the system's file: write {there:?}"));
        }
        let advice = match system::nearest(name, known.iter().copied()) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("write one of {known:?}, or a path relative to the system's file"),
        };
        Err(format!("there is no file {}; {advice}", path.display()))
    }

    /// The file of the image `role` of `vm` as far as it can be known without building or fetching anything.
    fn look(&self, role: &str, name: &str, source: &Source, need: Need) -> Result<(), String> {
        if let (KERNEL, Some(guest)) = (role, name.strip_prefix(GUEST)) {
            return bare_metal::find_guest(self.workspace, guest).map(drop);
        }
        let known: &[&str] = if role == KERNEL { KERNELS } else { INITRDS };
        if known.contains(&name) || need == Need::Nothing {
            return Ok(());
        }
        self.file(name, source.directory(), known).map(drop)
    }
}

/// What has to be there of a system's images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Files of the user's.
    Files,
    /// No more than the names of the repository's guests.
    Nothing,
}

/// What is fetched from Debian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetched {
    /// The kernel and busybox of the Linux guests.
    Linux,
    UBoot,
}

/// What `source` takes of that: as its images, and for the partitions of its disks.
fn fetched(source: &Source) -> Vec<Fetched> {
    let is_named = |name: &ImageName, known: &[&str]| match name {
        ImageName::Named(name) => known.contains(&name.as_str()),
        ImageName::File(_) => false,
    };
    let initrd = |vm: &VmSource| vm.initrd.as_ref().is_some_and(|name| is_named(name, INITRDS));
    let mut partitions = source.disks().iter().flat_map(|disk| &disk.partitions);
    let linux = source.vms().iter().any(|vm| is_named(&vm.kernel, &[DEBIAN]) || initrd(vm))
        || partitions.any(|partition| partition.content.is_some());
    let u_boot = source.vms().iter().any(|vm| is_named(&vm.kernel, &[U_BOOT]));
    let wanted = linux.then_some(Fetched::Linux).into_iter().chain(u_boot.then_some(Fetched::UBoot));
    wanted.collect()
}

/// Fetches from Debian what `source` takes and this machine lacks.
///
/// # Errors
/// What is missing for that, such as a network.
pub(crate) fn fetch(workspace: &Workspace, source: &Source) -> anyhow::Result<()> {
    fetched(source).into_iter().try_for_each(|what| match what {
        Fetched::Linux => setup::linux(workspace).map(drop),
        Fetched::UBoot => setup::u_boot(workspace).map(drop),
    })
}

/// Looks for the images of `source` without building or fetching any.
///
/// # Errors
/// All that are not there.
pub(crate) fn look(workspace: &Workspace, source: &Source, need: Need) -> Result<(), Problems> {
    let images = HostImages::new(workspace);
    let named = |name: &ImageName| match name {
        ImageName::Named(name) => Some(name.clone()),
        ImageName::File(_) => None,
    };
    let mut problems = Vec::new();
    for vm in source.vms() {
        let kernel = (KERNEL, named(&vm.kernel), vm.lines.kernel);
        let initrd = ("initrd", vm.initrd.as_ref().and_then(named), vm.lines.initrd);
        for (role, name, place) in [kernel, initrd] {
            let Some(name) = name else { continue };
            if let Err(reason) = images.look(role, &name, source, need) {
                let sentence = format!("the {role} {name:?} of vm {:?} is missing: {reason}", vm.name());
                problems.push(source.problem(place, sentence));
            }
        }
    }
    Problems::check(problems)
}

impl Images for HostImages<'_> {
    fn kernel(&self, name: &str, directory: &Path) -> Result<PathBuf, String> {
        if name == DEBIAN {
            return setup::linux(self.workspace).map(|linux| linux.kernel).map_err(|error| format!("{error:#}"));
        }
        if name == U_BOOT {
            return setup::u_boot(self.workspace).map_err(|error| format!("{error:#}"));
        }
        if let Some(guest) = name.strip_prefix(GUEST) {
            let built = bare_metal::build_guest(self.workspace, guest);
            return built.map(|program| program.image).map_err(|error| format!("{error:#}"));
        }
        self.file(name, directory, KERNELS)
    }

    fn initrd(&self, name: &str, vm: &VmSource, directory: &Path) -> Result<Contents, String> {
        if name == LINUX {
            let linux = setup::linux(self.workspace).map_err(|error| format!("{error:#}"))?;
            // Modules cost a guest without devices memory and time.
            let kinds = vm.devices.iter().map(|device| &device.kind);
            let mut names = kinds.chain(vm.assigned.iter().map(|device| &device.name));
            let has_virtio = names.any(|name| name.starts_with(VIRTIO));
            if vm.devices.iter().any(|device| device.kind == SOCKETS) {
                return setup::linux_sockets(self.workspace).map(Contents::File).map_err(|error| format!("{error:#}"));
            }
            return Ok(Contents::File(if has_virtio { linux.initrd_with_modules } else { linux.initrd }));
        }
        if name == LINUX_BENCH {
            return setup::linux_bench(self.workspace).map(Contents::File).map_err(|error| format!("{error:#}"));
        }
        self.file(name, directory, INITRDS).map(Contents::File)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_relative_to_the_systems_file_and_what_is_no_file_says_so() {
        let workspace = Workspace::find().expect("a workspace");
        let images = HostImages::new(&workspace);
        let systems = workspace.root().join("guests/systems");
        let file = |name: &str| images.file(name, &systems, KERNELS);
        assert_eq!(file("two-linux.toml"), Ok(systems.join("two-linux.toml")));
        assert!(file("../systems").unwrap_err().ends_with("is a directory; write the path of a file in it"));
        let sentence = file("README.md").unwrap_err();
        assert!(sentence.contains("paths are relative to the system's file: write"), "{sentence}");
        assert!(file("debain").unwrap_err().ends_with("; did you mean \"debian\"?"));
        let sentence = images.look(KERNEL, "guest:driver-domian", &source(), Need::Nothing).unwrap_err();
        assert!(sentence.ends_with("; did you mean \"driver-domain\"?"), "{sentence}");
    }

    #[test]
    fn nothing_but_guests_need_to_be_there_for_a_quick_look() {
        let workspace = Workspace::find().expect("a workspace");
        let images = HostImages::new(&workspace);
        assert_eq!(images.look(KERNEL, "no/such/file", &source(), Need::Nothing), Ok(()));
        images.look(KERNEL, "no/such/file", &source(), Need::Files).unwrap_err();
    }

    #[test]
    fn what_a_system_takes_from_debian_is_known_before_anything_is_built() {
        let workspace = Workspace::find().expect("a workspace");
        let of = |system| fetched(&crate::systems::find(&workspace, system).expect("a system"));
        assert_eq!(of("two-linux"), [Fetched::Linux]);
        // Its Linux lies on its disk.
        assert_eq!(of("test-u-boot"), [Fetched::Linux, Fetched::UBoot]);
        assert_eq!(of("test-hello"), []);
    }

    fn source() -> Source {
        let workspace = Workspace::find().expect("a workspace");
        crate::systems::find(&workspace, "two-linux").expect("a system")
    }
}
