//! The partition report for programs. Its shape is stable: a key keeps its meaning for as long as `format` stays the
//! same, and programs leave out keys that they do not know. Sizes are in bytes, addresses are numbers.

use serde::Serialize;
use std::path::Path;

use super::io::users_of_partition;
use crate::system::{Bundle, Problems, Source, VmSource, backend::Mac};

/// The number of this shape. It changes when a key goes or means something else.
const FORMAT: u32 = 1;

/// What `check --json` prints. Of a system that is refused there are the problems alone.
#[derive(Serialize)]
struct Report<'a> {
    format: u32,
    /// Whether the system can start.
    accepted: bool,
    problems: Vec<ProblemReport<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system: Option<SystemReport<'a>>,
}

#[derive(Serialize)]
struct ProblemReport<'a> {
    file: Option<&'a Path>,
    /// Counted from 1, as columns are; columns count characters.
    line: Option<usize>,
    column: Option<usize>,
    /// The wrong word as it is written.
    word: Option<&'a str>,
    /// What is wrong, and what to write instead.
    rule: &'a str,
    advice: &'a str,
}

#[derive(Serialize)]
struct SystemReport<'a> {
    name: &'a str,
    description: &'a str,
    board: &'a str,
    cores: u8,
    memory: BoardMemory,
    vms: Vec<VmReport<'a>>,
    disks: Vec<DiskReport<'a>>,
    /// The address of the board's network card, if there is one.
    uplink_mac: Option<String>,
    /// What an author should know, although nothing is wrong.
    notes: Vec<String>,
}

#[derive(Serialize)]
struct BoardMemory {
    address: u64,
    size: u64,
    /// What Bulkhead keeps for itself.
    hypervisor: u64,
    /// Nothing with `--quick`.
    bundle: Option<u64>,
    spare: u64,
}

#[derive(Serialize)]
struct VmReport<'a> {
    name: &'a str,
    driver_domain: bool,
    /// The core of each virtual CPU.
    cores: &'a [u8],
    memory: Vec<Region>,
    devices: Vec<DeviceReport<'a>>,
    physical_devices: Vec<PhysicalReport<'a>>,
    /// Nothing with `--quick`.
    images: Option<Vec<ImageReport<'a>>>,
    entry: Option<u64>,
}

#[derive(Serialize)]
struct Region {
    address: u64,
    size: u64,
    /// Nothing where it is chosen at boot.
    physical_address: Option<u64>,
}

#[derive(Serialize)]
struct DeviceReport<'a> {
    kind: &'a str,
    address: u64,
    size: u64,
    interrupt: Option<u32>,
    /// The driver domain and its channel, where the device is para-virtual.
    served_by: Option<&'a str>,
    channel: Option<u16>,
    /// What stands behind it, as in the report for people.
    gives: Option<String>,
}

#[derive(Serialize)]
struct PhysicalReport<'a> {
    name: &'a str,
    address: u64,
    size: u64,
    interrupts: &'a [u32],
    /// Whether it reads and writes memory by itself, so that its owner is trusted with all of it.
    dma: bool,
}

#[derive(Serialize)]
struct ImageReport<'a> {
    role: &'a str,
    image: &'a str,
    address: u64,
    size: u64,
}

#[derive(Serialize)]
struct DiskReport<'a> {
    name: &'a str,
    size: u64,
    /// The machine that drives it.
    driver: Option<&'a str>,
    /// A file of the user's.
    file: Option<&'a Path>,
    partitions: Vec<PartitionReport<'a>>,
}

#[derive(Serialize)]
struct PartitionReport<'a> {
    name: &'a str,
    /// In bytes from the start of the disk.
    offset: u64,
    size: u64,
    content: Option<&'a str>,
    users: Vec<&'a str>,
}

/// The report of a system that is accepted.
pub(crate) fn json(source: &Source, bundle: Option<&Bundle>) -> String {
    text(&Report { format: FORMAT, accepted: true, problems: Vec::new(), system: Some(system(source, bundle)) })
}

/// The report of a system that is refused.
pub(crate) fn json_of_problems(problems: &Problems) -> String {
    let problems = problems.iter().map(|problem| {
        let (rule, advice) = problem.halves();
        ProblemReport {
            file: problem.file(),
            line: problem.line(),
            column: problem.column(),
            word: problem.word(),
            rule,
            advice,
        }
    });
    text(&Report { format: FORMAT, accepted: false, problems: problems.collect(), system: None })
}

fn text(report: &Report<'_>) -> String {
    let mut text = serde_json::to_string_pretty(report).unwrap_or_default();
    text.push('\n');
    text
}

fn system<'a>(source: &'a Source, bundle: Option<&'a Bundle>) -> SystemReport<'a> {
    let machines = source.vms.iter().fold(0_u64, |sum, vm| sum.saturating_add(vm.memory_bytes()));
    let packed = bundle.map(|bundle| bundle.cpio.len() as u64);
    let own = source.bulkhead_bytes(bundle.map_or_else(|| source.skeleton().own_bytes(), |bundle| bundle.own_bytes));
    let used = machines.saturating_add(own).saturating_add(packed.unwrap_or(0));
    SystemReport {
        name: source.name(),
        description: &source.description,
        board: source.board.name,
        cores: source.cores,
        memory: BoardMemory {
            address: source.board.ram_base,
            size: source.memory_bytes,
            hypervisor: own,
            bundle: packed,
            spare: source.memory_bytes.saturating_sub(used),
        },
        vms: source.vms.iter().enumerate().map(|(index, machine)| vm(source, bundle, index, machine)).collect(),
        disks: (0..source.disks.len()).filter_map(|number| disk(source, number)).collect(),
        uplink_mac: source.uplink_mac().as_ref().map(Mac::to_string),
        notes: source.notes(),
    }
}

