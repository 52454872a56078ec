//! A device whose queues carry requests, such as a disk, from both sides.

use super::*;
use std::vec;

pub(super) const HEADER: u64 = BUFFERS;
pub(super) const STATUS: u64 = BUFFERS + 0x10;
pub(super) const DATA: u64 = BUFFERS + 0x1000;

pub(super) const IN: u32 = 0;
pub(super) const OUT: u32 = 1;
pub(super) const FLUSH: u32 = 4;

impl Stage {
    /// Offers a block request whose data, if any, is at `DATA`.
    pub(super) fn ask(&mut self, head: u16, kind: u32, sector: u64, length: u32) {
        self.put(HEADER, &header(kind, sector));
        self.put(STATUS, &[0xff]);
        let mut buffers = vec![(HEADER, 16, false)];
        if length > 0 {
            buffers.push((DATA, length, kind == IN));
        }
        buffers.push((STATUS, 1, true));
        self.offer(0, head, &buffers);
    }

    pub(super) fn status(&self) -> u8 {
        self.get(STATUS, 1)[0]
    }
}

/// The header of a block request (VIRTIO 1.2, 5.2.6).
pub(super) fn header(kind: u32, sector: u64) -> [u8; 16] {
    (u128::from(kind) | u128::from(sector) << 64).to_le_bytes()
}

/// The sector that a request names.
pub(super) fn sector(request: &Request) -> u64 {
    (u128::from_le_bytes(request.header) >> 64) as u64
}

#[test]
fn a_read_goes_out_and_its_data_comes_in() {
    let mut stage = Stage::disk();
    stage.ask(0, IN, 7, 1024);
    assert_eq!(stage.notify(0), Ok(Outcome { doorbell: true, ..Outcome::default() }));
    let request = stage.request().unwrap();
    assert_eq!((request.header, request.readable, request.writable), (header(IN, 7), 0, 1024));
    assert_eq!((request.queue, request.is_last, request.position, request.segments), (0, true, 0, 0));
    assert!(stage.request().is_none());
    assert!(stage.used(0).is_none());
    let data: Vec<u8> = (0..1024u32).map(|index| index as u8).collect();
    stage.finish(&request, &data);
    assert!(stage.complete().unwrap().interrupt);
    assert_eq!(stage.used(0), Some((0, 1025)));
    assert_eq!((stage.get(DATA, 1024), stage.status()), (data, 0));
    assert_eq!(stage.service.out(), 0);
}

#[test]
fn a_write_takes_its_data_along() {
    let mut stage = Stage::disk();
    stage.put(DATA, &[0xa5; 512]);
    stage.ask(3, OUT, 999, 512);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    assert_eq!((request.header, request.readable, request.writable), (header(OUT, 999), 512, 0));
    assert_eq!(stage.given(&request), [0xa5; 512]);
    stage.finish(&request, &[]);
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.status()), (Some((3, 1)), 0));
}

#[test]
fn a_request_without_data_needs_no_room() {
    let mut stage = Stage::disk();
    // All room is taken.
    stage.ask(0, IN, 0, WINDOW);
    stage.ask(3, FLUSH, 0, 0);
    stage.notify(0).unwrap();
    stage.request().unwrap();
    let request = stage.request().unwrap();
    assert_eq!((request.header, request.readable, request.writable), (header(FLUSH, 0), 0, 0));
    stage.finish(&request, &[]);
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.status()), (Some((3, 1)), 0));
}

#[test]
fn the_backends_tail_is_the_end_of_the_chain_and_it_may_say_that_nothing_was_read() {
    let mut stage = Stage::disk();
    stage.put(DATA, &[1; 512]);
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    stage.reply(&Completion { tail: [2, 9, 9, 9, 9, 9, 9, 9], is_end: true, ..completion_of(&request, 0) });
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.status()), (Some((0, 1)), 2));
    assert_eq!((stage.get(DATA, 512), stage.get(STATUS + 1, 7)), (vec![1; 512], vec![0; 7]));
}

