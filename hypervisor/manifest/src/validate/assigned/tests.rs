//! A driver domain that owns a device, broken in one way at a time.

use crate::{
    Assigned, Place, Span, Store, System, Trigger,
    validate::tests::{BOARD, refused_of, with_driver_domain},
};
use alloc::format;
use alloc::vec;

/// Breaks the sound system of [`with_driver_domain`] with `change` and expects to be told so about `place`.
#[track_caller]
fn refused(change: impl FnOnce(&mut System), place: Place, sentence: &str) {
    let mut system = with_driver_domain();
    change(&mut system);
    refused_of(&system, place, sentence);
}

fn over(what: &str, window: Span, other: Span) -> alloc::string::String {
    alloc::format!(
        "physical device \"virtio-mmio\" of vm \"driver\" at {window} overlaps {what} at {other}; it cannot be given \
         away like this: move the other, or do without"
    )
}

/// A device that leaves memory alone.
fn clock() -> Assigned {
    Assigned {
        name: "clock".into(),
        address: 0x0901_0000,
        size: 0x1000,
        instance_size: 0x1000,
        interrupts: vec![34],
        trigger: Trigger::Level,
        dma: false,
        silence: vec![Store { offset: 0x10, value: 0 }, Store { offset: 0xffc, value: 1 }],
    }
}

#[test]
fn a_device_that_leaves_memory_alone_may_belong_to_anybody() {
    let mut system = with_driver_domain();
    system.vms[0].assigned = vec![clock()];
    system.validate(&BOARD).unwrap();
    system.vms[0].assigned[0].dma = true;
    let sentence = "vm \"alpha\" drives physical devices, but its memory 0x4000_0000–0x43ff_ffff is not at the same \
                    physical address; state it";
    refused_of(&system, Place::Region(0, 0), sentence);
}

#[test]
fn what_silences_a_physical_device_stays_within_its_registers_and_ends() {
    let broken = |change: fn(&mut Assigned), size: u64| {
        let sentence = alloc::format!(
            "physical device \"virtio-mmio\" of vm \"driver\" is not made of 64 instances at most, of {size:#x} bytes \
             each, with the registers that silence it; correct what the board says of it"
        );
        refused(|system| change(&mut system.vms[2].assigned[0]), Place::Assigned(2, 0), &sentence);
    };
    for (change, size) in [
        ((|device| device.instance_size = 0) as fn(&mut Assigned), 0),
        (|device| device.instance_size = 0x3000, 0x3000),
        (|device| device.instance_size = 0x202, 0x202),
        (|device| device.instance_size = 0x80, 0x80),
        (|device| device.instance_size = 0x8000, 0x8000),
        (|device| device.silence[0].offset = 0x200, 0x200),
        (|device| device.silence[0].offset = 0x71, 0x200),
        (|device| device.silence[0].offset = u32::MAX, 0x200),
    ] {
        broken(change, size);
    }
    let sentence = "vm \"driver\" has 9 stores that silence a physical device, but at most 8 are possible; remove some";
    let change = |system: &mut System| system.vms[2].assigned[0].silence = vec![Store { offset: 0, value: 0 }; 9];
    refused(change, Place::Assigned(2, 0), sentence);
}

#[test]
fn a_physical_device_is_made_of_pages() {
    for (address, size) in [(0x0a00_0200, 0x4000), (0x0a00_0000, 0x200), (0x0a00_0000, 0), (1 << 39, 0x1000)] {
        let change = |system: &mut System| {
            system.vms[2].assigned[0].address = address;
            system.vms[2].assigned[0].size = size;
        };
        let sentence = alloc::format!(
            "physical device \"virtio-mmio\" of vm \"driver\" at {} is not made of pages of 4 KiB within a guest's 39 \
             address bits; correct its window",
            Span::new(address, size)
        );
        refused(change, Place::Assigned(2, 0), &sentence);
    }
}

#[test]
fn a_physical_device_is_not_ram_nor_what_bulkhead_keeps() {
    let cases = [
        (0x4000_0000, "the board's RAM", Span::new(0x4000_0000, 1 << 30)),
        (0x0900_0000, "what Bulkhead keeps", Span::new(0x0900_0000, 0x1000)),
        (0x080a_0000, "the vm's interrupt controller", Span::new(0x080a_0000, 0x2_0000)),
    ];
    for (address, what, other) in cases {
        let change = |system: &mut System| system.vms[2].assigned[0].address = address;
        refused(change, Place::Assigned(2, 0), &over(what, Span::new(address, 0x4000), other));
    }
}

