//! What a device gets out of a chain.

use super::driver::*;
use crate::virtqueue::{Cursor, Pieces, QueueError, SEGMENTS_MAX, Segment};
use std::vec::Vec;
use vdev::testkit::MEMORY_BASE;
use vdev::{GuestAddr, GuestFault, GuestMemory};

/// A read of a disk: header, two buffers, status.
fn disk_read(driver: &mut Driver) -> Taken {
    let buffers =
        [(BUFFERS, 16, 0), (BUFFERS + 0x100, 8, WRITE), (BUFFERS + 0x200, 4, WRITE), (BUFFERS + 0x300, 1, WRITE)];
    driver.offer_chain(0, &buffers);
    pop(driver).unwrap().unwrap()
}

#[test]
fn a_chain_has_what_may_be_read_and_then_what_may_be_written() {
    let chain = disk_read(&mut Driver::new(8));
    assert_eq!(chain.head, 0);
    assert_eq!(chain.readable(), segments(&[(BUFFERS, 16)]));
    assert_eq!(chain.writable(), segments(&[(BUFFERS + 0x100, 8), (BUFFERS + 0x200, 4), (BUFFERS + 0x300, 1)]));
    assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (16, 13));
}

#[test]
fn a_chain_follows_next_wherever_it_leads() {
    let mut driver = Driver::new(4);
    driver.describe(3, (BUFFERS, 1), NEXT, 0);
    driver.describe(0, (BUFFERS + 1, 2), NEXT | WRITE, 2);
    driver.describe(2, (BUFFERS + 3, 4), WRITE, 3);
    driver.offer(3);
    let chain = pop(&driver).unwrap().unwrap();
    assert_eq!(chain.head, 3);
    assert_eq!(chain.readable(), segments(&[(BUFFERS, 1)]));
    assert_eq!(chain.writable(), segments(&[(BUFFERS + 1, 2), (BUFFERS + 3, 4)]));
}

#[test]
fn a_chain_is_used_again_without_a_trace_of_the_one_before() {
    let mut driver = Driver::new(8);
    let mut device = driver.device(ALL_FEATURES);
    let mut chain = Taken::new();
    driver.offer_chain(0, &[(BUFFERS, 16, 0), (BUFFERS + 16, 16, WRITE)]);
    driver.offer_chain(4, &[(BUFFERS + 64, 4, 0)]);
    assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(true));
    assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(true));
    assert_eq!(chain.readable(), segments(&[(BUFFERS + 64, 4)]));
    assert!(chain.writable().is_empty());
    assert_eq!((chain.head, chain.readable_bytes(), chain.writable_bytes()), (4, 4, 0));
}

#[test]
fn an_empty_buffer_is_no_part_of_a_chain_but_keeps_the_order() {
    let mut driver = Driver::new(4);
    driver.offer_chain(0, &[(BUFFERS, 4, 0), (u64::MAX, 0, WRITE), (BUFFERS + 4, 4, WRITE)]);
    let chain = pop(&driver).unwrap().unwrap();
    assert_eq!(chain.readable(), segments(&[(BUFFERS, 4)]));
    assert_eq!(chain.writable(), segments(&[(BUFFERS + 4, 4)]));

    let mut driver = Driver::new(4);
    driver.offer_chain(0, &[(BUFFERS, 0, WRITE), (BUFFERS, 4, 0)]);
    assert_eq!(pop(&driver).unwrap_err(), QueueError::ReadableAfterWritable);
}

#[test]
fn the_longest_chain_is_taken() {
    let mut driver = Driver::new(4);
    let buffers: Vec<_> = (0..SEGMENTS_MAX as u64).map(|index| (BUFFERS + 16 * index, 16, 0)).collect();
    driver.describe_chain(TABLE, 0, &buffers);
    driver.describe(0, (TABLE, 16 * SEGMENTS_MAX as u32), INDIRECT, 0);
    driver.offer(0);
    let expected: Vec<_> = buffers.iter().map(|(address, length, _)| (*address, *length)).collect();
    assert_eq!(pop(&driver).unwrap().unwrap().readable(), segments(&expected));
}

