//! What stands behind a device, and what its driver sees of a change.

use super::*;

#[test]
fn where_nothing_ever_stood_there_is_no_device() {
    let mut guest = Guest::with(BLOCK, 1);
    assert_eq!(guest.load(0x008), 0);
    assert_eq!(guest.offered(), feature::COMMON);
    guest.configure(&disk(0));
    assert_eq!(guest.load(0x008), BLOCK);
    guest.store(STATUS, 0);
    assert_eq!(guest.load(0x008), BLOCK, "a reset changes nothing about that");
}

#[test]
fn the_configuration_space_is_what_the_backend_says_to_its_last_byte() {
    let mut guest = Guest::with(NETWORK, 2);
    let words = core::array::from_fn(|index| index as u32 + 1);
    guest.configure(&Backend { features: 0, words, live_words: 0 });
    for index in 0..CONFIGURATION_WORDS as u64 {
        assert_eq!(guest.load(CONFIG + 4 * index), index as u32 + 1);
    }
    assert_eq!((guest.load_u8(CONFIG), guest.load_u16(CONFIG + 4)), (1, 2));
}

#[test]
fn a_backend_chooses_the_features_of_its_kind_and_no_others() {
    let mut guest = Guest::with(BLOCK, 1);
    let mut configuration = disk(8);
    configuration.features = u64::MAX;
    guest.configure(&configuration);
    assert_eq!(guest.offered(), feature::COMMON | feature::OF_KIND);
}

#[test]
fn a_driver_hears_of_a_new_capacity() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    let generation = guest.load(CONFIG_GENERATION);
    assert!(guest.configure(&disk(1 << 33)));
    assert_eq!((guest.load(CONFIG), guest.load(CONFIG + 4)), (0, 2));
    assert_ne!(guest.load(CONFIG_GENERATION), generation);
    assert_eq!(guest.load(INTERRUPT_STATUS), 2);
    // The counter moved again after the capacity had changed, and the interrupt came last.
    assert_eq!(guest.page.latest, [CONFIG as u16 + 4, CONFIG_GENERATION as u16, INTERRUPT_STATUS as u16]);
}

#[test]
fn nothing_new_is_no_change() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    let generation = guest.load(CONFIG_GENERATION);
    assert!(!guest.configure(&disk(2048)));
    assert_eq!(guest.load(CONFIG_GENERATION), generation);
    assert_eq!(guest.load(INTERRUPT_STATUS), 0);
}

#[test]
fn what_a_driver_has_accepted_is_not_taken_away() {
    let mut guest = Guest::with(BLOCK, 1);
    guest.configure(&able_disk());
    guest.negotiate(u64::MAX);
    let page = guest.page.words;
    assert_eq!(guest.try_configure(&disk(1)), Err(FeaturesLost));
    assert_eq!(guest.page.words, page);
    // What it has not accepted may go.
    guest.negotiate(feature::VERSION_1 | SEG_MAX);
    assert_eq!(guest.try_configure(&disk(1)), Ok(false));
    assert_eq!(guest.load(CONFIG), 1);
}

#[test]
fn a_change_before_features_ok_changes_what_is_offered() {
    let mut guest = Guest::with_disk();
    guest.store(STATUS, ACKNOWLEDGE | DRIVER);
    guest.configure(&able_disk());
    assert_ne!(guest.offered() & READ_ONLY, 0);
    assert_eq!(guest.load(CONFIG + 0x14), 4096);
}

#[test]
fn a_change_after_features_ok_changes_the_capacity_alone_until_a_reset() {
    let mut guest = Guest::with_disk();
    guest.negotiate(u64::MAX);
    let (offered, features) = (guest.offered(), guest.device.features());
    guest.configure(&able_disk());
    assert_eq!((guest.load(CONFIG), guest.load(CONFIG + 4)), (0x2345_6789, 1));
    assert_eq!(guest.load(CONFIG + 0x14), 512);
    assert_eq!((guest.offered(), guest.device.features()), (offered, features));
    guest.store(STATUS, 0);
    assert_eq!(guest.load(CONFIG + 0x14), 4096);
    assert_ne!(guest.offered() & READ_ONLY, 0);
}

