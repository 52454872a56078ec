//! One test per rule: each breaks a sound system in one way, and checks the place and the sentence.

use super::*;
use crate::{Assigned, GicWindows, Load, Seed, Service, Store, Trigger, Vcpu, Watch, encode};
use alloc::vec;
use alloc::{format, string::ToString};

pub(crate) const BOARD: BoardLimits<'_> = BoardLimits {
    cores: 4,
    memory: &[Span::new(0x4000_0000, 1 << 30)],
    reserved: 16 << 20,
    gic: GicWindows {
        distributor: Span::new(0x0800_0000, 0x1_0000),
        redistributors: 0x080a_0000,
        redistributor_size: 0x2_0000,
    },
    kept: &[Span::new(0x0900_0000, 0x1000)],
    kept_interrupts: &[33],
};

/// A sound system: "alpha" and "beta", two virtual CPUs and 64 MiB each.
pub(crate) fn two_vms() -> System {
    let vm = |name: &str, first_core: u8| Vm {
        name: name.to_string(),
        memory: vec![MemoryRegion { guest: 0x4000_0000, size: 64 << 20, physical: None }],
        vcpus: vec![Vcpu { core: first_core }, Vcpu { core: first_core + 1 }],
        loads: vec![
            Load { file: "kernel".to_string(), address: 0x4020_0000 },
            Load { file: format!("{name}.dtb"), address: 0x4000_0000 },
        ],
        entry: 0x4020_0000,
        device_tree: 0x4000_0000,
        seeds: vec![Seed { address: 0x4000_0100, size: 64 }],
        devices: vec![Device {
            kind: "pl011".to_string(),
            address: 0x0900_0000,
            size: 0x1000,
            interrupt: Some(33),
            service: None,
            configuration: Vec::new(),
        }],
        assigned: Vec::new(),
        doorbell: None,
        watch: Watch::default(),
    };
    System { name: "two".to_string(), cores: 4, vms: vec![vm("alpha", 0), vm("beta", 2)] }
}

/// A sound system: "alpha" and "beta" as above, each with a network card, and "driver", which serves both.
pub(crate) fn with_driver_domain() -> System {
    let mut system = two_vms();
    let (ram, channels) = (0x7c00_0000, 0x7fe0_0000);
    for (number, vm) in (0_u8..).zip(&mut system.vms) {
        vm.devices.push(Device {
            kind: "virtio-net".to_string(),
            address: 0x0a00_0000,
            size: 0x1000,
            interrupt: Some(48),
            service: Some(Service {
                provider: 2,
                channel: u16::from(number),
                address: channels + u64::from(number) * 0x10_0000,
                size: 0xf_0000,
                device_id: 1,
                queues: 2,
                filled: 1,
                requests: 128,
                chains: 4,
            }),
            configuration: Vec::new(),
        });
    }
    let mut driver = system.vms[0].clone();
    driver.name = "driver".to_string();
    driver.memory = vec![MemoryRegion { guest: ram, size: 64 << 20, physical: Some(ram) }];
    driver.vcpus = vec![Vcpu { core: 3 }];
    driver.loads = vec![
        Load { file: "driver".to_string(), address: ram + (2 << 20) },
        Load { file: "driver.dtb".to_string(), address: ram },
    ];
    (driver.entry, driver.device_tree) = (ram + (2 << 20), ram);
    driver.seeds.clear();
    driver.devices.clear();
    driver.assigned = vec![Assigned {
        name: "virtio-mmio".to_string(),
        address: 0x0a00_0000,
        size: 0x4000,
        instance_size: 0x200,
        interrupts: (48..80).collect(),
        trigger: Trigger::Edge,
        dma: true,
        silence: vec![Store { offset: 0x70, value: 0 }],
    }];
    driver.doorbell = Some(112);
    system.vms.push(driver);
    system
}

