//! Grants, from both sides: the backend's device is played by hand too.

use super::block::{DATA, IN, OUT, STATUS};
use super::*;
use crate::Holdings;
use crate::virtqueue::QueueError;
use abi::io::Segment;
use std::vec;
use vdev::testkit::BUS_OFFSET;

const LARGE: u32 = 32 << 10;

impl Stage {
    /// What `request` grants, as the backend reads it.
    fn segments(&self, request: &Request) -> Vec<Segment> {
        let entry = |index| {
            let at = CHANNEL + u64::from(request.offset) + u64::from(index) * abi::io::SEGMENT_SIZE;
            let [address, rest] = self.backend.load_u64_pair(GuestAddr(at)).unwrap();
            Segment { address, length: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16 }
        };
        // The first entry is the backend's.
        (1..=request.segments).map(entry).collect()
    }

    /// The device writes `byte` to all that it was granted.
    fn device_writes(&self, segments: &[Segment], byte: u8) {
        for segment in segments {
            self.put(segment.address - BUS_OFFSET, &vec![byte; segment.length as usize]);
        }
    }
}

/// The segments of a read of these pieces of the frontend's memory.
fn to_read<const N: usize>(pieces: [(u64, u32); N]) -> Vec<Segment> {
    let segment = |(next, (address, length))| Segment { address: address + BUS_OFFSET, length, flags: 3, next };
    (2..).zip(pieces).map(segment).collect()
}

/// The segments of a write, which the device only reads.
fn to_write<const N: usize>(pieces: [(u64, u32); N]) -> Vec<Segment> {
    to_read(pieces).into_iter().map(|segment| Segment { flags: 1, ..segment }).collect()
}

#[test]
fn what_a_device_holds_is_counted_and_all_comes_back() {
    let mut stage = Stage::granting_disk();
    assert_eq!(stage.service.holdings(), Holdings::default());
    stage.ask(0, IN, 7, LARGE);
    stage.notify(0).unwrap();
    let one = Holdings { requests: 1, chains: 1, window_pages: 1, grants: 1 };
    assert_eq!(stage.service.holdings(), one);
    // The backend has the request still, and its device the memory; the chain is the frontend's again.
    stage.service.reset();
    assert_eq!(stage.service.holdings(), Holdings { chains: 0, ..one });
    let request = stage.request().unwrap();
    stage.reply(&completion_of(&request, LARGE));
    stage.complete().unwrap();
    assert_eq!(stage.service.holdings(), Holdings::default());
}

#[test]
fn a_large_read_is_granted_and_what_the_device_put_there_stays() {
    let mut stage = Stage::granting_disk();
    stage.ask(0, IN, 7, LARGE);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    let segments = stage.segments(&request);
    assert_eq!((request.writable, &segments), (LARGE, &to_read([(DATA, LARGE)])));
    assert!(stage.service.has_grants());
    stage.device_writes(&segments, 0x5a);
    stage.reply(&completion_of(&request, LARGE));
    assert!(stage.complete().unwrap().interrupt);
    assert_eq!((stage.used(0), stage.status()), (Some((0, LARGE + 1)), 0));
    assert_eq!(stage.get(DATA, LARGE as usize), vec![0x5a; LARGE as usize]);
    assert!(!stage.service.has_grants());
    assert_eq!((stage.service.counters().queue(0).grants, stage.service.counters().copied), (1, 0));
}

#[test]
fn a_large_write_is_granted_and_a_small_one_is_copied() {
    let mut stage = Stage::granting_disk();
    stage.ask(0, OUT, 7, LARGE);
    stage.ask(3, OUT, 7, 4096);
    stage.notify(0).unwrap();
    let (large, small) = (stage.request().unwrap(), stage.request().unwrap());
    assert_eq!(stage.segments(&large), to_write([(DATA, LARGE)]));
    assert_eq!(small.segments, 0);
    assert_eq!((stage.service.counters().queue(0).grants, stage.service.counters().copied), (1, 4096));
}

#[test]
fn a_device_that_takes_no_grants_gets_none() {
    let mut stage = Stage::disk();
    stage.ask(0, IN, 0, LARGE);
    stage.notify(0).unwrap();
    assert_eq!(stage.request().unwrap().segments, 0);
    assert!(!stage.service.has_grants());
}

