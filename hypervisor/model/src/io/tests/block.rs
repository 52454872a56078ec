//! A disk, from both sides.

use super::*;
use abi::io::{FEATURE_FLUSH, FEATURE_READ_ONLY, Operation};
use std::vec;

const HEADER: u64 = BUFFERS;
pub(super) const STATUS: u64 = BUFFERS + 0x10;
pub(super) const DATA: u64 = BUFFERS + 0x1000;
const SECTORS: u64 = 1000;

pub(super) const IN: u32 = 0;
pub(super) const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;

pub(super) fn disk(features: u64) -> Stage {
    let mut stage = Stage::new(ServiceKind::Block);
    stage.service.attach_disk(SECTORS, features);
    stage
}

impl Stage {
    /// Offers a block request whose data, if any, is at `DATA`.
    pub(super) fn ask(&mut self, head: u16, kind: u32, sector: u64, length: u32) {
        let mut header = Vec::new();
        header.extend(kind.to_le_bytes());
        header.extend([0; 4]);
        header.extend(sector.to_le_bytes());
        self.put(HEADER, &header);
        self.put(STATUS, &[0xff]);
        let mut buffers = vec![(HEADER, 16, false)];
        if length > 0 {
            buffers.push((DATA, length, kind == IN || kind == GET_ID));
        }
        buffers.push((STATUS, 1, true));
        self.offer(0, head, &buffers);
    }

    pub(super) fn status(&self) -> u8 {
        self.get(STATUS, 1)[0]
    }
}

#[test]
fn a_read_goes_out_and_its_data_comes_in() {
    let mut stage = disk(0);
    stage.ask(0, IN, 7, 1024);
    assert_eq!(stage.notify(0), Ok(Outcome { doorbell: true, ..Outcome::default() }));
    let request = stage.request().unwrap();
    assert_eq!((request.operation, request.sector, request.length), (Operation::Read as u16, 7, 1024));
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
    let mut stage = disk(0);
    stage.put(DATA, &[0xa5; 512]);
    stage.ask(3, OUT, 999, 512);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    assert_eq!((request.operation, request.sector, request.length), (Operation::Write as u16, 999, 512));
    let mut window = [0; 512];
    stage.provider.read(GuestAddr(CHANNEL + u64::from(request.offset)), &mut window).unwrap();
    assert_eq!(window, [0xa5; 512]);
    stage.finish(&request, &[]);
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.status()), (Some((3, 1)), 0));
}

#[test]
fn what_is_beyond_the_disk_or_no_whole_sector_fails_at_once() {
    let mut stage = disk(0);
    let cases = [(IN, SECTORS, 512), (IN, u64::MAX, 512), (OUT, 999, 1024), (IN, 0, 100), (OUT, 0, 0)];
    for (head, (kind, sector, length)) in (0u16..).step_by(3).zip(cases) {
        stage.ask(head, kind, sector, length);
        stage.notify(0).unwrap();
        assert!(stage.request().is_none(), "{kind} {sector} {length}");
        assert_eq!((stage.used(0), stage.status()), (Some((u32::from(head), 1)), 1), "{kind} {sector} {length}");
    }
}

#[test]
fn a_read_only_disk_takes_no_writes() {
    let mut stage = disk(FEATURE_READ_ONLY);
    stage.ask(0, OUT, 0, 512);
    stage.notify(0).unwrap();
    assert!(stage.request().is_none());
    // VIRTIO 1.2, 5.2.6.2: VIRTIO_BLK_S_IOERR.
    assert_eq!(stage.status(), 1);
}

#[test]
fn a_flush_is_the_driver_domains_if_there_is_a_cache_and_done_if_there_is_none() {
    let mut stage = disk(FEATURE_FLUSH);
    stage.ask(0, FLUSH, 0, 0);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    assert_eq!((request.operation, request.length), (Operation::Flush as u16, 0));
    stage.finish(&request, &[]);
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.status()), (Some((0, 1)), 0));
    stage.service.attach_disk(SECTORS, 0);
    stage.ask(5, FLUSH, 0, 0);
    stage.notify(0).unwrap();
    assert_eq!((stage.used(0), stage.status()), (Some((5, 1)), 0));
}

