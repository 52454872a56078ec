//! A system as its author wrote it: read, validated, and with the line of each part.

use manifest::{BoardLimits, GicWindows, MemoryRegion, Place, Span};
use platform::{Board, Gic, Uart};
use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};
use toml::Spanned;
use vdev::guest_map;

use super::{
    Problem,
    form::{DeviceForm, MemoryForm, SystemForm, VmForm},
};

/// A system that is validated as far as that is possible without its images.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) file: Option<PathBuf>,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) board: &'static Board,
    pub(crate) cores: u8,
    pub(crate) memory_bytes: u64,
    pub(crate) vms: Vec<VmSource>,
    pub(crate) lines: SystemLines,
}

/// A virtual machine of a [`Source`].
#[derive(Debug)]
pub(crate) struct VmSource {
    pub(crate) name: String,
    /// RAM, in ascending order of guest address.
    pub(crate) memory: Vec<MemoryRegion>,
    /// The core of each virtual CPU.
    pub(crate) cores: Vec<u8>,
    pub(crate) kernel: ImageName,
    pub(crate) initrd: Option<ImageName>,
    pub(crate) command_line: String,
    /// Whether the command line also gets the machine's own name, number of CPUs and size of memory.
    pub(crate) tells_identity: bool,
    pub(crate) devices: Vec<manifest::Device>,
    pub(crate) lines: VmLines,
}

/// How a system names an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ImageName {
    /// A name that [`super::Images`] understands.
    Named(String),
    /// A file, as on the command line.
    File(PathBuf),
}

impl std::fmt::Display for ImageName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Named(name) => formatter.write_str(name),
            Self::File(path) => path.display().fmt(formatter),
        }
    }
}

/// A line of the system's file, counted from 1; `None` for a system from the command line and for what is not stated.
pub(crate) type Line = Option<usize>;

/// Where the file says what about the whole.
#[derive(Debug, Default)]
pub(crate) struct SystemLines {
    pub(crate) cores: Line,
    pub(crate) memory: Line,
}

/// Where the file says what about a virtual machine.
#[derive(Debug, Default)]
pub(crate) struct VmLines {
    pub(crate) vm: Line,
    pub(crate) name: Line,
    pub(crate) cores: Line,
    pub(crate) core: Vec<Line>,
    pub(crate) memory: Line,
    pub(crate) regions: Vec<Line>,
    pub(crate) kernel: Line,
    pub(crate) initrd: Line,
    pub(crate) devices: Vec<DeviceLines>,
}

/// Where the file says what about a device.
#[derive(Debug, Default)]
pub(crate) struct DeviceLines {
    pub(crate) kind: Line,
    pub(crate) address: Line,
    pub(crate) interrupt: Line,
}

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
    let source = reader.system(form)?;
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
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn line(&self, span: &Range<usize>) -> Line {
        let before = self.text.as_bytes().get(..span.start)?;
        Some(before.iter().filter(|byte| **byte == b'\n').count() + 1)
    }

    fn line_of<T>(&self, value: &Spanned<T>) -> Line {
        self.line(&value.span())
    }

    fn problem(&self, line: Line, sentence: String) -> Problem {
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
        };
        let memory_bytes = form.memory.map_or(board.memory_default, |memory| memory.get_ref().0);
        if memory_bytes > board.memory_max {
            let (most, name) = (super::size::show_size(board.memory_max), board.name);
            let sentence = format!("the board {name:?} has at most {most} of memory; give it less");
            return Err(self.problem(lines.memory, sentence));
        }
        Ok(Source {
            file: Some(self.path.to_path_buf()),
            name: self.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
            description: form.description.unwrap_or_default(),
            board,
            cores: form.cores.map_or(Ok(board.cores_default), |cores| self.core_number(&cores))?,
            memory_bytes,
            vms: form.vm.into_iter().map(|vm| self.vm(vm)).collect::<Result<_, _>>()?,
            lines,
        })
    }

    fn vm(&self, form: Spanned<VmForm>) -> Result<VmSource, Problem> {
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
            ..VmLines::default()
        };
        let memory = match form.memory.into_inner() {
            MemoryForm::Size(size) => {
                lines.regions = vec![lines.memory];
                vec![MemoryRegion { guest: guest_map::RAM_BASE, size: size.0, physical: None }]
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
        let name = form.name.into_inner();
        let mut devices = Vec::new();
        for device in form.device {
            let (device, device_lines) = self.device(&name, device.into_inner())?;
            devices.push(device);
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
            lines,
        })
    }

    fn device(&self, vm: &str, form: DeviceForm) -> Result<(manifest::Device, DeviceLines), Problem> {
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
        let device = manifest::Device {
            kind: kind.name.to_string(),
            address: form.address.map_or(kind.default_address, Spanned::into_inner),
            size: kind.window_size,
            interrupt: form.interrupt.map(Spanned::into_inner).or(kind.default_interrupt),
            service: None,
        };
        Ok((device, lines))
    }
}