#[test]
fn a_table_may_lead_anywhere_within_itself_and_lie_at_any_address() {
    for at in [TABLE, TABLE + 4] {
        let mut driver = Driver::new(4);
        // Every third of 40 descriptors, then back through others; each is a byte at its own place.
        let order: Vec<u16> = (0..40).step_by(3).chain((1..40).step_by(3).rev()).collect();
        for (position, index) in order.iter().enumerate() {
            let next = order.get(position + 1);
            let flags = if next.is_some() { NEXT } else { 0 };
            driver.describe_at(at, *index, (BUFFERS + u64::from(*index), 1), flags, next.copied().unwrap_or(0));
        }
        driver.describe(0, (at, 16 * 40), INDIRECT, 0);
        driver.offer(0);
        let expected: Vec<_> = order.iter().map(|index| (BUFFERS + u64::from(*index), 1)).collect();
        assert_eq!(pop(&driver).unwrap().unwrap().readable(), segments(&expected));
    }
}

#[test]
fn what_a_table_does_not_lead_to_need_not_be_memory() {
    let mut driver = Driver::new(4);
    let at = MEMORY_BASE.0 + MEMORY_SIZE as u64 - 32;
    driver.describe_chain(at, 0, &[(BUFFERS, 1, 0), (BUFFERS + 1, 1, WRITE)]);
    driver.describe(0, (at, 16 * 16), INDIRECT, 0);
    driver.offer(0);
    let chain = pop(&driver).unwrap().unwrap();
    assert_eq!((chain.readable_bytes(), chain.writable_bytes()), (1, 1));
}

#[test]
fn a_chain_that_has_no_room_is_left_in_the_ring() {
    let mut driver = Driver::new(8);
    let mut device = driver.device(ALL_FEATURES);
    driver.offer_chain(0, &[(BUFFERS, 16, 0), (BUFFERS + 16, 16, 0), (BUFFERS + 32, 1, WRITE)]);
    assert_eq!(pop_whole(&mut device, &driver.memory, &mut Taken::with_room(2)), Err(QueueError::ChainTooLong));
    let mut chain = Taken::with_room(3);
    assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(true));
    assert_eq!(chain.segments(), 3);
}

#[test]
fn a_chain_may_go_on_in_a_table_of_its_own() {
    let mut driver = Driver::new(2);
    // Longer than the queue, at an odd address, and with a WRITE flag that means nothing.
    let table = TABLE + 1;
    driver.describe_chain(table, 0, &[(BUFFERS, 1, 0), (BUFFERS + 1, 2, 0), (BUFFERS + 3, 4, WRITE)]);
    driver.describe(1, (table, 48), INDIRECT | WRITE, 77);
    driver.offer(1);
    let chain = pop(&driver).unwrap().unwrap();
    assert_eq!(chain.head, 1);
    assert_eq!(chain.readable(), segments(&[(BUFFERS, 1), (BUFFERS + 1, 2)]));
    assert_eq!(chain.writable(), segments(&[(BUFFERS + 3, 4)]));
}

#[test]
fn plain_descriptors_may_come_before_the_table() {
    let mut driver = Driver::new(4);
    driver.describe_chain(TABLE, 0, &[(BUFFERS + 8, 8, 0), (BUFFERS + 16, 1, WRITE)]);
    driver.describe(0, (BUFFERS, 8), NEXT, 1);
    driver.describe(1, (TABLE, 32), INDIRECT, 0);
    driver.offer(0);
    let chain = pop(&driver).unwrap().unwrap();
    assert_eq!(chain.readable(), segments(&[(BUFFERS, 8), (BUFFERS + 8, 8)]));
    assert_eq!(chain.writable(), segments(&[(BUFFERS + 16, 1)]));
}

#[test]
fn the_order_of_reading_and_writing_holds_across_the_table() {
    let mut driver = Driver::new(4);
    driver.describe_chain(TABLE, 0, &[(BUFFERS + 8, 8, 0)]);
    driver.describe(0, (BUFFERS, 8), NEXT | WRITE, 1);
    driver.describe(1, (TABLE, 16), INDIRECT, 0);
    driver.offer(0);
    assert_eq!(pop(&driver).unwrap_err(), QueueError::ReadableAfterWritable);
}