#[test]
fn the_identity_is_told_and_unknown_requests_are_unsupported() {
    let mut stage = disk(0);
    stage.ask(0, GET_ID, 0, 20);
    stage.notify(0).unwrap();
    assert_eq!((stage.used(0), stage.status()), (Some((0, 21)), 0));
    assert!(stage.get(DATA, 20).starts_with(b"bulkhead\0"));
    for kind in [2, DISCARD, 99, u32::MAX] {
        stage.ask(0, kind, 0, 0);
        stage.notify(0).unwrap();
        assert_eq!((stage.used(0), stage.status()), (Some((0, 1)), 2), "{kind}");
    }
}

#[test]
fn a_request_without_a_status_byte_goes_back_untouched() {
    let mut stage = disk(0);
    stage.offer(0, 0, &[(HEADER, 16, false), (DATA, 512, false)]);
    stage.notify(0).unwrap();
    assert_eq!(stage.used(0), Some((0, 0)));
}

#[test]
fn a_short_read_is_an_error_not_stale_data() {
    let mut stage = disk(0);
    stage.put(DATA, &[1; 512]);
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    stage.finish(&request, &[9; 100]);
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.status()), (Some((0, 1)), 1));
    assert_eq!(stage.get(DATA, 512), [1; 512]);
}

#[test]
fn more_than_was_asked_for_is_cut() {
    let mut stage = disk(0);
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
    let mut stage = disk(0);
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
    assert_eq!((stage.used(0), stage.service.counters().forged), (None, 4));
    stage.reply(&good);
    stage.reply(&good);
    assert!(stage.complete().unwrap().interrupt);
    assert_eq!((stage.used(0), stage.used(0), stage.service.counters().forged), (Some((0, 513)), None, 5));
}

#[test]
fn a_counter_beyond_the_ring_is_the_driver_domains_fault() {
    let mut stage = disk(0);
    stage.provider.store_u32(GuestAddr(CHANNEL + control::COMPLETIONS_PRODUCED), 129).unwrap();
    assert_eq!(stage.complete(), Err(Broken::Provider));
    stage.provider.store_u32(GuestAddr(CHANNEL + control::COMPLETIONS_PRODUCED), u32::MAX).unwrap();
    assert_eq!(stage.complete(), Err(Broken::Provider));
}

#[test]
fn a_reset_in_the_middle_leaves_the_clients_memory_alone() {
    let mut stage = disk(0);
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    stage.service.reset();
    stage.finish(&request, &[9; 512]);
    assert_eq!(stage.complete(), Ok(Outcome::default()));
    assert_eq!((stage.used(0), stage.get(DATA, 512)), (None, vec![0; 512]));
    assert_eq!(stage.service.out(), 0);
}

#[test]
fn what_finds_no_room_waits_and_goes_out_when_there_is_some() {
    let mut stage = disk(0);
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
    assert_eq!(stage.request().unwrap().length, 32 * 4096);
}

