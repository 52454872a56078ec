//! Copies that end where an interrupt is pending, and go on with the next call.

use super::block::{DATA, HEADER, IN, OUT, STATUS};
use super::*;
use std::vec;

const UNIT: usize = 4096;
const UNITS: usize = 16;
const LENGTH: u32 = (UNIT * UNITS) as u32;

/// A disk whose core has an interrupt pending whenever it looks.
fn interrupted() -> Stage {
    let stage = Stage::disk();
    stage.backend.has_pending_interrupt.set(true);
    stage
}

/// Has the chain that is offered found, and then its request begun with.
fn begin(stage: &mut Stage) {
    assert!(stage.notify(0).unwrap().again && stage.request().is_none());
    stage.resume().unwrap();
}

/// Goes on until nothing is left, and says how often.
fn go_on(stage: &mut Stage) -> usize {
    let mut goes = 0;
    while stage.resume().unwrap().again {
        goes += 1;
        assert!(goes < 100, "it does not end");
    }
    goes
}

#[test]
fn a_write_is_copied_unit_by_unit_and_posted_when_all_of_it_is() {
    let mut stage = interrupted();
    let data: Vec<u8> = (0..LENGTH).map(|index| (index / 7) as u8).collect();
    stage.put(DATA, &data);
    stage.ask(0, OUT, 3, LENGTH);
    assert!(stage.notify(0).unwrap().again);
    // Finding the chain was enough for one go.
    assert_eq!((stage.request(), stage.service.counters().copied), (None, 0));
    // Then a unit at a time; after the last one the go has no time to see that there is no more.
    for unit in 1..=UNITS {
        assert_eq!(stage.request(), None);
        assert!(stage.resume().unwrap().again);
        assert_eq!(stage.service.counters().copied, (unit * UNIT) as u64);
    }
    assert_eq!(go_on(&mut stage), 0);
    let request = stage.request().unwrap();
    assert_eq!(stage.given(&request), data);
    stage.finish(&request, &[]);
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.status()), (Some((0, 1)), 0));
}

#[test]
fn a_read_comes_in_unit_by_unit_and_is_told_of_when_all_of_it_is_there() {
    let mut stage = interrupted();
    stage.ask(0, IN, 3, LENGTH);
    begin(&mut stage);
    let request = stage.request().unwrap();
    let data: Vec<u8> = (0..LENGTH).map(|index| (index / 5) as u8).collect();
    stage.finish(&request, &data);
    let outcome = stage.complete().unwrap();
    assert!(outcome.again && !outcome.interrupt);
    for unit in 2..=UNITS {
        assert_eq!((stage.service.out(), stage.used(0)), (1, None), "unit {unit}");
        assert!(stage.complete().unwrap().again, "and after the last one the interrupt comes first, too");
    }
    assert_eq!((stage.service.out(), stage.complete().unwrap().again), (0, false));
    assert_eq!((stage.used(0), stage.get(DATA, data.len())), (Some((0, LENGTH + 1)), data));
    assert!(stage.window_is_whole());
}

#[test]
fn a_large_request_is_granted_after_an_interrupt_that_came_while_its_chain_was_found() {
    let mut stage = Stage::granting_disk();
    stage.backend.has_pending_interrupt.set(true);
    stage.ask(0, OUT, 3, LENGTH);
    assert!(stage.notify(0).unwrap().again);
    assert_eq!((stage.request(), stage.service.has_grants()), (None, false));
    assert!(stage.resume().unwrap().again && stage.service.has_grants());
    assert_eq!(stage.request().map(|request| (request.segments, request.readable)), Some((1, LENGTH)));
}

#[test]
fn what_is_little_is_copied_and_posted_in_one_go() {
    let mut stage = interrupted();
    stage.ask(0, OUT, 3, 512);
    stage.notify(0).unwrap();
    assert_eq!(stage.request().map(|request| request.readable), Some(512));
}

#[test]
fn a_frontend_that_resets_in_the_middle_of_a_copy_leaves_the_window_whole() {
    for kind in [OUT, IN] {
        let mut stage = interrupted();
        stage.ask(0, kind, 3, LENGTH);
        begin(&mut stage);
        let request = stage.request();
        assert_eq!(request.is_some(), kind == IN);
        if let Some(request) = request {
            stage.finish(&request, &vec![1; LENGTH as usize]);
            stage.complete().unwrap();
        }
        stage.reset();
        assert_eq!((stage.service.out(), stage.used(0)), (0, None), "{kind}");
        assert!(stage.window_is_whole(), "{kind}");
    }
}