#[test]
fn a_physical_device_lies_apart_from_its_owners_other_devices() {
    let virtual_too = |system: &mut System| {
        let mut uart = system.vms[0].devices[0].clone();
        uart.address = 0x0a00_3000;
        uart.service = None;
        system.vms[2].devices = vec![uart];
    };
    let window = Span::new(0x0a00_0000, 0x4000);
    refused(virtual_too, Place::Assigned(2, 0), &over("a virtual device", window, Span::new(0x0a00_3000, 0x1000)));
    let twice = |system: &mut System| {
        let device = system.vms[2].assigned[0].clone();
        system.vms[2].assigned.push(device);
    };
    refused(twice, Place::Assigned(2, 1), &over("another physical device", window, window));
}

#[test]
fn a_physical_device_has_one_owner() {
    let change = |system: &mut System| {
        system.vms[1].devices.clear();
        system.vms[1].assigned = system.vms[2].assigned.clone();
    };
    let sentence = "vm \"driver\" and vm \"beta\" both own the physical device \"virtio-mmio\" at \
                    0x0a00_0000–0x0a00_3fff; give it to one of them";
    refused(change, Place::Assigned(2, 0), sentence);
}

#[test]
fn a_physical_interrupt_has_one_owner() {
    let another = |interrupts| Assigned { interrupts, ..clock() };
    let sentence = "the physical device \"virtio-mmio\" of vm \"driver\" has interrupt 49, which belongs to \"clock\" \
                    of vm \"alpha\"; it has one owner";
    let change = |system: &mut System| system.vms[0].assigned = vec![another(vec![49])];
    refused(change, Place::Assigned(2, 0), sentence);

    let sentence = "devices \"virtio-mmio\" and \"clock\" of vm \"driver\" both own interrupt 49; give one another";
    let change = |system: &mut System| system.vms[2].assigned.push(another(vec![49]));
    refused(change, Place::Assigned(2, 1), sentence);

    let sentence = "the physical device \"virtio-mmio\" of vm \"driver\" has interrupt 33, which belongs to Bulkhead; \
                    it has one owner";
    refused(|system| system.vms[2].assigned[0].interrupts = vec![33], Place::Assigned(2, 0), sentence);

    let sentence = "the physical device \"virtio-mmio\" of vm \"driver\" has interrupt 50, which belongs to it \
                    already; it has one owner";
    refused(|system| system.vms[2].assigned[0].interrupts = vec![50, 50], Place::Assigned(2, 0), sentence);
}

#[test]
fn a_physical_interrupt_is_an_spi() {
    let sentence = "device \"virtio-mmio\" of vm \"driver\" has interrupt 27, but a device's interrupt is an SPI, 32 to \
                    287; choose one of those";
    refused(|system| system.vms[2].assigned[0].interrupts = vec![27], Place::Assigned(2, 0), sentence);
}

#[test]
fn the_lists_are_bounded() {
    let sentence = "vm \"driver\" has 9 physical devices, but at most 8 are possible; remove some";
    let change = |system: &mut System| system.vms[2].assigned = vec![system.vms[2].assigned[0].clone(); 9];
    refused(change, Place::Assigned(2, 8), sentence);
    let sentence = "vm \"driver\" has 65 interrupts of a physical device, but at most 64 are possible; remove some";
    let change = |system: &mut System| system.vms[2].assigned[0].interrupts = (40..105).collect();
    refused(change, Place::Assigned(2, 0), sentence);
}

#[test]
fn a_doorbell_is_an_interrupt_that_nothing_else_has() {
    let sentence = "devices \"virtio-mmio\" and \"doorbell\" of vm \"driver\" both own interrupt 48; give one another";
    refused(|system| system.vms[2].doorbell = Some(48), Place::Doorbell(2), sentence);
    let sentence = "device \"doorbell\" of vm \"driver\" has interrupt 288, but a device's interrupt is an SPI, 32 to \
                    287; choose one of those";
    refused(|system| system.vms[2].doorbell = Some(288), Place::Doorbell(2), sentence);
}

#[test]
fn a_driver_domain_sees_its_memory_where_its_devices_do() {
    let sentence = "vm \"driver\" drives physical devices, but its memory 0x7c00_0000–0x7fff_ffff is not at the same \
                    physical address; state it";
    refused(|system| system.vms[2].memory[0].physical = None, Place::Region(2, 0), sentence);
    refused(|system| system.vms[2].memory[0].physical = Some(0x7000_0000), Place::Region(2, 0), sentence);
}

#[test]
fn a_watch_looks_neither_all_the_time_nor_never() {
    for milliseconds in [0, 9, 3_600_001, u32::MAX] {
        let sentence = format!(
            "the heartbeat of vm \"driver\" is {milliseconds} ms, but 10 to 3600000 are possible; choose one of those"
        );
        refused(|system| system.vms[2].watch.heartbeat_ms = milliseconds, Place::Doorbell(2), &sentence);
    }
    let sentence = "the restart window of vm \"driver\" is 1 ms, but 10 to 3600000 are possible; choose one of those";
    refused(|system| system.vms[2].watch.restart_window_ms = 1, Place::Doorbell(2), sentence);
}