#[test]
fn buffers_side_by_side_become_one_and_others_keep_their_order() {
    let mut stage = Stage::granting_disk();
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    let mut buffers = vec![(BUFFERS, 16, false)];
    buffers.extend([(DATA + 0x4000, 0x4000, true), (DATA + 0x8000, 0x1000, true), (DATA, 0x3000, true)]);
    buffers.push((STATUS, 1, true));
    stage.offer(0, 3, &buffers);
    stage.notify(0).unwrap();
    stage.request().unwrap();
    let request = stage.request().unwrap();
    assert_eq!(stage.segments(&request), to_read([(DATA + 0x4000, 0x5000), (DATA, 0x3000)]));
}

#[test]
fn no_byte_outside_the_frontends_memory_is_granted() {
    let end = MEMORY_BASE.0 + MEMORY_SIZE as u64;
    for address in [end, end - 512, end - u64::from(LARGE) + 1, MEMORY_BASE.0 - 1, 0, u64::MAX - u64::from(LARGE)] {
        let mut stage = Stage::granting_disk();
        stage.ask(0, IN, 0, LARGE);
        let descriptor = u128::from(address) | u128::from(LARGE) << 64 | 3 << 96 | 2 << 112;
        stage.frontend.write(GuestAddr(MEMORY_BASE.0 + 16), &descriptor.to_le_bytes()).unwrap();
        assert!(matches!(stage.notify(0), Err(ProtocolError::Frontend(_))), "{address:#x}");
        assert!(stage.request().is_none() && !stage.service.has_grants(), "{address:#x}");
    }
}

#[test]
fn a_frontend_that_resets_in_the_middle_has_to_wait_for_the_device() {
    let mut stage = Stage::granting_disk();
    stage.ask(0, IN, 0, LARGE);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    stage.service.reset();
    assert!(stage.service.has_grants(), "the device may still write");
    stage.device_writes(&stage.segments(&request), 9);
    stage.reply(&completion_of(&request, LARGE));
    assert_eq!(stage.complete(), Ok(Outcome::default()));
    // Only now is its memory its own again; nobody tells it of what came.
    assert!(!stage.service.has_grants());
    assert_eq!((stage.used(0), stage.status(), stage.service.out()), (None, 0xff, 0));
}

#[test]
fn a_frontend_that_resets_again_and_again_has_no_more_granted_than_one_that_does_not() {
    let mut stage = Stage::granting_disk();
    let mut rounds = 0;
    while stage.service.counters().queue(0).requests < 30 && rounds < 40 {
        stage.ask(0, IN, 0, LARGE);
        stage.notify(0).unwrap();
        // An interrupt handler sets the device up again while the store that resets it is held.
        stage.service.reset();
        stage.available[0] = 0;
        stage.put(MEMORY_BASE.0 + 0x802, &[0; 2]);
        stage.start(0);
        rounds += 1;
    }
    stage.ask(0, IN, 0, LARGE);
    assert_eq!(stage.notify(0), Ok(Outcome::default()));
    assert_eq!((rounds, stage.service.out()), (30, 30));
    let first = stage.request().unwrap();
    stage.reply(&completion_of(&first, LARGE));
    stage.complete().unwrap();
    // There was room for one again.
    assert_eq!((stage.service.out(), stage.service.counters().queue(0).requests), (30, 31));
}

#[test]
fn a_forged_completion_ends_no_grant() {
    let mut stage = Stage::granting_disk();
    stage.ask(0, IN, 0, LARGE);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    let good = completion_of(&request, LARGE);
    stage.reply(&Completion { sequence: good.sequence ^ 1, ..good });
    stage.reply(&Completion { generation: good.generation + 1, ..good });
    stage.complete().unwrap();
    assert!(stage.service.has_grants());
    stage.reply(&good);
    stage.reply(&good);
    stage.complete().unwrap();
    assert_eq!((stage.service.has_grants(), stage.service.counters().stale), (false, 3));
}

#[test]
fn a_backend_that_starts_again_gets_the_same_grants_again() {
    let mut stage = Stage::granting_disk();
    stage.ask(0, OUT, 5, LARGE);
    stage.notify(0).unwrap();
    let old = stage.request().unwrap();
    let granted = stage.segments(&old);
    stage.restart();
    stage.complete().unwrap();
    let new = stage.request().unwrap();
    assert_eq!((new.header, stage.segments(&new)), (old.header, granted));
    assert!(stage.service.has_grants());
    stage.reply(&completion_of(&old, 0));
    stage.complete().unwrap();
    assert!(stage.service.has_grants(), "its predecessor's word ends nothing");
    stage.reply(&completion_of(&new, 0));
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.status(), stage.service.has_grants()), (Some((0, 1)), 0, false));
}

