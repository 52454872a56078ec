//! Identification, features and status.

use super::*;

#[test]
fn linux_finds_a_device_of_each_kind() {
    for id in [NETWORK, BLOCK, 3, 4, 19] {
        let mut guest = Guest::with(id, 1);
        guest.configure(&disk(0));
        assert_eq!(guest.load(0x000), 0x7472_6976);
        assert_eq!(guest.load(0x004), 2);
        assert_eq!(guest.load(0x008), id);
        assert_eq!(guest.load(0x00c).to_le_bytes(), *b"Bulk");
        assert_eq!(guest.load(STATUS), 0);
    }
}

#[test]
fn power_on_publishes_the_whole_page() {
    let guest = Guest::with(4, 1);
    // What follows are other slots.
    for offset in (0..0x200).step_by(4) {
        let is_zero = !matches!(offset, 0x000..=0x010 | 0x034 | 0x0b0..=0x0bc);
        assert!(!is_zero || guest.load(offset) == 0, "offset {offset:#x}");
    }
}

#[test]
fn a_device_has_no_shared_memory() {
    let guest = Guest::with_disk();
    for offset in [0x0b0, 0x0b4, 0x0b8, 0x0bc] {
        assert_eq!(guest.load(offset), u32::MAX);
    }
}

#[test]
fn every_device_offers_what_all_have_in_common() {
    let common = feature::VERSION_1 | feature::EVENT_IDX | feature::INDIRECT_DESC;
    assert_eq!(Guest::with_disk().offered() & !feature::OF_KIND, common);
}

#[test]
fn feature_words_beyond_the_second_are_empty() {
    let mut guest = Guest::with_disk();
    for word in [2, 3, u32::MAX] {
        guest.store(DEVICE_FEATURES_SEL, word);
        assert_eq!(guest.load(DEVICE_FEATURES), 0);
    }
    guest.store(DRIVER_FEATURES_SEL, 2);
    guest.store(DRIVER_FEATURES, u32::MAX);
    guest.accept(feature::VERSION_1);
    assert!(guest.add_status(FEATURES_OK));
    assert_eq!(guest.device.features(), feature::VERSION_1);
}

#[test]
fn a_driver_gets_the_features_that_it_accepts() {
    let mut guest = Guest::with_disk();
    assert_eq!(guest.device.features(), 0);
    let features = guest.negotiate(feature::VERSION_1 | SEG_MAX);
    assert_eq!(features, feature::VERSION_1 | SEG_MAX);
    assert_eq!(guest.device.features(), features);
}

#[test]
fn features_count_from_features_ok_on() {
    let mut guest = Guest::with_disk();
    guest.accept(feature::VERSION_1);
    assert_eq!(guest.device.features(), 0);
    assert!(guest.add_status(FEATURES_OK));
    assert_eq!(guest.device.features(), feature::VERSION_1);
}

#[test]
fn a_legacy_driver_is_refused() {
    let mut guest = Guest::with_disk();
    let offered = guest.offered();
    guest.accept(offered & !feature::VERSION_1);
    assert!(!guest.add_status(FEATURES_OK));
    assert_eq!(guest.device.features(), 0);
}

#[test]
fn a_driver_that_accepts_what_was_never_offered_is_refused() {
    for alien in [FLUSH, 1 << 33, 1 << 34, 1 << 40, 1 << 63] {
        let mut guest = Guest::with_disk();
        guest.accept(feature::VERSION_1 | alien);
        assert!(!guest.add_status(FEATURES_OK), "{alien:#x}");
        assert!(!guest.add_status(DRIVER_OK));
    }
}

#[test]
fn a_driver_that_was_refused_may_think_again() {
    let mut guest = Guest::with_disk();
    guest.accept(u64::MAX);
    assert!(!guest.add_status(FEATURES_OK));
    guest.accept(feature::VERSION_1);
    assert!(guest.add_status(FEATURES_OK));
}

#[test]
fn features_are_settled_by_features_ok() {
    let mut guest = Guest::with_disk();
    guest.negotiate(feature::VERSION_1);
    guest.accept(feature::VERSION_1 | feature::EVENT_IDX);
    assert_eq!(guest.device.features(), feature::VERSION_1);
}

