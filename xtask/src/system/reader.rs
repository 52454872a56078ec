//! Reads a system from its TOML file, part by part, and keeps the line of each.
//!
//! What must hold between the parts is not decided here: `placement` completes what comes out, and the `manifest` crate
//! validates it.

use manifest::MemoryRegion;
use platform::Board;
use std::{fs, ops::Range, path::Path};
use toml::Spanned;
use vdev::guest_map;

mod io;
mod owned;
mod watch;

pub(super) use owned::{all_of, page_of};

use super::{
    Problem,
    form::{DeviceForm, MemoryForm, SystemForm, VmForm},
    placement::{DOORBELL_INTID, complete, region_below},
    slots::Slots,
    source::{DeviceLines, ImageName, Line, Source, SystemLines, VmLines, VmSource},
    storage::Disk,
};

/// Reads and validates the system in the TOML file `path`; the file's name is the system's.
///
/// # Errors
/// A [`Problem`] with file and line, as far as one line is to blame.
pub(crate) fn load(path: &Path) -> Result<Source, Problem> {
    let text = fs::read_to_string(path).map_err(|error| {
        Problem::new(Some(path), None, format!("the file cannot be read ({error}); check its name"))
    })?;
    parse(path, &text)
}

/// As [`load`], with the file's contents given.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Source, Problem> {
    let reader = Reader { path, text };
    let form: SystemForm = toml::from_str(text).map_err(|error| {
        let line = error.span().and_then(|span| reader.line(&span));
        Problem::new(Some(path), line, sentence_of(error.message()))
    })?;
    let mut source = reader.system(form)?;
    complete(&mut source)?;
    source.validate(&source.skeleton())?;
    Ok(source)
}

/// What the TOML reader says, as a sentence that also says what to do.
fn sentence_of(message: &str) -> String {
    let message = message.replace('\n', " ");
    if let Some((key, known)) = message.strip_prefix("unknown field ").and_then(|rest| rest.split_once(", expected ")) {
        let known = known.strip_prefix("one of ").unwrap_or(known);
        return format!("the key {key} is not known; choose one of these: {known}");
    }
    if let Some(key) = message.strip_prefix("missing field ") {
        return format!("the key {key} is missing; add it");
    }
    if message.contains("; ") { message } else { format!("{message}; correct this line") }
}

