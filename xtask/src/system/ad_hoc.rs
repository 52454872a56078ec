//! One guest from the command line, as one would start it with QEMU itself.

use manifest::MemoryRegion;
use platform::Board;
use std::path::PathBuf;
use vdev::guest_map;

use super::{
    Problem, Problems,
    backend::{Backend, Client, Slice},
    placement::{DOORBELL_INTID, complete, region_below},
    plugs::VIRTIO_MMIO,
    reader::all_of,
    slots::Slots,
    source::{ImageName, Source, SystemLines, VmLines, VmSource},
    storage::{Disk, SECTOR_SIZE},
    virtio::DeviceKind,
};

/// The name of the one guest.
const GUEST_NAME: &str = "guest";
/// The name of the machine with the devices, where the guest has some, and its kernel.
const DRIVER_NAME: &str = "driver-domain";
const DRIVER_KERNEL: &str = "guest:driver-domain";
/// The driver domain's RAM: its own, and a channel for each of 29 disks.
const DRIVER_MEMORY: u64 = 96 << 20;
/// What the board has beyond the guest's RAM, at least: Bulkhead, the boot loader's device tree, and the bundle.
const SPARE_BYTES: u64 = 256 << 20;
const GIB: u64 = 1 << 30;

/// The options of `run --kernel`.
#[derive(Clone, Debug)]
pub(crate) struct AdHoc {
    /// The board to run on.
    pub(crate) board: &'static Board,
    /// How many cores the board has.
    pub(crate) cores: u8,
    /// The kernel: any kind that [`super::bundle()`] knows.
    pub(crate) kernel: PathBuf,
    /// The initial RAM disk.
    pub(crate) initrd: Option<PathBuf>,
    /// The kernel's command line; nothing is added to it.
    pub(crate) command_line: String,
    /// The guest's RAM in bytes.
    pub(crate) memory_bytes: u64,
    /// The guest's virtual CPUs; where there are more than cores, they share them.
    pub(crate) vcpus: u8,
    /// Disk images with their sizes in bytes: each is a disk of the guest's.
    pub(crate) disks: Vec<(PathBuf, u64)>,
    /// Whether the guest has a network card.
    pub(crate) network: bool,
}

/// Makes a system with the one guest that `options` describe: its RAM, its CPUs, a UART; and, where it has disks or a
/// network card, with a driver domain.
///
/// # Errors
/// A [`Problem`] without file and line: a rule of the `manifest` crate is broken.
pub(crate) fn ad_hoc(options: &AdHoc) -> Result<Source, Problems> {
    let AdHoc { board, cores, memory_bytes, .. } = *options;
    let has_devices = options.network || !options.disks.is_empty();
    let driver_bytes = if has_devices { DRIVER_MEMORY } else { 0 };
    let memory_needed = memory_bytes.saturating_add(driver_bytes).saturating_add(SPARE_BYTES);
    let memory_needed = memory_needed.checked_next_multiple_of(GIB).unwrap_or(u64::MAX);
    let board_bytes = memory_needed.clamp(board.memory_default, board.memory_max);
    let mut vms = vec![guest(options)];
    if has_devices {
        // On the last core, which the guest leaves free where it can.
        let region = region_below(board.ram_base.saturating_add(board_bytes), DRIVER_MEMORY);
        vms.push(driver(board, region, cores.saturating_sub(1)));
    }
    let mut source = Source {
        text: None,
        name: GUEST_NAME.to_string(),
        description: format!("One guest: {}", options.kernel.display()),
        board,
        cores,
        memory_bytes: board_bytes,
        vms,
        disks: options.disks.iter().map(disk).collect(),
        uplink: options.network,
        cards: Vec::new(),
        lines: SystemLines::default(),
    };
    let mut problems: Vec<Problem> = Vec::new();
    complete(&mut source, |problem| problems.push(problem));
    source.problems(&source.skeleton(), |problem| problems.push(problem));
    Problems::check(problems)?;
    Ok(source)
}

fn disk((file, bytes): &(PathBuf, u64)) -> Disk {
    let name = file.display().to_string();
    // QEMU counts whole sectors, and so does the guest.
    let size = bytes.checked_next_multiple_of(SECTOR_SIZE).unwrap_or(*bytes);
    Disk { name, size, partitions: Vec::new(), file: Some(file.clone()), owner: None, line: None }
}

