//! A disk whose backend is away, comes back, comes back without it, or never does.

use super::block::{DATA, FLUSH, HEADER, IN, OUT, STATUS, sector};
use super::*;
use crate::Holdings;

/// The watchdog checks once more, 100 ticks later: gives for how long the oldest request has been that.
fn age(stage: &mut Stage) -> u64 {
    stage.service.look(&stage.backend, 100).age_ticks
}

#[test]
fn a_backend_that_is_restarted_gets_its_requests_again_in_order() {
    let mut stage = Stage::disk();
    stage.put(DATA, &[0x11; 512]);
    stage.ask(0, OUT, 5, 512);
    stage.notify(0).unwrap();
    stage.ask(3, IN, 6, 512);
    stage.notify(0).unwrap();
    let old = [stage.request().unwrap(), stage.request().unwrap()];
    // It dies, and its memory is cleared.
    stage.service.suspend();
    stage.ask(6, IN, 7, 512);
    assert_eq!(stage.notify(0), Ok(Outcome::default()));
    stage.restart();
    assert!(stage.complete().unwrap().doorbell);
    let new = [stage.request().unwrap(), stage.request().unwrap(), stage.request().unwrap()];
    assert_eq!(new.map(|request| sector(&request)), [5, 6, 7]);
    assert_eq!(stage.given(&new[0]), [0x11; 512]);
    // What its predecessor would have said is stale.
    stage.reply(&completion_of(&old[1], 512));
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.service.counters().stale), (None, 1));
    for request in &new {
        stage.finish(request, if sector(request) == 5 { &[] } else { &[3; 512] });
    }
    stage.complete().unwrap();
    assert_eq!([stage.used(0), stage.used(0), stage.used(0)], [Some((0, 1)), Some((3, 513)), Some((6, 513))]);
    let counters = stage.service.counters().queue(0);
    assert_eq!((stage.service.out(), counters.replays, counters.requests), (0, 2, 5));
}

#[test]
fn what_is_posted_again_comes_before_anything_new_whoever_calls_first() {
    let mut stage = Stage::disk();
    for head in [0, 3] {
        stage.ask(head, OUT, u64::from(head), 512);
        stage.notify(0).unwrap();
    }
    stage.restart();
    stage.ask(6, IN, 6, 512);
    assert!(stage.notify(0).unwrap().doorbell);
    assert_eq!(core::iter::from_fn(|| stage.request()).map(|request| sector(&request)).collect::<Vec<_>>(), [0, 3, 6]);
    assert_eq!((stage.complete(), stage.service.counters().queue(0).replays), (Ok(Outcome::default()), 2));
}

#[test]
fn as_many_requests_as_there_can_be_are_posted_again_in_rounds() {
    let mut stage = Stage::disk();
    for head in (0..QUEUE_SIZE).step_by(2) {
        stage.ask(head, FLUSH, 0, 0);
    }
    stage.notify(0).unwrap();
    while stage.resume().unwrap().again {}
    assert_eq!(stage.service.out(), 30);
    stage.restart();
    assert!(stage.request().is_none(), "\"ready\" itself posts nothing");
    // Its number can be guessed, but it is nobody's to complete before it is posted again.
    stage.reply(&Completion { sequence: 1 << 7, generation: 2, written: 0, is_end: false, tail: [0; 8] });
    assert!(stage.complete().unwrap().doorbell && stage.service.take_deferred());
    assert_eq!((stage.resume(), stage.service.take_deferred()), (Ok(Outcome::default()), false));
    assert_eq!(core::iter::from_fn(|| stage.request()).count(), 30);
    assert_eq!((stage.service.out(), stage.service.counters().stale), (30, 1));
}

#[test]
fn what_the_frontend_has_forgotten_is_not_posted_again() {
    let mut stage = Stage::disk();
    stage.ask(0, OUT, 0, 512);
    stage.notify(0).unwrap();
    stage.service.suspend();
    stage.service.reset();
    stage.restart();
    stage.complete().unwrap();
    assert!(stage.request().is_none());
    assert_eq!((stage.service.out(), stage.service.counters().queue(0).replays), (0, 0));
}

