//! Work that ends where an interrupt is pending, at any look: whatever the cut, the same comes of it.

use super::block::{DATA, HEADER, IN, OUT, STATUS, header};
use super::*;
use crate::room::OWN_SEGMENTS;
use crate::virtqueue::QueueError;
use crate::{Holdings, ProtocolError};
use std::vec;

const RECEIVE: u16 = 0;
const SEND: u16 = 1;
/// Buffers that do not lie side by side, so that none becomes one with the next.
const STEP: u64 = 0x20;
/// So many bytes of data are compared: Miri takes long for each.
const LOOKED_AT: u32 = if cfg!(miri) { 0x200 } else { 0x3000 };

/// A driver's chain, in a table of its own or not.
struct Case {
    name: &'static str,
    buffers: Vec<Buffer>,
    is_indirect: bool,
    /// A descriptor whose flags and `next` are changed then.
    damage: Option<(u16, u16, u16)>,
}

/// All that came of it.
#[derive(Debug, PartialEq, Eq, Default)]
struct Seen {
    requests: Vec<(Request, Vec<u8>)>,
    used: Vec<(u32, u32)>,
    error: Option<ProtocolError>,
    chains: u64,
    bytes: u64,
    data: Vec<u8>,
}

/// A request of `count` buffers of data.
fn buffers(kind: u32, count: u64, length: u32) -> Vec<Buffer> {
    let data = (0..count).map(|index| (DATA + index * STEP, length, kind == IN));
    [(HEADER, 16, false)].into_iter().chain(data).chain([(STATUS, 1, true)]).collect()
}

fn cases() -> Vec<Case> {
    const ALL: &[u64] = &[1, 8, 9, 14, 15, 30, 61, 62, 63, 253, 254, 255, 300];
    let counts = if cfg!(miri) { &ALL[3..4] } else { ALL };
    let mut cases = Vec::new();
    let mut add = |name, buffers, is_indirect, damage| cases.push(Case { name, buffers, is_indirect, damage });
    for &count in counts {
        for kind in [IN, OUT] {
            add("in a table", buffers(kind, count, 16), true, None);
            if count <= 62 {
                add("in the queue", buffers(kind, count, 16), false, None);
            }
        }
        // Large enough to be granted, with the header's buffer to begin with.
        let mut joined = buffers(OUT, count, 0x1000);
        joined[0].1 = 17;
        add("granted", joined, true, None);
        let mut empty = buffers(IN, count, 0);
        empty[1].1 = 512;
        add("with empty buffers", empty, true, None);
        let last = count as u16 + 1;
        add("a loop", buffers(IN, count, 16), true, Some((last, 3, 0)));
        add("a table in a table", buffers(IN, count, 16), true, Some((last, 4, 0)));
        add("beyond the table", buffers(IN, count, 16), true, Some((last, 3, 0x4000)));
        add("readable behind writable", buffers(IN, count, 16), true, Some((last, 0, 0)));
        let mut wraps = buffers(OUT, count, 16);
        wraps[count as usize].0 = u64::MAX - 3;
        add("an address that wraps", wraps, true, None);
        let mut elsewhere = buffers(OUT, count, 16);
        elsewhere[count as usize].0 = 0x100;
        add("a buffer that is not the driver's", elsewhere, true, None);
    }
    cases
}