/// Expects to be told of `place` what is wrong with `system`.
#[track_caller]
pub(crate) fn refused_of(system: &System, place: Place, sentence: &str) {
    let error = system.validate(&BOARD).unwrap_err();
    assert_eq!((error.place(), error.to_string().as_str()), (place, sentence));
}

/// Breaks a sound system with `change` and expects to be told so about `place`.
#[track_caller]
fn refused(change: impl FnOnce(&mut System), place: Place, sentence: &str) {
    let mut system = two_vms();
    change(&mut system);
    refused_of(&system, place, sentence);
}

#[test]
fn a_sound_system_is_accepted() {
    two_vms().validate(&BOARD).unwrap();
    with_driver_domain().validate(&BOARD).unwrap();
}

#[test]
fn a_system_needs_a_printable_name() {
    let sentence = "a system's name has 1 to 64 printable characters; give it a plain one";
    refused(|system| system.name.clear(), Place::System, sentence);
    refused(|system| system.name = "\x1b[2J".to_string(), Place::System, sentence);
    refused(|system| system.name = "x".repeat(65), Place::System, sentence);
}

#[test]
fn a_system_needs_a_vm() {
    refused(|system| system.vms.clear(), Place::System, "the system has no vm; add a [[vm]] section");
}

#[test]
fn seventeen_vms_are_too_many() {
    let change = |system: &mut System| system.vms = vec![system.vms[0].clone(); 17];
    refused(change, Place::Vm(16), "the system has 17 vms, but at most 16 are possible; remove some");
}

#[test]
fn a_system_uses_the_cores_that_the_board_has() {
    refused(|system| system.cores = 0, Place::Cores, "the system uses no core; give it one at least");
    let sentence = "the system uses 5 cores, but the board has 4; use no more than it has";
    refused(|system| system.cores = 5, Place::Cores, sentence);
}

#[test]
fn names_are_short_plain_and_unique() {
    for name in ["", "Alpha", "a b", "seventeen-letters", "a\u{1b}", "ä"] {
        let sentence = format!("{name:?} cannot be the name of a vm; use 1 to 16 characters out of a-z, 0-9 and -");
        refused(|system| system.vms[1].name = name.to_string(), Place::Name(1), &sentence);
    }
    let sentence = "two vms have the name \"alpha\"; rename one of them";
    refused(|system| system.vms[1].name = "alpha".to_string(), Place::Name(1), sentence);
}

#[test]
fn no_name_passes_for_bulkheads_own() {
    for name in ["bulkhead", "bulk-head", "8u1khe4d", "my-bulkhead", "bbulkhead", "bulkhead-2"] {
        let sentence = format!(
            "{name:?} cannot be the name of a vm: on the console it would pass for Bulkhead itself; choose another"
        );
        refused(|system| system.vms[1].name = name.to_string(), Place::Name(1), &sentence);
    }
    for name in ["bulk", "head", "bulkhea", "bulk-heap", "ulkhead"] {
        let mut system = two_vms();
        system.vms[1].name = name.to_string();
        system.validate(&BOARD).unwrap();
    }
}

#[test]
fn a_vm_has_one_to_eight_virtual_cpus() {
    let sentence = "vm \"beta\" has no virtual cpu; name a core in its list of cores";
    refused(|system| system.vms[1].vcpus.clear(), Place::Vcpus(1), sentence);
    let sentence = "vm \"beta\" has 9 virtual cpus, but at most 8 are possible; name fewer cores";
    refused(|system| system.vms[1].vcpus = vec![Vcpu { core: 0 }; 9], Place::Vcpus(1), sentence);
}

#[test]
fn a_virtual_cpu_runs_on_a_core_of_the_system() {
    let sentence = "vm \"beta\" is to run on core 4, but the system has cores 0 to 3; choose one of those";
    refused(|system| system.vms[1].vcpus[1].core = 4, Place::Vcpu(1, 1), sentence);
}

