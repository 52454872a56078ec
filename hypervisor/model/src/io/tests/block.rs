//! A disk, from both sides.

use super::*;
use abi::io::{FEATURE_FLUSH, FEATURE_READ_ONLY, Operation};
use std::vec;

pub(super) const HEADER: u64 = BUFFERS;
pub(super) const STATUS: u64 = BUFFERS + 0x10;
pub(super) const DATA: u64 = BUFFERS + 0x1000;
const SECTORS: u64 = 1000;

pub(super) const IN: u32 = 0;
pub(super) const OUT: u32 = 1;
pub(super) const FLUSH: u32 = 4;
pub(super) const GET_ID: u32 = 8;
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
fn the_serial_number_is_the_driver_domains_as_much_of_it_as_there_is_room_for() {
    for (room, length) in [(20, 20), (10, 10), (40, 20), (512, 20)] {
        let mut stage = disk(0);
        stage.ask(0, GET_ID, 0, room);
        stage.notify(0).unwrap();
        let request = stage.request().unwrap();
        assert_eq!((request.operation, request.length), (Operation::Identify as u16, length));
        let serial = b"a-serial-number-of-20".get(..length as usize).unwrap();
        stage.finish(&request, serial);
        stage.complete().unwrap();
        assert_eq!((stage.used(0), stage.status()), (Some((0, length + 1)), 0));
        assert_eq!(stage.get(DATA, length as usize), serial);
    }
}

#[test]
fn unknown_requests_are_unsupported() {
    let mut stage = disk(0);
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
