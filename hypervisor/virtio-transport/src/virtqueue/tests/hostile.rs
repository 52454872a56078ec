//! Drivers that break the rules, by accident or not. Each gets an error, and nothing else happens.

use super::driver::*;
use crate::virtqueue::{QUEUE_SIZE_MAX, QueueError, SEGMENTS_MAX, Virtqueue};
use core::cell::RefCell;
use std::{string::ToString, vec::Vec};
use vdev::{
    GuestAddr, GuestFault, GuestMemory, QueueLayout,
    testkit::{FakeMemory, MEMORY_BASE},
};

/// What becomes of a queue of `size` whose driver offers descriptor 0 after `write`.
fn refusal(size: u16, write: impl FnOnce(&Driver)) -> QueueError {
    let mut driver = Driver::new(size);
    write(&driver);
    driver.offer(0);
    let mut device = driver.device(ALL_FEATURES);
    let error = pop_whole(&mut device, &driver.memory, &mut Taken::new()).expect_err("refused");
    assert_eq!(device.in_flight(), 0, "nothing is taken");
    assert_eq!(
        pop_whole(&mut device, &driver.memory, &mut Taken::new()),
        Err(error),
        "and the next look finds the same"
    );
    assert_eq!(driver.used(), None);
    error
}

#[test]
fn a_descriptor_that_leads_to_itself_is_refused() {
    assert_eq!(refusal(4, |driver| driver.describe(0, (BUFFERS, 1), NEXT, 0)), QueueError::ChainTooLong);
}

#[test]
fn a_loop_of_two_is_refused() {
    let error = refusal(4, |driver| {
        driver.describe(0, (BUFFERS, 1), NEXT, 1);
        driver.describe(1, (BUFFERS, 1), NEXT, 0);
    });
    assert_eq!(error, QueueError::ChainTooLong);
}

#[test]
fn a_loop_of_empty_buffers_is_refused() {
    assert_eq!(refusal(4, |driver| driver.describe(0, (BUFFERS, 0), NEXT, 0)), QueueError::ChainTooLong);
}

#[test]
fn a_loop_in_an_indirect_table_is_refused() {
    let error = refusal(4, |driver| {
        driver.describe_at(TABLE, 0, (BUFFERS, 1), NEXT, 1);
        driver.describe_at(TABLE, 1, (BUFFERS, 1), NEXT, 0);
        driver.describe(0, (TABLE, 32), INDIRECT, 0);
    });
    assert_eq!(error, QueueError::ChainTooLong);
}

#[test]
fn a_chain_of_one_too_many_is_refused() {
    let buffers = [(BUFFERS, 1, 0); SEGMENTS_MAX + 1];
    let bytes = 16 * buffers.len() as u32;
    let error = refusal(128, |driver| {
        driver.describe_chain(TABLE, 0, &buffers);
        driver.describe(0, (TABLE, bytes), INDIRECT, 0);
    });
    assert_eq!(error, QueueError::ChainTooLong);
    let error = refusal(128, |driver| {
        driver.describe_chain(TABLE, 0, &buffers[1..]);
        driver.describe(0, (BUFFERS, 1), NEXT, 1);
        driver.describe(1, (TABLE, bytes - 16), INDIRECT, 0);
    });
    assert_eq!(error, QueueError::ChainTooLong);
}

#[test]
fn a_next_outside_the_table_is_refused() {
    for next in [4, 5, 0x7fff, u16::MAX] {
        assert_eq!(refusal(4, |driver| driver.describe(0, (BUFFERS, 1), NEXT, next)), QueueError::Next);
    }
    let error = refusal(4, |driver| {
        // Descriptor 2 exists in the queue's table and in memory, but not in this one.
        driver.describe_at(TABLE, 0, (BUFFERS, 1), NEXT, 2);
        driver.describe_at(TABLE, 2, (BUFFERS, 1), 0, 0);
        driver.describe(0, (TABLE, 32), INDIRECT, 0);
    });
    assert_eq!(error, QueueError::Next);
}