#[test]
fn without_a_backend_what_is_out_fails_and_so_does_what_comes() {
    let mut stage = Stage::disk();
    stage.ask(0, OUT, 0, 512);
    stage.notify(0).unwrap();
    stage.service.suspend();
    stage.ask(3, IN, 0, 512);
    assert_eq!(stage.notify(0), Ok(Outcome::default()));
    assert_eq!(stage.used(0), None);
    assert!(stage.abandon(), "the client has to go on");
    assert_eq!(stage.resume(), Ok(Outcome { interrupt: true, ..Outcome::default() }));
    assert_eq!([stage.used(0), stage.used(0), stage.used(0)], [Some((0, 1)), Some((3, 1)), None]);
    assert_eq!((stage.status(), stage.service.out()), (1, 0));
    for kind in [IN, OUT, FLUSH] {
        stage.ask(0, kind, 0, 512);
        assert!(stage.notify(0).unwrap().interrupt);
        assert_eq!((stage.used(0), stage.status()), (Some((0, 1)), 1));
    }
    // Nobody brings it back.
    stage.service.suspend();
    assert!(!stage.service.serve_again());
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    assert_eq!((stage.used(0), stage.status()), (Some((0, 1)), 1));
}

#[test]
fn errors_without_a_backend_come_in_rounds() {
    let mut stage = Stage::disk();
    stage.service.suspend();
    for head in (0..QUEUE_SIZE).step_by(2) {
        stage.offer(0, head, &[(HEADER, 16, false), (STATUS, 1, true)]);
    }
    stage.notify(0).unwrap();
    assert!(stage.abandon());
    let outcome = stage.resume().unwrap();
    assert!(outcome.again && outcome.interrupt);
    let mut rounds = 1;
    while stage.resume().unwrap().again {
        rounds += 1;
    }
    assert_eq!((core::iter::from_fn(|| stage.used(0)).count(), rounds < 4), (32, true));
}

#[test]
fn a_frontend_that_asks_a_backend_that_is_gone_for_ever_more_pays_for_it_itself() {
    let mut stage = Stage::disk();
    stage.service.suspend();
    for head in (0..QUEUE_SIZE).step_by(2) {
        stage.offer(0, head, &[(HEADER, 16, false), (STATUS, 1, true)]);
    }
    stage.notify(0).unwrap();
    assert!(stage.abandon());
    assert_eq!(stage.used(0), None, "whoever says that it is gone does nothing for the client");
    for _ in 0..20 {
        assert!(stage.resume().unwrap().again);
        let given: Vec<_> = core::iter::from_fn(|| stage.used(0)).collect();
        assert_eq!(given.len(), 24);
        // It offers them again at once, so that its queue is never empty.
        for (head, _) in given {
            stage.offer(0, head as u16, &[(HEADER, 16, false), (STATUS, 1, true)]);
        }
    }
}

#[test]
fn a_frontend_that_waits_for_nothing_is_not_bothered_when_the_backend_is_gone() {
    let mut stage = Stage::disk();
    stage.service.suspend();
    assert!(!stage.abandon());
}

#[test]
fn a_backend_that_comes_back_without_the_device_gives_errors_and_is_not_held_to_them() {
    let mut stage = Stage::disk();
    stage.ask(0, OUT, 0, 512);
    stage.notify(0).unwrap();
    let lost = stage.request().unwrap();
    stage.service.suspend();
    stage.ask(3, IN, 0, 512);
    stage.notify(0).unwrap();
    stage.restart_without_channel();
    assert!(stage.service.serve_again(), "the frontend has to go on");
    let ages: Vec<_> = (0..30).map(|_| age(&mut stage)).collect();
    assert_eq!(ages, [0; 30]);
    // It says that it has done what nobody asked it for.
    stage.reply(&Completion { generation: 2, ..completion_of(&lost, 0) });
    stage.complete().unwrap();
    assert_eq!((stage.request(), stage.service.counters().stale), (None, 1));
    assert_eq!([stage.used(0), stage.used(0), stage.used(0)], [Some((0, 1)), Some((3, 1)), None]);
    stage.ask(0, IN, 0, 512);
    assert!(stage.notify(0).unwrap().interrupt);
    assert_eq!((stage.used(0), stage.status()), (Some((0, 1)), 1));
    // In its next life it has the disk again.
    stage.service.suspend();
    stage.restart();
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    assert!(stage.request().is_some());
}

#[test]
fn a_backend_that_never_calls_for_what_waited_for_it_is_found() {
    let mut stage = Stage::disk();
    stage.service.suspend();
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    stage.restart();
    assert_eq!([age(&mut stage), age(&mut stage), age(&mut stage)], [0, 100, 200]);
    stage.complete().unwrap();
    let request = stage.request().unwrap();
    assert_eq!(age(&mut stage), 0, "it has called, and has got the request");
    stage.finish(&request, &[0; 512]);
    stage.complete().unwrap();
    assert_eq!([age(&mut stage), age(&mut stage)], [0; 2]);
}