#[test]
fn a_reset_of_the_devices_ends_what_was_granted_to_them() {
    let mut stage = Stage::granting_disk();
    stage.ask(0, IN, 0, LARGE);
    stage.notify(0).unwrap();
    stage.service.reset();
    stage.service.suspend();
    assert!(stage.service.has_grants());
    stage.restart();
    stage.complete().unwrap();
    // Nobody waits for it any more, so it is not asked for again.
    assert!(!stage.service.has_grants() && stage.request().is_none());
    assert_eq!(stage.service.out(), 0);
}

#[test]
fn a_backend_whose_devices_cannot_be_reset_is_granted_nothing() {
    let mut stage = Stage::granting_disk();
    let size = stage.layout.request_window() + u64::from(WINDOW);
    stage.service = Service::new(DISK, CHANNEL, size, false);
    stage.restart();
    stage.start(0);
    stage.service.negotiated(0);
    stage.ask(0, IN, 0, LARGE);
    stage.notify(0).unwrap();
    assert_eq!(stage.request().unwrap().segments, 0);
    assert!(!stage.service.has_grants());
}

impl Stage {
    /// Offers a read of `pages` pages, scattered, with a table of its own; `head` is its one descriptor.
    fn ask_scattered(&mut self, head: u16, pages: u16) -> Vec<(u64, u32)> {
        let at = |page: u16| DATA + u64::from(page) * 512 + u64::from(page % 2) * 0x4_0000;
        let pieces: Vec<_> = (0..pages).map(|page| (at(page), 512)).collect();
        let mut buffers = vec![(BUFFERS, 16, false)];
        buffers.extend(pieces.iter().map(|(address, length)| (*address, *length, true)));
        buffers.push((STATUS, 1, true));
        self.offer_indirect(0, head, &buffers);
        pieces
    }
}

#[test]
fn as_many_pages_as_a_disk_takes_are_one_request_and_its_list_fills_a_page() {
    let mut stage = Stage::granting_disk();
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    stage.request().unwrap();
    let pieces = stage.ask_scattered(10, abi::io::SEGMENTS_MAX);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    let segments = stage.segments(&request);
    assert_eq!((request.segments, request.writable), (254, 254 * 512));
    assert_eq!(segments.iter().map(|it| (it.address - BUS_OFFSET, it.length)).collect::<Vec<_>>(), pieces);
    assert!((2..).zip(&segments).all(|(next, segment)| (segment.next, segment.flags) == (next, 3)));
    stage.reply(&completion_of(&request, request.writable));
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.status()), (Some((10, 254 * 512 + 1)), 0));
}

#[test]
fn one_page_too_many_is_refused() {
    let mut stage = Stage::granting_disk();
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    stage.ask_scattered(10, abi::io::SEGMENTS_MAX + 1);
    assert_eq!(stage.notify(0), Err(ProtocolError::Frontend(QueueError::ChainTooLong)));
    assert!(!stage.service.has_grants());
}

#[test]
fn large_requests_wait_for_room_for_their_chains_and_are_so_many_at_one_go() {
    const REQUESTS: u16 = 9;
    let mut stage = Stage::granting_disk();
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    let small = stage.request().unwrap();
    for head in 10..10 + REQUESTS {
        stage.ask_scattered(head, 254);
    }
    let mut out = std::collections::VecDeque::new();
    let mut outcome = stage.notify(0).unwrap();
    let mut goes = 1;
    while outcome.again {
        outcome = stage.service.resume(&MemoryPair { frontend: &stage.frontend, backend: &stage.backend }).unwrap();
        goes += 1;
    }
    out.extend(core::iter::from_fn(|| stage.request()));
    assert_eq!((out.len(), goes), (1, 1));
    // A small one is not held up by them, once it is its turn.
    stage.finish(&small, &[0; 512]);
    let mut done = 0;
    while let Some(request) = out.pop_front() {
        stage.reply(&completion_of(&request, request.writable));
        stage.complete().unwrap();
        out.extend(core::iter::from_fn(|| stage.request()));
        done += 1;
    }
    assert_eq!((done, stage.service.out()), (REQUESTS, 0));
}

#[test]
fn what_was_posted_before_a_mistake_is_shown_to_the_backend() {
    let mut stage = Stage::disk();
    stage.ask(0, IN, 7, 4096);
    // The same once more, in one go.
    stage.ask(0, IN, 7, 4096);
    let error = stage.notify(0).unwrap_err();
    assert!(matches!(error, ProtocolError::Frontend(_)));
    assert!(stage.service.report_error(error, &stage.backend), "the backend sleeps, and has to be told");
    let request = stage.request().unwrap();
    stage.reply(&completion_of(&request, 4096));
    stage.complete().unwrap();
    assert_eq!((stage.request(), stage.used(0), stage.service.counters().stale), (None, None, 0));
}
