//! Queues, notifications and interrupts.

use super::*;
use vdev::GuestAddr;

#[test]
fn a_device_has_the_queues_that_it_was_made_with() {
    for (wanted, queues) in [(0, 0), (1, 1), (4, 4), (8, 8), (9, 8), (u16::MAX, 8)] {
        let mut guest = Guest::with(BLOCK, wanted);
        let mut found = 0;
        for index in 0..=QUEUES_MAX as u32 {
            guest.store(QUEUE_SEL, index);
            found += u16::from(guest.load(QUEUE_NUM_MAX) == u32::from(QUEUE_SIZE_MAX));
        }
        assert_eq!((found, guest.device.queue_count()), (queues, queues), "{wanted}");
    }
}

#[test]
fn a_queue_is_where_the_driver_put_it() {
    let mut guest = Guest::with(NETWORK, 2);
    guest.negotiate(feature::VERSION_1);
    assert_eq!(guest.device.queue(1), None);
    assert_eq!(guest.find_queue(1, rings(128)), Effect::QueueReady(1));
    assert_eq!(guest.load(QUEUE_READY), 1);
    assert_eq!(guest.device.queue(1), Some(rings(128)));
    assert_eq!(guest.device.queue(0), None);
}

#[test]
fn halves_of_an_address_may_come_in_any_order_and_again() {
    let mut guest = Guest::with_disk();
    guest.negotiate(feature::VERSION_1);
    guest.prepare_queue(0, rings(16));
    guest.store_address(QUEUE_DESC_LOW, u64::MAX);
    guest.store(QUEUE_DESC_LOW + 4, 2);
    guest.store(QUEUE_DESC_LOW, 0x4000_0000);
    guest.store(QUEUE_READY, 1);
    assert_eq!(guest.device.queue(0).unwrap().descriptors, GuestAddr(0x2_4000_0000));
}

#[test]
fn queue_ready_follows_the_selected_queue() {
    let mut guest = Guest::with(NETWORK, 2);
    guest.negotiate(feature::VERSION_1);
    guest.find_queue(1, rings(16));
    guest.store(QUEUE_SEL, 0);
    assert_eq!(guest.load(QUEUE_READY), 0);
    guest.store(QUEUE_SEL, 1);
    assert_eq!(guest.load(QUEUE_READY), 1);
}

#[test]
fn a_size_that_is_no_power_of_two_or_too_large_leaves_the_queue_not_ready() {
    let mut guest = Guest::with_disk();
    guest.negotiate(feature::VERSION_1);
    guest.prepare_queue(0, rings(16));
    for size in [0, 3, 24, 257, 512, 0x8000, 65535, 0x1_0000, 0x1_0010, 0x8000_0000, u32::MAX] {
        guest.store(QUEUE_NUM, size);
        assert_eq!(guest.store(QUEUE_READY, 1), Effect::None, "{size}");
        assert_eq!(guest.load(QUEUE_READY), 0);
        assert_eq!(guest.device.queue(0), None);
    }
}

#[test]
fn every_power_of_two_up_to_the_maximum_is_a_size() {
    let mut guest = Guest::with_disk();
    guest.negotiate(feature::VERSION_1);
    for shift in 0..=8 {
        assert_eq!(guest.find_queue(0, rings(1 << shift)), Effect::QueueReady(0));
        assert_eq!(guest.store(QUEUE_READY, 0), Effect::QueueStopped(0));
    }
}

#[test]
fn a_misaligned_part_leaves_the_queue_not_ready() {
    for (register, address) in [
        (QUEUE_DESC_LOW, 0x4000_0008),
        (QUEUE_DESC_LOW, 0x4000_0001),
        (QUEUE_DRIVER_LOW, 0x4000_1001),
        (QUEUE_DEVICE_LOW, 0x4000_2002),
    ] {
        let mut guest = Guest::with_disk();
        guest.negotiate(feature::VERSION_1);
        guest.prepare_queue(0, rings(16));
        guest.store_address(register, address);
        assert_eq!(guest.store(QUEUE_READY, 1), Effect::None, "{address:#x}");
        assert_eq!(guest.load(QUEUE_READY), 0);
    }
}

#[test]
fn a_part_that_was_never_set_leaves_the_queue_not_ready() {
    for register in [QUEUE_DESC_LOW, QUEUE_DRIVER_LOW, QUEUE_DEVICE_LOW] {
        let mut guest = Guest::with_disk();
        guest.negotiate(feature::VERSION_1);
        guest.prepare_queue(0, rings(16));
        guest.store_address(register, 0);
        assert_eq!(guest.store(QUEUE_READY, 1), Effect::None);
    }
    // Nor is a queue ready that was only declared so.
    let mut guest = Guest::with_disk();
    guest.negotiate(feature::VERSION_1);
    assert_eq!(guest.store(QUEUE_READY, 1), Effect::None);
}