#[test]
fn what_goes_out_and_what_comes_in_may_be_in_one_request() {
    let mut stage = Stage::disk();
    stage.put(HEADER, &header(99, 0));
    stage.put(DATA, &[3; 100]);
    stage.offer(0, 0, &[(HEADER, 16, false), (DATA, 100, false), (DATA + 0x800, 50, true), (STATUS, 1, true)]);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    assert_eq!((request.readable, request.writable, stage.given(&request)), (100, 50, vec![3; 100]));
    stage.finish(&request, &[4; 50]);
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.get(DATA + 0x800, 51)), (Some((0, 51)), [vec![4; 50], vec![0]].concat()));
    // More than the window has room for.
    stage.offer(0, 5, &[(HEADER, 16, false), (DATA, WINDOW, false), (DATA, 50, true), (STATUS, 1, true)]);
    stage.notify(0).unwrap();
    assert_eq!((stage.request(), stage.used(0), stage.status()), (None, Some((5, 1)), 1));
}

#[test]
fn a_request_without_a_status_byte_goes_back_untouched() {
    let mut stage = Stage::disk();
    stage.offer(0, 0, &[(HEADER, 16, false), (DATA, 512, false)]);
    stage.notify(0).unwrap();
    assert_eq!((stage.request(), stage.used(0)), (None, Some((0, 0))));
}

#[test]
fn a_request_without_a_header_fails() {
    let mut stage = Stage::disk();
    stage.offer(0, 0, &[(HEADER, 15, false), (DATA, 512, true), (STATUS, 1, true)]);
    stage.notify(0).unwrap();
    assert_eq!((stage.request(), stage.used(0), stage.status()), (None, Some((0, 1)), 1));
}

#[test]
fn a_tail_that_is_spread_over_buffers_is_put_together_from_them() {
    let long_tail = QueueDescription { tail_size: 8, ..BLOCK };
    let mut stage = Stage::new(DISK, &[long_tail]);
    stage.offer(0, 0, &[(HEADER, 16, false), (DATA, 5, true), (STATUS, 3, true), (STATUS + 8, 1, true)]);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    assert_eq!(request.writable, 1);
    stage.finish(&request, &[0x11]);
    // The same once more with another tail.
    stage.completions -= 1;
    let tail = *b"abcdefgh";
    stage.reply(&Completion { tail, ..completion_of(&request, 1) });
    stage.complete().unwrap();
    assert_eq!(stage.used(0), Some((0, 9)));
    assert_eq!(
        (stage.get(DATA, 5), stage.get(STATUS, 3), stage.get(STATUS + 8, 1)),
        (b"\x11abcd".to_vec(), b"efg".to_vec(), b"h".to_vec())
    );
}

#[test]
fn more_than_was_asked_for_is_cut() {
    let mut stage = Stage::disk();
    stage.put(DATA + 512, &[7; 512]);
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    stage.finish(&request, &[9; 4096]);
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.status()), (Some((0, 513)), 0));
    assert_eq!(stage.get(DATA + 512, 512), [7; 512]);
}

#[test]
fn forged_repeated_and_stale_completions_change_nothing() {
    let mut stage = Stage::disk();
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    let good = completion_of(&request, 512);
    for forged in [
        Completion { sequence: good.sequence + 128, ..good },
        Completion { sequence: good.sequence ^ 1, ..good },
        Completion { sequence: u64::MAX, ..good },
        Completion { generation: good.generation + 1, ..good },
    ] {
        stage.reply(&forged);
    }
    assert_eq!(stage.complete(), Ok(Outcome::default()));
    assert_eq!((stage.used(0), stage.service.counters().stale), (None, 4));
    stage.reply(&good);
    stage.reply(&good);
    assert!(stage.complete().unwrap().interrupt);
    assert_eq!((stage.used(0), stage.used(0), stage.service.counters().stale), (Some((0, 513)), None, 5));
}

#[test]
fn a_counter_beyond_the_ring_is_the_backends_fault() {
    let mut stage = Stage::disk();
    stage.backend.store_u32(GuestAddr(CHANNEL + control::COMPLETIONS_PRODUCED), 129).unwrap();
    assert_eq!(stage.complete(), Err(ProtocolError::Backend));
    stage.backend.store_u32(GuestAddr(CHANNEL + control::COMPLETIONS_PRODUCED), u32::MAX).unwrap();
    assert_eq!(stage.complete(), Err(ProtocolError::Backend));
}

#[test]
fn a_reset_in_the_middle_leaves_the_frontends_memory_alone_and_begins_a_session() {
    let mut stage = Stage::disk();
    let session = stage.state(control::SESSION);
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    assert_eq!(request.session, session);
    stage.service.reset();
    assert!(stage.service.publish_state(&stage.backend) && !stage.service.publish_state(&stage.backend));
    assert_eq!((stage.state(control::SESSION), stage.state(control::IS_LIVE)), (session + 1, 0));
    stage.finish(&request, &[9; 512]);
    assert_eq!(stage.complete(), Ok(Outcome::default()));
    assert_eq!((stage.used(0), stage.get(DATA, 512)), (None, vec![0; 512]));
    assert_eq!(stage.service.out(), 0);
}

