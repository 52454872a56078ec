//! What is counted, from both sides: work that was asked for once and came several times over, and mistakes.

use super::*;
use crate::virtqueue::QueueError;

const BUFFER: u64 = BUFFERS + 0x1000;

#[test]
fn a_batch_of_requests_is_one_kick_one_doorbell_and_one_interrupt() {
    let mut stage = Stage::entropy();
    for head in 0..3 {
        stage.offer(0, head, &[(BUFFER, 64, true)]);
    }
    assert!(stage.notify(0).unwrap().doorbell);
    while let Some(request) = stage.request() {
        stage.finish(&request, &[7; 64]);
    }
    assert!(stage.complete().unwrap().interrupt);
    let counters = stage.service.counters();
    let queue = counters.queue(0);
    assert_eq!((queue.requests, queue.bytes, queue.copies, queue.grants), (3, 192, 3, 0));
    assert_eq!((queue.kicks, queue.suppressed_kicks()), (1, 2));
    assert_eq!((queue.interrupts, queue.suppressed_interrupts()), (1, 2));
    assert_eq!((counters.doorbells, counters.suppressed_doorbells(), counters.calls), (1, 2, 1));
}

#[test]
fn each_queue_has_its_own_numbers() {
    let mut stage = Stage::card();
    stage.offer(0, 0, &[(BUFFER, 2048, true)]);
    stage.notify(0).unwrap();
    stage.put(BUFFERS, &[0; 12]);
    stage.offer(1, 0, &[(BUFFERS, 12, false), (BUFFER, 60, false)]);
    stage.notify(1).unwrap();
    stage.deliver(&[7; 100]);
    stage.complete().unwrap();
    let (receive, send) = (stage.service.counters().queue(0), stage.service.counters().queue(1));
    assert_eq!((receive.kicks, receive.chains, receive.requests, receive.bytes, receive.used), (1, 1, 0, 100, 1));
    assert_eq!((send.kicks, send.chains, send.requests, send.bytes, send.used), (1, 1, 1, 60, 1));
}

#[test]
fn mistakes_are_counted_by_their_reasons() {
    let mut stage = Stage::entropy();
    stage.offer(0, QUEUE_SIZE, &[]);
    let error = stage.notify(0).unwrap_err();
    assert_eq!(error, ProtocolError::Frontend(QueueError::Head));
    stage.service.report_error(error, &stage.backend);
    let counters = stage.service.counters();
    let refused = QueueError::ALL.map(|error| counters.refused(error));
    assert_eq!((counters.refused(QueueError::Head), refused.iter().sum::<u32>()), (1, 1));
    assert_eq!((counters.stale, counters.queue(0).chains), (0, 0));
}

#[test]
fn a_counter_beyond_its_ring_is_counted_and_costs_the_frontend_nothing() {
    let mut stage = Stage::entropy();
    stage.backend.store_u32(GuestAddr(CHANNEL + control::COMPLETIONS_PRODUCED), io::RING_ENTRIES + 1).unwrap();
    let error = stage.complete().unwrap_err();
    stage.service.report_error(error, &stage.backend);
    assert_eq!((error, stage.service.counters().stale), (ProtocolError::Backend, 1));
    stage.backend.store_u32(GuestAddr(CHANNEL + control::COMPLETIONS_PRODUCED), 0).unwrap();
    stage.offer(0, 0, &[(BUFFER, 64, true)]);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    stage.finish(&request, &[7; 64]);
    stage.complete().unwrap();
    assert_eq!(stage.used(0), Some((0, 64)));
}

#[test]
fn every_mistake_has_its_own_place_and_name() {
    let names: std::collections::BTreeSet<_> = QueueError::ALL.iter().map(|error| error.name()).collect();
    assert_eq!(names.len(), QueueError::ALL.len());
    assert!(QueueError::ALL.iter().enumerate().all(|(place, error)| *error as usize == place));
}
