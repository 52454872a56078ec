//! What stands behind a device, and what its driver sees of a change.

use super::*;

/// A disk that can do everything.
fn able_disk(read_only: bool) -> Configuration {
    Configuration::Block {
        capacity_sectors: 0x1_2345_6789,
        block_size: 4096,
        segment_size_max: BLOCK_SEGMENT_SIZE,
        segments_max: BLOCK_SEGMENTS_MAX,
        read_only,
        flush: true,
        discard: true,
        write_zeroes: true,
    }
}

#[test]
fn a_disk_with_nothing_behind_it_is_empty() {
    let mut guest = Guest::with(Kind::Block, 1);
    assert_eq!((guest.load(CONFIG), guest.load(CONFIG + 4)), (0, 0));
    assert_eq!(guest.offered() & (feature::BLOCK_FLUSH | feature::BLOCK_DISCARD | feature::BLOCK_RO), 0);
}

#[test]
fn a_disk_describes_itself() {
    let mut guest = Guest::with(Kind::Block, 4);
    guest.configure(able_disk(true));
    let own = feature::BLOCK_SIZE_MAX
        | feature::BLOCK_SEG_MAX
        | feature::BLOCK_RO
        | feature::BLOCK_BLK_SIZE
        | feature::BLOCK_FLUSH
        | feature::BLOCK_TOPOLOGY
        | feature::BLOCK_MQ
        | feature::BLOCK_DISCARD
        | feature::BLOCK_WRITE_ZEROES;
    assert_eq!(guest.offered() & 0xff_ffff, own);
    assert_eq!((guest.load(CONFIG), guest.load(CONFIG + 4)), (0x2345_6789, 1));
    // `size_max` and `seg_max`, the geometry that there is not, and `blk_size`.
    assert_eq!((guest.load(CONFIG + 0x8), guest.load(CONFIG + 0xc)), (4096, 64));
    assert_eq!((guest.load(CONFIG + 0x10), guest.load(CONFIG + 0x14)), (0, 4096));
    // `topology`: `physical_block_exp`, `alignment_offset`, `min_io_size`, `opt_io_size`.
    assert_eq!((guest.load_u8(CONFIG + 0x18), guest.load_u8(CONFIG + 0x19)), (0, 0));
    assert_eq!((guest.load_u16(CONFIG + 0x1a), guest.load(CONFIG + 0x1c)), (1, 0));
    // `num_queues`.
    assert_eq!(guest.load_u16(CONFIG + 0x22), 4);
    // Discard: sectors, segments, alignment in sectors. Zeroes: sectors, segments, `write_zeroes_may_unmap`.
    assert_eq!([0x24, 0x28, 0x2c].map(|offset| guest.load(CONFIG + offset)), [0x1_0000, 1, 8]);
    assert_eq!([0x30, 0x34].map(|offset| guest.load(CONFIG + offset)), [0x1_0000, 1]);
    assert_eq!(guest.load_u8(CONFIG + 0x38), 0);
}

#[test]
fn a_disk_that_can_do_less_offers_less() {
    let mut guest = Guest::with_disk();
    let own = feature::BLOCK_SIZE_MAX | feature::BLOCK_SEG_MAX | feature::BLOCK_BLK_SIZE | feature::BLOCK_TOPOLOGY;
    assert_eq!(guest.offered() & 0xff_ffff, own);
    assert_eq!(guest.load_u16(CONFIG + 0x1a), 8, "4 KiB are eight blocks of 512 bytes");
}

#[test]
fn a_block_size_that_linux_would_refuse_is_not_passed_on() {
    for block_size in [0, 1, 256, 513, 8192, 0x8000_0000, u32::MAX] {
        let mut guest = Guest::with(Kind::Block, 1);
        let mut configuration = disk(8);
        let Configuration::Block { block_size: stated, .. } = &mut configuration else { unreachable!() };
        *stated = block_size;
        guest.configure(configuration);
        assert_eq!(guest.load(CONFIG + 0x14), 512, "{block_size}");
    }
}

#[test]
fn a_network_card_describes_itself() {
    let mut guest = Guest::with(Kind::Network, 2);
    assert_eq!(guest.offered() & (feature::NET_MAC | feature::NET_MTU), 0);
    assert_eq!(guest.load_u16(CONFIG + 6), 0, "no cable");
    guest.configure(card(true));
    let own = feature::NET_CSUM
        | feature::NET_GUEST_CSUM
        | feature::NET_MTU
        | feature::NET_MAC
        | feature::NET_MRG_RXBUF
        | feature::NET_STATUS;
    assert_eq!(guest.offered() & 0xff_ffff, own);
    let mac: [u8; 6] = core::array::from_fn(|index| guest.load_u8(CONFIG + index as u64));
    assert_eq!(mac, [0x52, 0x54, 0x00, 0x12, 0x34, 0x56]);
    assert_eq!(guest.load_u16(CONFIG + 6), 1);
    assert_eq!((guest.load_u16(CONFIG + 8), guest.load_u16(CONFIG + 10)), (0, 1500));
}