#[test]
fn a_vm_has_memory() {
    refused(|system| system.vms[0].memory.clear(), Place::Memory(0), "vm \"alpha\" has no memory; give it some");
    let region = |index: u64| MemoryRegion { guest: 0x4000_0000 + (index << 21), size: 2 << 20, physical: None };
    let change = |system: &mut System| system.vms[0].memory = (0..9).map(region).collect();
    let sentence = "vm \"alpha\" has 9 regions of memory, but at most 8 are possible; remove some";
    refused(change, Place::Region(0, 8), sentence);
}

#[test]
fn memory_comes_in_blocks_of_2_mib() {
    let sentence =
        |size| format!("vm \"alpha\" is to have {size} of memory, but memory comes in multiples of 2 MiB; round it up");
    refused(|system| system.vms[0].memory[0].size = 0, Place::Region(0, 0), &sentence("0 bytes"));
    refused(|system| system.vms[0].memory[0].size = 65 << 20, Place::Region(0, 0), &sentence("65 MiB"));
    let sentence = |what, address| {
        format!("the {what} of memory of vm \"alpha\" is {address}, but it must be a multiple of 2 MiB; move it")
    };
    let guest = sentence("address", "0x4000_1000");
    refused(|system| system.vms[0].memory[0].guest = 0x4000_1000, Place::Region(0, 0), &guest);
    let physical = sentence("physical address", "0x5000_1000");
    refused(|system| system.vms[0].memory[0].physical = Some(0x5000_1000), Place::Region(0, 0), &physical);
}

#[test]
fn memory_lies_where_a_guest_can_address_it() {
    let sentence = "memory of vm \"alpha\" (0x4000000 bytes at 0x7f_fe00_0000) ends beyond a guest's 39 address bits; \
                    move or shrink it";
    refused(|system| system.vms[0].memory[0].guest = 0x7f_fe00_0000, Place::Region(0, 0), sentence);
    let sentence = "memory of vm \"alpha\" (0x4000000 bytes at 0xffffffff_ffe0_0000) ends beyond a guest's 39 address \
                    bits; move or shrink it";
    refused(|system| system.vms[0].memory[0].guest = 0xffff_ffff_ffe0_0000, Place::Region(0, 0), sentence);
}

#[test]
fn regions_of_memory_are_in_order_and_apart() {
    let add = |guest| {
        move |system: &mut System| {
            system.vms[0].memory.push(MemoryRegion { guest, size: 2 << 20, physical: None });
        }
    };
    let sentence = "memory 0x43e0_0000–0x43ff_ffff of vm \"alpha\" overlaps its memory 0x4000_0000–0x43ff_ffff; move \
                    one of them";
    refused(add(0x43e0_0000), Place::Region(0, 1), sentence);
    let sentence = "memory 0x3000_0000–0x301f_ffff of vm \"alpha\" comes after a higher address; order the regions by \
                    address";
    refused(add(0x3000_0000), Place::Region(0, 1), sentence);
}

#[test]
fn memory_does_not_cover_the_interrupt_controller() {
    let sentence = "memory 0x0800_0000–0x0bff_ffff of vm \"alpha\" overlaps its interrupt controller at \
                    0x0800_0000–0x0800_ffff; move the memory";
    refused(|system| system.vms[0].memory[0].guest = 0x0800_0000, Place::Region(0, 0), sentence);
}

#[test]
fn memory_fixed_at_a_physical_address_has_one_owner() {
    let change = |system: &mut System| {
        system.vms[0].memory[0].physical = Some(0x5000_0000);
        system.vms[1].memory[0].physical = Some(0x53e0_0000);
    };
    let sentence = "vm \"beta\" and vm \"alpha\" both own physical memory: 0x53e0_0000–0x57df_ffff overlaps \
                    0x5000_0000–0x53ff_ffff; move one of them";
    refused(change, Place::Region(1, 0), sentence);
}

#[test]
fn memory_fixed_at_a_physical_address_is_ram() {
    let sentence = "vm \"alpha\" is to have physical memory 0x7fe0_0000–0x83df_ffff, but the board has no RAM there; \
                    move it";
    refused(|system| system.vms[0].memory[0].physical = Some(0x7fe0_0000), Place::Region(0, 0), sentence);
}