/// Turns the TOML form into a [`Source`], and checks what the `manifest` crate does not know about.
pub(super) struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn line(&self, span: &Range<usize>) -> Line {
        let before = self.text.as_bytes().get(..span.start)?;
        Some(before.iter().filter(|byte| **byte == b'\n').count() + 1)
    }

    pub(super) fn line_of<T>(&self, value: &Spanned<T>) -> Line {
        self.line(&value.span())
    }

    pub(super) fn problem(&self, line: Line, sentence: String) -> Problem {
        Problem::new(Some(self.path), line, sentence)
    }

    /// A number of cores, or the number of a core.
    fn core_number(&self, number: &Spanned<u64>) -> Result<u8, Problem> {
        u8::try_from(*number.get_ref()).map_err(|_| {
            let sentence = format!("no board has {} cores; use a smaller number", number.get_ref());
            self.problem(self.line_of(number), sentence)
        })
    }

    fn system(&self, form: SystemForm) -> Result<Source, Problem> {
        let board = platform::find(form.board.get_ref()).ok_or_else(|| {
            let known: Vec<_> = platform::BOARDS.iter().map(|board| board.name).collect();
            let (name, known) = (form.board.get_ref(), known.join(", "));
            let sentence = format!("the board {name:?} is not known; choose one of these: {known}");
            self.problem(self.line_of(&form.board), sentence)
        })?;
        let lines = SystemLines {
            cores: form.cores.as_ref().and_then(|cores| self.line_of(cores)),
            memory: form.memory.as_ref().and_then(|memory| self.line_of(memory)),
            network: form.network.as_ref().and_then(|network| self.line_of(network)),
        };
        let memory_bytes = form.memory.map_or(board.memory_default, |memory| memory.get_ref().0);
        if memory_bytes > board.memory_max {
            let (most, name) = (super::size::show_size(board.memory_max), board.name);
            let sentence = format!("the board {name:?} has at most {most} of memory; give it less");
            return Err(self.problem(lines.memory, sentence));
        }
        let disks = form.disk.into_iter().try_fold(Vec::new(), |disks, disk| self.disk(disks, disk))?;
        let uplink = form.network.map_or(Ok(false), |network| self.uplink(&network.get_ref().uplink))?;
        let cards = form.card.into_iter().map(|card| self.card(card)).collect::<Result<_, _>>()?;
        let mut whole = Whole { board, end: board.ram_base.saturating_add(memory_bytes), disks: &disks };
        let vms = form.vm.into_iter().map(|vm| self.vm(vm, &mut whole)).collect::<Result<_, _>>()?;
        Ok(Source {
            file: Some(self.path.to_path_buf()),
            name: self.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
            description: form.description.unwrap_or_default(),
            board,
            cores: form.cores.map_or(Ok(board.cores_default), |cores| self.core_number(&cores))?,
            memory_bytes,
            vms,
            disks,
            uplink,
            cards,
            lines,
        })
    }

    fn vm(&self, form: Spanned<VmForm>, whole: &mut Whole<'_>) -> Result<VmSource, Problem> {
        let line = self.line_of(&form);
        let form = form.into_inner();
        let mut lines = VmLines {
            vm: line,
            name: self.line_of(&form.name),
            cores: self.line_of(&form.cores),
            core: form.cores.get_ref().iter().map(|core| self.line_of(core)).collect(),
            memory: self.line_of(&form.memory),
            kernel: self.line_of(&form.kernel),
            initrd: form.initrd.as_ref().and_then(|initrd| self.line_of(initrd)),
            owns: form.owns.as_ref().and_then(|owns| self.line_of(owns)),
            driver_domain: form.driver_domain.as_ref().and_then(|stated| self.line_of(stated)),
            ..VmLines::default()
        };
        let is_driver_domain = form.driver_domain.as_ref().is_some_and(|stated| *stated.get_ref());
        let watch = self.watch(&form, is_driver_domain)?;
        let name = form.name.into_inner();
        let assigned = form.owns.map_or_else(Vec::new, Spanned::into_inner);
        let assigned: Vec<_> =
            assigned.iter().map(|owned| self.owned(&name, owned, whole.board)).collect::<Result<_, _>>()?;
        // What a device reads and writes by itself, it does at physical addresses.
        let is_one_to_one = is_driver_domain || assigned.iter().any(|device: &manifest::Assigned| device.dma);
        let memory = match form.memory.into_inner() {
            MemoryForm::Size(size) => {
                lines.regions = vec![lines.memory];
                vec![if is_one_to_one {
                    whole.take(size.0)
                } else {
                    MemoryRegion { guest: guest_map::RAM_BASE, size: size.0, physical: None }
                }]
            }
            MemoryForm::Regions(regions) => {
                lines.regions = regions.iter().map(|region| self.line_of(region)).collect();
                let region = |form: &super::form::RegionForm| MemoryRegion {
                    guest: form.at,
                    size: form.size.0,
                    physical: form.physical,
                };
                regions.iter().map(|form| region(form.get_ref())).collect()
            }
        };
        let (mut devices, mut clients) = (Vec::new(), Vec::new());
        let mut slots = Slots::new(&form.device, &assigned);
        for device in form.device {
            let device = device.into_inner();
            let client = self.client(&name, &device, whole.disks)?;
            let (device, device_lines) = self.device(&name, &device, &mut slots)?;
            devices.push(device);
            clients.push(client);
            lines.devices.push(device_lines);
        }
        Ok(VmSource {
            name,
            memory,
            cores: form.cores.get_ref().iter().map(|core| self.core_number(core)).collect::<Result<_, _>>()?,
            kernel: ImageName::Named(form.kernel.into_inner()),
            initrd: form.initrd.map(|initrd| ImageName::Named(initrd.into_inner())),
            command_line: form.command_line.unwrap_or_default(),
            tells_identity: true,
            devices,
            clients,
            assigned,
            doorbell: is_driver_domain.then_some(DOORBELL_INTID),
            watch,
            load_end: u64::MAX,
            lines,
        })
    }

    fn device(
        &self,
        vm: &str,
        form: &DeviceForm,
        slots: &mut Slots,
    ) -> Result<(manifest::Device, DeviceLines), Problem> {
        let name = form.kind.get_ref().as_str();
        let line = self.line_of(&form.kind);
        let lines = DeviceLines {
            kind: line,
            address: form.address.as_ref().and_then(|address| self.line_of(address)).or(line),
            interrupt: form.interrupt.as_ref().and_then(|interrupt| self.line_of(interrupt)).or(line),
        };
        let Some(kind) = devices::find(name) else {
            let known: Vec<_> = devices::KINDS.iter().map(|kind| kind.name).collect();
            let sentence = format!(
                "vm {vm:?} has a device of kind {name:?}, which is not known; choose one of these: {}",
                known.join(", ")
            );
            return Err(self.problem(line, sentence));
        };
        if form.interrupt.is_some() && kind.default_interrupt.is_none() {
            let sentence = format!("device {name:?} of vm {vm:?} has no interrupt; remove the key \"interrupt\"");
            return Err(self.problem(lines.interrupt, sentence));
        }
        let stated = form.address.as_ref().map(|address| *address.get_ref());
        let (address, interrupt) = match (kind.make, stated) {
            (devices::Make::Emulated(_), _) => (stated.unwrap_or(kind.default_address), kind.default_interrupt),
            (devices::Make::Virtio(_), Some(address)) => (address, Slots::interrupt_at(address)),
            (devices::Make::Virtio(_), None) => slots.next(),
        };
        let device = manifest::Device {
            kind: kind.name.to_string(),
            address,
            size: kind.window_size,
            interrupt: form.interrupt.as_ref().map(|interrupt| *interrupt.get_ref()).or(interrupt),
            service: None,
        };
        Ok((device, lines))
    }
}

/// What the parts of a system share while they are read.
struct Whole<'a> {
    board: &'static Board,
    /// The end of the board's RAM that no driver domain has yet.
    end: u64,
    disks: &'a [Disk],
}

impl Whole<'_> {
    fn take(&mut self, size: u64) -> MemoryRegion {
        let region = region_below(self.end, size);
        self.end = region.guest;
        region
    }
}
