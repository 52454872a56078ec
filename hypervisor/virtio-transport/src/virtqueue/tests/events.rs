//! Who wakes whom.

use super::driver::*;
use crate::virtqueue::Virtqueue;

/// Takes `count` chains and gives them back.
fn serve(driver: &mut Driver, device: &mut Virtqueue, count: u16) {
    let mut chain = Taken::new();
    for head in 0..count {
        driver.offer_chain(head, &[(BUFFERS, 1, WRITE)]);
        assert_eq!(pop_whole(device, &driver.memory, &mut chain), Ok(true));
        device.push_used(&driver.memory, chain.head, 1).unwrap();
    }
}

#[test]
fn without_event_index_the_flag_decides() {
    let mut driver = Driver::new(4);
    let mut device = driver.device(NO_FEATURES);
    assert_eq!(device.take_interrupt(&driver.memory), Ok(false), "nothing was pushed");
    serve(&mut driver, &mut device, 1);
    assert_eq!(device.take_interrupt(&driver.memory), Ok(true));
    assert_eq!(device.take_interrupt(&driver.memory), Ok(false), "it has been told");
    driver.set_flags(1);
    serve(&mut driver, &mut device, 2);
    assert_eq!(device.take_interrupt(&driver.memory), Ok(false));
    // Bits that mean nothing yet are not read as ones that do.
    driver.set_flags(0xfffe);
    serve(&mut driver, &mut device, 1);
    assert_eq!(device.take_interrupt(&driver.memory), Ok(true));
}

#[test]
fn with_event_index_the_event_decides_and_the_flag_does_not() {
    let mut driver = Driver::new(8);
    let mut device = driver.device(ALL_FEATURES);
    driver.set_flags(1);
    driver.set_used_event(2);
    serve(&mut driver, &mut device, 2);
    assert_eq!(device.take_interrupt(&driver.memory), Ok(false), "entry 2 is not there yet");
    serve(&mut driver, &mut device, 1);
    assert_eq!(device.take_interrupt(&driver.memory), Ok(true));
    serve(&mut driver, &mut device, 1);
    assert_eq!(device.take_interrupt(&driver.memory), Ok(false), "it asked for one");
    driver.set_used_event(6);
    serve(&mut driver, &mut device, 4);
    assert_eq!(device.take_interrupt(&driver.memory), Ok(true), "entry 6 is in the middle of the batch");
}

#[test]
fn the_first_chain_interrupts_a_driver_that_never_wrote_its_event() {
    let mut driver = Driver::new(8);
    let mut device = driver.device(ALL_FEATURES);
    serve(&mut driver, &mut device, 1);
    assert_eq!(device.take_interrupt(&driver.memory), Ok(true));
}

#[test]
fn a_driver_that_polls_is_left_alone() {
    let mut driver = Driver::new(8);
    let mut device = driver.device(ALL_FEATURES);
    for round in 0..20u16 {
        // As Linux does: an event just behind what it has seen is 2^16 away.
        driver.set_used_event((round * 3).wrapping_sub(1));
        serve(&mut driver, &mut device, 3);
        assert_eq!(device.take_interrupt(&driver.memory), Ok(false));
    }
}

#[test]
fn without_event_index_notifications_are_a_flag() {
    let mut driver = Driver::new(4);
    let mut device = driver.device(NO_FEATURES);
    device.disable_notifications(&driver.memory).unwrap();
    assert_eq!(driver.used_flags(), 1);
    assert_eq!(device.enable_notifications(&driver.memory), Ok(false));
    assert_eq!(driver.used_flags(), 0);
    driver.offer_chain(0, &[(BUFFERS, 1, 0)]);
    assert_eq!(device.enable_notifications(&driver.memory), Ok(true), "a chain came meanwhile");
}

#[test]
fn with_event_index_notifications_are_an_index_and_the_flag_stays_clear() {
    let mut driver = Driver::new(4);
    let mut device = driver.device(ALL_FEATURES);
    device.disable_notifications(&driver.memory).unwrap();
    assert_eq!(driver.used_flags(), 0);
    serve(&mut driver, &mut device, 3);
    assert_eq!(device.enable_notifications(&driver.memory), Ok(false));
    assert_eq!((driver.available_event(), driver.used_flags()), (3, 0));
    driver.offer_chain(0, &[(BUFFERS, 1, 0)]);
    assert_eq!(device.enable_notifications(&driver.memory), Ok(true));
}

#[test]
fn chains_that_were_seen_before_are_not_forgotten_when_notifications_come_back() {
    let mut driver = Driver::new(4);
    let mut device = driver.device(ALL_FEATURES);
    driver.offer_chain(0, &[(BUFFERS, 1, 0)]);
    driver.offer_chain(1, &[(BUFFERS, 1, 0)]);
    pop_whole(&mut device, &driver.memory, &mut Taken::new()).unwrap();
    assert_eq!(device.enable_notifications(&driver.memory), Ok(true));
    device.put_back(0);
    assert_eq!(device.enable_notifications(&driver.memory), Ok(true));
    assert_eq!(driver.available_event(), 0);
}