#[test]
fn a_head_outside_the_queue_is_refused() {
    for head in [4, 255, 256, u16::MAX] {
        let mut driver = Driver::new(4);
        driver.offer(head);
        assert_eq!(pop(&driver).unwrap_err(), QueueError::Head);
    }
}

#[test]
fn a_buffer_that_wraps_is_refused() {
    for (address, length) in [(u64::MAX, 1), (u64::MAX - 14, 16), (u64::MAX - 0xffff_fffe, u32::MAX)] {
        let error = refusal(4, |driver| driver.describe(0, (address, length), 0, 0));
        assert_eq!(error, QueueError::AddressWraps, "{address:#x} + {length:#x}");
    }
}

#[test]
fn more_than_four_gibibytes_are_refused() {
    let half = (BUFFERS, 1 << 31, 0);
    let mut driver = Driver::new(4);
    driver.offer_chain(0, &[half, half]);
    assert_eq!(pop(&driver).unwrap().unwrap().readable_bytes(), 1 << 32);
    let error = refusal(4, |driver| driver.describe_chain(MEMORY_BASE.0, 0, &[half, half, (BUFFERS, 1, WRITE)]));
    assert_eq!(error, QueueError::TooManyBytes);
}

#[test]
fn a_buffer_to_read_behind_one_to_write_is_refused() {
    let error = refusal(4, |driver| driver.describe_chain(MEMORY_BASE.0, 0, &[(BUFFERS, 1, WRITE), (BUFFERS, 1, 0)]));
    assert_eq!(error, QueueError::ReadableAfterWritable);
}

#[test]
fn an_indirect_table_in_an_indirect_table_is_refused() {
    let error = refusal(4, |driver| {
        driver.describe_at(TABLE, 0, (TABLE, 16), INDIRECT, 0);
        driver.describe(0, (TABLE, 16), INDIRECT, 0);
    });
    assert_eq!(error, QueueError::IndirectNested);
}

#[test]
fn an_indirect_descriptor_with_a_next_is_refused() {
    let error = refusal(4, |driver| {
        driver.describe_at(TABLE, 0, (BUFFERS, 1), 0, 0);
        driver.describe(0, (TABLE, 16), INDIRECT | NEXT, 1);
        driver.describe(1, (BUFFERS, 1), 0, 0);
    });
    assert_eq!(error, QueueError::IndirectAndNext);
}

#[test]
fn an_indirect_table_of_a_bad_length_is_refused() {
    for length in [0, 1, 15, 17, 31, 0x10_0000, 0xffff_fff0, u32::MAX] {
        let error = refusal(4, |driver| driver.describe(0, (TABLE, length), INDIRECT, 0));
        assert_eq!(error, QueueError::IndirectLength, "{length:#x}");
    }
}

#[test]
fn an_indirect_table_elsewhere_is_refused() {
    let end = MEMORY_BASE.0 + MEMORY_SIZE as u64;
    for (table, expected) in [
        (0x0800_0000, QueueError::Memory),
        (end, QueueError::Memory),
        (end - 15, QueueError::Memory),
        (MEMORY_BASE.0 - 1, QueueError::Memory),
        (u64::MAX - 14, QueueError::AddressWraps),
    ] {
        let error = refusal(4, |driver| driver.describe(0, (table, 16), INDIRECT, 0));
        assert_eq!(error, expected, "{table:#x}");
    }
}

#[test]
fn an_indirect_table_that_was_not_negotiated_is_refused() {
    let mut driver = Driver::new(4);
    driver.describe_at(TABLE, 0, (BUFFERS, 1), 0, 0);
    driver.describe(0, (TABLE, 16), INDIRECT, 0);
    driver.offer(0);
    assert_eq!(pop_with(&driver, NO_FEATURES).unwrap_err(), QueueError::IndirectNotNegotiated);
    assert!(pop(&driver).unwrap().is_some());
}