#[test]
fn a_queue_that_was_refused_can_be_mended() {
    let mut guest = Guest::with_disk();
    guest.negotiate(feature::VERSION_1);
    guest.prepare_queue(0, rings(24));
    assert_eq!(guest.store(QUEUE_READY, 1), Effect::None);
    guest.store(QUEUE_NUM, 16);
    assert_eq!(guest.store(QUEUE_READY, 1), Effect::QueueReady(0));
}

#[test]
fn a_ready_queue_keeps_its_place_and_size() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    guest.prepare_queue(0, QueueLayout { size: 256, descriptors: GuestAddr(0), ..rings(256) });
    assert_eq!(guest.store(QUEUE_READY, 1), Effect::None);
    assert_eq!(guest.device.queue(0), Some(rings(16)));
}

#[test]
fn queue_ready_zero_stops_the_queue_and_reads_back() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    assert_eq!(guest.store(QUEUE_READY, 0), Effect::QueueStopped(0));
    assert_eq!(guest.load(QUEUE_READY), 0);
    assert_eq!(guest.device.queue(0), None);
    assert_eq!(guest.store(QUEUE_NOTIFY, 0), Effect::None);
    // The store may have to come again.
    assert_eq!(guest.store(QUEUE_READY, 0), Effect::QueueStopped(0));
    // And it may be set up anew, elsewhere.
    assert_eq!(guest.find_queue(0, rings(32)), Effect::QueueReady(0));
    assert_eq!(guest.device.queue(0), Some(rings(32)));
    assert_eq!(guest.store(QUEUE_NOTIFY, 0), Effect::Notify(0));
}

#[test]
fn queue_ready_takes_zero_and_one_alone() {
    let mut guest = Guest::with_disk();
    guest.negotiate(feature::VERSION_1);
    guest.prepare_queue(0, rings(16));
    for value in [2, 3, u32::MAX] {
        assert_eq!(guest.store(QUEUE_READY, value), Effect::None);
        assert_eq!(guest.load(QUEUE_READY), 0);
    }
    guest.store(QUEUE_READY, 1);
    assert_eq!(guest.store(QUEUE_READY, 2), Effect::None);
    assert_eq!(guest.load(QUEUE_READY), 1);
}

#[test]
fn no_queue_is_ready_before_features_are_settled() {
    let mut guest = Guest::with_disk();
    guest.store(STATUS, ACKNOWLEDGE | DRIVER);
    guest.prepare_queue(0, rings(16));
    assert_eq!(guest.store(QUEUE_READY, 1), Effect::None);
    assert_eq!(guest.load(QUEUE_READY), 0);
}

#[test]
fn a_notification_names_its_queue() {
    let mut guest = Guest::with(BLOCK, 4);
    guest.bring_up();
    for index in 0..4 {
        assert_eq!(guest.store(QUEUE_NOTIFY, index), Effect::Notify(index as u16));
    }
}

#[test]
fn nobody_hears_a_notification_before_driver_ok() {
    let mut guest = Guest::with_disk();
    guest.negotiate(feature::VERSION_1);
    guest.find_queue(0, rings(16));
    assert_eq!(guest.store(QUEUE_NOTIFY, 0), Effect::None);
}

#[test]
fn a_used_buffer_is_in_interrupt_status_before_the_line_rises() {
    let mut guest = Guest::with(NETWORK, 2);
    guest.bring_up();
    assert!(!guest.device.line());
    guest.raise_used();
    assert_eq!(guest.load(INTERRUPT_STATUS), 1);
    assert!(guest.device.line());
    assert_eq!(guest.store(INTERRUPT_ACK, 1), Effect::Acknowledged);
    assert_eq!(guest.load(INTERRUPT_STATUS), 0);
    assert!(!guest.device.line());
}

#[test]
fn one_line_serves_both_causes_until_both_are_acknowledged() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    guest.raise_used();
    assert!(!guest.configure(&disk(4096)), "the line is high already");
    assert_eq!(guest.load(INTERRUPT_STATUS), 3);
    guest.store(INTERRUPT_ACK, 1);
    assert_eq!(guest.load(INTERRUPT_STATUS), 2);
    assert!(guest.device.line());
    guest.store(INTERRUPT_ACK, 2);
    assert!(!guest.device.line());
}

#[test]
fn a_driver_that_is_not_ready_hears_of_no_used_buffer() {
    let mut guest = Guest::with_disk();
    guest.negotiate(feature::VERSION_1);
    guest.raise_used();
    assert_eq!(guest.load(INTERRUPT_STATUS), 0);
    assert!(!guest.device.line());
}
