//! A guest that means harm, or does not know what it does.

use super::*;

const WIDTHS: [Width; 4] = [Width::Byte, Width::HalfWord, Width::Word, Width::DoubleWord];

#[test]
fn a_queue_that_does_not_exist_has_no_size_and_takes_nothing() {
    for queues in [1, 2] {
        let mut guest = Guest::with(BLOCK, queues);
        guest.bring_up();
        let count = u32::from(guest.device.queue_count());
        for index in [count, 7, 8, 255, 0xffff, 0x1_0000, u32::MAX] {
            guest.prepare_queue(index, rings(16));
            assert_eq!(guest.load(QUEUE_NUM_MAX), 0, "{index:#x}");
            assert_eq!(guest.store(QUEUE_READY, 1), Effect::None);
            assert_eq!(guest.store(QUEUE_READY, 0), Effect::None);
            assert_eq!(guest.load(QUEUE_READY), 0);
            assert_eq!(guest.store(QUEUE_NOTIFY, index), Effect::None);
        }
        assert_eq!(guest.device.queue(count as u16), None);
        assert_eq!(guest.device.queue(u16::MAX), None);
        assert_eq!(guest.store(QUEUE_NOTIFY, 0), Effect::Notify(0), "the others go on");
    }
}

#[test]
fn a_notification_of_more_than_sixteen_bits_is_not_cut_to_them() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    assert_eq!(guest.store(QUEUE_NOTIFY, 0x1_0000), Effect::None);
    assert_eq!(guest.store(QUEUE_NOTIFY, 0xffff_0000), Effect::None);
}

#[test]
fn the_last_page_of_all_is_an_address_like_any_other() {
    // Where the rings may be is for the walker to say: it asks whose memory they are in.
    let mut guest = Guest::with_disk();
    guest.negotiate(feature::VERSION_1);
    guest.prepare_queue(0, rings(16));
    guest.store_address(QUEUE_DESC_LOW, 0xffff_ffff_ffff_fff0);
    assert_eq!(guest.store(QUEUE_READY, 1), Effect::QueueReady(0));
    assert_eq!(guest.device.queue(0).unwrap().descriptors.0, 0xffff_ffff_ffff_fff0);
}

#[test]
fn acknowledging_what_is_not_set_clears_nothing_else() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    guest.raise_used();
    for value in [0, 2, 0xffff_fffe] {
        assert_eq!(guest.store(INTERRUPT_ACK, value), Effect::Acknowledged);
        assert_eq!(guest.load(INTERRUPT_STATUS), 1);
        assert!(guest.device.line());
    }
    guest.store(INTERRUPT_ACK, u32::MAX);
    assert!(!guest.device.line());
    guest.store(INTERRUPT_ACK, u32::MAX);
    assert_eq!(guest.load(INTERRUPT_STATUS), 0);
}

#[test]
fn a_guest_that_never_acknowledges_keeps_its_line_high() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    for _ in 0..10 {
        guest.raise_used();
        assert!(guest.device.line());
        assert_eq!(guest.load(INTERRUPT_STATUS), 1);
    }
}

#[test]
fn registers_take_aligned_words_alone() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    let page = guest.page.words;
    for offset in (0..CONFIG).step_by(4) {
        for width in [Width::Byte, Width::HalfWord, Width::DoubleWord] {
            assert_eq!(guest.try_store(offset, width, 0), Err(GuestFault::BadWidth), "{offset:#x} {width:?}");
        }
        for skew in 1..4 {
            assert_eq!(guest.try_store(offset + skew, Width::Word, 0), Err(GuestFault::BadWidth));
        }
    }
    assert_eq!(guest.page.words, page);
}

#[test]
fn configuration_space_ignores_stores_and_refuses_crooked_ones() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    let page = guest.page.words;
    for offset in [CONFIG, CONFIG + 0x20, CONFIG + 0x38, 0xff8] {
        for width in [Width::Byte, Width::HalfWord, Width::Word] {
            assert_eq!(guest.try_store(offset, width, u64::MAX), Ok(Effect::None));
        }
        assert_eq!(guest.try_store(offset, Width::DoubleWord, 0), Err(GuestFault::BadWidth));
        assert_eq!(guest.try_store(offset + 1, Width::HalfWord, 0), Err(GuestFault::BadWidth));
        assert_eq!(guest.try_store(offset + 2, Width::Word, 0), Err(GuestFault::BadWidth));
    }
    assert_eq!(guest.page.words, page);
}

#[test]
fn nothing_answers_beyond_the_window() {
    let mut guest = Guest::with_disk();
    for offset in [0x1000, 0x1050, 0x1_0000_0050, u64::MAX - 3, u64::MAX] {
        for width in WIDTHS {
            assert_eq!(guest.try_store(offset, width, 1), Err(GuestFault::NoRegister));
        }
    }
}

