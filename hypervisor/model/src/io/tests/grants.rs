//! Grants, from both sides: the driver domain's device is played by hand too.

use super::block::{DATA, IN, OUT, STATUS, disk};
use super::*;
use crate::virtqueue::QueueError;
use abi::io::{FEATURE_GRANTS, Segment};
use std::vec;
use vdev::testkit::BUS_OFFSET;

const LARGE: u32 = 32 << 10;

impl Stage {
    /// What `request` grants, as the driver domain reads it.
    fn segments(&self, request: &Request) -> Vec<Segment> {
        let entry = |index| {
            let at = CHANNEL + u64::from(request.offset) + u64::from(index) * abi::io::SEGMENT_SIZE;
            let [address, rest] = self.provider.load_u64_pair(GuestAddr(at)).unwrap();
            Segment { address, length: rest as u32, flags: (rest >> 32) as u16, next: (rest >> 48) as u16 }
        };
        // The first entry is the driver domain's.
        (1..=request.segments).map(entry).collect()
    }

    /// The device writes `byte` to all that it was granted.
    fn device_writes(&self, segments: &[Segment], byte: u8) {
        for segment in segments {
            self.put(segment.address - BUS_OFFSET, &vec![byte; segment.length as usize]);
        }
    }

    /// The driver domain dies, its devices are reset, and it starts again.
    fn provider_restarts(&mut self) {
        self.service.suspend();
        self.service.end_grants();
        self.provider = FakeMemory::new(MEMORY_SIZE);
        (self.requests, self.completions) = (0, 0);
        self.service.restart_channel(&self.provider).unwrap();
        self.service.attach();
        assert!(!self.service.serve_again());
        self.complete().unwrap();
    }
}

/// The segments of a read of these pieces of the client's memory.
fn to_read<const N: usize>(pieces: [(u64, u32); N]) -> Vec<Segment> {
    let segment = |(next, (address, length))| Segment { address: address + BUS_OFFSET, length, flags: 3, next };
    (2..).zip(pieces).map(segment).collect()
}

/// The segments of a write, which the device only reads.
fn to_write<const N: usize>(pieces: [(u64, u32); N]) -> Vec<Segment> {
    to_read(pieces).into_iter().map(|segment| Segment { flags: 1, ..segment }).collect()
}

#[test]
fn a_large_read_is_granted_and_what_the_device_put_there_stays() {
    let mut stage = disk(FEATURE_GRANTS);
    stage.ask(0, IN, 7, LARGE);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    let segments = stage.segments(&request);
    assert_eq!((request.length, &segments), (LARGE, &to_read([(DATA, LARGE)])));
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
    let mut stage = disk(FEATURE_GRANTS);
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
    let mut stage = disk(0);
    stage.ask(0, IN, 0, LARGE);
    stage.notify(0).unwrap();
    assert_eq!(stage.request().unwrap().segments, 0);
    assert!(!stage.service.has_grants());
}

#[test]
fn buffers_side_by_side_become_one_and_others_keep_their_order() {
    let mut stage = disk(FEATURE_GRANTS);
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
fn no_byte_outside_the_clients_memory_is_granted() {
    let end = MEMORY_BASE.0 + MEMORY_SIZE as u64;
    for address in [end, end - 512, end - u64::from(LARGE) + 1, MEMORY_BASE.0 - 1, 0, u64::MAX - u64::from(LARGE)] {
        let mut stage = disk(FEATURE_GRANTS);
        stage.ask(0, IN, 0, LARGE);
        let descriptor = u128::from(address) | u128::from(LARGE) << 64 | 3 << 96 | 2 << 112;
        stage.client.write(GuestAddr(MEMORY_BASE.0 + 16), &descriptor.to_le_bytes()).unwrap();
        assert!(matches!(stage.notify(0), Err(Broken::Client(_))), "{address:#x}");
        assert!(stage.request().is_none() && !stage.service.has_grants(), "{address:#x}");
    }
}

#[test]
fn a_client_that_resets_in_the_middle_has_to_wait_for_the_device() {
    let mut stage = disk(FEATURE_GRANTS);
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
fn a_client_that_resets_again_and_again_has_no_more_granted_than_one_that_does_not() {
    let mut stage = disk(FEATURE_GRANTS);
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
    let mut stage = disk(FEATURE_GRANTS);
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
    assert_eq!((stage.service.has_grants(), stage.service.counters().forged), (false, 3));
}

#[test]
fn a_granted_read_that_came_short_is_an_error() {
    let mut stage = disk(FEATURE_GRANTS);
    stage.ask(0, IN, 0, LARGE);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    stage.reply(&completion_of(&request, LARGE - 1));
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.status()), (Some((0, 1)), 1));
    assert_eq!(stage.get(DATA, 64), [0; 64]);
}

#[test]
fn a_driver_domain_that_starts_again_gets_the_same_grants_again() {
    let mut stage = disk(FEATURE_GRANTS);
    stage.ask(0, OUT, 5, LARGE);
    stage.notify(0).unwrap();
    let old = stage.request().unwrap();
    let granted = stage.segments(&old);
    stage.provider_restarts();
    let new = stage.request().unwrap();
    assert_eq!((new.sequence, stage.segments(&new)), (old.sequence, granted));
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
    let mut stage = disk(FEATURE_GRANTS);
    stage.ask(0, IN, 0, LARGE);
    stage.notify(0).unwrap();
    stage.service.reset();
    stage.service.suspend();
    assert!(stage.service.has_grants());
    stage.provider_restarts();
    // Nobody waits for it any more, so it is not asked for again.
    assert!(!stage.service.has_grants() && stage.request().is_none());
    assert_eq!(stage.service.out(), 0);
}