#[test]
fn all_memory_fits_the_board() {
    let sentence = "the vms need 1 GiB of memory, Bulkhead 16 MiB, and what it keeps for them 120 KiB (of which vm \
                    \"beta\" takes 49 KiB), but the board has 1 GiB; give the vms less, or the board more";
    refused(|system| system.vms[0].memory[0].size = 960 << 20, Place::BoardMemory, sentence);
}

#[test]
fn sizes_that_overflow_together_do_not_fit_the_board() {
    let huge = |system: &mut System| {
        for vm in &mut system.vms {
            vm.memory[0] = MemoryRegion { guest: 0x4000_0000, size: (1 << 39) - (1 << 30), physical: None };
        }
    };
    let sentence = "the vms need 1022 GiB of memory, Bulkhead 16 MiB, and what it keeps for them 4208 KiB (of which vm \
                    \"beta\" takes 2093 KiB), but the board has 1 GiB; give the vms less, or the board more";
    refused(huge, Place::BoardMemory, sentence);
}

#[test]
fn a_device_window_is_made_of_pages() {
    let sentence = "device \"pl011\" of vm \"alpha\" is at 0x0900_0800, but it must be at a multiple of 4 KiB; move it";
    refused(|system| system.vms[0].devices[0].address = 0x0900_0800, Place::DeviceAddress(0, 0), sentence);
    let sentence = "device \"pl011\" of vm \"alpha\" has a window of 0 bytes, but windows come in multiples of 4 KiB; \
                    round it up";
    refused(|system| system.vms[0].devices[0].size = 0, Place::DeviceAddress(0, 0), sentence);
}

#[test]
fn a_device_lies_where_a_guest_can_address_it() {
    let sentence = "device \"pl011\" of vm \"alpha\" (0x1000 bytes at 0xffffffff_ffff_f000) ends beyond a guest's 39 \
                    address bits; move it";
    refused(|system| system.vms[0].devices[0].address = !0xfff, Place::DeviceAddress(0, 0), sentence);
}

#[test]
fn a_device_covers_neither_memory_nor_the_interrupt_controller() {
    let sentence = "device \"pl011\" of vm \"alpha\" at 0x43ff_f000–0x43ff_ffff overlaps the vm's memory \
                    0x4000_0000–0x43ff_ffff; move one of them";
    refused(|system| system.vms[0].devices[0].address = 0x43ff_f000, Place::DeviceAddress(0, 0), sentence);
    let sentence = "device \"pl011\" of vm \"alpha\" at 0x080d_f000–0x080d_ffff overlaps the interrupt controller at \
                    0x080a_0000–0x080d_ffff; move the device";
    refused(|system| system.vms[0].devices[0].address = 0x080d_f000, Place::DeviceAddress(0, 0), sentence);
}

#[test]
fn the_redistributors_take_as_much_as_there_are_virtual_cpus() {
    let mut system = two_vms();
    system.vms[0].devices[0].address = 0x080e_0000;
    system.validate(&BOARD).unwrap();
    system.vms[0].vcpus.push(Vcpu { core: 0 });
    system.validate(&BOARD).unwrap_err();
}

/// Gives "alpha" a second UART.
fn second_uart(address: u64, interrupt: u32) -> impl FnOnce(&mut System) {
    move |system| {
        let device = Device {
            kind: "uart".to_string(),
            address,
            size: 0x1000,
            interrupt: Some(interrupt),
            service: None,
            configuration: Vec::new(),
        };
        system.vms[0].devices.push(device);
    }
}

#[test]
fn a_window_has_one_owner() {
    let sentence = "devices \"pl011\" and \"uart\" of vm \"alpha\" both own addresses in 0x0900_0000–0x0900_0fff; move \
                    one of them";
    refused(second_uart(0x0900_0000, 40), Place::DeviceAddress(0, 1), sentence);
}

