//! From a validated source to the bytes that a boot loader gives Bulkhead.

use manifest::{Load, Seed, Span, System};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    Problem, Problems, Source, VmSource,
    archive::Archive,
    device_tree::{Description, Served, device_tree},
    identity::identity,
    kernel::{PageSize, place_kernel},
    layout::{place_device_tree, place_initrd},
    problem::Line,
    size::show_size_rounded,
    source::ImageName,
};

/// Where images come from: built, downloaded, or just there.
pub(crate) trait Images {
    /// The file of the kernel `name`: a known name, `guest:NAME`, or a path relative to `directory`.
    ///
    /// # Errors
    /// A sentence that says why there is none and what to do.
    fn kernel(&self, name: &str, directory: &Path) -> Result<PathBuf, String>;

    /// The initial RAM disk `name` for `vm`: a known name, or a path relative to `directory`.
    ///
    /// # Errors
    /// A sentence that says why there is none and what to do.
    fn initrd(&self, name: &str, vm: &VmSource, directory: &Path) -> Result<Contents, String>;
}

/// What an image is made of.
#[derive(Clone, Debug)]
pub(crate) enum Contents {
    /// The bytes of a file.
    File(PathBuf),
    /// Bytes made for the occasion.
    #[cfg_attr(not(test), expect(dead_code, reason = "only tests make images in memory so far"))]
    Bytes(Vec<u8>),
}

/// What may be changed about a system without another file.
#[derive(Clone, Debug, Default)]
pub(crate) struct BundleOptions {
    /// Added to the kernel command line of every guest.
    pub(crate) extra_command_line: String,
}

/// A system, ready to start.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// What the boot loader passes as the initial RAM disk.
    pub(crate) cpio: Vec<u8>,
    /// The manifest in it.
    pub(crate) system: System,
    /// What each virtual machine is started with, for the report.
    pub(crate) images: Vec<Vec<Image>>,
    /// The size of the pages of each virtual machine's kernel, where the kernel says so.
    pub(crate) page_sizes: Vec<Option<PageSize>>,
    /// What Bulkhead takes of the board's RAM for it: heap, tables, device pages, in bytes.
    pub(crate) own_bytes: u64,
}

impl Bundle {
    /// Refuses a kernel of `source` whose pages the cores of this model do not have.
    ///
    /// # Errors
    /// A [`Problem`] about the first one.
    pub(crate) fn check_cores(&self, source: &Source, model: &str) -> Result<(), Problem> {
        let misfits = |page_size: &Option<PageSize>| match page_size {
            Some(PageSize::Kib16) => !platform::has_16_kib_pages(model),
            // Every model has both, so an image for pages of 64 KiB is never refused.
            Some(PageSize::Kib4 | PageSize::Kib64) | None => false,
        };
        match source.vms.iter().zip(&self.page_sizes).find(|(_, page_size)| misfits(page_size)) {
            None => Ok(()),
            Some((vm, _)) => {
                let sentence = format!(
                    "the kernel of vm {:?} uses pages of 16 KiB, which {model} does not have; take a kernel with pages \
                     of 4 KiB, or run it on other cores, such as --cpu cortex-a76",
                    vm.name
                );
                Err(source.problem(vm.lines.kernel, sentence))
            }
        }
    }
}

/// An image in a guest's RAM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    /// What it is to the guest, such as `kernel`.
    pub(crate) role: &'static str,
    /// Its name and kind.
    pub(crate) description: String,
    /// The guest memory it is loaded to, all of it together.
    pub(crate) span: Span,
}

