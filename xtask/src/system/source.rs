//! A system as its author wrote it: read, validated, and with the line of each part.

use manifest::{BoardLimits, GicWindows, MemoryRegion, Place, Span};
use platform::{Board, Gic, Uart};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use vdev::guest_map;

use super::{
    Problem, Problems,
    backend::{Backend, Client, Mac, Slice},
    ip::Stated,
    problem::{Line, Text},
    storage::{Content, Disk},
};

/// A system that is validated as far as that is possible without its images.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its file, unless it came from the command line.
    pub(crate) text: Option<Arc<Text>>,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) board: &'static Board,
    pub(crate) cores: u8,
    pub(crate) memory_bytes: u64,
    pub(crate) vms: Vec<VmSource>,
    /// The board's disks, in the order of their virtio slots.
    pub(crate) disks: Vec<Disk>,
    /// Whether the board has a network card, on QEMU's user network.
    pub(crate) uplink: bool,
    /// The board's network cards with owners.
    pub(crate) cards: Vec<Card>,
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
    /// For each device: what stands behind it, if it is para-virtual.
    pub(crate) clients: Vec<Option<Client>>,
    /// The board's devices that it owns.
    pub(crate) assigned: Vec<manifest::Assigned>,
    /// The doorbell of a driver domain.
    pub(crate) doorbell: Option<u32>,
    /// What a driver domain is held to.
    pub(crate) watch: manifest::Watch,
    /// Where the memory ends that files are loaded to: below the channels of a driver domain.
    pub(crate) load_end: u64,
    pub(crate) lines: VmLines,
}

/// A real network card that one virtual machine drives itself. It is on a user network of QEMU's of its own.
#[derive(Clone, Debug)]
pub(crate) struct Card {
    /// The name of its virtual machine.
    pub(crate) owner: String,
    /// Its address, where the system states it.
    pub(crate) mac: Option<[u8; 6]>,
    /// Where its IPv4 address comes from, where the system states it.
    pub(crate) addressing: Option<Stated>,
    pub(crate) line: Line,
}

/// The name of Debian's arm64 kernel.
pub(crate) const DEBIAN: &str = "debian";

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

/// Where the file says what about the whole.
#[derive(Debug, Default)]
pub(crate) struct SystemLines {
    pub(crate) cores: Line,
    pub(crate) memory: Line,
    pub(crate) network: Line,
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
    pub(crate) owns: Line,
    pub(crate) owned: Vec<Line>,
    pub(crate) driver_domain: Line,
    pub(crate) devices: Vec<DeviceLines>,
}

impl VmLines {
    /// The line of the device with this number.
    pub(crate) fn device(&self, number: usize) -> Line {
        self.devices.get(number)?.kind
    }
}

/// Where the file says what about a device.
#[derive(Debug, Default)]
pub(crate) struct DeviceLines {
    pub(crate) kind: Line,
    pub(crate) address: Line,
    pub(crate) interrupt: Line,
}

impl Source {
    /// The system's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The directory that its paths are relative to: that of its file.
    pub(crate) fn directory(&self) -> &Path {
        self.text.as_deref().and_then(|text| text.path().parent()).unwrap_or(Path::new(""))
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

    /// The board's disks.
    pub(crate) fn disks(&self) -> &[Disk] {
        &self.disks
    }

    /// The address of the board's network card, if it has one.
    pub(crate) fn uplink_mac(&self) -> Option<Mac> {
        let taken: Vec<_> = self.channels().filter_map(|channel| channel.client.mac).collect();
        self.uplink.then(|| Mac::generate(&self.name, "uplink", &taken))
    }

    /// The names of the machines with a device on `partition` of `disk`, or that drive the whole disk for themselves.
    pub(crate) fn users_of_partition(&self, disk: &str, partition: &str) -> impl Iterator<Item = &str> {
        let is_there = move |client: &Client| match &client.backend {
            Backend::Disk { disk: number, slice, .. } => {
                let found = self.disks.get(*number).filter(|found| found.name == disk);
                found.is_some_and(|found| match slice {
                    Slice::Partition(index) => found.partitions.get(*index).is_some_and(|part| part.name == partition),
                    Slice::Whole => true,
                    Slice::Range(_) => false,
                })
            }
            Backend::RamDisk { .. } => false,
            Backend::Network { .. } | Backend::Console | Backend::Entropy | Backend::Socket { .. } => false,
        };
        let owns = move |vm: &VmSource| vm.doorbell.is_none() && self.disks_of(vm).any(|(_, found)| found.name == disk);
        let users = self.vms.iter().filter(move |vm| vm.clients.iter().flatten().any(is_there) || owns(vm));
        users.map(VmSource::name)
    }

    /// Something wrong with this system.
    pub(crate) fn problem(&self, line: Line, sentence: impl Into<String>) -> Problem {
        Problem::new(self.text.as_ref(), line, sentence)
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
            assigned: vm.assigned.clone(),
            doorbell: vm.doorbell,
            watch: vm.watch,
        };
        manifest::System { name: self.name.clone(), cores: self.cores, vms: self.vms.iter().map(vm).collect() }
    }