#[test]
fn what_a_client_asks_for_beyond_one_go_is_not_done_in_its_driver_domains_time() {
    let mut stage = disk(0);
    stage.start(1);
    // Either queue waits for room, and behind that is what is answered at once, which no room bounds.
    for head in [0, 3, 6] {
        stage.ask(head, IN, 0, 32 * 4096);
    }
    stage.notify(0).unwrap();
    stage.offer(1, 0, &[(HEADER, 16, false), (DATA, 32 * 4096, true), (STATUS, 1, true)]);
    stage.notify(1).unwrap();
    for head in (10..QUEUE_SIZE).step_by(2) {
        for queue in [0, 1] {
            stage.offer(queue, head, &[(HEADER, 16, false), (STATUS, 1, true)]);
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
    assert!(!outcome.again && stage.service.take_late() && !stage.service.take_late());
    // Two that have landed, and 24 taken of the first queue, of which one has gone out.
    assert_eq!((given(&mut stage), stage.service.out()), (2 + 23, 1));
    assert_eq!((stage.complete(), given(&mut stage)), (Ok(Outcome::default()), 0));
    while stage.resume().unwrap().again {}
    assert_eq!((given(&mut stage), stage.service.out()), (2 * 27 - 23, 2));
}

#[test]
fn a_buffer_outside_memory_breaks_the_device() {
    let mut stage = disk(0);
    stage.ask(0, OUT, 0, 512);
    // The data is moved beyond the end of memory.
    let beyond = u128::from(MEMORY_BASE.0 + MEMORY_SIZE as u64) | 512 << 64 | 1 << 96 | 2 << 112;
    stage.client.write(GuestAddr(MEMORY_BASE.0 + 16), &beyond.to_le_bytes()).unwrap();
    assert!(matches!(stage.notify(0), Err(Broken::Client(_))));
}

#[test]
fn many_requests_are_served_in_rounds() {
    let mut stage = disk(0);
    for head in (0..QUEUE_SIZE).step_by(2) {
        stage.offer(0, head, &[(HEADER, 16, false), (STATUS, 1, true)]);
    }
    for _ in 0..2 {
        let outcome = stage.notify(0).unwrap();
        if !outcome.again {
            break;
        }
    }
    assert_eq!(core::iter::from_fn(|| stage.used(0)).count(), 32);
}

#[test]
fn a_driver_domain_that_is_restarted_gets_its_requests_again_in_order() {
    let mut stage = disk(0);
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
    stage.provider = FakeMemory::new(MEMORY_SIZE);
    (stage.requests, stage.completions) = (0, 0);
    stage.service.restart_channel(&stage.provider).unwrap();
    stage.service.attach();
    assert!(!stage.service.serve_again());
    assert!(stage.complete().unwrap().doorbell);
    let new = [stage.request().unwrap(), stage.request().unwrap(), stage.request().unwrap()];
    assert_eq!(new.map(|request| request.sector), [5, 6, 7]);
    assert_eq!([new[0].sequence, new[1].sequence], [old[0].sequence, old[1].sequence]);
    let mut window = [0; 512];
    stage.provider.read(GuestAddr(CHANNEL + u64::from(new[0].offset)), &mut window).unwrap();
    assert_eq!(window, [0x11; 512]);
    // What its predecessor would have said is stale.
    stage.reply(&completion_of(&old[1], 512));
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.service.counters().forged), (None, 1));
    for request in &new {
        stage.finish(request, if request.sector == 5 { &[] } else { &[3; 512] });
    }
    stage.complete().unwrap();
    assert_eq!([stage.used(0), stage.used(0), stage.used(0)], [Some((0, 1)), Some((3, 513)), Some((6, 513))]);
    assert_eq!((stage.service.out(), stage.service.counters().queue(0).replays), (0, 2));
}

/// A disk whose driver domain was restarted and has its rings empty again.
fn restart(stage: &mut Stage) {
    stage.provider = FakeMemory::new(MEMORY_SIZE);
    (stage.requests, stage.completions) = (0, 0);
    stage.service.restart_channel(&stage.provider).unwrap();
    stage.service.attach();
    assert!(!stage.service.serve_again());
}

#[test]
fn what_is_posted_again_comes_before_anything_new_whoever_calls_first() {
    let mut stage = disk(0);
    for head in [0, 3] {
        stage.ask(head, OUT, u64::from(head), 512);
        stage.notify(0).unwrap();
    }
    restart(&mut stage);
    stage.ask(6, IN, 6, 512);
    assert!(stage.notify(0).unwrap().doorbell);
    assert_eq!(core::iter::from_fn(|| stage.request()).map(|request| request.sector).collect::<Vec<_>>(), [0, 3, 6]);
    assert_eq!((stage.complete(), stage.service.counters().queue(0).replays), (Ok(Outcome::default()), 2));
}

