//! The sums against what is counted here in another way.

use super::{Share, block, reading};
use crate::validate::tests::{two_vms, with_driver_domain};
use crate::{DEVICES_MAX, Device, LOADS_MAX, Load, MANIFEST_SIZE_MAX, System, VMS_MAX, Vm, encode};
use alloc::{string::String, string::ToString, vec::Vec};

fn list<T>(list: &Vec<T>) -> u64 {
    block((list.capacity() * size_of::<T>()) as u64)
}

fn text(text: &String) -> u64 {
    block(text.capacity() as u64)
}

/// What `system` has on the heap.
fn heap_of(system: &System) -> u64 {
    let vm = |vm: &Vm| {
        let loads: u64 = vm.loads.iter().map(|load| text(&load.file)).sum();
        let devices: u64 = vm.devices.iter().map(|device| text(&device.kind) + list(&device.configuration)).sum();
        let assigned = vm.assigned.iter();
        let assigned: u64 =
            assigned.map(|device| text(&device.name) + list(&device.interrupts) + list(&device.silence)).sum();
        let lists = list(&vm.memory) + list(&vm.vcpus) + list(&vm.loads) + list(&vm.seeds) + list(&vm.devices);
        text(&vm.name) + lists + list(&vm.assigned) + loads + devices + assigned
    };
    text(&system.name) + list(&system.vms) + system.vms.iter().map(vm).sum::<u64>()
}

#[test]
fn a_manifest_that_was_read_is_no_larger_than_what_is_kept_for_it() {
    let mut dense = two_vms();
    // What takes the least bytes in a manifest for the most on the heap.
    let device = Device {
        kind: "x".to_string(),
        interrupt: None,
        service: None,
        configuration: alloc::vec![1],
        ..dense.vms[0].devices[0].clone()
    };
    let load = Load { file: "x".to_string(), address: 0 };
    dense.vms = alloc::vec![dense.vms[0].clone(); VMS_MAX];
    let mut empty = dense.clone();
    for (number, vm) in dense.vms.iter_mut().enumerate() {
        vm.devices = alloc::vec![device.clone(); if number % 2 == 0 { DEVICES_MAX } else { 1 }];
        vm.loads = alloc::vec![load.clone(); if number % 3 == 0 { LOADS_MAX } else { 1 }];
    }
    for vm in &mut empty.vms {
        (vm.devices, vm.loads, vm.seeds, vm.memory) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    }
    for system in [two_vms(), with_driver_domain(), dense, empty] {
        let bytes = encode(&system).unwrap();
        let read = crate::decode(&bytes).unwrap();
        assert_eq!(read, system);
        assert!(heap_of(&read) <= reading(bytes.len()), "{} bytes: {}", bytes.len(), heap_of(&read));
    }
    assert!(reading(MANIFEST_SIZE_MAX) <= 2 << 20);
}

#[test]
fn a_block_is_a_power_of_two() {
    for (bytes, expected) in [(0, 0), (1, 8), (8, 8), (9, 16), (4096, 4096), (4097, 8192), (u64::MAX, u64::MAX)] {
        assert_eq!(block(bytes), expected, "{bytes}");
    }
}

#[test]
fn each_disk_is_in_the_sum_and_many_are_named() {
    let mut system = with_driver_domain();
    let before = system.own_bytes();
    let mut disk = system.vms[0].devices[1].clone();
    disk.kind = "virtio-blk".to_string();
    disk.service.as_mut().unwrap().chains = 30;
    system.vms[0].devices.extend(core::iter::repeat_n(disk, 8));
    // Its chains: the segments of each, those that they share, and what is known of each; and its requests.
    let chains = 30 * 64 + 4096 + 4096 + 4096;
    let least = 8 * (chains + super::size::VIRTIO_DEVICE + 4096);
    assert!(system.own_bytes() >= before + least, "{before} and {least}, but {}", system.own_bytes());
    let share = Share { vm: "alpha", kind: Some("virtio-blk"), count: 8, bytes: least };
    assert_eq!(system.largest_share(), Some(share));
}

#[test]
fn tables_do_for_ram_that_lies_askew_and_for_windows_far_apart() {
    let mut system = with_driver_domain();
    let vm = &mut system.vms[0];
    let before = vm.table_bytes();
    vm.memory[0].size = 32 << 30;
    assert_eq!(vm.table_bytes(), before + 32 * 4096);
    let mut device = vm.devices[1].clone();
    device.address += 0x1000;
    vm.devices.push(device.clone());
    assert_eq!(vm.table_bytes(), before + 32 * 4096, "a neighbour shares its tables");
    device.address += 1 << 30;
    vm.devices.push(device);
    assert_eq!(vm.table_bytes(), before + 34 * 4096);
}
