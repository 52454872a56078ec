//! What is out, what is kept, and who gets room.

use super::*;
use crate::room::OWN_SEGMENTS;
use std::vec::Vec;

const RUN: Run = Run { first: 3, count: 2 };
const CHAINS: u8 = 4;

fn request(chain: Option<u8>) -> InFlightRequest {
    InFlightRequest { queue: 0, chain, readable: 0, writable: 512, run: RUN, is_granted: false, is_last: true }
}

fn take(requests: &mut InFlightRequests, queue: u16) -> u8 {
    requests.take_chain(queue).unwrap().0
}

#[test]
fn a_request_completes_once() {
    let mut requests = InFlightRequests::new(128, CHAINS);
    let sequence = requests.insert(request(None)).unwrap();
    assert_eq!(requests.complete(sequence), Some(request(None)));
    assert_eq!(requests.complete(sequence), None);
}

#[test]
fn the_number_of_an_earlier_request_in_the_same_place_is_stale() {
    let mut requests = InFlightRequests::new(128, CHAINS);
    let first = requests.insert(request(None)).unwrap();
    requests.complete(first);
    let second = requests.insert(request(None)).unwrap();
    assert_eq!(first % 128, second % 128);
    assert_eq!(requests.complete(first), None);
    assert!(requests.complete(second).is_some());
}

#[test]
fn no_more_go_out_than_the_ring_holds() {
    let mut requests = InFlightRequests::new(u16::MAX, 0);
    let all: Vec<_> = core::iter::from_fn(|| requests.insert(request(None))).collect();
    assert_eq!(all.len(), REQUESTS_MAX);
    assert!(!requests.has_room());
    requests.complete(all[77]).unwrap();
    assert!(requests.has_room());
    assert_eq!(requests.count(), 127);
}

#[test]
fn no_more_go_out_than_the_device_is_deep_whether_their_chains_wait_or_not() {
    let mut requests = InFlightRequests::new(2, 2);
    let mut insert = || {
        let place = take(&mut requests, 0);
        let sequence = requests.insert(request(Some(place)));
        requests.forget_chains(None);
        sequence
    };
    let first = insert().unwrap();
    assert!(insert().is_some());
    assert_eq!(insert(), None);
    assert_eq!((requests.has_room(), requests.count()), (false, 2));
    requests.complete(first).unwrap();
    assert!(requests.has_room());
}

#[test]
fn the_oldest_request_of_the_queues_in_question_is_found() {
    let mut requests = InFlightRequests::new(128, CHAINS);
    let numbers: Vec<_> =
        (0..3).filter_map(|queue| requests.insert(InFlightRequest { queue, ..request(None) })).collect();
    requests.complete(numbers[0]);
    // Takes the place of the first, and is the youngest all the same.
    let last = requests.insert(request(None)).unwrap();
    assert_eq!(
        [0b111, 0b001, 0b100, 0].map(|set| requests.oldest(set)),
        [Some(numbers[1]), Some(last), Some(numbers[2]), None]
    );
}

#[test]
fn chains_wait_in_order_and_are_forgotten_with_their_queue() {
    let mut requests = InFlightRequests::new(128, CHAINS);
    let places = [0, 1, 0].map(|queue| take(&mut requests, queue));
    for (place, next) in [(places[2], Next::Post), (places[1], Next::Fail), (places[0], Next::Replay)] {
        requests.wait(place, next);
    }
    assert_eq!((requests.first_waiting(), requests.count()), (Some((places[2], Next::Post)), 3));
    requests.stop_waiting(places[2]);
    requests.forget_chains(Some(1));
    assert_eq!(requests.first_waiting(), Some((places[0], Next::Replay)));
    assert_eq!(requests.take_chain(0).map(|(place, _)| place), Some(places[1]));
}

#[test]
fn chains_of_a_queue_that_is_gone_are_free_again_and_its_requests_still_complete() {
    let mut requests = InFlightRequests::new(128, 2);
    let places = [take(&mut requests, 0), take(&mut requests, 1)];
    assert_eq!(requests.take_chain(0).map(|(place, _)| place), None);
    let first = requests.insert(request(Some(places[0]))).unwrap();
    let second = requests.insert(InFlightRequest { queue: 1, ..request(Some(places[1])) }).unwrap();
    requests.forget_chains(Some(1));
    assert_eq!(requests.take_chain(0).map(|(place, _)| place), Some(places[1]));
    assert_eq!(requests.complete(second).unwrap().chain, None);
    assert_eq!(requests.complete(first).unwrap().chain, Some(places[0]));
}

