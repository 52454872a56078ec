//! Devices with a filled queue, such as a network card and a console, and a source of random numbers, from both sides.

use super::*;
use std::vec;

const RECEIVE: u16 = 0;
const SEND: u16 = 1;
const HEADER: u64 = BUFFERS;
const FRAME: u64 = BUFFERS + 0x1000;

/// What a console prints.
const TEXT: QueueDescription =
    QueueDescription { long_chains: LongChains::Cut, returns_early: true, size_max: WINDOW, ..QueueDescription::NONE };

/// A frame behind an empty header.
fn packet(frame: &[u8]) -> Vec<u8> {
    [&[0; 12], frame].concat()
}

#[test]
fn a_frame_is_copied_and_its_buffer_given_back_at_once_and_told_of_with_its_completion() {
    let mut stage = Stage::card();
    stage.put(FRAME, &[0x42; 60]);
    stage.offer(SEND, 0, &[(HEADER, 12, false), (FRAME, 60, false)]);
    let outcome = stage.notify(SEND).unwrap();
    assert!(outcome.doorbell && !outcome.interrupt);
    assert_eq!(stage.used(SEND), Some((0, 0)));
    let request = stage.request().unwrap();
    assert_eq!((request.queue, request.readable, request.writable), (SEND, 60, 0));
    assert_eq!((request.header, stage.given(&request)), ([0; 16], vec![0x42; 60]));
    stage.finish(&request, &[]);
    assert!(stage.complete().unwrap().interrupt);
    assert_eq!(stage.service.out(), 0);
    assert!(!stage.complete().unwrap().interrupt, "once");
}

#[test]
fn frames_sent_and_received_are_told_of_together() {
    let mut stage = Stage::card();
    stage.offer(RECEIVE, 0, &[(HEADER, 12, true), (FRAME, 1514, true)]);
    stage.notify(RECEIVE).unwrap();
    for head in [4, 8] {
        stage.offer(SEND, head, &[(HEADER + 0x4000, 12, false), (FRAME + 0x4000, 60, false)]);
        assert!(!stage.notify(SEND).unwrap().interrupt);
    }
    stage.deliver(&packet(&[7; 100]));
    assert!(stage.complete().unwrap().interrupt);
    let counters = stage.service.counters();
    assert_eq!((counters.queue(SEND).used, counters.queue(RECEIVE).used), (2, 1));
    assert_eq!((stage.used(SEND), stage.used(SEND)), (Some((4, 0)), Some((8, 0))));
}