/// Reads the images of `source`, places them, writes the device trees and packs it all.
///
/// # Errors
/// [`Problems`]: images are missing or do not fit, or what came out breaks rules.
pub(crate) fn bundle(source: &Source, images: &dyn Images, options: &BundleOptions) -> Result<Bundle, Problems> {
    let mut archive = Archive::default();
    let mut system = source.skeleton();
    let (mut notes, mut page_sizes, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for (vm, built) in source.vms.iter().zip(&mut system.vms) {
        let mut builder = Builder { source, vm, images, archive: &mut archive, notes: Vec::new() };
        match builder.build(options, built) {
            Ok(page_size) => page_sizes.push(page_size),
            Err(problem) => problems.push(problem),
        }
        notes.push(builder.notes);
    }
    Problems::check(problems)?;
    source.validate(&system)?;

    let whole = |error: &dyn std::fmt::Display| source.problem(None, error.to_string());
    let encoded = manifest::encode(&system).map_err(|error| whole(&error))?;
    let cpio = archive.write((manifest::MANIFEST_FILE, &encoded)).map_err(|error| whole(&error))?;
    // Read it back as EL2 will: nothing leaves that Bulkhead would refuse.
    system.validate_files(&manifest::Bundle::new(&cpio)).map_err(|error| whole(&error))?;
    let own_bytes = system.own_bytes().saturating_add(manifest::takes::reading(encoded.len()));
    let bundle = Bundle { cpio, system, images: notes, page_sizes, own_bytes };
    check_board_memory(source, &bundle)?;
    Ok(bundle)
}

/// The bundle stays in the board's RAM for as long as the system runs, because a restart loads from it.
fn check_board_memory(source: &Source, bundle: &Bundle) -> Result<(), Problem> {
    let machines = source.vms.iter().fold(0_u64, |sum, vm| sum.saturating_add(vm.memory_bytes()));
    let (own, packed) = (source.bulkhead_bytes(bundle.own_bytes), bundle.cpio.len() as u64);
    if machines.saturating_add(own).saturating_add(packed) <= source.memory_bytes {
        return Ok(());
    }
    let sentence = format!(
        "the vms need {} of memory, Bulkhead {} and the bundle {}, but the board has {}; give the vms less",
        show_size_rounded(machines),
        show_size_rounded(own),
        show_size_rounded(packed),
        show_size_rounded(source.memory_bytes)
    );
    Err(source.problem(source.lines.memory, sentence))
}

/// Builds one virtual machine's part of the manifest.
struct Builder<'a> {
    source: &'a Source,
    vm: &'a VmSource,
    images: &'a dyn Images,
    archive: &'a mut Archive,
    notes: Vec<Image>,
}