#[test]
fn an_available_index_that_jumps_is_refused() {
    for index in [5, 6, 0x7fff, 0x8000, u16::MAX] {
        let mut driver = Driver::new(4);
        driver.publish(index);
        let mut device = driver.device(ALL_FEATURES);
        assert_eq!(
            pop_whole(&mut device, &driver.memory, &mut Taken::new()),
            Err(QueueError::AvailableIndex),
            "{index}"
        );
        assert_eq!(device.has_available(&driver.memory), Err(QueueError::AvailableIndex));
        assert_eq!(device.enable_notifications(&driver.memory), Err(QueueError::AvailableIndex));
    }
}

#[test]
fn an_available_index_that_goes_back_is_refused() {
    let mut driver = Driver::new(4);
    let mut device = driver.device(ALL_FEATURES);
    for head in [0, 1] {
        driver.offer_chain(head, &[(BUFFERS, 1, 0)]);
        pop_whole(&mut device, &driver.memory, &mut Taken::new()).unwrap();
    }
    driver.publish(1);
    assert_eq!(pop_whole(&mut device, &driver.memory, &mut Taken::new()), Err(QueueError::AvailableIndex));
}

#[test]
fn a_head_that_is_in_flight_is_refused() {
    let mut driver = Driver::new(QUEUE_SIZE_MAX);
    let mut device = driver.device(ALL_FEATURES);
    let mut chain = Taken::new();
    for head in [0, 63, 64, 255] {
        driver.offer_chain(head, &[(BUFFERS, 1, 0)]);
        assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(true));
    }
    for head in [0, 63, 64, 255] {
        driver.offer(head);
        assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Err(QueueError::HeadInFlight));
        device.push_used(&driver.memory, head, 0).unwrap();
        assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(true), "now it has come back");
        assert_eq!(chain.head, head);
    }
}

#[test]
fn rings_outside_the_guests_memory_are_refused() {
    let end = MEMORY_BASE.0 + MEMORY_SIZE as u64;
    // Another VM's memory, a device, the end of RAM and just before it, the end of the address space.
    for place in [0, 0x0800_0000, MEMORY_BASE.0 - 16, end, end - 2, u64::MAX - 1, u64::MAX - 15] {
        let good = Driver::new(4).layout;
        let elsewhere = GuestAddr(place);
        for layout in [
            QueueLayout { descriptors: elsewhere, ..good },
            QueueLayout { available: elsewhere, ..good },
            QueueLayout { used: elsewhere, ..good },
        ] {
            let mut driver = Driver::new(4);
            driver.offer_chain(0, &[(BUFFERS, 1, 0)]);
            let mut device = Virtqueue::new(layout, ALL_FEATURES);
            let popped = pop_whole(&mut device, &driver.memory, &mut Taken::new());
            if layout.used == elsewhere {
                assert_eq!(popped, Ok(true));
                assert_eq!(device.push_used(&driver.memory, 0, 0), Err(QueueError::Memory), "{place:#x}");
            } else {
                assert_eq!(popped, Err(QueueError::Memory), "{place:#x}");
            }
        }
    }
}

#[test]
fn a_ring_that_ends_outside_the_guests_memory_is_refused_where_it_is_used() {
    let end = MEMORY_BASE.0 + MEMORY_SIZE as u64;
    let mut driver = Driver::new(4);
    driver.offer_chain(0, &[(BUFFERS, 1, 0)]);
    let layout = QueueLayout { used: GuestAddr(end - 12), ..driver.layout };
    let mut device = Virtqueue::new(layout, ALL_FEATURES);
    pop_whole(&mut device, &driver.memory, &mut Taken::new()).unwrap();
    assert_eq!(device.push_used(&driver.memory, 0, 0), Ok(()));
    assert_eq!(device.enable_notifications(&driver.memory), Err(QueueError::Memory));
    driver.layout.available = GuestAddr(end - 8);
    driver.publish(1);
    let mut device = Virtqueue::new(driver.layout, ALL_FEATURES);
    pop_whole(&mut device, &driver.memory, &mut Taken::new()).unwrap();
    device.push_used(&driver.memory, 0, 0).unwrap();
    assert_eq!(device.take_interrupt(&driver.memory), Err(QueueError::Memory));
}