#[test]
fn an_mtu_that_no_card_may_state_is_not_stated() {
    let mut guest = Guest::with(Kind::Network, 2);
    guest.configure(Configuration::Network { mac: [2, 0, 0, 0, 0, 1], mtu: 67, link_up: true });
    assert_eq!(guest.offered() & feature::NET_MTU, 0);
}

#[test]
fn a_console_states_its_size() {
    let mut guest = Guest::with(Kind::Console, 2);
    assert_eq!(guest.offered() & 0xff_ffff, 0);
    guest.configure(Configuration::Console { columns: 80, rows: 25 });
    assert_eq!(guest.offered() & 0xff_ffff, feature::CONSOLE_SIZE);
    assert_eq!((guest.load_u16(CONFIG), guest.load_u16(CONFIG + 2)), (80, 25));
}

#[test]
fn entropy_has_nothing_to_state() {
    let mut guest = Guest::with(Kind::Entropy, 1);
    assert!(!guest.configure(Configuration::Entropy));
    assert_eq!(guest.offered() & 0xff_ffff, 0);
    assert_eq!(guest.load(CONFIG), 0);
}

#[test]
fn a_driver_hears_of_a_new_capacity() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    let generation = guest.load(CONFIG_GENERATION);
    assert!(guest.configure(disk(1 << 33)));
    assert_eq!((guest.load(CONFIG), guest.load(CONFIG + 4)), (0, 2));
    assert_ne!(guest.load(CONFIG_GENERATION), generation);
    assert_eq!(guest.load(INTERRUPT_STATUS), 2);
    // The counter moved again after the capacity had changed, and the interrupt came last.
    assert_eq!(guest.page.latest, [CONFIG as u16 + 4, CONFIG_GENERATION as u16, INTERRUPT_STATUS as u16]);
}

#[test]
fn a_driver_hears_of_a_cable_that_is_pulled() {
    let mut guest = Guest::with(Kind::Network, 2);
    guest.configure(card(true));
    guest.bring_up();
    assert!(guest.configure(card(false)));
    assert_eq!(guest.load_u16(CONFIG + 6), 0);
    guest.store(INTERRUPT_ACK, 2);
    assert!(guest.configure(card(true)));
}

#[test]
fn nothing_new_is_no_change() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    let generation = guest.load(CONFIG_GENERATION);
    assert!(!guest.configure(disk(2048)));
    assert_eq!(guest.load(CONFIG_GENERATION), generation);
    assert_eq!(guest.load(INTERRUPT_STATUS), 0);
}

#[test]
fn the_configuration_of_another_kind_says_nothing() {
    let mut guest = Guest::with_disk();
    let page = guest.page.words;
    assert!(!guest.configure(card(true)));
    assert_eq!(guest.page.words, page);
}

#[test]
fn a_change_before_features_ok_changes_what_is_offered() {
    let mut guest = Guest::with_disk();
    guest.store(STATUS, ACKNOWLEDGE | DRIVER);
    guest.configure(able_disk(true));
    assert_ne!(guest.offered() & feature::BLOCK_RO, 0);
    assert_eq!(guest.load(CONFIG + 0x14), 4096);
}

#[test]
fn a_change_after_features_ok_changes_the_capacity_alone_until_a_reset() {
    let mut guest = Guest::with_disk();
    guest.negotiate(u64::MAX);
    let (offered, features) = (guest.offered(), guest.device.features());
    guest.configure(able_disk(true));
    assert_eq!((guest.load(CONFIG), guest.load(CONFIG + 4)), (0x2345_6789, 1));
    assert_eq!(guest.load(CONFIG + 0x14), 512);
    assert_eq!((guest.offered(), guest.device.features()), (offered, features));
    guest.store(STATUS, 0);
    assert_eq!(guest.load(CONFIG + 0x14), 4096);
    assert_ne!(guest.offered() & feature::BLOCK_RO, 0);
}

#[test]
fn a_change_while_a_driver_prepares_is_told_when_it_is_ready() {
    let mut guest = Guest::with_disk();
    guest.negotiate(u64::MAX);
    let stale = guest.load(CONFIG);
    assert!(!guest.configure(disk(4096)));
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
    guest.configure(disk(4096));
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
    assert_eq!(guest.slot(0), [MAGIC, VERSION, Kind::Block.device_id(), VENDOR]);
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