#[test]
fn a_range_is_cut_out_across_buffers() {
    let chain = disk_read(&mut Driver::new(8));
    let all = |mut pieces: Pieces<'_>| {
        let pieces: Vec<_> = core::iter::from_fn(|| pieces.cut(u32::MAX)).collect();
        pieces.into_iter().filter(|piece| piece.length != 0).collect::<Vec<_>>()
    };
    let range = |offset, length| all(Pieces::new(chain.writable(), Cursor::at(offset), length));
    let [first, second, third] = [BUFFERS + 0x100, BUFFERS + 0x200, BUFFERS + 0x300];
    assert_eq!(range(0, 8), segments(&[(first, 8)]));
    assert_eq!(range(6, 4), segments(&[(first + 6, 2), (second, 2)]));
    assert_eq!(range(8, 1), segments(&[(second, 1)]));
    assert_eq!(range(7, 6), segments(&[(first + 7, 1), (second, 4), (third, 1)]));
    assert_eq!(range(12, u64::MAX), segments(&[(third, 1)]));
    assert_eq!(range(13, 1), []);
    assert_eq!(range(u64::MAX, u64::MAX), []);
    assert_eq!(range(3, 0), []);
    assert_eq!(all(Pieces::new(chain.readable(), Cursor::at(4), 4)), segments(&[(BUFFERS + 4, 4)]));
}

#[test]
fn a_range_is_cut_into_pieces_of_any_size_and_goes_on_where_it_was_left() {
    let chain = disk_read(&mut Driver::new(8));
    let bytes_of = |piece: Segment| (0..piece.length).map(move |byte| piece.address.0 + u64::from(byte));
    let all: Vec<u64> = chain.writable().iter().copied().flat_map(bytes_of).collect();
    for most in 1..=8 {
        for offset in 0..=13 {
            let (mut cursor, mut found) = (Cursor::at(offset), Vec::new());
            let mut left = 13 - offset;
            while left != 0 {
                // Each look begins anew, from where the last one says.
                let mut pieces = Pieces::new(chain.writable(), cursor, left);
                let piece = pieces.cut(most).unwrap();
                assert!(piece.length <= most);
                left -= u64::from(piece.length);
                found.extend(bytes_of(piece));
                assert_eq!(pieces.is_done(), left == 0);
                cursor = pieces.cursor();
            }
            assert_eq!(found, all[offset as usize..], "{most} from {offset} on");
        }
    }
}

#[test]
fn bytes_are_copied_across_buffers() {
    let mut driver = Driver::new(8);
    let chain = disk_read(&mut driver);
    chain.buffers().write(&driver.memory, 6, &[1, 2, 3, 4, 5, 6, 7]).unwrap();
    assert_eq!(bytes_at(&driver, BUFFERS + 0x100, 8), [0, 0, 0, 0, 0, 0, 1, 2]);
    assert_eq!(bytes_at(&driver, BUFFERS + 0x200, 5), [3, 4, 5, 6, 0]);
    assert_eq!(bytes_at(&driver, BUFFERS + 0x300, 2), [7, 0]);

    driver.memory.write(GuestAddr(BUFFERS), b"a request header").unwrap();
    let mut word = [0; 7];
    chain.buffers().read(&driver.memory, 2, &mut word).unwrap();
    assert_eq!(&word, b"request");
}

#[test]
fn a_copy_that_does_not_fit_copies_nothing() {
    let mut driver = Driver::new(8);
    let chain = disk_read(&mut driver);
    assert_eq!(chain.buffers().write(&driver.memory, 12, &[9, 9]), Err(GuestFault::BadAddress));
    assert_eq!(bytes_at(&driver, BUFFERS + 0x300, 1), [0]);
    assert_eq!(chain.buffers().read(&driver.memory, 0, &mut [0; 17]), Err(GuestFault::BadAddress));
    assert_eq!(chain.buffers().read(&driver.memory, u64::MAX, &mut [0; 2]), Err(GuestFault::BadAddress));
    assert_eq!(chain.buffers().read(&driver.memory, 16, &mut []), Ok(()));
}

#[test]
fn a_buffer_outside_the_guests_memory_is_found_out_at_the_copy() {
    let mut driver = Driver::new(8);
    let end = vdev::testkit::MEMORY_BASE.0 + MEMORY_SIZE as u64;
    driver.offer_chain(0, &[(end - 4, 8, 0), (0x0800_0000, 4, WRITE)]);
    let chain = pop(&driver).unwrap().unwrap();
    assert_eq!(chain.buffers().read(&driver.memory, 0, &mut [0; 4]), Ok(()));
    assert_eq!(chain.buffers().read(&driver.memory, 0, &mut [0; 5]), Err(GuestFault::BadAddress));
    assert_eq!(chain.buffers().write(&driver.memory, 0, &[1]), Err(GuestFault::BadAddress));
}