#[test]
fn as_many_requests_as_there_can_be_are_posted_again_in_rounds() {
    let mut stage = disk(FEATURE_FLUSH);
    for head in (0..QUEUE_SIZE).step_by(2) {
        stage.ask(head, FLUSH, 0, 0);
    }
    stage.notify(0).unwrap();
    while stage.resume().unwrap().again {}
    assert_eq!(stage.service.out(), 30);
    restart(&mut stage);
    assert!(stage.request().is_none(), "\"ready\" itself posts nothing");
    // Its number can be guessed, but it is nobody's to complete before it is posted again.
    stage.reply(&Completion { sequence: 1 << 7, generation: 2, length: 0, status: 0, reserved: [0; 7] });
    let first = stage.complete().unwrap();
    assert!(first.again && first.doorbell);
    assert_eq!(stage.complete(), Ok(Outcome::default()));
    assert_eq!(core::iter::from_fn(|| stage.request()).count(), 30);
    assert_eq!((stage.service.out(), stage.service.counters().forged), (30, 1));
}

#[test]
fn what_the_client_has_forgotten_is_not_posted_again() {
    let mut stage = disk(0);
    stage.ask(0, OUT, 0, 512);
    stage.notify(0).unwrap();
    stage.service.suspend();
    stage.service.reset();
    restart(&mut stage);
    stage.complete().unwrap();
    assert!(stage.request().is_none());
    assert_eq!((stage.service.out(), stage.service.counters().queue(0).replays), (0, 0));
}