#[test]
fn driver_ok_without_features_ok_is_refused() {
    let mut guest = Guest::with_disk();
    guest.accept(feature::VERSION_1);
    assert_eq!(guest.store(STATUS, ACKNOWLEDGE | DRIVER | DRIVER_OK), Effect::None);
    assert_eq!(guest.load(STATUS), ACKNOWLEDGE | DRIVER);
    assert!(!guest.device.is_live());
}

#[test]
fn several_status_bits_may_come_at_once() {
    let mut guest = Guest::with_disk();
    guest.accept(feature::VERSION_1);
    assert_eq!(guest.store(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK), Effect::Live);
    assert_eq!(guest.load(STATUS), ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);

    // And the two that are refused are refused together.
    let mut guest = Guest::with_disk();
    assert_eq!(guest.store(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK), Effect::None);
    assert_eq!(guest.load(STATUS), ACKNOWLEDGE | DRIVER);
}

#[test]
fn status_bits_add_up() {
    let mut guest = Guest::with_disk();
    guest.store(STATUS, ACKNOWLEDGE);
    guest.store(STATUS, DRIVER);
    assert_eq!(guest.load(STATUS), ACKNOWLEDGE | DRIVER);
    guest.store(STATUS, FAILED);
    assert_eq!(guest.load(STATUS), ACKNOWLEDGE | DRIVER | FAILED);
}

#[test]
fn unknown_status_bits_and_the_devices_own_are_not_the_drivers_to_set() {
    let mut guest = Guest::with_disk();
    guest.store(STATUS, 0xffff_ff00 | NEEDS_RESET | 0x30 | ACKNOWLEDGE);
    assert_eq!(guest.load(STATUS), ACKNOWLEDGE);
}

#[test]
fn going_live_is_told_once() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    let status = guest.load(STATUS);
    assert_eq!(guest.store(STATUS, status), Effect::None);
    assert!(guest.device.is_live());
}

#[test]
fn a_reset_is_complete_when_the_store_is() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    guest.raise_used();
    assert_eq!(guest.store(STATUS, 0), Effect::Reset);
    // Linux does not poll: this is the state that it goes on from.
    assert_eq!((guest.load(STATUS), guest.load(INTERRUPT_STATUS), guest.load(QUEUE_READY)), (0, 0, 0));
    assert!(!guest.device.line() && !guest.device.is_live());
    assert_eq!(guest.device.features(), 0);
    assert_eq!(guest.device.queue(0), None);
}

#[test]
fn a_reset_forgets_what_was_accepted_and_selected() {
    let mut guest = Guest::with(NETWORK, 2);
    guest.configure(&disk(0));
    guest.negotiate(u64::MAX);
    guest.find_queue(1, rings(16));
    guest.store(DEVICE_FEATURES_SEL, 1);
    guest.store(STATUS, 0);
    assert_ne!(guest.load(DEVICE_FEATURES) & SEG_MAX as u32, 0);
    assert!(!guest.add_status(FEATURES_OK));
    // Queue 0 is selected, and no queue has a size.
    guest.accept(feature::VERSION_1);
    assert!(guest.add_status(FEATURES_OK));
    assert_eq!(guest.store(QUEUE_READY, 1), Effect::None);
}

#[test]
fn a_virtual_machine_that_starts_again_finds_the_device_as_at_first() {
    let mut guest = Guest::with_disk();
    let first = guest.page.words;
    guest.bring_up();
    guest.raise_used();
    guest.device.reset(&mut guest.page);
    guest.check_page();
    assert_eq!(guest.page.words, first);
    assert!(!guest.device.line());
}

#[test]
fn a_boot_loader_and_two_kernels_take_turns() {
    let mut guest = Guest::with_disk();
    for size in [8, 256, 64] {
        // U-Boot polls: it sets no interrupt up, never acknowledges, and uses fewer descriptors than it might.
        guest.negotiate(feature::VERSION_1);
        assert_eq!(guest.find_queue(0, rings(size)), Effect::QueueReady(0));
        assert!(guest.add_status(DRIVER_OK));
        assert_eq!(guest.device.queue(0), Some(rings(size)));
        assert_eq!(guest.store(QUEUE_NOTIFY, 0), Effect::Notify(0));
        guest.raise_used();
        guest.raise_used();
        assert!(guest.device.line());
    }
    assert_eq!(guest.store(STATUS, 0), Effect::Reset);
    assert!(!guest.device.line());
}