impl Source {
    /// The system's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The board that the system is made for.
    pub(crate) const fn board(&self) -> &'static Board {
        self.board
    }

    /// How many cores the board must have.
    pub(crate) const fn cores(&self) -> u8 {
        self.cores
    }

    /// How much RAM the board must have, in bytes.
    pub(crate) const fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// The virtual machines.
    pub(crate) fn vms(&self) -> &[VmSource] {
        &self.vms
    }

    /// Something wrong with this system.
    pub(crate) fn problem(&self, line: Line, sentence: impl Into<String>) -> Problem {
        Problem::new(self.file.as_deref(), line, sentence)
    }

    /// The manifest before images are placed: everything starts at the start of RAM.
    pub(crate) fn skeleton(&self) -> manifest::System {
        let vm = |vm: &VmSource| manifest::Vm {
            name: vm.name.clone(),
            memory: vm.memory.clone(),
            vcpus: vm.cores.iter().map(|core| manifest::Vcpu { core: *core }).collect(),
            loads: Vec::new(),
            entry: vm.ram().base,
            device_tree: vm.ram().base,
            seeds: Vec::new(),
            devices: vm.devices.clone(),
            assigned: Vec::new(),
            doorbell: None,
        };
        manifest::System { name: self.name.clone(), cores: self.cores, vms: self.vms.iter().map(vm).collect() }
    }

    /// Applies the rules of the `manifest` crate to `system`, made from this source.
    pub(crate) fn validate(&self, system: &manifest::System) -> Result<(), Problem> {
        let memory = [Span::new(self.board.ram_base, self.memory_bytes)];
        let Uart::Pl011 { base: uart, interrupt: uart_interrupt } = self.board.uart;
        let Gic::V3 { distributor, redistributors } = self.board.gic;
        let redistributors_size = guest_map::redistributors_size(self.board.cores_max);
        let kept = [
            Span::new(uart, guest_map::PL011_SIZE),
            Span::new(distributor, guest_map::GICD_SIZE),
            Span::new(redistributors, redistributors_size),
        ];
        let limits = BoardLimits {
            cores: self.board.cores_max,
            memory: &memory,
            reserved: self.board.reserved_for_hypervisor,
            gic: GicWindows {
                distributor: Span::new(guest_map::GICD_BASE, guest_map::GICD_SIZE),
                redistributors: guest_map::GICR_BASE,
                redistributor_size: guest_map::GICR_STRIDE,
            },
            kept: &kept,
            kept_interrupts: &[uart_interrupt],
        };
        system.validate(&limits).map_err(|error| self.problem(self.line(error.place()), error.to_string()))
    }

    /// The line of what a rule is about; the nearest line above it, where the file does not state it.
    fn line(&self, place: Place) -> Line {
        let vm = |index: usize| self.vms.get(index).map(|vm| &vm.lines);
        let device = |vm_index, index: usize| vm(vm_index)?.devices.get(index);
        match place {
            Place::System => None,
            Place::Cores => self.lines.cores,
            Place::BoardMemory => self.lines.memory,
            Place::Vm(index) => vm(index)?.vm,
            Place::Name(index) => vm(index)?.name,
            Place::Vcpus(index) => vm(index)?.cores,
            Place::Vcpu(index, vcpu) => vm(index)?.core.get(vcpu).copied().flatten(),
            Place::Memory(index) => vm(index)?.memory,
            Place::Region(index, region) => vm(index)?.regions.get(region).copied().flatten(),
            Place::Start(index) | Place::Load(index, _) => vm(index)?.kernel,
            Place::Device(index, number) => device(index, number)?.kind,
            Place::DeviceAddress(index, number) => device(index, number)?.address,
            Place::DeviceInterrupt(index, number) => device(index, number)?.interrupt,
            Place::Service(index, number) => device(index, number)?.kind,
            Place::Assigned(index, _) | Place::Doorbell(index) => vm(index)?.vm,
        }
    }
}

impl VmSource {
    /// The machine's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// How many virtual CPUs it has.
    pub(crate) fn vcpus(&self) -> usize {
        self.cores.len()
    }

    /// How much RAM it has, in bytes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory.iter().fold(0, |sum, region| region.size.saturating_add(sum))
    }

    /// The region of RAM that everything is loaded into: the first.
    pub(crate) fn ram(&self) -> Span {
        self.memory.first().map_or(Span::new(guest_map::RAM_BASE, 0), MemoryRegion::guest_span)
    }
}