#[test]
fn a_granted_request_may_be_larger_than_the_window_and_no_larger_than_it_says() {
    const PIECES: u32 = 32;
    const LARGEST: u32 = 128 << 10;
    for (features, piece, is_done) in [
        (FEATURE_GRANTS, LARGEST, true),
        (FEATURE_GRANTS, LARGEST + 512, false),
        (0, 8192, true),
        (0, 8192 + 512, false),
    ] {
        let mut stage = disk(features);
        stage.service.attach_disk(1 << 20, features);
        stage.ask(0, IN, 0, 512);
        stage.notify(0).unwrap();
        let header = stage.request().unwrap();
        stage.finish(&header, &[0; 512]);
        stage.complete().unwrap();
        // All pieces at one place: whoever reads so gets what came last.
        let mut buffers = vec![(BUFFERS, 16, false)];
        buffers.extend((0..PIECES).map(|_| (DATA, piece, true)));
        buffers.push((STATUS, 1, true));
        stage.offer(0, 3, &buffers);
        stage.notify(0).unwrap();
        let request = stage.request();
        assert_eq!(request.is_some(), is_done, "{features} {piece}");
        assert_eq!(request.map_or(piece * PIECES, |request| request.length), piece * PIECES);
        assert_eq!(
            stage.service.segment_limits(),
            if features == FEATURE_GRANTS { (254, 16 << 10) } else { (64, 4096) }
        );
    }
}

impl Stage {
    /// Offers a read of `pages` pages, scattered, with a table of its own; `head` is its one descriptor.
    fn ask_scattered(&mut self, head: u16, pages: u16) -> Vec<(u64, u32)> {
        const TABLE: u64 = BUFFERS + 0x8_0000;
        let at = |page: u16| DATA + u64::from(page) * 512 + u64::from(page % 2) * 0x4_0000;
        let pieces: Vec<_> = (0..pages).map(|page| (at(page), 512)).collect();
        let mut buffers = vec![(BUFFERS, 16, false)];
        buffers.extend(pieces.iter().map(|(address, length)| (*address, *length, true)));
        buffers.push((STATUS, 1, true));
        let table = TABLE + u64::from(head) * 0x2000;
        for (next, (address, length, is_written)) in (1u16..).zip(&buffers) {
            let flags = u16::from(usize::from(next) < buffers.len()) | u16::from(*is_written) << 1;
            let descriptor =
                u128::from(*address) | u128::from(*length) << 64 | u128::from(flags) << 96 | u128::from(next) << 112;
            self.client.write(GuestAddr(table + u64::from(next - 1) * 16), &descriptor.to_le_bytes()).unwrap();
        }
        let indirect = u128::from(table) | (buffers.len() as u128 * 16) << 64 | 4 << 96;
        self.client.write(GuestAddr(MEMORY_BASE.0 + u64::from(head) * 16), &indirect.to_le_bytes()).unwrap();
        self.publish(0, head);
        pieces
    }
}

#[test]
fn as_many_pages_as_a_disk_takes_are_one_request_and_its_list_fills_a_page() {
    let mut stage = disk(FEATURE_GRANTS);
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    stage.request().unwrap();
    let pieces = stage.ask_scattered(10, abi::io::SEGMENTS_MAX);
    stage.notify(0).unwrap();
    let request = stage.request().unwrap();
    let segments = stage.segments(&request);
    assert_eq!((request.segments, request.length), (254, 254 * 512));
    assert_eq!(segments.iter().map(|it| (it.address - BUS_OFFSET, it.length)).collect::<Vec<_>>(), pieces);
    assert!((2..).zip(&segments).all(|(next, segment)| (segment.next, segment.flags) == (next, 3)));
    stage.reply(&completion_of(&request, request.length));
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.status()), (Some((10, 254 * 512 + 1)), 0));
}

#[test]
fn one_page_too_many_is_refused() {
    let mut stage = disk(FEATURE_GRANTS);
    stage.ask(0, IN, 0, 512);
    stage.notify(0).unwrap();
    stage.ask_scattered(10, abi::io::SEGMENTS_MAX + 1);
    assert_eq!(stage.notify(0), Err(Broken::Client(QueueError::ChainTooLong)));
    assert!(!stage.service.has_grants());
}

#[test]
fn large_requests_wait_for_room_for_their_chains_and_are_so_many_at_one_go() {
    const REQUESTS: u16 = 9;
    let mut stage = disk(FEATURE_GRANTS);
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
        outcome = stage.service.resume(&Wires { client: &stage.client, provider: &stage.provider }).unwrap();
        goes += 1;
    }
    out.extend(core::iter::from_fn(|| stage.request()));
    assert_eq!((out.len(), goes), (6, 4));
    // A small one is not held up by them, once it is its turn.
    stage.finish(&small, &[0; 512]);
    let mut done = 0;
    while let Some(request) = out.pop_front() {
        stage.reply(&completion_of(&request, request.length));
        stage.complete().unwrap();
        out.extend(core::iter::from_fn(|| stage.request()));
        done += 1;
    }
    assert_eq!((done, stage.service.out()), (REQUESTS, 0));
}

#[test]
fn what_was_posted_before_a_mistake_is_shown_to_the_driver_domain() {
    let mut stage = disk(0);
    stage.ask(0, IN, 7, 4096);
    // The same once more, in one go.
    stage.ask(0, IN, 7, 4096);
    let breach = stage.notify(0).unwrap_err();
    assert!(matches!(breach, Broken::Client(_)));
    assert!(stage.service.breach(breach, &stage.provider), "the driver domain sleeps, and has to be told");
    let request = stage.request().unwrap();
    stage.reply(&completion_of(&request, 4096));
    stage.complete().unwrap();
    assert_eq!((stage.request(), stage.used(0), stage.service.counters().forged), (None, None, 0));
}