impl Builder<'_> {
    /// Gives the size of the kernel's pages.
    fn build(&mut self, options: &BundleOptions, built: &mut manifest::Vm) -> Result<Option<PageSize>, Problem> {
        let (vm, ram) = (self.vm, self.vm.ram());

        let path = match &vm.kernel {
            ImageName::File(path) => path.clone(),
            ImageName::Named(name) => self
                .images
                .kernel(name, self.source.directory())
                .map_err(|sentence| self.missing("kernel", sentence))?,
        };
        let bytes = self.read("kernel", &path)?;
        let kernel = place_kernel(bytes, ram).map_err(|end| self.misfit("kernel", &end))?;
        self.note("kernel", format!("{}, {}", vm.kernel, kernel.kind), kernel.span);
        built.entry = kernel.entry;
        let name = format!("{}.kernel", bundle_name(&vm.kernel));
        let only = kernel.segments.len() == 1;
        for (number, segment) in kernel.segments.iter().enumerate() {
            let name = if only { name.clone() } else { format!("{name}.{number}") };
            let file = self.archive.add(&name, segment.bytes.clone());
            built.loads.push(Load { file, address: segment.address });
        }

        let mut initrd = None;
        if let Some((name, bytes)) = self.initrd()? {
            let span = place_initrd(ram, &kernel, bytes.len() as u64).map_err(|end| self.misfit("initrd", &end))?;
            let file = self.archive.add(&format!("{}.initrd", bundle_name(&name)), bytes);
            built.loads.push(Load { file, address: span.base });
            self.note("initrd", name.to_string(), span);
            initrd = Some(span);
        }

        let command_line = self.command_line(options);
        let description = Description {
            name: &vm.name,
            command_line: &command_line,
            memory: &vm.memory,
            vcpus: vm.vcpus(),
            devices: &vm.devices,
            initrd,
            assigned: &vm.assigned,
            physical: self.source.board.devices,
            served: vm.doorbell.map(|doorbell| self.served(doorbell)),
        };
        let tree = device_tree(&description).map_err(|end| self.misfit("device tree", &end))?;
        let places = place_device_tree(ram, &kernel, initrd, tree.bytes.len() as u64)
            .map_err(|end| self.misfit("device tree", &end))?;
        let file = self.archive.add(&format!("{}.dtb", vm.name), tree.bytes);
        built.device_tree = places.passed.base;
        for span in [Some(places.passed), places.copy].into_iter().flatten() {
            built.loads.push(Load { file: file.clone(), address: span.base });
            let in_ram = |seed: &Seed| Seed { address: seed.address.saturating_add(span.base), ..*seed };
            built.seeds.extend(tree.seeds.iter().map(in_ram));
            self.note("device tree", "made from this description".to_string(), span);
        }
        Ok(kernel.page_size)
    }

    fn served(&self, doorbell: u32) -> Served<'_> {
        let serves = |provider: u8| {
            self.source.vms.get(usize::from(provider)).is_some_and(|provider| provider.name == self.vm.name)
        };
        let channels = self.source.channels().filter(|channel| serves(channel.service.provider)).collect();
        Served { doorbell, channels, disks: &self.source.disks }
    }

    fn initrd(&self) -> Result<Option<(ImageName, Vec<u8>)>, Problem> {
        let Some(image) = &self.vm.initrd else { return Ok(None) };
        let contents = match image {
            ImageName::File(path) => Contents::File(path.clone()),
            ImageName::Named(name) => self
                .images
                .initrd(name, self.vm, self.source.directory())
                .map_err(|sentence| self.missing("initrd", sentence))?,
        };
        let bytes = match contents {
            Contents::File(path) => self.read("initrd", &path)?,
            Contents::Bytes(bytes) => bytes,
        };
        Ok(Some((image.clone(), bytes)))
    }

    fn command_line(&self, options: &BundleOptions) -> String {
        let vm = self.vm;
        let identity = identity(self.source, vm);
        let parts = [
            vm.command_line.as_str(),
            options.extra_command_line.as_str(),
            if vm.tells_identity { identity.as_str() } else { "" },
        ];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }

    fn read(&self, role: &str, path: &Path) -> Result<Vec<u8>, Problem> {
        fs::read(path).map_err(|error| {
            let path = path.display();
            let reason = if error.kind() == io::ErrorKind::NotFound {
                format!("there is no file {path}; check its name")
            } else {
                format!("{path} cannot be read ({error}); check the file")
            };
            self.missing(role, reason)
        })
    }

    fn note(&mut self, role: &'static str, description: String, span: Span) {
        self.notes.push(Image { role, description, span });
    }

    fn missing(&self, role: &str, reason: String) -> Problem {
        let image = match role {
            "initrd" => self.vm.initrd.as_ref().unwrap_or(&self.vm.kernel),
            _ => &self.vm.kernel,
        };
        let sentence = format!("the {role} {:?} of vm {:?} is missing: {reason}", image.to_string(), self.vm.name);
        self.source.problem(self.line(role), sentence)
    }

    fn misfit(&self, role: &str, end: &str) -> Problem {
        self.source.problem(self.line(role), format!("the {role} of vm {:?} {end}", self.vm.name))
    }

    fn line(&self, role: &str) -> Line {
        match role {
            "initrd" => self.vm.lines.initrd,
            _ => self.vm.lines.kernel,
        }
    }
}

/// An image's name in the bundle: the last part of its path, or the name itself.
fn bundle_name(image: &ImageName) -> String {
    let whole = image.to_string();
    Path::new(&whole).file_name().map_or(whole.clone(), |name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests;