/// At which looks an interrupt is pending: at each alone, at all, and at some.
fn looks() -> impl Iterator<Item = u64> {
    let alone = if cfg!(miri) { 1 } else { 48 };
    let some = (1..if cfg!(miri) { 1 } else { 9u64 }).map(|seed| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    (0..alone).map(|look| 1 << look).chain([u64::MAX]).chain(some)
}

impl Case {
    fn offer(&self, stage: &mut Stage) {
        stage.put(HEADER, &header(if self.buffers.get(1).is_some_and(|buffer| buffer.2) { IN } else { OUT }, 5));
        let data: Vec<u8> = (0..LOOKED_AT).map(|index| (index / 3) as u8).collect();
        stage.put(DATA, &data);
        match self.is_indirect {
            true => stage.offer_indirect(0, 0, &self.buffers),
            false => stage.offer(0, 0, &self.buffers),
        }
        if let Some((index, flags, next)) = self.damage {
            let word = GuestAddr(BUFFERS + 0x8_0000 + u64::from(index) * 16 + 12);
            stage.frontend.store_u16(word, flags).unwrap();
            stage.frontend.store_u16(GuestAddr(word.0 + 2), next).unwrap();
        }
    }

    /// Plays it, with interrupts at these looks.
    fn play(&self, looks: u64) -> Seen {
        let mut stage = Stage::granting_disk();
        self.offer(&mut stage);
        stage.backend.pending_at.set(looks);
        let seen = finish(&mut stage, 0, true);
        assert_eq!(stage.service.holdings(), Holdings::default(), "{} leaves something at {looks:#x}", self.name);
        seen
    }
}

/// Plays both sides until nothing is left.
fn finish(stage: &mut Stage, queue: u16, notifies: bool) -> Seen {
    let mut seen = Seen::default();
    let mut go = if notifies { stage.notify(queue) } else { stage.complete() };
    for _ in 0..1000 {
        match go {
            Err(error) => {
                seen.error = Some(error);
                stage.service.report_error(error, &stage.backend);
                break;
            }
            Ok(outcome) if outcome.again => {}
            Ok(_) => {
                let Some(request) = stage.request() else {
                    if !stage.service.take_deferred() {
                        break;
                    }
                    go = stage.resume();
                    continue;
                };
                let list = u64::from(request.segments) * io::SEGMENT_SIZE;
                let mut bytes = vec![0; if list == 0 { request.readable } else { list as u32 } as usize];
                let at = if list == 0 { 0 } else { io::SEGMENT_SIZE };
                stage.backend.read(GuestAddr(CHANNEL + u64::from(request.offset) + at), &mut bytes).unwrap();
                let data = if list == 0 { vec![0x5a; request.writable as usize] } else { Vec::new() };
                stage.finish(&request, &data);
                seen.requests.push((Request { sequence: 0, ..request }, bytes));
                go = stage.complete();
                continue;
            }
        }
        go = stage.resume();
    }
    seen.used = core::iter::from_fn(|| stage.used(queue)).collect();
    (seen.chains, seen.bytes) =
        (stage.service.counters().queue(queue).chains, stage.service.counters().queue(queue).bytes);
    seen.data = stage.get(DATA, LOOKED_AT as usize);
    seen
}

#[test]
fn a_chain_comes_to_the_same_wherever_it_is_cut() {
    let mut refused = Vec::new();
    for case in cases() {
        let whole = case.play(0);
        refused.extend(whole.error);
        assert!(whole.error.is_some() || whole.used.len() == 1, "{}: {whole:?}", case.name);
        for looks in looks() {
            let mut cut = case.play(looks);
            if whole.error.is_some() {
                // What was copied before the mistake was found.
                (cut.chains, cut.bytes) = (whole.chains, whole.bytes);
            }
            let count = case.buffers.len();
            assert!(cut == whole, "{} of {count} at {looks:#x}: {cut:?} and not {whole:?}", case.name);
        }
    }
    assert!(cfg!(miri) || refused.contains(&ProtocolError::Frontend(QueueError::ChainTooLong)));
    for error in [QueueError::IndirectNested, QueueError::Next, QueueError::AddressWraps] {
        assert!(refused.contains(&ProtocolError::Frontend(error)), "{error}");
    }
}

#[test]
fn each_descriptor_is_loaded_once_also_where_the_driver_changes_those_behind_a_cut() {
    let mut stage = Stage::disk();
    let case = Case { name: "", buffers: buffers(OUT, 40, 16), is_indirect: true, damage: None };
    case.offer(&mut stage);
    stage.backend.has_pending_interrupt.set(true);
    assert!(stage.notify(0).unwrap().again);
    // What was walked already may lead anywhere, and what was not counts.
    let word = |index: u64| GuestAddr(BUFFERS + 0x8_0000 + index * 16 + 12);
    for index in 0..OWN_SEGMENTS as u64 {
        stage.frontend.store_u16(word(index), 4).unwrap();
    }
    stage.frontend.store_u32(GuestAddr(word(40).0 - 4), 8).unwrap();
    stage.backend.has_pending_interrupt.set(false);
    stage.resume().unwrap();
    assert_eq!(stage.request().unwrap().readable, 39 * 16 + 8);
}

/// A disk with a chain that is walked in part.
fn begun() -> (Stage, Case) {
    let mut stage = Stage::disk();
    let case = Case { name: "", buffers: buffers(OUT, 40, 16), is_indirect: true, damage: None };
    case.offer(&mut stage);
    stage.backend.has_pending_interrupt.set(true);
    assert!(stage.notify(0).unwrap().again);
    assert_eq!((stage.request(), stage.service.holdings().chains), (None, 1));
    stage.backend.has_pending_interrupt.set(false);
    (stage, case)
}

#[test]
fn a_reset_ends_a_walk_and_leaves_nothing_behind() {
    let (mut stage, _) = begun();
    stage.reset();
    assert_eq!(stage.service.holdings(), Holdings::default());
    assert_eq!((stage.resume().unwrap().again, stage.request(), stage.used(0)), (false, None, None));
    assert!(stage.window_is_whole());
    let (mut stage, _) = begun();
    stage.service.stop_queue(0);
    assert_eq!((stage.service.holdings(), stage.resume().unwrap().again), (Holdings::default(), false));
}

#[test]
fn a_backend_that_starts_again_gets_a_chain_that_was_walked_in_part_once() {
    let (mut stage, _) = begun();
    stage.restart_without_channel();
    assert_eq!(stage.service.holdings(), Holdings::default(), "it is the driver's still");
    stage.attach().unwrap();
    let _ = stage.service.serve_again();
    stage.complete().unwrap();
    let request = stage.request().unwrap();
    assert_eq!((request.readable, stage.request()), (640, None));
    stage.finish(&request, &[]);
    stage.complete().unwrap();
    assert_eq!((stage.used(0), stage.used(0)), (Some((0, 1)), None));
}

#[test]
fn without_a_backend_a_chain_that_was_walked_in_part_fails() {
    let (mut stage, _) = begun();
    assert!(stage.abandon());
    // And once more in part.
    stage.backend.has_pending_interrupt.set(true);
    let mut goes = 0;
    while stage.resume().unwrap().again {
        goes += 1;
        assert!(goes < 20, "it does not end");
    }
    assert!(goes > 1);
    assert_eq!((stage.used(0), stage.get(STATUS, 1)), (Some((0, 1)), vec![1]));
    assert_eq!(stage.service.holdings(), Holdings::default());
}

#[test]
#[cfg_attr(miri, ignore = "its long chains take minutes")]
fn a_chain_that_finds_no_room_for_its_buffers_waits_for_it() {
    let mut stage = Stage::disk();
    // The room does for one chain of two hundred buffers.
    let long = Case { name: "", buffers: buffers(IN, 200, 16), is_indirect: true, damage: None };
    for head in 0..7 {
        stage.offer_indirect(0, head, &long.buffers);
    }
    let mut goes = 0;
    stage.notify(0).unwrap();
    loop {
        stage.backend.pending_at.set(1);
        if !stage.resume().unwrap().again {
            break;
        }
        goes += 1;
        assert!(goes < 200, "it does not end");
    }
    for number in 0..7 {
        let request = stage.request().unwrap();
        assert_eq!((request.writable, stage.request()), (3200, None), "{number}");
        stage.finish(&request, &vec![1; 3200]);
        stage.complete().unwrap();
        while stage.complete().unwrap().again {}
    }
    assert_eq!(stage.service.holdings(), Holdings::default());
}

/// A card with chains of small buffers for what is received, and a packet.
fn card(chains: &[usize], is_merged: bool) -> Stage {
    let mut stage = Stage::card();
    stage.service.negotiated(if is_merged { 1 << 15 } else { 0 });
    let mut at = DATA;
    for (head, count) in (0..).zip(chains) {
        let buffers: Vec<Buffer> = (0..*count as u64).map(|index| (at + index * STEP, 16, true)).collect();
        at += *count as u64 * STEP;
        stage.offer_indirect(RECEIVE, head, &buffers);
    }
    stage
}

#[test]
fn a_reception_comes_to_the_same_wherever_it_is_cut_and_a_driver_sees_all_of_it_or_nothing() {
    let cases: &[(&[usize], bool, usize, usize)] = &[
        (&[60], false, 900, 1),
        (&[20, 40, 10], true, 1100, 3),
        (&[64, 64, 64, 64], true, 4000, 4),
        (&[2, 2, 2, 2, 60], true, 900, 4),
        (&[30], false, 900, 1),
        (&[257], false, 900, 0),
    ];
    for (chains, is_merged, length, count) in if cfg!(miri) { &cases[..1] } else { cases } {
        let packet: Vec<u8> = (0..*length).map(|index| (index % 253) as u8).collect();
        let play = |looks| {
            let mut stage = card(chains, *is_merged);
            stage.deliver(&packet);
            stage.backend.pending_at.set(looks);
            let mut used = Vec::new();
            let mut error = None;
            for _ in 0..300 {
                let go = stage.complete();
                let now: Vec<_> = core::iter::from_fn(|| stage.used(RECEIVE)).collect();
                assert!(now.is_empty() || now.len() == *count, "{now:?} of {count} at {looks:#x}");
                used.extend(now);
                match go {
                    Ok(outcome) if outcome.again => {}
                    Ok(_) => break,
                    Err(now) => {
                        stage.service.report_error(now, &stage.backend);
                        error = Some(now);
                        break;
                    }
                }
            }
            assert_eq!(stage.service.holdings(), Holdings::default());
            (used, error, stage.get(DATA, LOOKED_AT as usize), stage.service.counters().queue(RECEIVE))
        };
        let whole = play(0);
        assert_eq!(whole.0.len(), *count);
        for looks in looks() {
            assert_eq!(play(looks), whole, "{chains:?} at {looks:#x}");
        }
    }
}

#[test]
fn a_reception_that_is_given_in_part_leaves_nothing_behind() {
    let packet = [7; 1000];
    for look in 0..if cfg!(miri) { 1 } else { 16 } {
        for end in 0..3 {
            let mut stage = card(&[20, 40, 60], true);
            stage.deliver(&packet);
            stage.backend.pending_at.set(1 << look);
            let is_cut = stage.complete().unwrap().again;
            stage.backend.pending_at.set(0);
            match end {
                0 => stage.reset(),
                1 => stage.service.stop_queue(RECEIVE),
                _ => stage.restart_without_channel(),
            }
            assert_eq!(stage.service.holdings(), Holdings::default(), "{look} {end}");
            if !is_cut || end != 2 {
                continue;
            }
            // Its chains are the driver's again, and take what the next backend receives.
            assert_eq!(stage.used(RECEIVE), None);
            stage.attach().unwrap();
            let _ = stage.service.serve_again();
            stage.deliver(&packet[..900]);
            stage.complete().unwrap();
            assert_eq!((stage.used(RECEIVE), stage.used(RECEIVE)), (Some((0, 320)), Some((1, 580))));
        }
    }
}

#[test]
fn a_reception_of_a_whole_window_is_copied_unit_by_unit() {
    let mut stage = Stage::card();
    let bytes: Vec<u8> = (0..60_000u32).map(|index| (index / 7) as u8).collect();
    stage.deliver(&bytes);
    stage.offer(RECEIVE, 0, &[(DATA, 65_000, true)]);
    stage.backend.has_pending_interrupt.set(true);
    let mut goes = 1;
    while stage.complete().unwrap().again {
        goes += 1;
        assert!(goes < 100, "it does not end");
    }
    assert_eq!((goes, stage.used(RECEIVE)), (15, Some((0, 60_000))));
    assert!(stage.get(DATA + 12, 59_988) == bytes[12..]);
}

/// A card with a reception that is given in part, for which it holds all its places.
fn card_with_all_places_held() -> Stage {
    let mut stage = card(&[8, 8, 8, 8], true);
    stage.deliver(&[7; 500]);
    stage.backend.has_pending_interrupt.set(true);
    while stage.service.holdings().chains < 4 {
        assert!(stage.complete().unwrap().again);
    }
    assert_eq!(stage.used(RECEIVE), None);
    stage
}

#[test]
fn a_queue_that_found_all_places_held_by_a_reception_is_looked_at_when_that_is_given() {
    for end in 0..2 {
        let mut stage = card_with_all_places_held();
        stage.offer(SEND, 20, &[(HEADER, 12, false), (DATA + 0x4000, 60, false)]);
        stage.notify(SEND).unwrap();
        assert_eq!(stage.request(), None, "there is no place");
        stage.backend.has_pending_interrupt.set(false);
        // Either side brings the reception to its end.
        let mut again = if end == 0 { stage.complete() } else { stage.notify(RECEIVE) }.unwrap().again;
        assert_eq!(core::iter::from_fn(|| stage.used(RECEIVE)).count(), 4);
        while again {
            again = if end == 0 { stage.complete() } else { stage.resume() }.unwrap().again;
        }
        assert!(stage.request().is_some(), "nobody would look into the queue again");
    }
}

#[test]
fn a_reception_waits_for_the_place_of_a_chain_that_is_walked_in_part() {
    let mut stage = card(&[8, 8, 8, 8], true);
    let frame = (0..20).map(|index| (DATA + 0x4000 + index * STEP, 16, false));
    let buffers: Vec<Buffer> = [(HEADER, 12, false)].into_iter().chain(frame).collect();
    stage.offer_indirect(SEND, 8, &buffers);
    stage.backend.has_pending_interrupt.set(true);
    assert!(stage.notify(SEND).unwrap().again);
    assert_eq!(stage.service.holdings().chains, 1);
    stage.backend.has_pending_interrupt.set(false);
    stage.deliver(&[7; 500]);
    stage.notify(RECEIVE).unwrap();
    assert_eq!((stage.used(RECEIVE), stage.service.counters().queue(RECEIVE).dropped), (None, 0));
    // The chain brings the next look.
    while stage.resume().unwrap().again {}
    assert_eq!(core::iter::from_fn(|| stage.used(RECEIVE)).count(), 4);
    assert_eq!(stage.request().map(|request| request.readable), Some(320));
}

#[test]
fn a_queue_is_filled_also_where_a_reception_of_another_one_waits_for_buffers() {
    let mut stage = Stage::new(Allocation { filled: 3, ..CARD }, &[RX, RX]);
    stage.service.negotiated(1 << 15);
    stage.deliver_to(0, &[7; 100]);
    stage.offer(0, 0, &[(DATA, 64, true)]);
    stage.backend.has_pending_interrupt.set(true);
    assert!(stage.notify(0).unwrap().again, "its first buffer is found, and the look for another cut");
    stage.backend.has_pending_interrupt.set(false);
    stage.deliver_to(1, &[8; 60]);
    stage.offer(1, 4, &[(DATA + 0x1000, 64, true)]);
    stage.notify(1).unwrap();
    assert_eq!((stage.used(1), stage.used(0)), (Some((4, 60)), None));
    stage.offer(0, 1, &[(DATA + 0x2000, 64, true)]);
    stage.notify(0).unwrap();
    assert_eq!((stage.used(0), stage.used(0)), (Some((0, 64)), Some((1, 36))));
}
