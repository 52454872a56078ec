//! Chains with more data than one request may have.

use super::block::{DATA, HEADER, IN, OUT, STATUS, header};
use super::*;
use std::vec;

/// The whole of the window, and half as much again.
const LONG: u32 = WINDOW + WINDOW / 2;

#[test]
fn a_long_read_comes_in_pieces_one_after_the_other() {
    let mut stage = Stage::disk();
    stage.ask(0, IN, 7, LONG);
    stage.notify(0).unwrap();
    let first = stage.request().unwrap();
    assert_eq!((first.header, first.writable, first.position, first.is_last), (header(IN, 7), WINDOW, 0, false));
    assert!(stage.request().is_none());
    stage.finish(&first, &vec![1; WINDOW as usize]);
    assert!(!stage.complete().unwrap().interrupt);
    assert_eq!(stage.used(0), None);
    let second = stage.request().unwrap();
    assert_eq!((second.header, second.writable), (header(IN, 7), LONG - WINDOW));
    assert_eq!((second.position, second.is_last), (u64::from(WINDOW), true));
    stage.finish(&second, &vec![2; (LONG - WINDOW) as usize]);
    assert!(stage.complete().unwrap().interrupt);
    assert_eq!((stage.used(0), stage.status()), (Some((0, LONG + 1)), 0));
    // Compared as wholes: byte by byte is a minute under Miri.
    let (data, pieces) = (stage.get(DATA, LONG as usize), [(1, WINDOW), (2, LONG - WINDOW)]);
    assert!(data == pieces.map(|(byte, size)| vec![byte; size as usize]).concat());
}

#[test]
fn a_long_write_goes_out_in_pieces() {
    let mut stage = Stage::disk();
    stage.put(DATA, &vec![1; WINDOW as usize]);
    stage.put(DATA + u64::from(WINDOW), &vec![2; (LONG - WINDOW) as usize]);
    stage.ask(0, OUT, 7, LONG);
    stage.notify(0).unwrap();
    for (byte, size) in [(1, WINDOW), (2, LONG - WINDOW)] {
        let request = stage.request().unwrap();
        assert!(stage.given(&request) == vec![byte; size as usize]);
        stage.finish(&request, &[]);
        stage.complete().unwrap();
    }
    assert_eq!((stage.used(0), stage.service.out()), (Some((0, 1)), 0));
}

#[test]
fn a_backend_may_end_a_chain_with_any_piece() {
    let mut stage = Stage::disk();
    stage.ask(0, IN, 7, LONG);
    stage.notify(0).unwrap();
    let first = stage.request().unwrap();
    stage.reply(&Completion { is_end: true, tail: [1, 0, 0, 0, 0, 0, 0, 0], ..completion_of(&first, 0) });
    stage.complete().unwrap();
    assert_eq!((stage.request(), stage.used(0), stage.status()), (None, Some((0, 1)), 1));
}

#[test]
fn pieces_are_whole_units_whatever_a_request_may_have() {
    let odd = QueueDescription { size_max: 3 * 4096 + 100, ..BLOCK };
    let mut stage = Stage::new(DISK, &[odd]);
    stage.ask(0, IN, 0, 4 * 4096);
    stage.notify(0).unwrap();
    let first = stage.request().unwrap();
    assert_eq!((first.writable, first.is_last), (3 * 4096, false));
    stage.finish(&first, &[0; 3 * 4096]);
    stage.complete().unwrap();
    let second = stage.request().unwrap();
    assert_eq!((second.writable, second.position, second.is_last), (4096, 3 * 4096, true));
}

#[test]
fn large_pieces_are_granted_and_what_is_left_is_as_large_as_it_is() {
    const MEBIBYTES: u32 = 9;
    let mut stage = Stage::granting_disk();
    stage.put(HEADER, &header(IN, 0));
    // One buffer that is there many times over: memory is smaller than the chain.
    let mut buffers = vec![(HEADER, 16, false)];
    buffers.extend((0..2 * MEBIBYTES).map(|_| (DATA, 512 << 10, true)));
    buffers.push((DATA, 512, true));
    buffers.push((STATUS, 1, true));
    stage.offer(0, 0, &buffers);
    stage.notify(0).unwrap();
    let mut lengths = Vec::new();
    while let Some(request) = stage.request() {
        lengths.push((request.writable, request.segments != 0, request.position));
        stage.finish(&request, &[]);
        stage.completions -= 1;
        stage.reply(&completion_of(&request, request.writable));
        stage.complete().unwrap();
    }
    let position = |mebibytes: u64| mebibytes << 20;
    let large = |place| (4 << 20, true, position(place));
    assert_eq!(lengths, [large(0), large(4), ((1 << 20) + 512, true, position(8))]);
    assert_eq!((stage.used(0), stage.service.has_grants()), (Some((0, (MEBIBYTES << 20) + 512 + 1)), false));
}

