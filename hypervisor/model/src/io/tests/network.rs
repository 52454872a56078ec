//! A network card and a source of random numbers, from both sides.

use super::*;
use abi::io::{Operation, RECEIVE_PARTIAL};
use std::vec;

const RECEIVE: u16 = 0;
const SEND: u16 = 1;
const HEADER: u64 = BUFFERS;
const FRAME: u64 = BUFFERS + 0x1000;

#[test]
fn a_frame_is_copied_and_its_buffer_given_back_at_once_and_told_of_with_its_completion() {
    let mut stage = Stage::new(ServiceKind::Network);
    stage.put(FRAME, &[0x42; 60]);
    stage.offer(SEND, 0, &[(HEADER, 12, false), (FRAME, 60, false)]);
    let outcome = stage.notify(SEND).unwrap();
    assert!(outcome.doorbell && !outcome.interrupt);
    assert_eq!(stage.used(SEND), Some((0, 0)));
    let request = stage.request().unwrap();
    assert_eq!((request.operation, request.length, request.sector), (Operation::Transmit as u16, 60, 0));
    let mut window = [0; 60];
    stage.provider.read(GuestAddr(CHANNEL + u64::from(request.offset)), &mut window).unwrap();
    assert_eq!(window, [0x42; 60]);
    stage.finish(&request, &[]);
    assert!(stage.complete().unwrap().interrupt);
    assert_eq!(stage.service.out(), 0);
    assert!(!stage.complete().unwrap().interrupt, "once");
}

#[test]
fn frames_sent_and_received_are_told_of_together() {
    let mut stage = Stage::new(ServiceKind::Network);
    stage.offer(RECEIVE, 0, &[(HEADER, 12, true), (FRAME, 1514, true)]);
    stage.notify(RECEIVE).unwrap();
    for head in [4, 8] {
        stage.offer(SEND, head, &[(HEADER + 0x4000, 12, false), (FRAME + 0x4000, 60, false)]);
        assert!(!stage.notify(SEND).unwrap().interrupt);
    }
    stage.deliver(&[7; 100], 0, (0, 0));
    assert!(stage.complete().unwrap().interrupt);
    let counters = stage.service.counters();
    assert_eq!((counters.queue(SEND).used, counters.queue(RECEIVE).used), (2, 1));
    assert_eq!((stage.used(SEND), stage.used(SEND)), (Some((4, 0)), Some((8, 0))));
}

#[test]
fn many_frames_sent_are_told_of_without_a_completion() {
    let mut stage = Stage::new(ServiceKind::Network);
    let mut frames = 0;
    loop {
        stage.offer(SEND, 0, &[(HEADER, 12, false), (FRAME, 60, false)]);
        frames += 1;
        if stage.notify(SEND).unwrap().interrupt {
            break;
        }
        assert!(frames < 33);
    }
    assert_eq!(frames, 32);
}

#[test]
fn a_frame_that_the_driver_domain_does_not_see_is_told_of_at_once() {
    let mut stage = Stage::new(ServiceKind::Network);
    stage.offer(SEND, 0, &[(HEADER, 12, false), (FRAME, 13, false)]);
    assert!(stage.notify(SEND).unwrap().interrupt);
}