#[test]
fn a_backend_that_ends_in_the_middle_of_a_copy_gets_the_request_again() {
    for kind in [OUT, IN] {
        let mut stage = interrupted();
        stage.put(DATA, &vec![2; LENGTH as usize]);
        stage.ask(0, kind, 3, LENGTH);
        begin(&mut stage);
        let request = stage.request();
        assert_eq!(request.is_some(), kind == IN);
        if let Some(request) = request {
            stage.finish(&request, &vec![1; LENGTH as usize]);
            stage.complete().unwrap();
        }
        stage.backend.has_pending_interrupt.set(false);
        stage.restart();
        stage.complete().unwrap();
        let request = stage.request().unwrap();
        assert_eq!((request.readable, request.writable), if kind == OUT { (LENGTH, 0) } else { (0, LENGTH) });
        if kind == OUT {
            assert_eq!(stage.given(&request), vec![2; LENGTH as usize]);
        }
        stage.finish(&request, if kind == OUT { &[] } else { &[3; LENGTH as usize] });
        stage.complete().unwrap();
        assert!(stage.used(0).is_some() && stage.window_is_whole(), "{kind}");
    }
}

#[test]
fn a_copy_goes_before_what_finds_no_room() {
    let mut stage = interrupted();
    // All of the window, and one that waits for room in it.
    stage.ask(0, IN, 0, WINDOW);
    stage.ask(3, IN, 0, WINDOW);
    begin(&mut stage);
    let request = stage.request().unwrap();
    assert_eq!(stage.request(), None);
    stage.finish(&request, &vec![1; WINDOW as usize]);
    let mut goes = 0;
    while stage.request().is_none() {
        stage.complete().unwrap();
        while stage.resume().unwrap().again {}
        goes += 1;
        assert!(goes < 100);
    }
    assert_eq!(stage.used(0), Some((0, WINDOW + 1)));
}

#[test]
fn a_copy_goes_before_a_chain_that_was_found_in_part_and_finds_no_room() {
    let mut stage = interrupted();
    // The first place is free again while another request has nearly all of the window.
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    let little = stage.request().unwrap();
    stage.ask(3, IN, 0, WINDOW - 0x2000);
    begin(&mut stage);
    let large = stage.request().unwrap();
    stage.finish(&little, &[2; 512]);
    stage.complete().unwrap();
    // A chain of more buffers than are looked at in one step, in that place.
    let data = (0..6).map(|index| (DATA + index * 0x1000, 0x1000, true));
    let buffers: Vec<Buffer> = [(HEADER, 16, false)].into_iter().chain(data).chain([(STATUS, 1, true)]).collect();
    stage.offer_indirect(0, 6, &buffers);
    stage.notify(0).unwrap();
    stage.resume().unwrap();
    assert_eq!((stage.request(), stage.service.holdings().chains), (None, 2));
    stage.finish(&large, &vec![1; large.writable as usize]);
    let mut goes = 0;
    let waiting = loop {
        stage.complete().unwrap();
        let _ = stage.resume().unwrap();
        if let Some(request) = stage.request() {
            break request;
        }
        goes += 1;
        assert!(goes < 200, "neither goes on");
    };
    assert_eq!((waiting.writable, stage.service.out()), (6 * 0x1000, 1));
    stage.finish(&waiting, &vec![3; waiting.writable as usize]);
    while stage.service.out() != 0 {
        stage.complete().unwrap();
    }
    assert!(stage.window_is_whole());
}

#[test]
fn a_backend_that_does_not_call_again_for_what_is_used_is_stuck() {
    let mut stage = interrupted();
    stage.ask(0, IN, 3, LENGTH);
    begin(&mut stage);
    go_on(&mut stage);
    let request = stage.request().unwrap();
    stage.finish(&request, &[1; LENGTH as usize]);
    while stage.service.out() != 0 {
        assert!(!stage.complete().unwrap().interrupt);
    }
    stage.service.look(&stage.backend, 1);
    assert_eq!(stage.service.look(&stage.backend, 7).age_ticks, 7);
    assert!(stage.complete().unwrap().interrupt);
    stage.service.look(&stage.backend, 1);
    assert_eq!(stage.service.look(&stage.backend, 7).age_ticks, 0);
}