#[test]
fn many_frames_sent_are_told_of_without_a_completion() {
    let mut stage = Stage::card();
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
fn a_frame_that_the_backend_does_not_see_is_told_of_at_once() {
    let mut stage = Stage::card();
    stage.offer(SEND, 0, &[(HEADER, 12, false), (FRAME, 2049, false)]);
    assert!(stage.notify(SEND).unwrap().interrupt);
}

#[test]
fn frames_that_are_too_long_or_have_no_header_are_dropped() {
    let mut stage = Stage::card();
    for (dropped, buffers) in
        (1..).zip([[(HEADER, 12, false), (FRAME, 2049, false)], [(HEADER, 4, false), (FRAME, 7, false)]])
    {
        stage.offer(SEND, 0, &buffers);
        stage.notify(SEND).unwrap();
        assert_eq!((stage.used(SEND), stage.service.counters().queue(SEND).dropped), (Some((0, 0)), dropped));
        assert!(stage.request().is_none());
    }
}

#[test]
fn a_frame_goes_with_its_header() {
    let mut stage = Stage::card();
    let header: Vec<u8> = (1..=12).collect();
    stage.put(HEADER, &header);
    // In pieces that are cut elsewhere.
    stage.put(FRAME, &[7; 60]);
    stage.offer(SEND, 0, &[(HEADER, 5, false), (HEADER + 5, 7, false), (FRAME, 60, false)]);
    stage.notify(SEND).unwrap();
    let request = stage.request().unwrap();
    assert_eq!((&request.header[..12], &request.header[12..]), (&*header, &[0; 4][..]));
    assert_eq!(stage.given(&request), [7; 60]);
}

#[test]
fn what_is_received_waits_for_a_buffer() {
    let mut stage = Stage::card();
    stage.deliver(&packet(&[7; 100]));
    assert_eq!(stage.complete(), Ok(Outcome::default()));
    stage.offer(RECEIVE, 4, &[(HEADER, 12, true), (FRAME, 1514, true)]);
    assert!(stage.notify(RECEIVE).unwrap().interrupt);
    assert_eq!(stage.used(RECEIVE), Some((4, 112)));
    assert_eq!(stage.get(HEADER, 12), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    assert_eq!(stage.get(FRAME, 101), [vec![7; 100], vec![0]].concat());
    assert_eq!(stage.state(control::receptions_consumed(0)), 1);
}

#[test]
fn a_frame_is_spread_over_buffers_that_are_merged() {
    let mut stage = Stage::card();
    stage.service.negotiated(1 << 15);
    let frame: Vec<u8> = (0..100).collect();
    stage.deliver(&packet(&frame));
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
    let mut stage = Stage::card();
    stage.deliver(&packet(&[1; 100]));
    stage.offer(RECEIVE, 0, &[(FRAME, 64, true)]);
    stage.complete().unwrap();
    assert_eq!((stage.used(RECEIVE), stage.service.counters().queue(RECEIVE).dropped), (Some((0, 0)), 1));
}

#[test]
fn buffers_that_are_too_small_again_and_again_cost_the_device_nothing() {
    let mut stage = Stage::card();
    for _ in 0..10 {
        stage.deliver(&packet(&[1; 100]));
        stage.offer(RECEIVE, 0, &[(FRAME, 64, true)]);
        assert!(stage.complete().unwrap().interrupt, "the driver hears of its empty buffer");
        assert_eq!(stage.used(RECEIVE), Some((0, 0)));
    }
    stage.deliver(&packet(&[2; 100]));
    stage.offer(RECEIVE, 0, &[(HEADER, 12, true), (FRAME, 1514, true)]);
    stage.complete().unwrap();
    assert_eq!((stage.used(RECEIVE), stage.service.counters().queue(RECEIVE).dropped), (Some((0, 112)), 10));
    stage.offer(SEND, 0, &[(HEADER, 12, false), (FRAME, 60, false)]);
    stage.notify(SEND).unwrap();
    assert!(stage.request().is_some());
}

#[test]
fn nothing_is_received_before_the_driver_is_ready() {
    let mut stage = Stage::card();
    stage.service.reset();
    stage.service.publish_state(&stage.backend);
    stage.start(RECEIVE);
    stage.offer(RECEIVE, 0, &[(HEADER, 12, true), (FRAME, 1514, true)]);
    stage.deliver(&packet(&[1; 100]));
    assert_eq!((stage.complete(), stage.used(RECEIVE)), (Ok(Outcome::default()), None));
    stage.service.negotiated(0);
    stage.deliver(&packet(&[2; 100]));
    assert!(stage.complete().unwrap().interrupt);
    assert_eq!((stage.used(RECEIVE), stage.get(FRAME, 1)), (Some((0, 112)), vec![2]));
}

#[test]
fn a_frontend_hears_of_its_buffers_when_the_backend_has_broken_down_and_is_back() {
    let mut stage = Stage::card();
    stage.service.suspend();
    stage.offer(SEND, 0, &[(HEADER, 12, false), (FRAME, 60, false)]);
    assert_eq!(stage.notify(SEND), Ok(Outcome::default()));
    let receptions = GuestAddr(CHANNEL + control::receptions_produced(0));
    stage.backend.store_u32(receptions, 129).unwrap();
    assert!(!stage.service.serve_again());
    assert_eq!(stage.complete(), Err(ProtocolError::Backend));
    assert_eq!(stage.resume(), Err(ProtocolError::Backend));
    assert_eq!(stage.used(SEND), Some((0, 0)));
    stage.restart();
    assert!(stage.complete().unwrap().interrupt);
}

#[test]
fn what_is_not_in_the_window_or_is_nothing_is_dropped() {
    let mut stage = Stage::card();
    stage.offer(RECEIVE, 0, &[(HEADER, 12, true), (FRAME, 1514, true)]);
    let session = stage.state(control::SESSION);
    let end = io::RECEIVE_WINDOW_SIZE as u32;
    let bad = [(0, 0), (end, 1), (end - 59, 60), (u32::MAX, 60), (60, u32::MAX), (u32::MAX, u32::MAX)];
    for (offset, length) in bad {
        stage.receive(&Receive { session, offset, length });
        stage.complete().unwrap();
        assert_eq!(stage.used(RECEIVE), None, "{offset} {length}");
    }
    assert_eq!(stage.service.counters().queue(RECEIVE).dropped, bad.len() as u64);
    stage.receive(&Receive { session, offset: end - 60, length: 60 });
    stage.complete().unwrap();
    assert_eq!(stage.used(RECEIVE), Some((0, 60)));
}

#[test]
fn what_was_received_for_an_earlier_session_is_dropped() {
    let mut stage = Stage::card();
    stage.deliver(&packet(&[1; 100]));
    stage.service.reset();
    stage.start(RECEIVE);
    stage.service.negotiated(0);
    stage.offer(RECEIVE, 0, &[(HEADER, 12, true), (FRAME, 1514, true)]);
    stage.complete().unwrap();
    assert_eq!((stage.used(RECEIVE), stage.service.counters().queue(RECEIVE).dropped), (None, 1));
    stage.service.publish_state(&stage.backend);
    stage.deliver(&packet(&[2; 100]));
    stage.complete().unwrap();
    assert_eq!(stage.used(RECEIVE), Some((0, 112)));
}

#[test]
fn a_packet_of_many_slots_is_one() {
    let mut stage = Stage::card();
    let bytes: Vec<u8> = (0..60_000u32).map(|index| index as u8).collect();
    stage.deliver(&bytes);
    stage.offer(RECEIVE, 0, &[(FRAME, 65_000, true)]);
    stage.complete().unwrap();
    assert_eq!((stage.used(RECEIVE), stage.get(FRAME + 12, 59_988)), (Some((0, 60_000)), bytes[12..].to_vec()));
}

#[test]
fn random_bytes_come_as_many_as_there_are() {
    let mut stage = Stage::entropy();
    stage.offer(0, 0, &[(FRAME, 64, true)]);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    assert_eq!((request.readable, request.writable), (0, 64));
    stage.finish(&request, &[0x5a; 40]);
    assert!(stage.complete().unwrap().interrupt);
    assert_eq!((stage.used(0), stage.get(FRAME, 41)), (Some((0, 40)), [vec![0x5a; 40], vec![0]].concat()));
}

#[test]
fn a_frontend_prints_through_its_backend_and_hears_from_it() {
    let mut stage = Stage::new(CARD, &[QueueDescription::NONE, TEXT]);
    stage.put(FRAME, b"hello\n");
    stage.offer(SEND, 0, &[(FRAME, 6, false)]);
    stage.notify(SEND).unwrap();
    let request = stage.request().unwrap();
    assert_eq!(stage.given(&request), b"hello\n");
    stage.deliver(b"ls\n");
    stage.offer(RECEIVE, 0, &[(HEADER, 16, true)]);
    stage.complete().unwrap();
    assert_eq!((stage.used(RECEIVE), stage.get(HEADER, 3)), (Some((0, 3)), b"ls\n".to_vec()));
}

#[test]
fn a_long_text_goes_out_whole() {
    let mut stage = Stage::new(CARD, &[QueueDescription::NONE, TEXT]);
    stage.put(FRAME, &[b'.'; 6000]);
    stage.offer(SEND, 0, &[(FRAME, 6000, false)]);
    stage.notify(SEND).unwrap();
    let request = stage.request().unwrap();
    assert_eq!((stage.given(&request), stage.used(SEND)), (vec![b'.'; 6000], Some((0, 0))));
}

#[test]
fn receptions_are_so_many_bytes_at_one_go() {
    let mut stage = Stage::card();
    for head in 0..8 {
        stage.offer(RECEIVE, head, &[(FRAME, 65_000, true)]);
        stage.deliver(&[7; 60_000]);
    }
    let mut goes = 1;
    while stage.complete().unwrap().again {
        goes += 1;
    }
    // Five are 300,000 bytes.
    assert_eq!((goes, core::iter::from_fn(|| stage.used(RECEIVE)).count()), (2, 8));
}

#[test]
fn receptions_walk_so_many_descriptors_at_one_go() {
    let mut stage = Stage::card();
    for head in 0..16 {
        let empty = core::iter::repeat_n((FRAME, 0, true), 250);
        stage.offer_indirect(RECEIVE, head, &empty.chain([(FRAME, 2048, true)]).collect::<Vec<_>>());
        stage.deliver(&packet(&[7; 100]));
    }
    assert!(stage.complete().unwrap().again);
    assert_eq!(core::iter::from_fn(|| stage.used(RECEIVE)).count(), 4);
}