#[test]
fn a_frontend_that_resets_between_two_pieces_gets_no_more_of_them() {
    let mut stage = Stage::disk();
    stage.ask(0, IN, 7, LONG);
    stage.notify(0).unwrap();
    let first = stage.request().unwrap();
    stage.finish(&first, &[1; 512]);
    // The backend is away, so the second piece waits.
    stage.service.suspend();
    stage.complete().unwrap();
    stage.service.reset();
    assert_eq!(stage.service.out(), 0);
    stage.restart();
    stage.complete().unwrap();
    assert_eq!((stage.request(), stage.used(0)), (None, None));
}

#[test]
fn a_backend_that_is_restarted_goes_on_with_the_first_piece_that_is_not_complete() {
    let mut stage = Stage::disk();
    stage.ask(0, IN, 7, 2 * WINDOW + 512);
    stage.notify(0).unwrap();
    let first = stage.request().unwrap();
    stage.finish(&first, &[1; WINDOW as usize]);
    stage.complete().unwrap();
    let second = stage.request().unwrap();
    stage.restart();
    stage.reply(&completion_of(&second, WINDOW));
    stage.complete().unwrap();
    let again = stage.request().unwrap();
    assert_eq!((again.position, again.writable, again.is_last), (u64::from(WINDOW), WINDOW, false));
    stage.finish(&again, &[2; WINDOW as usize]);
    stage.complete().unwrap();
    let last = stage.request().unwrap();
    stage.finish(&last, &[3; 512]);
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.service.counters().stale), (Some((0, 2 * WINDOW + 512 + 1)), 1));
}

#[test]
fn without_a_backend_a_chain_that_waits_for_its_next_piece_fails() {
    let mut stage = Stage::disk();
    stage.ask(0, IN, 7, LONG);
    stage.notify(0).unwrap();
    let first = stage.request().unwrap();
    stage.finish(&first, &[1; 512]);
    stage.service.suspend();
    stage.complete().unwrap();
    assert!(stage.abandon());
    stage.resume().unwrap();
    assert_eq!((stage.used(0), stage.status(), stage.service.out()), (Some((0, 1)), 1, 0));
}

#[test]
fn what_is_cut_leaves_the_rest_as_it_was() {
    let mut stage = Stage::entropy();
    stage.put(DATA, &[1; 8192]);
    stage.offer(0, 0, &[(DATA, 8192, true)]);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    assert_eq!((request.writable, request.is_last), (4096, true));
    stage.finish(&request, &[2; 4096]);
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.get(DATA, 8192)), (Some((0, 4096)), [vec![2; 4096], vec![1; 4096]].concat()));
}

#[test]
fn requests_that_may_not_be_repeated_fail_or_are_dropped_after_a_restart() {
    for (restart, tail_size, used) in [(Restart::Fail, 1, Some((0, 1))), (Restart::Drop, 0, Some((0, 0)))] {
        let mut stage = Stage::new(DISK, &[QueueDescription { restart, tail_size, ..BLOCK }]);
        stage.ask(0, OUT, 7, 512);
        stage.notify(0).unwrap();
        stage.restart();
        assert!(stage.complete().unwrap().interrupt);
        assert_eq!((stage.request(), stage.used(0)), (None, used), "{restart:?}");
    }
}

#[test]
fn a_chain_of_single_bytes_is_copied_piece_by_piece_and_not_granted() {
    let mut stage = Stage::granting_disk();
    stage.put(HEADER, &header(OUT, 0));
    // The header's buffer has the first byte of data; 253 single bytes follow, none beside another, and a long buffer.
    let mut buffers = vec![(HEADER, 17, false)];
    buffers.extend((0..253u64).map(|index| (DATA + 2 * index, 1, false)));
    buffers.extend([(DATA + 0x1000, 0x8000, false), (STATUS, 1, true)]);
    stage.offer_indirect(0, 0, &buffers);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    assert_eq!((request.segments, request.readable, request.is_last), (0, 254 + 0x8000, true));
}