#[test]
fn what_follows_a_change_ends_at_any_word() {
    for live_words in 0..=CONFIGURATION_WORDS as u16 {
        let mut guest = Guest::with(NETWORK, 2);
        guest.configure(&Backend { features: 0, words: [1; CONFIGURATION_WORDS], live_words });
        guest.negotiate(u64::MAX);
        guest.configure(&Backend { features: 0, words: [2; CONFIGURATION_WORDS], live_words });
        let words =
            |guest: &Guest| -> u32 { (0..CONFIGURATION_WORDS as u64).map(|word| guest.load(CONFIG + 4 * word)).sum() };
        let all = CONFIGURATION_WORDS as u32;
        assert_eq!(words(&guest), all + u32::from(live_words));
        // The rest with the next reset, and then nothing is owed.
        guest.store(STATUS, 0);
        assert_eq!(words(&guest), 2 * all);
        let generation = guest.load(CONFIG_GENERATION);
        guest.store(STATUS, 0);
        assert_eq!(guest.load(CONFIG_GENERATION), generation);
    }
}

#[test]
fn a_change_while_a_driver_prepares_is_told_when_it_is_ready() {
    let mut guest = Guest::with_disk();
    guest.negotiate(u64::MAX);
    let stale = guest.load(CONFIG);
    assert!(!guest.configure(&disk(4096)));
    assert!(!guest.device.line());
    assert_ne!(guest.load(CONFIG), stale);
    assert!(guest.add_status(DRIVER_OK));
    assert_eq!(guest.load(INTERRUPT_STATUS), 2);
    guest.store(INTERRUPT_ACK, 2);
    assert!(!guest.device.line());
}

#[test]
fn a_change_before_there_is_a_driver_is_told_to_nobody() {
    let mut guest = Guest::with_disk();
    guest.configure(&disk(4096));
    guest.bring_up();
    assert!(!guest.device.line());
}

#[test]
fn a_device_that_needs_a_reset_says_so_and_does_no_more() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    guest.need_reset();
    assert_ne!(guest.load(STATUS) & NEEDS_RESET, 0);
    assert_eq!(guest.load(INTERRUPT_STATUS), 2);
    assert!(guest.device.line() && !guest.device.is_live());
    assert_eq!(guest.store(QUEUE_NOTIFY, 0), Effect::None);
    // No store but that of zero helps.
    guest.store(STATUS, ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK);
    assert!(!guest.device.is_live());
    guest.bring_up();
    assert_eq!(guest.load(STATUS) & NEEDS_RESET, 0);
    assert!(!guest.device.line());
}

#[test]
fn a_driver_that_prepares_is_told_of_a_needed_reset_when_it_is_ready() {
    let mut guest = Guest::with_disk();
    guest.negotiate(u64::MAX);
    guest.need_reset();
    assert!(!guest.device.line());
    let status = guest.load(STATUS);
    assert_eq!(guest.store(STATUS, status | DRIVER_OK), Effect::None);
    assert!(guest.device.line() && !guest.device.is_live());
}

#[test]
fn the_other_slots_of_a_page_are_there_and_have_no_device() {
    let mut guest = Guest::with_disk();
    assert_eq!(guest.slot(0), [MAGIC, VERSION, BLOCK, VENDOR]);
    for slot in (0x200..0x1000).step_by(0x200) {
        assert_eq!(guest.slot(slot), [MAGIC, VERSION, 0, VENDOR], "{slot:#x}");
        for word in (slot..slot + 0x200).step_by(4) {
            assert_eq!(guest.page.words[word / 4], vacant_word(word as u16), "{word:#x}");
        }
        // Status, and the queue's notification.
        assert_eq!(guest.store(slot as u64 + STATUS, 1), Effect::None);
        assert_eq!(guest.store(slot as u64 + QUEUE_NOTIFY, 0), Effect::None);
        assert_eq!(guest.slot(slot), [MAGIC, VERSION, 0, VENDOR]);
    }
    assert_eq!(guest.load(STATUS), 0);
}

#[test]
fn what_is_not_among_the_words_of_vacant_slots_reads_as_zero() {
    assert_eq!(vacant_words().count(), 8 * 4);
    for offset in (0..WINDOW_SIZE).step_by(4) {
        assert!(vacant_word(offset) == 0 || vacant_words().any(|word| word == offset), "{offset:#x}");
    }
}