    /// All that is Bulkhead's own of the board's RAM, if it takes `own_bytes` for this system.
    pub(crate) fn bulkhead_bytes(&self, own_bytes: u64) -> u64 {
        self.board.reserved_for_hypervisor.saturating_add(own_bytes)
    }

    /// Applies the rules of the `manifest` crate to `system`, made from this source.
    ///
    /// # Errors
    /// All that is wrong.
    pub(crate) fn validate(&self, system: &manifest::System) -> Result<(), Problems> {
        let mut problems = Vec::new();
        self.problems(system, |problem| problems.push(problem));
        Problems::check(problems)
    }

    /// As [`Source::validate`], one problem at a time.
    pub(crate) fn problems(&self, system: &manifest::System, mut report: impl FnMut(Problem)) {
        self.with_limits(|limits| system.each_error(limits, |error| report(self.broken(&error))));
    }

    /// As [`Source::problems`], for a system of which parts are missing: only what is wrong with a part by itself.
    pub(crate) fn problems_of_parts(&self, system: &manifest::System, mut report: impl FnMut(Problem)) {
        self.with_limits(|limits| system.each_error_of_parts(limits, |error| report(self.broken(&error))));
    }

    fn broken(&self, error: &manifest::Error<'_>) -> Problem {
        self.problem(self.line(error.place()), error.to_string())
    }

    fn with_limits(&self, check: impl FnOnce(&BoardLimits<'_>)) {
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
        check(&limits);
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
            Place::Assigned(index, number) => vm(index)?.owned.get(number).copied().flatten().or(vm(index)?.owns),
            Place::Doorbell(index) => vm(index)?.driver_domain,
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

    /// The RAM that everything is loaded into: the first region, as far as no channels lie in it.
    pub(crate) fn ram(&self) -> Span {
        let whole = self.memory.first().map_or(Span::new(guest_map::RAM_BASE, 0), MemoryRegion::guest_span);
        let end = whole.end().unwrap_or(u64::MAX).min(self.load_end);
        Span::new(whole.base, end.saturating_sub(whole.base))
    }

    /// Where its last region of RAM ends.
    pub(crate) fn memory_end(&self) -> u64 {
        self.memory.last().map_or(0, |region| region.guest_span().end().unwrap_or(u64::MAX))
    }

    /// Whether it owns the board's device `name`.
    pub(crate) fn owns(&self, name: &str) -> bool {
        self.assigned.iter().any(|device| device.name == name)
    }

    /// What the guest finds on each of its para-virtual disks, in their order.
    pub(crate) fn block_devices<'a>(&'a self, source: &'a Source) -> impl Iterator<Item = BlockContent> + 'a {
        self.clients.iter().flatten().filter_map(|client| match &client.backend {
            Backend::Disk { disk, slice, read_only, shared } => {
                let disk = source.disks.get(*disk)?;
                let content = match slice {
                    Slice::Partition(index) => disk.partitions.get(*index)?.content,
                    Slice::Whole | Slice::Range(_) => None,
                };
                let (bytes, read_only, shared) = (disk.span_of(*slice).size, *read_only, *shared);
                Some(BlockContent { bytes, content, read_only, shared })
            }
            Backend::RamDisk { span, read_only } => {
                Some(BlockContent { bytes: span.size, content: None, read_only: *read_only, shared: false })
            }
            Backend::Network { .. } | Backend::Console | Backend::Entropy | Backend::Socket { .. } => None,
        })
    }
}

/// What a guest finds on a disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BlockContent {
    /// The size in bytes.
    pub(crate) bytes: u64,
    /// What it holds at first, where it is a partition and the system says so.
    pub(crate) content: Option<Content>,
    /// Whether it takes no writes.
    pub(crate) read_only: bool,
    /// Whether another guest may write it, too.
    pub(crate) shared: bool,
}