#[test]
fn time_before_the_backend_was_ready_is_not_held_against_it() {
    let mut stage = Stage::disk();
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    stage.service.suspend();
    stage.restart_without_channel();
    for _ in 0..19 {
        let _ = age(&mut stage);
    }
    stage.attach().unwrap();
    assert!(!stage.service.serve_again());
    assert_eq!([age(&mut stage), age(&mut stage)], [0, 100]);
}

#[test]
fn the_watch_sees_how_long_the_oldest_request_has_been_out() {
    let mut stage = Stage::disk();
    assert_eq!([age(&mut stage), age(&mut stage)], [0; 2]);
    for head in [0, 3] {
        stage.ask(head, IN, 0, 512);
    }
    stage.notify(0).unwrap();
    assert_eq!([age(&mut stage), age(&mut stage), age(&mut stage)], [0, 100, 200]);
    let [first, second] = [stage.request().unwrap(), stage.request().unwrap()];
    stage.finish(&second, &[1; 512]);
    stage.complete().unwrap();
    assert_eq!(age(&mut stage), 300, "the oldest is still the same");
    stage.finish(&first, &[1; 512]);
    stage.complete().unwrap();
    assert_eq!([age(&mut stage), age(&mut stage)], [0; 2]);
    stage.backend.store_u32(GuestAddr(CHANNEL + control::HEARTBEAT), 77).unwrap();
    assert_eq!(stage.service.look(&stage.backend, 100).beat, 77);
}

#[test]
fn chains_that_were_used_when_the_backend_broke_down_are_told_of() {
    for is_gone in [false, true] {
        let mut stage = Stage::disk();
        stage.ask(0, IN, 0, 512);
        stage.notify(0).unwrap();
        let request = stage.request().unwrap();
        stage.finish(&request, &[1; 512]);
        // The counter passes the completion, and then the ring.
        stage.backend.store_u32(GuestAddr(CHANNEL + control::COMPLETIONS_PRODUCED), 1).unwrap();
        let memories = MemoryPair { frontend: &stage.frontend, backend: &stage.backend };
        stage.service.take_completions_alone(&memories);
        assert_eq!(stage.used(0), Some((0, 513)));
        stage.service.suspend();
        let has_to_go_on = if is_gone {
            stage.abandon()
        } else {
            stage.restart_without_channel();
            stage.service.serve_again()
        };
        assert!(has_to_go_on && stage.resume().unwrap().interrupt, "{is_gone}");
    }
}

#[test]
fn a_granted_request_counts_whatever_its_queue_says_later() {
    let mut stage = Stage::granting_disk();
    stage.ask(0, OUT, 0, 32 << 10);
    stage.notify(0).unwrap();
    assert_ne!(stage.request().unwrap().segments, 0);
    // The backend describes its queue anew, as one whose requests may stay out for ever.
    stage.description.queues[0] = QueueDescription { is_patient: true, ..BLOCK };
    stage.attach().unwrap();
    stage.service.reset();
    assert_eq!([age(&mut stage), age(&mut stage), age(&mut stage)], [0, 100, 200]);
}

#[test]
fn what_is_taken_back_step_by_step_is_the_frontends_again_and_nobodys_if_it_resets_meanwhile() {
    let heads: Vec<u16> = (0..20).map(|index| 2 * index).collect();
    for reset_before in 0..=TAKE_BACK_STEPS {
        let mut stage = Stage::disk();
        for head in &heads {
            stage.offer(0, *head, &[(HEADER, 16, false), (STATUS, 1, true)]);
        }
        stage.notify(0).unwrap();
        assert_eq!(stage.service.holdings().requests, heads.len());
        stage.service.suspend();
        for step in 0..TAKE_BACK_STEPS {
            if step == reset_before {
                stage.reset();
            }
            stage.service.take_back(step, true);
            assert_eq!(stage.notify(0).map(|outcome| outcome.interrupt), Ok(false), "it is away, and not yet gone");
        }
        let _ = stage.service.abandon();
        while stage.resume().unwrap().again {}
        let used: Vec<u16> = core::iter::from_fn(|| stage.used(0)).map(|(head, _)| head as u16).collect();
        assert_eq!(used, if reset_before == TAKE_BACK_STEPS { heads.clone() } else { Vec::new() }, "{reset_before}");
        assert_eq!(stage.service.holdings(), Holdings::default());
    }
}