#[test]
fn a_backend_sees_which_features_a_driver_has_accepted_and_its_successor_too() {
    let mut stage = Stage::disk();
    stage.service.negotiated(0x1_2345_6789_abcd);
    stage.service.publish_state(&stage.backend);
    let state = |stage: &Stage| [control::IS_LIVE, control::FEATURES, control::FEATURES_HIGH].map(|at| stage.state(at));
    assert_eq!(state(&stage), [1, 0x6789_abcd, 0x1_2345]);
    stage.restart();
    assert_eq!(state(&stage), [1, 0x6789_abcd, 0x1_2345]);
    stage.service.reset();
    stage.restart();
    assert_eq!(state(&stage), [0, 0, 0]);
}

#[test]
fn what_finds_no_room_waits_and_goes_out_when_there_is_some() {
    let mut stage = Stage::disk();
    // 64 pages of window; each of these takes 32.
    for head in [0, 3, 6] {
        stage.ask(head, IN, 0, 32 * 4096);
    }
    stage.notify(0).unwrap();
    let first = stage.request().unwrap();
    assert!(stage.request().is_some() && stage.request().is_none());
    stage.reply(&completion_of(&first, 0));
    let outcome = stage.complete().unwrap();
    assert!(outcome.doorbell || outcome.interrupt);
    assert_eq!(stage.request().unwrap().writable, 32 * 4096);
}

#[test]
fn what_a_frontend_asks_for_beyond_one_go_is_not_done_in_its_backends_time() {
    let mut stage = Stage::new(DISK, &[BLOCK, BLOCK]);
    // Either queue waits for room, and behind that is what is answered at once, which no room bounds.
    for head in [0, 3, 6] {
        stage.ask(head, IN, 0, 32 * 4096);
    }
    stage.notify(0).unwrap();
    stage.offer(1, 0, &[(HEADER, 16, false), (DATA, 32 * 4096, true), (STATUS, 1, true)]);
    stage.notify(1).unwrap();
    for head in (10..QUEUE_SIZE).step_by(2) {
        for queue in [0, 1] {
            stage.offer(queue, head, &[(HEADER, 15, false), (STATUS, 1, true)]);
        }
    }
    let given = |stage: &mut Stage| {
        core::iter::from_fn(|| stage.used(0)).count() + core::iter::from_fn(|| stage.used(1)).count()
    };
    assert_eq!(given(&mut stage), 0);
    let [first, second] = [stage.request().unwrap(), stage.request().unwrap()];
    stage.reply(&completion_of(&first, 0));
    stage.reply(&completion_of(&second, 0));
    let outcome = stage.complete().unwrap();
    assert!(!outcome.again && stage.service.take_deferred() && !stage.service.take_deferred());
    // Two that have landed, and 24 taken of the first queue, of which one has gone out.
    assert_eq!((given(&mut stage), stage.service.out()), (2 + 23, 1));
    assert_eq!((stage.complete(), given(&mut stage)), (Ok(Outcome::default()), 0));
    while stage.resume().unwrap().again {}
    assert_eq!((given(&mut stage), stage.service.out()), (2 * 27 - 23, 2));
}

#[test]
fn a_buffer_outside_memory_breaks_the_device() {
    let mut stage = Stage::disk();
    stage.ask(0, OUT, 0, 512);
    // The data is moved beyond the end of memory.
    let beyond = u128::from(MEMORY_BASE.0 + MEMORY_SIZE as u64) | 512 << 64 | 1 << 96 | 2 << 112;
    stage.frontend.write(GuestAddr(MEMORY_BASE.0 + 16), &beyond.to_le_bytes()).unwrap();
    assert!(matches!(stage.notify(0), Err(ProtocolError::Frontend(_))));
}

#[test]
fn many_requests_are_served_in_rounds() {
    let mut stage = Stage::disk();
    for head in (0..QUEUE_SIZE).step_by(2) {
        stage.offer(0, head, &[(HEADER, 15, false), (STATUS, 1, true)]);
    }
    for _ in 0..2 {
        let outcome = stage.notify(0).unwrap();
        if !outcome.again {
            break;
        }
    }
    assert_eq!(core::iter::from_fn(|| stage.used(0)).count(), 32);
}
