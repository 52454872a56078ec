//! Copies that end where an interrupt is pending, and go on with the next call.

use super::block::{DATA, IN, OUT};
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
    assert_eq!((stage.request(), stage.service.counters().copied), (None, UNIT as u64));
    // The first unit went with the notification; after the last one the go has no time to see that there is no more.
    assert_eq!(go_on(&mut stage), UNITS - 1);
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
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    let data: Vec<u8> = (0..LENGTH).map(|index| (index / 5) as u8).collect();
    stage.finish(&request, &data);
    let outcome = stage.complete().unwrap();
    assert!(outcome.again && !outcome.interrupt);
    let mut goes = 1;
    while stage.complete().unwrap().again || stage.service.out() != 0 {
        goes += 1;
        assert!(goes < 100 && stage.service.out() != 0);
    }
    assert_eq!((stage.used(0), stage.get(DATA, data.len())), (Some((0, LENGTH + 1)), data));
    assert!(stage.window_is_whole());
}

#[test]
fn a_frontend_that_resets_in_the_middle_of_a_copy_leaves_the_window_whole() {
    for kind in [OUT, IN] {
        let mut stage = interrupted();
        stage.ask(0, kind, 3, LENGTH);
        stage.notify(0).unwrap();
        if let Some(request) = stage.request() {
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
        stage.notify(0).unwrap();
        if let Some(request) = stage.request() {
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
    stage.notify(0).unwrap();
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