fn guest(options: &AdHoc) -> VmSource {
    let mut slots = Slots::all();
    let mut devices: Vec<_> = DeviceKind::find("pl011").map(|kind| device(kind, &mut slots)).into_iter().collect();
    let mut clients = vec![None; devices.len()];
    let disks = (0..options.disks.len()).map(|disk| Backend::Disk {
        disk,
        slice: Slice::Whole,
        read_only: false,
        shared: false,
    });
    let network = options.network.then_some(Backend::Network { rate_limit: None });
    for backend in disks.chain(network) {
        let kind = backend.kind();
        devices.push(device(DeviceKind::Virtio(kind), &mut slots));
        let queues = kind.needs().queues;
        clients.push(Some(Client { driver: None, backend, queues, mac: None, addressing: None }));
    }
    VmSource {
        name: GUEST_NAME.to_string(),
        memory: vec![MemoryRegion { guest: guest_map::RAM_BASE, size: options.memory_bytes, physical: None }],
        cores: (0..options.vcpus).map(|index| index.checked_rem(options.cores).unwrap_or(0)).collect(),
        kernel: ImageName::File(options.kernel.clone()),
        initrd: options.initrd.clone().map(ImageName::File),
        command_line: options.command_line.clone(),
        tells_identity: false,
        devices,
        clients,
        assigned: Vec::new(),
        doorbell: None,
        watch: manifest::Watch::default(),
        load_end: u64::MAX,
        lines: VmLines::default(),
    }
}

fn driver(board: &Board, region: MemoryRegion, core: u8) -> VmSource {
    let devices: Vec<_> = DeviceKind::find("pl011").map(|kind| device(kind, &mut Slots::all())).into_iter().collect();
    VmSource {
        name: DRIVER_NAME.to_string(),
        memory: vec![region],
        cores: vec![core],
        kernel: ImageName::Named(DRIVER_KERNEL.to_string()),
        initrd: None,
        command_line: String::new(),
        tells_identity: true,
        clients: vec![None; devices.len()],
        devices,
        assigned: board.devices.iter().filter(|device| device.name == VIRTIO_MMIO).map(all_of).collect(),
        doorbell: Some(DOORBELL_INTID),
        watch: manifest::Watch::default(),
        load_end: u64::MAX,
        lines: VmLines::default(),
    }
}

fn device(kind: DeviceKind, slots: &mut Slots) -> manifest::Device {
    let (address, interrupt) = match kind {
        DeviceKind::Emulated(kind) => (kind.default_address, kind.default_interrupt),
        DeviceKind::Calls => (guest_map::CALLS_BASE, None),
        // Beyond the last slot it lies over another: the rules refuse it.
        DeviceKind::Virtio(_) => slots.next().unwrap_or((guest_map::VIRTIO_BASE, Some(guest_map::VIRTIO_INTID))),
    };
    let (kind, size) = (kind.name().to_string(), kind.window_size());
    manifest::Device { kind, address, size, interrupt, service: None, configuration: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::virtio::VirtioKind;

    fn options() -> AdHoc {
        AdHoc {
            board: platform::BOARDS[0],
            cores: 2,
            kernel: PathBuf::from("Image"),
            initrd: None,
            command_line: "console=ttyAMA0".to_string(),
            memory_bytes: 512 << 20,
            vcpus: 3,
            disks: Vec::new(),
            network: false,
        }
    }

    #[test]
    fn a_guest_with_a_disk_and_a_card_gets_a_driver_domain_on_the_last_core() {
        let with_devices = AdHoc { vcpus: 1, disks: vec![("a.img".into(), 1000)], network: true, ..options() };
        let source = ad_hoc(&with_devices).unwrap();
        let [guest, driver] = source.vms() else { panic!("{} machines", source.vms().len()) };
        assert_eq!((guest.cores.as_slice(), driver.cores.as_slice()), ([0].as_slice(), [1].as_slice()));
        let kinds: Vec<_> = guest.channels().map(|channel| channel.client.backend.kind()).collect();
        assert_eq!(kinds, [VirtioKind::Block, VirtioKind::Network]);
        let slots: Vec<_> = guest.channels().map(|channel| channel.device.address).collect();
        assert_eq!(slots, [0x0a00_0000, 0x0a00_1000]);
        assert!(driver.owns("virtio-mmio"));
        assert_eq!(source.disks()[0].size, 1024, "whole sectors");
    }

    #[test]
    fn virtual_cpus_beyond_the_cores_share_them() {
        assert_eq!(ad_hoc(&options()).unwrap().vms()[0].cores, [0, 1, 0]);
    }

    #[test]
    fn the_board_grows_with_the_guest() {
        assert_eq!(ad_hoc(&options()).unwrap().memory_bytes(), 1 << 30);
        let large = AdHoc { memory_bytes: 4 << 30, ..options() };
        assert_eq!(ad_hoc(&large).unwrap().memory_bytes(), 5 << 30);
    }

    #[test]
    fn a_broken_rule_is_a_sentence_without_a_file() {
        let problem = ad_hoc(&AdHoc { vcpus: 0, ..options() }).unwrap_err();
        assert_eq!(problem.to_string(), "vm \"guest\" has no virtual cpu; name a core in its list of cores");
        let problem = ad_hoc(&AdHoc { memory_bytes: u64::MAX, ..options() }).unwrap_err();
        assert!(problem.to_string().contains("memory comes in multiples of 2 MiB"), "{problem}");
        ad_hoc(&AdHoc { cores: 0, ..options() }).unwrap_err();
    }
}
