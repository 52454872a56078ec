//! How chains go round.

use super::driver::*;
use crate::virtqueue::{QUEUE_SIZE_MAX, QueueError};

#[test]
fn an_empty_queue_gives_nothing() {
    let driver = Driver::new(4);
    let mut device = driver.device(NO_FEATURES);
    assert_eq!(device.has_available(&driver.memory), Ok(false));
    assert_eq!(pop_whole(&mut device, &driver.memory, &mut Taken::new()), Ok(false));
    assert_eq!(device.in_flight(), 0);
}

#[test]
fn a_chain_goes_round() {
    let mut driver = Driver::new(4);
    let mut device = driver.device(NO_FEATURES);
    driver.offer_chain(2, &[(BUFFERS, 16, WRITE)]);
    assert_eq!(device.has_available(&driver.memory), Ok(true));
    let mut chain = Taken::new();
    assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(true));
    assert_eq!(device.has_available(&driver.memory), Ok(false));
    assert_eq!(device.in_flight(), 1);
    assert_eq!(driver.used(), None);
    assert_eq!(device.push_used(&driver.memory, chain.head, 7), Ok(()));
    assert_eq!(driver.used(), Some((2, 7)));
    assert_eq!(driver.used(), None);
    assert_eq!(device.in_flight(), 0);
}

#[test]
fn chains_are_given_back_in_any_order() {
    let mut driver = Driver::new(4);
    let mut device = driver.device(NO_FEATURES);
    let mut chain = Taken::new();
    for head in [3, 1, 0, 2] {
        driver.offer_chain(head, &[(BUFFERS, 1, 0)]);
    }
    for head in [3, 1, 0, 2] {
        assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(true));
        assert_eq!(chain.head, head);
    }
    assert_eq!(device.in_flight(), 4);
    for head in [0, 3, 2, 1] {
        device.push_used(&driver.memory, head, 0).unwrap();
        assert_eq!(driver.used(), Some((u32::from(head), 0)));
    }
}

#[test]
fn a_queue_of_one_works() {
    let mut driver = Driver::new(1);
    let mut device = driver.device(ALL_FEATURES);
    for round in 0..5 {
        driver.offer_chain(0, &[(BUFFERS, 1, WRITE)]);
        assert_eq!(pop_whole(&mut device, &driver.memory, &mut Taken::new()), Ok(true));
        device.push_used(&driver.memory, 0, round).unwrap();
        assert_eq!(driver.used(), Some((0, round)));
    }
}

#[test]
fn indices_go_round_the_end_of_their_sixteen_bits() {
    // The way there takes 2^16 chains: both begin shortly before the end.
    let mut driver = Driver::new(8);
    let mut device = driver.device(ALL_FEATURES);
    let start = u16::MAX - 20;
    device.next_available = start;
    device.seen_available = start;
    device.next_used = start;
    device.told_used = start;
    driver.available = start;
    driver.set_used_event(u16::MAX);
    let mut chain = Taken::new();
    let mut interrupted_at = None;
    for round in 0..40u16 {
        let head = round % 8;
        driver.offer_chain(head, &[(BUFFERS, 4, WRITE)]);
        assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(true));
        assert_eq!(chain.head, head);
        device.push_used(&driver.memory, head, 4).unwrap();
        if device.take_interrupt(&driver.memory).unwrap() {
            assert_eq!(interrupted_at.replace(device.next_used), None, "one interrupt was asked for");
        }
        assert_eq!(device.enable_notifications(&driver.memory), Ok(false));
        assert_eq!(driver.available_event(), driver.available);
    }
    assert_eq!(interrupted_at, Some(0));
}

#[test]
fn a_full_queue_is_taken_whole_and_no_further() {
    let mut driver = Driver::new(QUEUE_SIZE_MAX);
    let mut device = driver.device(NO_FEATURES);
    let mut chain = Taken::new();
    for head in 0..QUEUE_SIZE_MAX {
        driver.offer_chain(head, &[(BUFFERS, 1, 0)]);
    }
    for _ in 0..QUEUE_SIZE_MAX {
        assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(true));
    }
    assert_eq!(device.in_flight(), QUEUE_SIZE_MAX);
    assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(false));
}

#[test]
fn a_chain_that_was_put_back_comes_again() {
    let mut driver = Driver::new(4);
    let mut device = driver.device(NO_FEATURES);
    let mut chain = Taken::new();
    driver.offer_chain(0, &[(BUFFERS, 1, 0)]);
    driver.offer_chain(1, &[(BUFFERS, 2, 0)]);
    for _ in 0..3 {
        assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(true));
        assert_eq!(chain.head, 0);
        device.put_back(0);
        assert_eq!(device.in_flight(), 0);
        assert_eq!(device.has_available(&driver.memory), Ok(true));
    }
    assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(true));
    assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(true));
    assert_eq!(chain.head, 1);
    assert_eq!(device.in_flight(), 2);
}

#[test]
fn only_a_chain_that_is_out_can_be_put_back_and_only_once() {
    let mut driver = Driver::new(4);
    let mut device = driver.device(NO_FEATURES);
    let mut chain = Taken::new();
    device.put_back(0);
    for head in 0..3 {
        driver.offer_chain(head, &[(BUFFERS, 1, 0)]);
        assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(true));
    }
    device.put_back(2);
    device.put_back(2);
    assert_eq!(device.in_flight(), 2);
    assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(true));
    assert_eq!(chain.head, 2);
    device.push_used(&driver.memory, 2, 0).unwrap();
    device.put_back(2);
    assert_eq!(pop_whole(&mut device, &driver.memory, &mut chain), Ok(false));
}

#[test]
fn the_device_cannot_give_back_what_it_does_not_have() {
    let mut driver = Driver::new(4);
    let mut device = driver.device(NO_FEATURES);
    driver.offer_chain(0, &[(BUFFERS, 1, 0)]);
    for head in [0, 3, 4, 255, 256, u16::MAX] {
        assert_eq!(device.push_used(&driver.memory, head, 0), Err(QueueError::NotInFlight));
    }
    pop_whole(&mut device, &driver.memory, &mut Taken::new()).unwrap();
    assert_eq!(device.push_used(&driver.memory, 1, 0), Err(QueueError::NotInFlight));
    assert_eq!(device.push_used(&driver.memory, 0, 0), Ok(()));
    assert_eq!(device.push_used(&driver.memory, 0, 0), Err(QueueError::NotInFlight));
    assert_eq!(driver.used(), Some((0, 0)));
    assert_eq!(driver.used(), None);
}