fn vm<'a>(source: &'a Source, bundle: Option<&'a Bundle>, index: usize, vm: &'a VmSource) -> VmReport<'a> {
    let images = bundle.and_then(|bundle| bundle.images.get(index)).map(|images| {
        let image = |image: &'a crate::system::bundle::Image| ImageReport {
            role: image.role,
            image: &image.description,
            address: image.span.base,
            size: image.span.size,
        };
        images.iter().map(image).collect()
    });
    VmReport {
        name: &vm.name,
        driver_domain: vm.doorbell.is_some(),
        cores: &vm.cores,
        memory: vm
            .memory
            .iter()
            .map(|region| Region { address: region.guest, size: region.size, physical_address: region.physical })
            .collect(),
        devices: vm.devices.iter().map(|device| self::device(source, vm, device)).collect(),
        physical_devices: vm
            .assigned
            .iter()
            .map(|device| PhysicalReport {
                name: &device.name,
                address: device.address,
                size: device.size,
                interrupts: &device.interrupts,
                dma: device.dma,
            })
            .collect(),
        images,
        entry: bundle.and_then(|bundle| Some(bundle.system.vms.get(index)?.entry)),
    }
}

fn device<'a>(source: &'a Source, vm: &'a VmSource, device: &'a manifest::Device) -> DeviceReport<'a> {
    let service = device.service.as_ref();
    let provider = service.and_then(|service| source.vms.get(usize::from(service.provider)));
    let channel = vm.channels().find(|channel| std::ptr::eq(channel.device, device));
    DeviceReport {
        kind: &device.kind,
        address: device.address,
        size: device.size,
        interrupt: device.interrupt,
        served_by: provider.map(VmSource::name),
        channel: service.map(|service| service.channel),
        gives: channel.map(|channel| super::io::gives(source, &channel)),
    }
}

fn disk(source: &Source, number: usize) -> Option<DiskReport<'_>> {
    let disk = source.disks.get(number)?;
    let partitions = disk.partitions.iter().enumerate().map(|(index, partition)| PartitionReport {
        name: &partition.name,
        offset: partition.span.base,
        size: partition.span.size,
        content: partition.content.map(|content| content.name()),
        users: users_of_partition(source, number, index),
    });
    Some(DiskReport {
        name: &disk.name,
        size: disk.size,
        driver: source.driver_of(disk).map(VmSource::name),
        file: disk.file.as_deref(),
        partitions: partitions.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::reader::parse;
    use serde_json::Value;

    /// What has this path, as in `system.vms.0.name`.
    fn at<'a>(value: &'a Value, path: &str) -> &'a Value {
        path.split('.').fold(value, |value, key| match key.parse::<usize>() {
            Ok(index) => &value[index],
            Err(_) => &value[key],
        })
    }

    #[test]
    fn a_program_finds_who_owns_what() {
        let text = include_str!("../../../../guests/systems/two-linux.toml");
        let source = parse(Path::new("two-linux.toml"), text).unwrap();
        let report: Value = serde_json::from_str(&json(&source, None)).unwrap();
        let expected = [
            ("format", Value::from(1)),
            ("accepted", true.into()),
            ("problems", Vec::<Value>::new().into()),
            ("system.name", "two-linux".into()),
            ("system.board", "qemu-virt".into()),
            ("system.memory.bundle", Value::Null),
            ("system.vms.0.name", "alpha".into()),
            ("system.vms.0.cores", vec![0, 1].into()),
            ("system.vms.0.driver_domain", false.into()),
            ("system.vms.0.devices.0.kind", "pl011".into()),
            ("system.vms.0.devices.1.served_by", "driver-domain".into()),
            ("system.vms.0.memory.0.physical_address", Value::Null),
            ("system.vms.2.physical_devices.0.name", "virtio-mmio".into()),
            ("system.vms.2.physical_devices.0.dma", true.into()),
            ("system.disks.0.driver", "driver-domain".into()),
            ("system.notes.0", source.notes()[0].as_str().into()),
            ("system.disks.0.partitions.0.users", vec!["alpha"].into()),
        ];
        for (path, value) in expected {
            assert_eq!(at(&report, path), &value, "{path}");
        }
    }

    #[test]
    fn a_program_finds_every_problem_with_its_place() {
        let problems = parse(Path::new("x.toml"), "board = \"qemu-vrit\"\nmemori = 1\n").unwrap_err();
        let report: Value = serde_json::from_str(&json_of_problems(&problems)).unwrap();
        let expected = [
            ("accepted", Value::from(false)),
            ("problems.0.file", "x.toml".into()),
            ("problems.0.line", 1.into()),
            ("problems.0.column", 9.into()),
            ("problems.0.word", "\"qemu-vrit\"".into()),
            ("problems.0.advice", "did you mean \"qemu-virt\"?".into()),
            ("problems.1.word", "memori".into()),
            ("problems.2", Value::Null),
            ("system", Value::Null),
        ];
        for (path, value) in expected {
            assert_eq!(at(&report, path), &value, "{path}");
        }
    }
}