#[test]
fn without_a_driver_domain_what_is_out_fails_and_so_does_what_comes() {
    let mut stage = disk(FEATURE_FLUSH);
    stage.ask(0, OUT, 0, 512);
    stage.notify(0).unwrap();
    stage.service.suspend();
    stage.ask(3, IN, 0, 512);
    assert_eq!(stage.notify(0), Ok(Outcome::default()));
    assert_eq!(stage.used(0), None);
    assert!(stage.service.abandon(), "the client has to go on");
    assert_eq!(stage.resume(), Ok(Outcome { interrupt: true, ..Outcome::default() }));
    assert_eq!([stage.used(0), stage.used(0), stage.used(0)], [Some((0, 1)), Some((3, 1)), None]);
    assert_eq!((stage.status(), stage.service.out()), (1, 0));
    for kind in [IN, OUT, FLUSH, GET_ID] {
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
fn errors_without_a_driver_domain_come_in_rounds() {
    let mut stage = disk(0);
    stage.service.suspend();
    for head in (0..QUEUE_SIZE).step_by(2) {
        stage.offer(0, head, &[(HEADER, 16, false), (STATUS, 1, true)]);
    }
    stage.notify(0).unwrap();
    assert!(stage.service.abandon());
    let outcome = stage.resume().unwrap();
    assert!(outcome.again && outcome.interrupt);
    let mut rounds = 1;
    while stage.resume().unwrap().again {
        rounds += 1;
    }
    assert_eq!((core::iter::from_fn(|| stage.used(0)).count(), rounds < 4), (32, true));
}

#[test]
fn a_client_that_asks_a_driver_domain_that_is_gone_for_ever_more_pays_for_it_itself() {
    let mut stage = disk(0);
    stage.service.suspend();
    for head in (0..QUEUE_SIZE).step_by(2) {
        stage.offer(0, head, &[(HEADER, 16, false), (STATUS, 1, true)]);
    }
    stage.notify(0).unwrap();
    assert!(stage.service.abandon());
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
fn a_client_that_waits_for_nothing_is_not_bothered_when_the_driver_domain_is_gone() {
    let mut stage = disk(0);
    stage.service.suspend();
    assert!(!stage.service.abandon());
}

#[test]
fn a_driver_domain_that_comes_back_without_the_disk_gives_errors_and_is_not_held_to_them() {
    let mut stage = disk(0);
    stage.ask(0, OUT, 0, 512);
    stage.notify(0).unwrap();
    let lost = stage.request().unwrap();
    stage.service.suspend();
    stage.ask(3, IN, 0, 512);
    stage.notify(0).unwrap();
    stage.provider = FakeMemory::new(MEMORY_SIZE);
    (stage.requests, stage.completions) = (0, 0);
    stage.service.restart_channel(&stage.provider).unwrap();
    assert!(stage.service.serve_again(), "the client has to go on");
    let looks: Vec<_> = (0..30).map(|_| stage.service.look(&stage.provider).looks).collect();
    assert_eq!(looks, [0; 30]);
    // It says that it has done what nobody asked it for.
    stage.reply(&Completion { generation: 2, ..completion_of(&lost, 0) });
    stage.complete().unwrap();
    assert_eq!((stage.request(), stage.service.counters().forged), (None, 1));
    assert_eq!([stage.used(0), stage.used(0), stage.used(0)], [Some((0, 1)), Some((3, 1)), None]);
    stage.ask(0, IN, 0, 512);
    assert!(stage.notify(0).unwrap().interrupt);
    assert_eq!((stage.used(0), stage.status()), (Some((0, 1)), 1));
    // In its next life it has the disk again.
    stage.service.suspend();
    restart(&mut stage);
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    assert!(stage.request().is_some());
}

#[test]
fn a_driver_domain_that_never_calls_for_what_waited_for_it_is_found() {
    let mut stage = disk(0);
    stage.service.suspend();
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    restart(&mut stage);
    let looks = |stage: &mut Stage| stage.service.look(&stage.provider).looks;
    assert_eq!([looks(&mut stage), looks(&mut stage), looks(&mut stage)], [1, 2, 3]);
    stage.complete().unwrap();
    let request = stage.request().unwrap();
    assert_eq!(looks(&mut stage), 1, "it has called, and has got the request");
    stage.finish(&request, &[0; 512]);
    stage.complete().unwrap();
    assert_eq!(looks(&mut stage), 0);
}

#[test]
fn time_before_the_driver_domain_was_ready_is_not_held_against_it() {
    let mut stage = disk(0);
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    stage.service.suspend();
    stage.provider = FakeMemory::new(MEMORY_SIZE);
    stage.service.restart_channel(&stage.provider).unwrap();
    for _ in 0..19 {
        stage.service.look(&stage.provider);
    }
    stage.service.attach();
    assert!(!stage.service.serve_again());
    assert_eq!(stage.service.look(&stage.provider).looks, 1);
}

#[test]
fn the_watch_sees_how_long_the_oldest_request_has_been_out() {
    let mut stage = disk(0);
    let looks = |stage: &mut Stage| stage.service.look(&stage.provider).looks;
    assert_eq!(looks(&mut stage), 0);
    for head in [0, 3] {
        stage.ask(head, IN, 0, 512);
    }
    stage.notify(0).unwrap();
    assert_eq!([looks(&mut stage), looks(&mut stage), looks(&mut stage)], [1, 2, 3]);
    let [first, second] = [stage.request().unwrap(), stage.request().unwrap()];
    stage.finish(&second, &[1; 512]);
    stage.complete().unwrap();
    assert_eq!(looks(&mut stage), 4, "the oldest is still the same");
    stage.finish(&first, &[1; 512]);
    stage.complete().unwrap();
    assert_eq!(looks(&mut stage), 0);
    stage.provider.store_u32(GuestAddr(CHANNEL + control::HEARTBEAT), 77).unwrap();
    assert_eq!(stage.service.look(&stage.provider).beat, 77);
}
