//! Long chains share one room: those that find too little of it wait, and none for ever.

use super::block::{DATA, HEADER, IN, STATUS, header};
use super::*;
use crate::Holdings;
use std::vec;

const STEP: u64 = 64;

/// Offers a read into `count` buffers of 16 bytes.
fn ask_scattered(stage: &mut Stage, queue: u16, head: u16, count: u64) {
    stage.frontend.write(GuestAddr(HEADER), &header(IN, 0)).unwrap();
    let data = (0..count).map(|index| (DATA + index * STEP, 16, true));
    let buffers: Vec<Buffer> = [(HEADER, 16, false)].into_iter().chain(data).chain([(STATUS, 1, true)]).collect();
    stage.offer_indirect(queue, head, &buffers);
}

fn finish(stage: &mut Stage, request: &Request) {
    stage.finish(request, &vec![1; request.writable as usize]);
    while stage.complete().unwrap().again {}
}

/// A disk of two queues: the first of these has a chain out, and the other one the longest there is, which waits.
fn with_one_that_waits(short: u16, long: u16) -> (Stage, Request) {
    let mut stage = Stage::new(DISK, &[BLOCK, BLOCK]);
    ask_scattered(&mut stage, short, 0, 20);
    stage.notify(short).unwrap();
    let out = stage.request().unwrap();
    ask_scattered(&mut stage, long, 1, 254);
    while stage.notify(long).unwrap().again {}
    assert_eq!((stage.request(), stage.service.holdings().chains), (None, 1), "there is no room");
    (stage, out)
}

#[test]
#[cfg_attr(miri, ignore = "its long chains take minutes")]
fn the_longest_chain_is_not_overtaken_for_ever_by_those_of_another_queue() {
    for (short, long) in [(0, 1), (1, 0)] {
        let (mut stage, out) = with_one_that_waits(short, long);
        // There would be room for this one.
        ask_scattered(&mut stage, short, 2, 20);
        stage.notify(short).unwrap();
        assert_eq!(stage.request(), None);
        finish(&mut stage, &out);
        let out = stage.request().unwrap();
        assert_eq!((out.writable, stage.request()), (254 * 16, None), "queue {long}");
        finish(&mut stage, &out);
        let out = stage.request().unwrap();
        finish(&mut stage, &out);
        assert_eq!((out.writable, stage.service.holdings()), (20 * 16, Holdings::default()));
    }
}

#[test]
#[cfg_attr(miri, ignore = "its long chains take minutes")]
fn short_chains_go_out_while_a_long_one_waits() {
    let (mut stage, _) = with_one_that_waits(0, 1);
    ask_scattered(&mut stage, 0, 2, 2);
    stage.notify(0).unwrap();
    assert_eq!(stage.request().map(|request| request.writable), Some(32));
}

#[test]
#[cfg_attr(miri, ignore = "its long chains take minutes")]
fn all_of_the_room_is_there_again_after_a_reset_and_after_an_outage() {
    for end in 0..3 {
        let (mut stage, _) = with_one_that_waits(0, 1);
        match end {
            0 => {
                // It has a driver again for its first queue alone.
                stage.reset();
                assert_eq!(stage.service.holdings().chains, 0);
                ask_scattered(&mut stage, 0, 1, 254);
                while stage.notify(0).unwrap().again {}
            }
            1 => {
                stage.restart_without_channel();
                stage.attach().unwrap();
                let _ = stage.service.serve_again();
                while stage.complete().unwrap().again {}
                let again = stage.request().unwrap();
                assert_eq!((again.writable, stage.request()), (320, None), "it is posted again");
                finish(&mut stage, &again);
            }
            _ => {
                assert!(stage.abandon());
                while stage.resume().unwrap().again {}
                assert_eq!((stage.used(0), stage.used(1)), (Some((0, 1)), Some((1, 1))), "both fail");
                assert_eq!(stage.service.holdings(), Holdings::default());
                continue;
            }
        }
        let out = stage.request().unwrap();
        assert_eq!(out.writable, 254 * 16);
        finish(&mut stage, &out);
        // What was out before the reset is.
        assert_eq!(stage.service.holdings().chains, 0, "{end}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "its long chains take minutes")]
fn once_the_longest_chain_has_gone_out_others_go_out_together_again() {
    let (mut stage, out) = with_one_that_waits(0, 1);
    finish(&mut stage, &out);
    let out = stage.request().unwrap();
    assert_eq!(out.writable, 254 * 16);
    finish(&mut stage, &out);
    for (queue, head) in [(0, 2), (0, 3), (1, 4)] {
        ask_scattered(&mut stage, queue, head, 20);
        while stage.notify(queue).unwrap().again {}
        assert_eq!(stage.request().map(|request| request.writable), Some(20 * 16), "chain {head}");
    }
}