#[test]
fn stores_to_registers_that_are_there_to_be_read_change_nothing() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    guest.raise_used();
    let page = guest.page.words;
    let read_only = [0x000, 0x004, 0x008, 0x00c, DEVICE_FEATURES, QUEUE_NUM_MAX, INTERRUPT_STATUS, CONFIG_GENERATION];
    let shared_memory_and_queue_reset = [0x0ac, 0x0b0, 0x0b4, 0x0b8, 0x0bc, 0x0c0];
    for offset in read_only.into_iter().chain(shared_memory_and_queue_reset) {
        assert_eq!(guest.store(offset, u32::MAX), Effect::None, "{offset:#x}");
    }
    assert_eq!(guest.page.words, page);
}

#[test]
fn registers_that_are_there_to_be_written_read_as_zero() {
    let mut guest = Guest::with_disk();
    guest.bring_up();
    for offset in [
        DEVICE_FEATURES_SEL,
        DRIVER_FEATURES,
        DRIVER_FEATURES_SEL,
        QUEUE_SEL,
        QUEUE_NUM,
        QUEUE_NOTIFY,
        INTERRUPT_ACK,
        QUEUE_DESC_LOW,
        QUEUE_DRIVER_LOW,
        QUEUE_DEVICE_LOW,
    ] {
        guest.store(offset, 1);
        assert_eq!(guest.load(offset), 0, "{offset:#x}");
    }
}

/// xorshift64*: the same sequence in every run.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// A store that a driver might do, with a value that is often sensible.
fn likely_store(state: &mut u64) -> (u64, u32) {
    const REGISTERS: [u64; 14] = [
        DEVICE_FEATURES_SEL,
        DRIVER_FEATURES,
        DRIVER_FEATURES_SEL,
        QUEUE_SEL,
        QUEUE_NUM,
        QUEUE_READY,
        QUEUE_NOTIFY,
        INTERRUPT_ACK,
        STATUS,
        STATUS,
        QUEUE_DESC_LOW,
        QUEUE_DRIVER_LOW,
        QUEUE_DEVICE_LOW,
        QUEUE_DEVICE_LOW + 4,
    ];
    let offset = REGISTERS[next(state) as usize % REGISTERS.len()];
    let value = match next(state) % 8 {
        0 => 0,
        1 | 2 => 1,
        3 => 0xf,
        4 => 1 << (next(state) % 32),
        5 => 0x4000_0000 | (next(state) as u32 & 0xfff0),
        _ => next(state) as u32 & 0xf,
    };
    (offset, value)
}

#[test]
fn a_guest_that_stores_at_random_never_gets_a_device_to_work_that_it_did_not_set_up() {
    let mut went_live = 0;
    for seed in [0x9e37_79b9_7f4a_7c15, 3, 5] {
        let mut guest = Guest::with(BLOCK, 3);
        let mut state = seed;
        for _ in 0..if cfg!(miri) { 150 } else { 20_000 } {
            let random = next(&mut state);
            let effect = match random % 16 {
                0 => guest.try_store(next(&mut state) % 0x1008, WIDTHS[random as usize >> 8 & 3], next(&mut state)),
                1 => {
                    guest.raise_used();
                    Ok(Effect::None)
                }
                2 if random & 0x700 == 0 => {
                    guest.configure(&disk(random >> 60));
                    Ok(Effect::None)
                }
                3 if random & 0xf00 == 0 => {
                    guest.accept(feature::VERSION_1);
                    Ok(Effect::None)
                }
                _ => {
                    let (offset, value) = likely_store(&mut state);
                    guest.try_store(offset, Width::Word, value.into())
                }
            };
            let status = guest.load(STATUS);
            let device = &guest.device;
            match effect {
                Ok(Effect::Notify(index)) => assert!(device.is_live() && device.queue(index).is_some()),
                Ok(Effect::QueueReady(index)) => {
                    let layout = device.queue(index).unwrap();
                    assert!(layout.size.is_power_of_two() && layout.size <= QUEUE_SIZE_MAX);
                    assert!([layout.descriptors.0 & 15, layout.available.0 & 1, layout.used.0 & 3] == [0; 3]);
                    assert_ne!(status & FEATURES_OK, 0);
                }
                Ok(Effect::QueueStopped(index)) => assert_eq!(device.queue(index), None),
                Ok(Effect::Live) => {
                    went_live += 1;
                    assert!(device.is_live() && device.features() & feature::VERSION_1 != 0);
                }
                Ok(Effect::Reset) => assert!(status == 0 && (0..8).all(|index| device.queue(index).is_none())),
                Ok(Effect::None | Effect::Acknowledged) | Err(_) => {}
            }
            assert_eq!(device.line(), guest.load(INTERRUPT_STATUS) != 0);
            assert!(!device.line() || status & DRIVER_OK != 0);
        }
    }
    assert!(cfg!(miri) || went_live > 10, "{went_live}");
}