#[test]
fn what_goes_out_after_its_queue_was_forgotten_has_its_chain() {
    let mut requests = InFlightRequests::new(128, 2);
    let old = take(&mut requests, 0);
    let first = requests.insert(request(Some(old))).unwrap();
    requests.forget_chains(None);
    // The same place serves again, and only who took it last has it.
    let new = take(&mut requests, 0);
    assert_eq!(new, old);
    let second = requests.insert(request(Some(new))).unwrap();
    let third = requests.insert(InFlightRequest { queue: 1, ..request(Some(old)) }).unwrap();
    requests.forget_chains(Some(1));
    assert_eq!(requests.complete(first).unwrap().chain, None);
    let mut ended = Vec::new();
    for step in 0..INTERRUPT_STEPS {
        requests.interrupt(step, |request| {
            ended.push(request.queue);
            Next::Replay
        });
    }
    assert_eq!((ended, requests.first_waiting()), ([0, 1].into(), Some((new, Next::Replay))));
    assert_eq!((requests.complete(second), requests.complete(third)), (None, None));
}

/// Lengthens the chain in `place` to `room` segments, if there is room. Returns whether.
fn lengthen(requests: &mut InFlightRequests, place: u8, room: usize) -> bool {
    let room_of = |requests: &mut InFlightRequests| {
        let (kept, shared) = requests.chain_mut(place).unwrap();
        kept.room.segments_mut(shared).len()
    };
    while room_of(requests) < room {
        if requests.lengthen(place).is_err() {
            return false;
        }
    }
    true
}

#[test]
fn a_chain_that_becomes_longer_keeps_its_buffers_and_the_longest_stays() {
    let mut requests = InFlightRequests::new(128, CHAINS);
    let place = take(&mut requests, 7);
    let (kept, shared) = requests.chain_mut(place).unwrap();
    kept.room.segments_mut(shared)[3].length = 5;
    for room in [OWN_SEGMENTS + 1, SEGMENTS_MAX] {
        assert!(lengthen(&mut requests, place, room));
        let (kept, shared) = requests.chain_mut(place).unwrap();
        assert_eq!((kept.room.segments_mut(shared)[3].length, kept.queue), (5, 7));
    }
    assert_eq!((requests.lengthen(place), requests.free_units().longest()), (Ok(()), (0, 0)));
    requests.free_chain(place);
    assert_eq!((requests.free_units(), requests.chains_kept()), (Units::ALL, 0));
    // Who has it next begins with its own room.
    let place = take(&mut requests, 0);
    let (kept, shared) = requests.chain_mut(place).unwrap();
    assert_eq!(kept.room.segments_mut(shared).len(), OWN_SEGMENTS);
}

#[test]
fn a_chain_that_finds_no_room_frees_its_place_and_comes_before_those_of_other_queues() {
    let mut requests = InFlightRequests::new(128, CHAINS);
    let other = take(&mut requests, 1);
    assert!(lengthen(&mut requests, other, 8));
    let long = take(&mut requests, 0);
    assert!(!lengthen(&mut requests, long, SEGMENTS_MAX));
    assert_eq!((requests.chains_kept(), requests.free_units().longest(), requests.starved()), (1, (1, 31), 1));
    // There is room for this one, and it would be the next that the other waits for.
    let second = take(&mut requests, 1);
    assert!(!lengthen(&mut requests, second, 8));
    let long = take(&mut requests, 0);
    assert_eq!(requests.lengthen(long), Err(NoRoom), "it is not walked in vain");
    requests.free_chain(other);
    let long = take(&mut requests, 0);
    assert!(lengthen(&mut requests, long, SEGMENTS_MAX));
}

#[test]
fn a_queue_that_is_gone_leaves_the_room_to_the_others() {
    for queue in [Some(0), None] {
        let mut requests = InFlightRequests::new(128, CHAINS);
        let kept = take(&mut requests, 0);
        assert!(lengthen(&mut requests, kept, 100));
        let long = take(&mut requests, 0);
        assert!(!lengthen(&mut requests, long, SEGMENTS_MAX));
        requests.forget_chains(queue);
        assert_eq!((requests.chains_kept(), requests.free_units(), requests.starved()), (0, Units::ALL, 0));
        let next = take(&mut requests, 1);
        assert!(lengthen(&mut requests, next, SEGMENTS_MAX));
    }
}