#[test]
fn frames_that_are_none_are_dropped() {
    let mut stage = Stage::new(ServiceKind::Network);
    let mut dropped = 0;
    // Too short, too long, segmentation that was not offered, a checksum outside the frame.
    for (header, length) in [
        ([0; 12], 13),
        ([0; 12], 2049),
        ([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 60),
        ([1, 0, 0, 0, 0, 0, 50, 0, 16, 0, 0, 0], 60),
    ] {
        stage.put(HEADER, &header);
        stage.offer(SEND, 0, &[(HEADER, 12, false), (FRAME, length, false)]);
        stage.notify(SEND).unwrap();
        dropped += 1;
        assert_eq!((stage.used(SEND), stage.service.counters().queue(SEND).dropped), (Some((0, 0)), dropped));
        assert!(stage.request().is_none());
    }
}

#[test]
fn what_is_received_waits_for_a_buffer() {
    let mut stage = Stage::new(ServiceKind::Network);
    stage.deliver(&[7; 100], 0, (0, 0));
    assert_eq!(stage.complete(), Ok(Outcome::default()));
    stage.offer(RECEIVE, 4, &[(HEADER, 12, true), (FRAME, 1514, true)]);
    assert!(stage.notify(RECEIVE).unwrap().interrupt);
    assert_eq!(stage.used(RECEIVE), Some((4, 112)));
    assert_eq!(stage.get(HEADER, 12), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(stage.get(FRAME, 101), [vec![7; 100], vec![0]].concat());
    let consumed = stage.provider.load_u32(GuestAddr(CHANNEL + control::RECEPTIONS_CONSUMED)).unwrap();
    assert_eq!(consumed, 1);
}

#[test]
fn a_frame_is_spread_over_buffers_that_are_merged() {
    let mut stage = Stage::new(ServiceKind::Network);
    stage.service.negotiated(true, true);
    let frame: Vec<u8> = (0..100).collect();
    stage.deliver(&frame, 0, (0, 0));
    stage.offer(RECEIVE, 0, &[(FRAME, 64, true)]);
    // One is not enough, and stays where it is.
    assert_eq!(stage.complete(), Ok(Outcome::default()));
    assert_eq!(stage.used(RECEIVE), None);
    stage.offer(RECEIVE, 1, &[(FRAME + 0x100, 64, true)]);
    assert!(stage.notify(RECEIVE).unwrap().interrupt);
    assert_eq!((stage.used(RECEIVE), stage.used(RECEIVE)), (Some((0, 64)), Some((1, 48))));
    assert_eq!(stage.get(FRAME, 12)[10..], [2, 0]);
    assert_eq!([stage.get(FRAME + 12, 52), stage.get(FRAME + 0x100, 48)].concat(), frame);
}

#[test]
fn a_buffer_that_is_too_small_and_cannot_be_merged_loses_the_frame() {
    let mut stage = Stage::new(ServiceKind::Network);
    stage.deliver(&[1; 100], 0, (0, 0));
    stage.offer(RECEIVE, 0, &[(FRAME, 64, true)]);
    stage.complete().unwrap();
    assert_eq!((stage.used(RECEIVE), stage.service.counters().queue(RECEIVE).dropped), (Some((0, 0)), 1));
}

#[test]
fn buffers_that_are_too_small_again_and_again_cost_the_device_nothing() {
    let mut stage = Stage::new(ServiceKind::Network);
    for _ in 0..10 {
        stage.deliver(&[1; 100], 0, (0, 0));
        stage.offer(RECEIVE, 0, &[(FRAME, 64, true)]);
        assert!(stage.complete().unwrap().interrupt, "the driver hears of its empty buffer");
        assert_eq!(stage.used(RECEIVE), Some((0, 0)));
    }
    stage.deliver(&[2; 100], 0, (0, 0));
    stage.offer(RECEIVE, 0, &[(HEADER, 12, true), (FRAME, 1514, true)]);
    stage.complete().unwrap();
    assert_eq!((stage.used(RECEIVE), stage.service.counters().queue(RECEIVE).dropped), (Some((0, 112)), 10));
    stage.offer(SEND, 0, &[(HEADER, 12, false), (FRAME, 60, false)]);
    stage.notify(SEND).unwrap();
    assert!(stage.request().is_some());
}

#[test]
fn nothing_is_received_before_the_driver_is_ready() {
    let mut stage = Stage::new(ServiceKind::Network);
    stage.service.reset();
    stage.start(RECEIVE);
    stage.offer(RECEIVE, 0, &[(HEADER, 12, true), (FRAME, 1514, true)]);
    stage.deliver(&[1; 100], 0, (0, 0));
    assert_eq!((stage.complete(), stage.used(RECEIVE)), (Ok(Outcome::default()), None));
    stage.service.negotiated(false, false);
    stage.deliver(&[2; 100], 0, (0, 0));
    assert!(stage.complete().unwrap().interrupt);
    assert_eq!((stage.used(RECEIVE), stage.get(FRAME, 1)), (Some((0, 112)), vec![2]));
}

#[test]
fn a_client_hears_of_its_buffers_when_the_driver_domain_has_broken_down_and_is_back() {
    let mut stage = Stage::new(ServiceKind::Network);
    stage.service.suspend();
    stage.offer(SEND, 0, &[(HEADER, 12, false), (FRAME, 60, false)]);
    assert_eq!(stage.notify(SEND), Ok(Outcome::default()));
    let receptions = GuestAddr(CHANNEL + control::RECEPTIONS_PRODUCED);
    stage.provider.store_u32(receptions, 129).unwrap();
    assert!(!stage.service.serve_again());
    assert_eq!(stage.complete(), Err(Broken::Provider));
    let wires = Wires { client: &stage.client, provider: &stage.provider };
    assert_eq!(stage.service.resume(&wires), Err(Broken::Provider));
    assert_eq!(stage.used(SEND), Some((0, 0)));
    stage.provider = FakeMemory::new(MEMORY_SIZE);
    stage.service.restart_channel(&stage.provider).unwrap();
    stage.service.attach();
    assert!(!stage.service.serve_again());
    assert!(stage.complete().unwrap().interrupt);
}

#[test]
fn a_client_that_wants_whole_checksums_gets_them() {
    let mut stage = Stage::new(ServiceKind::Network);
    stage.service.negotiated(false, false);
    let mut frame = vec![0; 64];
    // RFC 1071's example as the checksummed part, its checksum at its start.
    frame[34..44].copy_from_slice(&[0, 0, 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
    stage.deliver(&frame, RECEIVE_PARTIAL, (34, 0));
    stage.offer(RECEIVE, 0, &[(HEADER, 12, true), (FRAME, 1514, true)]);
    stage.complete().unwrap();
    assert_eq!(stage.get(FRAME + 34, 2), (!0xddf2u16).to_be_bytes());
    assert_eq!(stage.get(HEADER, 1), [0]);
}

#[test]
fn lengths_that_no_slot_holds_are_dropped() {
    let mut stage = Stage::new(ServiceKind::Network);
    stage.offer(RECEIVE, 0, &[(HEADER, 12, true), (FRAME, 1514, true)]);
    stage.deliver(&[1; 60], 0, (0, 0));
    let length = GuestAddr(CHANNEL + io::RECEIVE_RING);
    for bad in [0, 13, 2049, u32::MAX] {
        stage.provider.store_u32(length, bad).unwrap();
        stage.complete().unwrap();
        assert_eq!(stage.used(RECEIVE), None, "{bad}");
        // The same entry once more.
        stage.deliver(&[1; 60], 0, (0, 0));
        let entry = u64::from((stage.receptions - 1) % io::RING_ENTRIES) * io::ENTRY_SIZE;
        stage.provider.store_u32(GuestAddr(length.0 + entry), 13).unwrap();
        stage.complete().unwrap();
    }
    assert!(stage.service.counters().queue(RECEIVE).dropped >= 4);
}

#[test]
fn random_bytes_come_as_many_as_there_are() {
    let mut stage = Stage::new(ServiceKind::Entropy);
    stage.offer(0, 0, &[(FRAME, 64, true)]);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    assert_eq!((request.operation, request.length), (Operation::Random as u16, 64));
    stage.finish(&request, &[0x5a; 40]);
    assert!(stage.complete().unwrap().interrupt);
    assert_eq!((stage.used(0), stage.get(FRAME, 41)), (Some((0, 40)), [vec![0x5a; 40], vec![0]].concat()));
}

#[test]
fn a_client_prints_through_the_driver_domain_and_hears_from_it() {
    let mut stage = Stage::new(ServiceKind::Console);
    stage.put(FRAME, b"hello\n");
    stage.offer(SEND, 0, &[(FRAME, 6, false)]);
    stage.notify(SEND).unwrap();
    let request = stage.request().unwrap();
    assert_eq!((request.operation, request.length), (Operation::Print as u16, 6));
    stage.deliver(b"ls\n", 0, (0, 0));
    stage.offer(RECEIVE, 0, &[(HEADER, 16, true)]);
    stage.complete().unwrap();
    assert_eq!((stage.used(RECEIVE), stage.get(HEADER, 3)), (Some((0, 3)), b"ls\n".to_vec()));
}

#[test]
fn a_long_text_goes_out_whole() {
    let mut stage = Stage::new(ServiceKind::Console);
    stage.put(FRAME, &[b'.'; 6000]);
    stage.offer(SEND, 0, &[(FRAME, 6000, false)]);
    stage.notify(SEND).unwrap();
    let request = stage.request().unwrap();
    assert_eq!((request.length, stage.used(SEND)), (6000, Some((0, 0))));
    let mut last = [0];
    stage.provider.read(GuestAddr(CHANNEL + u64::from(request.offset) + 5999), &mut last).unwrap();
    assert_eq!(&last, b".");
}