#[test]
fn a_size_that_the_register_file_let_through_refuses_every_chain() {
    for size in [0, 3, 257, 512, u16::MAX] {
        let layout = QueueLayout { size, ..Driver::new(4).layout };
        let mut driver = Driver::new(4);
        driver.offer_chain(0, &[(BUFFERS, 1, 0)]);
        let mut device = Virtqueue::new(layout, ALL_FEATURES);
        assert_eq!(pop_whole(&mut device, &driver.memory, &mut Taken::new()), Err(QueueError::AvailableIndex));
        assert_eq!(device.push_used(&driver.memory, 0, 0), Err(QueueError::NotInFlight));
    }
}

/// Memory in which another virtual CPU fills every descriptor with ones as soon as it has been loaded.
struct Racing<'a> {
    memory: &'a FakeMemory,
    loaded: RefCell<Vec<u64>>,
}

impl GuestMemory for Racing<'_> {
    fn read(&self, address: GuestAddr, buffer: &mut [u8]) -> Result<(), GuestFault> {
        self.memory.read(address, buffer)?;
        self.memory.write(address, &[0xff; 16][..buffer.len().min(16)])?;
        self.loaded.borrow_mut().push(address.0);
        Ok(())
    }

    fn write(&self, address: GuestAddr, bytes: &[u8]) -> Result<(), GuestFault> {
        self.memory.write(address, bytes)
    }
}

#[test]
fn a_descriptor_that_changes_after_it_was_loaded_changes_nothing() {
    let mut driver = Driver::new(4);
    driver.describe_chain(TABLE, 0, &[(BUFFERS + 8, 8, 0), (BUFFERS + 16, 1, WRITE)]);
    driver.describe(0, (BUFFERS, 8), NEXT, 1);
    driver.describe(1, (TABLE, 32), INDIRECT, 0);
    driver.offer(0);
    let racing = Racing { memory: &driver.memory, loaded: RefCell::default() };
    let mut device = driver.device(ALL_FEATURES);
    let mut chain = Taken::new();
    assert_eq!(pop_whole(&mut device, &racing, &mut chain), Ok(true));
    assert_eq!(chain.readable(), segments(&[(BUFFERS, 8), (BUFFERS + 8, 8)]));
    assert_eq!(chain.writable(), segments(&[(BUFFERS + 16, 1)]));
    let mut loaded = racing.loaded.into_inner();
    // Index, slot, and four descriptors, each once.
    assert_eq!(loaded.len(), 6);
    loaded.sort_unstable();
    loaded.dedup();
    assert_eq!(loaded.len(), 6);
}

#[test]
fn every_error_is_a_sentence_of_its_own() {
    let all = [
        QueueError::Memory,
        QueueError::AvailableIndex,
        QueueError::Head,
        QueueError::HeadInFlight,
        QueueError::Next,
        QueueError::ChainTooLong,
        QueueError::TooManyBytes,
        QueueError::AddressWraps,
        QueueError::ReadableAfterWritable,
        QueueError::IndirectNotNegotiated,
        QueueError::IndirectNested,
        QueueError::IndirectAndNext,
        QueueError::IndirectLength,
        QueueError::NotInFlight,
    ];
    let mut sentences: Vec<_> = all.iter().map(ToString::to_string).collect();
    sentences.sort();
    sentences.dedup();
    assert_eq!(sentences.len(), all.len());
}