#[test]
fn an_interrupt_has_one_owner() {
    let sentence = "devices \"pl011\" and \"uart\" of vm \"alpha\" both own interrupt 33; give one another";
    refused(second_uart(0x0901_0000, 33), Place::DeviceInterrupt(0, 1), sentence);
}

#[test]
fn an_interrupt_is_an_spi() {
    for interrupt in [0, 31, 288, u32::MAX] {
        let sentence = format!(
            "device \"uart\" of vm \"alpha\" has interrupt {interrupt}, but a device's interrupt is an SPI, 32 to 287; \
             choose one of those"
        );
        refused(second_uart(0x0901_0000, interrupt), Place::DeviceInterrupt(0, 1), &sentence);
    }
}

#[test]
fn a_vm_may_have_32_devices_and_no_more() {
    let devices = |count: u32| {
        move |system: &mut System| {
            let device = |index: u32| Device {
                kind: "uart".to_string(),
                address: 0x0a00_0000 + u64::from(index) * 0x1000,
                size: 0x1000,
                interrupt: Some(48 + index),
                service: None,
                configuration: Vec::new(),
            };
            system.vms[0].devices = (0..count).map(device).collect();
        }
    };
    let mut system = two_vms();
    devices(32)(&mut system);
    system.validate(&BOARD).unwrap();
    let sentence = "vm \"alpha\" has 33 devices, but at most 32 are possible; remove some";
    refused(devices(33), Place::Device(0, 32), sentence);
}

#[test]
fn what_a_vm_starts_with_lies_in_its_memory() {
    let outside = |what: &str, size: &str, at: &str| {
        format!("{what} of vm \"alpha\" ({size} bytes at {at}) does not lie in the vm's memory; give it more memory")
    };
    let sentence = outside("the entry point", "0x4", "0x4400_0000");
    refused(|system| system.vms[0].entry = 0x4400_0000, Place::Start(0), &sentence);
    let sentence = outside("the device tree", "0x28", "0x43ff_ffe0");
    refused(|system| system.vms[0].device_tree = 0x43ff_ffe0, Place::Start(0), &sentence);
    let sentence = outside("a seed", "0x40", "0x43ff_fff0");
    refused(|system| system.vms[0].seeds[0].address = 0x43ff_fff0, Place::Start(0), &sentence);
    let sentence = outside("file \"kernel\"", "0x1", "0x0000_0000");
    refused(|system| system.vms[0].loads[0].address = 0, Place::Load(0, 0), &sentence);
}

#[test]
fn entry_point_and_device_tree_are_aligned() {
    let sentence = "the entry point of vm \"alpha\" is at 0x4020_0002, but it must be at a multiple of 4; move it";
    refused(|system| system.vms[0].entry = 0x4020_0002, Place::Start(0), sentence);
    let sentence = "the device tree of vm \"alpha\" is at 0x4000_0004, but it must be at a multiple of 8; move it";
    refused(|system| system.vms[0].device_tree = 0x4000_0004, Place::Start(0), sentence);
}

#[test]
fn every_number_of_a_system_may_be_at_its_worst_without_a_panic() {
    for worst in [0, 1, 0xfff, 1 << 39, u64::MAX - 1, u64::MAX] {
        for size in [0, 2 << 20, u64::MAX, u64::MAX - (2 << 20) + 1] {
            let mut system = two_vms();
            let vm = &mut system.vms[0];
            vm.memory.push(MemoryRegion { guest: worst, size, physical: Some(worst) });
            vm.devices.push(Device {
                kind: "x".to_string(),
                address: worst,
                size,
                interrupt: Some(worst as u32),
                service: None,
                configuration: Vec::new(),
            });
            vm.seeds.push(Seed { address: worst, size: size as u32 });
            vm.entry = worst;
            let _ = system.validate(&BOARD);
            let _ = system.validate_files(&Bundle::new(&[]));
            let _ = encode(&system);
        }
    }
}
