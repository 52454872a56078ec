//! Two clients of a driver domain, broken in one way at a time.

use crate::{
    Place, Service, System,
    validate::tests::{BOARD, refused_of, with_driver_domain},
};
use alloc::format;

/// Breaks the sound system of [`with_driver_domain`] with `change` and expects to be told so about `beta`'s device.
#[track_caller]
fn refused(change: impl FnOnce(&mut Service), sentence: &str) {
    let mut system = with_driver_domain();
    change(system.vms[1].devices[1].service.as_mut().unwrap());
    refused_of(&system, Place::Service(1, 1), sentence);
}

#[test]
fn another_machine_that_is_a_driver_domain_stands_behind_a_device() {
    let sentence = "nobody serves device \"virtio-net\" of vm \"beta\"; name another vm that is a driver domain";
    for provider in [0, 1, 3, u8::MAX] {
        refused(|service| service.provider = provider, sentence);
    }
}

#[test]
fn a_driver_domain_does_not_serve_itself() {
    let mut system = with_driver_domain();
    let mut card = system.vms[1].devices[1].clone();
    card.interrupt = Some(120);
    card.address = 0x0b00_0000;
    system.vms[2].devices.push(card);
    let sentence = "nobody serves device \"virtio-net\" of vm \"driver\"; name another vm that is a driver domain";
    refused_of(&system, Place::Service(2, 0), sentence);
}

#[test]
fn the_page_of_calls_is_a_driver_domains() {
    let mut system = with_driver_domain();
    let mut page = system.vms[1].devices[1].clone();
    (page.kind, page.service, page.interrupt) = (abi::io::CALLS_KIND.into(), None, None);
    page.address = 0x0902_0000;
    system.vms[2].devices.push(page.clone());
    system.validate(&BOARD).unwrap();
    system.vms[1].devices.push(page);
    let sentence = "device \"calls\" of vm \"beta\" is for the calls of a driver domain, and this vm is none; remove it, \
                    or say driver_domain = true";
    refused_of(&system, Place::Device(1, 2), sentence);
}

#[test]
fn a_channel_is_made_of_pages_and_lies_in_the_driver_domain() {
    let sentence =
        |span: &str, why: &str| format!("the channel {span} of device \"virtio-net\" of vm \"beta\" {why}; move it");
    let pages = sentence("0x7ff0_0800–0x7fff_07ff", "is not made of pages");
    refused(|service| service.address = 0x7ff0_0800, &pages);
    let size = "has a size that no channel has";
    refused(|service| service.size = 0x4_4000, &sentence("0x7ff0_0000–0x7ff4_3fff", size));
    refused(|service| service.size = 0, &sentence("0x7ff0_0000–0x7ff0_0000", size));
    refused(|service| service.size = !0xfff, &sentence("0x7ff0_0000–0xffffffff_ffff_ffff", size));
    let outside = "does not lie in the driver domain's memory";
    refused(|service| service.address = 0x7bff_f000, &sentence("0x7bff_f000–0x7c0e_efff", outside));
    refused(|service| service.address = 0x7ff2_0000, &sentence("0x7ff2_0000–0x8000_ffff", outside));
}

#[test]
fn a_channel_has_one_client() {
    let sentence = "the channel 0x7fe8_0000–0x7ff6_ffff of device \"virtio-net\" of vm \"beta\" overlaps another \
                    channel; move it";
    refused(|service| service.address = 0x7fe8_0000, sentence);
    for channel in [0, 2, 64, u16::MAX] {
        let sentence = format!(
            "device \"virtio-net\" of vm \"beta\" has channel number {channel}, which is taken or too high; number a \
             driver domain's channels from 0, 64 at most"
        );
        refused(|service| service.channel = channel, &sentence);
    }
}

#[test]
fn a_file_does_not_lie_over_a_channel() {
    let mut system = with_driver_domain();
    system.vms[2].loads[1].address = 0x7ff0_0000;
    let name = system.vms[2].loads[1].file.clone();
    let channel = system.vms[1].devices[1].service.as_ref().unwrap().span();
    let error = system.check_apart_from_channels(2, &name, channel, Place::Load(2, 1)).unwrap_err();
    let sentence = "file \"driver.dtb\" of vm \"driver\" is to be loaded over the channel 0x7ff0_0000–0x7ffe_ffff; give \
                    the vm more memory";
    assert_eq!(alloc::string::ToString::to_string(&error), sentence);
    system.check_apart_from_channels(1, &name, channel, Place::Load(1, 1)).unwrap();
}

#[test]
fn what_is_allocated_fits_the_device() {
    let sentence = "what is allocated for device \"virtio-net\" of vm \"beta\" is for no device; make the system with this \
                    Bulkhead's xtask";
    for filled in [4, 1 << 31, 1 << 2] {
        refused(|service| service.filled = filled, sentence);
    }
    for requests in [0, 129, u16::MAX] {
        refused(|service| service.requests = requests, sentence);
    }
    for chains in [0, 33, u8::MAX] {
        refused(|service| service.chains = chains, sentence);
    }
}

#[test]
fn a_device_has_a_queue_at_least() {
    for queues in [0, 9, u16::MAX] {
        let sentence = format!(
            "device \"virtio-net\" of vm \"beta\" is to have {queues} queues, but 1 to 8 are possible; choose one of \
             those"
        );
        refused(|service| service.queues = queues, &sentence);
    }
}

#[test]
fn every_number_of_a_service_may_be_at_its_worst_without_a_panic() {
    for worst in [0, 1, 0xfff, 1 << 39, u64::MAX - 0xfff, u64::MAX] {
        for size in [0, 0x4_5000, u64::MAX, !0xfff] {
            let mut system: System = with_driver_domain();
            let service = system.vms[1].devices[1].service.as_mut().unwrap();
            (service.address, service.size, service.channel) = (worst, size, worst as u16);
            let device = &mut system.vms[2].assigned[0];
            (device.address, device.size) = (worst, size);
            let _ = system.validate(&crate::validate::tests::BOARD);
            system.vms[2].assigned.clear();
            let _ = system.validate(&crate::validate::tests::BOARD);
        }
    }
}
