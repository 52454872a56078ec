//! The tree is read back as a guest reads it.

use super::*;

const INITRD: Span = Span::new(0x4800_0000, 0x1234);

fn uart(address: u64, interrupt: u32) -> Device {
    Device {
        kind: "pl011".to_string(),
        address,
        size: 0x1000,
        interrupt: Some(interrupt),
        service: None,
        configuration: Vec::new(),
    }
}

/// The tree of a guest with ten virtual CPUs, two regions of RAM, and two UARTs.
fn tree() -> DeviceTree {
    let region = |guest| MemoryRegion { guest, size: 0x1000_0000, physical: None };
    let description = Description {
        name: "alpha",
        command_line: "console=ttyAMA0 quiet",
        memory: &[region(0x4000_0000), region(0x1_0000_0000)],
        vcpus: 10,
        devices: &[uart(0x0900_0000, 33), uart(0x0904_0000, 40)],
        initrd: Some(INITRD),
        assigned: &[],
        physical: &[],
        served: None,
    };
    device_tree(&description).unwrap()
}

/// A guest with `devices` and little else.
fn description<'a>(name: &'a str, devices: &'a [Device]) -> Description<'a> {
    Description {
        name,
        command_line: "",
        memory: &[],
        vcpus: 1,
        devices,
        initrd: None,
        assigned: &[],
        physical: &[],
        served: None,
    }
}

fn text(tree: &DeviceTree, path: &str, property: &str) -> String {
    let tree = Fdt::new(&tree.bytes).unwrap();
    tree.find_node(path).unwrap().property(property).unwrap().as_str().unwrap().to_string()
}

/// A property as cells of 32 bits.
fn cells(tree: &DeviceTree, path: &str, property: &str) -> Vec<u32> {
    let tree = Fdt::new(&tree.bytes).unwrap();
    let value = tree.find_node(path).unwrap().property(property).unwrap().value;
    value.as_chunks().0.iter().map(|cell| u32::from_be_bytes(*cell)).collect()
}

#[test]
fn a_guest_finds_its_name_and_command_line() {
    let tree = tree();
    assert_eq!(text(&tree, "/chosen", "bootargs"), "console=ttyAMA0 quiet");
    assert_eq!(text(&tree, "/chosen", "bulkhead,name"), "alpha");
    assert_eq!(text(&tree, "/hypervisor", "compatible"), "bulkhead,bulkhead");
}

#[test]
fn a_guest_finds_its_console() {
    let tree = tree();
    assert_eq!(text(&tree, "/chosen", "stdout-path"), "/pl011@9000000");
    assert_eq!(text(&tree, "/aliases", "serial0"), "/pl011@9000000");
}

#[test]
fn a_guest_finds_its_memory_and_no_other() {
    let tree = tree();
    let tree = Fdt::new(&tree.bytes).unwrap();
    let nodes = tree.all_nodes().filter(|node| node.name.starts_with("memory"));
    let regions: Vec<_> = nodes
        .flat_map(|node| node.reg().unwrap().map(|region| (region.starting_address as u64, region.size)))
        .collect();
    assert_eq!(regions, [(0x4000_0000, Some(0x1000_0000)), (0x1_0000_0000, Some(0x1000_0000))]);
}

#[test]
fn a_guest_finds_its_initrd() {
    let tree = tree();
    assert_eq!(cells(&tree, "/chosen", "linux,initrd-start"), [0, 0x4800_0000]);
    assert_eq!(cells(&tree, "/chosen", "linux,initrd-end"), [0, 0x4800_1234]);
}

#[test]
fn a_guest_finds_its_processors_by_affinity() {
    let tree = tree();
    let fdt = Fdt::new(&tree.bytes).unwrap();
    assert_eq!(fdt.cpus().map(|cpu| cpu.ids().first()).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
    assert_eq!(text(&tree, "/cpus/cpu@9", "enable-method"), "psci");
    assert_eq!(text(&tree, "/psci", "method"), "hvc");
}

#[test]
fn a_guest_finds_its_interrupt_controller_with_all_redistributors() {
    let tree = tree();
    assert_eq!(text(&tree, "/intc@8000000", "compatible"), "arm,gic-v3");
    let windows = [0, 0x0800_0000, 0, 0x1_0000, 0, 0x080a_0000, 0, 0x14_0000];
    assert_eq!(cells(&tree, "/intc@8000000", "reg"), windows);
    assert_eq!(cells(&tree, "/", "interrupt-parent"), cells(&tree, "/intc@8000000", "phandle"));
}

#[test]
fn a_guest_finds_its_timers_where_every_armv8_board_has_them() {
    let interrupts = cells(&tree(), "/timer", "interrupts");
    assert_eq!(interrupts, [1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]);
}

#[test]
fn a_guest_finds_its_devices_where_they_were_placed() {
    let tree = tree();
    assert_eq!(cells(&tree, "/pl011@9040000", "reg"), [0, 0x0904_0000, 0, 0x1000]);
    assert_eq!(cells(&tree, "/pl011@9040000", "interrupts"), [0, 8, 4]);
    let clock = cells(&tree, "/apb-pclk", "phandle")[0];
    assert_eq!(cells(&tree, "/pl011@9040000", "clocks"), [clock, clock]);
}

#[test]
fn seeds_lie_where_the_manifest_says_and_are_empty_until_a_start() {
    let tree = tree();
    let sizes: Vec<_> = tree.seeds.iter().map(|seed| seed.size).collect();
    assert_eq!(sizes, [64, 8]);
    let mut bytes = tree.bytes.clone();
    for seed in &tree.seeds {
        let place = &mut bytes[seed.address as usize..][..seed.size as usize];
        assert!(place.iter().all(|byte| *byte == 0));
        place.fill(0xa5);
    }
    let filled = DeviceTree { bytes, seeds: Vec::new() };
    assert_eq!(cells(&filled, "/chosen", "rng-seed"), [0xa5a5_a5a5; 16]);
    assert_eq!(cells(&filled, "/chosen", "kaslr-seed"), [0xa5a5_a5a5; 2]);
    assert_eq!(text(&filled, "/chosen", "bulkhead,name"), "alpha");
}

#[test]
fn a_guest_without_a_uart_has_no_console() {
    let description = description("mute", &[]);
    let tree = device_tree(&description).unwrap();
    let tree = Fdt::new(&tree.bytes).unwrap();
    let chosen = tree.find_node("/chosen").unwrap();
    assert!(chosen.property("stdout-path").is_none() && chosen.property("linux,initrd-start").is_none());
    assert!(tree.find_node("/aliases").is_none());
}

#[test]
fn every_kind_of_device_can_be_described() {
    for kind in devices::KINDS {
        let device = Device {
            kind: kind.name.to_string(),
            address: kind.default_address,
            size: kind.window_size,
            interrupt: kind.default_interrupt,
            service: None,
            configuration: Vec::new(),
        };
        let devices = [device];
        let description = description("x", &devices);
        let tree = device_tree(&description).unwrap();
        let tree = Fdt::new(&tree.bytes).unwrap();
        let node = tree.find_node(&format!("/{}@{:x}", kind.node.name, kind.default_address)).unwrap();
        assert_eq!(node.compatible().unwrap().first(), kind.node.compatible[0]);
    }
}
