//! What a driver domain can put into rings.

use crate::domain::{Domain, attach, description};
use crate::port::{Kind, Port, completion};
use crate::protocol::Attack;
use abi::io::{
    COMPLETION_RING, COMPLETION_SIZE, Completion, DESCRIPTION, HEARTBEAT_WAITING, INVALID_PARAMETER, Layout,
    RECEIVE_SIZE, RECEIVE_WINDOW_SIZE, REQUEST_RING, REQUEST_SIZE, RING_ENTRIES, Receive, Request, control,
};
use arrayvec::ArrayVec;
use bulkhead_guest_tests::beside::{GoesOn, beside};
use rt::shared::Shared;
use rt::{cpu, timer};
use spin::Mutex;
use testkit::random::Random;
use testkit::{Failure, Outcome, ensure};

/// How many requests of each kind one attack is made with.
const ROUNDS: usize = 4;
/// How long what another CPU spoils is read.
const FLIPS: usize = 2000;
/// How long requests are kept: longer than the client waits for them.
const SILENCE_MICROSECONDS: u64 = 150_000;
/// How long one waits to be started anew.
const DOOM_MICROSECONDS: u64 = 2_000_000;
/// How long the heartbeat is garbage: several periods.
const BEATS_MICROSECONDS: u64 = 600_000;
/// The most requests that are kept.
const KEPT_MAX: usize = 64;

/// Makes the attack, if it is one of these.
pub(crate) fn run(attack: Attack, domain: &mut Domain) -> Option<Outcome> {
    Some(match attack {
        Attack::Forged => domain.each_kind(ROUNDS, |domain, place, request, _| {
            let sequence = request.sequence;
            let others = [0, 1, u64::MAX, sequence ^ 1, sequence ^ 128, sequence + 128, sequence - 128, sequence << 32];
            let others = others.map(|sequence| Completion { sequence, ..completion(request, 512) });
            falsely(domain, place, request, &others)
        }),
        Attack::Foreign => foreign(domain),
        Attack::Twice => domain.each_kind(ROUNDS, |domain, place, request, _| {
            let length = domain.fill(place, request);
            for _ in 0..4 {
                domain.ports[place].complete(&completion(request, length));
            }
            let _ = domain.ports[place].tell();
            domain.behave_for(1_000);
            domain.ports[place].complete(&completion(request, length));
            let _ = domain.ports[place].tell();
            Ok(())
        }),
        Attack::Stale => domain.each_kind(ROUNDS, |domain, place, request, _| {
            let generation = request.generation;
            let others = [0, generation.wrapping_sub(1), generation.wrapping_add(1), u32::MAX, !generation];
            let others = others.map(|generation| Completion { generation, ..completion(request, request.writable) });
            falsely(domain, place, request, &others)
        }),
        Attack::Lengths => domain.each_kind(ROUNDS, |domain, place, request, round| {
            let room = request.writable;
            let lengths = [u32::MAX, room + 1, room * 2, 1 << 31, 0, room.saturating_sub(1), 1, 1 << 20];
            domain.fill(place, request);
            let written = lengths[2 * round + domain.random.below(2) as usize];
            let is_end = domain.random.below(2) == 0;
            domain.ports[place].complete(&Completion { is_end, ..completion(request, written) });
            let _ = domain.ports[place].tell();
            Ok(())
        }),
        Attack::Tails => domain.each_kind(ROUNDS, |domain, place, request, _| {
            garble(&domain.ports[place], request);
            let status = [3, 4, 0x80, 0xff, 0x10, 0x81, 0xfe, 0x7f][domain.random.below(8) as usize];
            // Whatever stands behind the tail belongs to nobody.
            let tail = [status, 0xdd, 0xdd, 0xdd, 0xdd, 0xdd, 0xdd, 0xdd];
            domain.ports[place].complete(&Completion { tail, ..completion(request, request.writable) });
            let _ = domain.ports[place].tell();
            Ok(())
        }),
        Attack::Completions => jump(domain, Counter::Completions),
        Attack::ReceptionCounter => jump(domain, Counter::Receptions),
        Attack::Events => domain.each_kind(2 * ROUNDS, |domain, place, request, _| {
            domain.serve(place, request);
            for port in &domain.ports {
                port.memory.store(control::REQUESTS_EVENT, domain.random.word() as u32);
            }
            Ok(())
        }),
        Attack::Receptions => receptions(domain),
        Attack::Sessions => sessions(domain),
        Attack::Pieces => pieces(domain),
        Attack::Flips => flips(domain),
        Attack::Silent => silent(domain),
        Attack::Kept => {
            let end = timer::now() + timer::ticks(DOOM_MICROSECONDS);
            while timer::now() < end {
                domain.live();
                for port in &mut domain.ports {
                    let _ = port.next();
                }
                cpu::relax();
            }
            Ok(())
        }
        Attack::Beats => {
            domain.is_heart_still = true;
            let end = timer::now() + timer::ticks(BEATS_MICROSECONDS);
            while timer::now() < end {
                let word = domain.random.word() as u32;
                domain.beat(word);
                domain.behave();
            }
            domain.is_heart_still = false;
            Ok(())
        }
        Attack::NoBeat => still_heart(domain, 0),
        Attack::LongWait => still_heart(domain, HEARTBEAT_WAITING | 1),
        Attack::LastBeat => {
            domain.beat(7);
            timer::spin(DOOM_MICROSECONDS);
            Ok(())
        }
        Attack::Overwritten => domain.each_kind(ROUNDS, |domain, place, request, _| {
            let port = &mut domain.ports[place];
            // What nobody has read is lost with its ring.
            let others: ArrayVec<Request, KEPT_MAX> = core::iter::from_fn(|| port.next()).take(KEPT_MAX).collect();
            for offset in (0..u64::from(RING_ENTRIES) * REQUEST_SIZE).step_by(32) {
                port.memory.store_words(REQUEST_RING + offset, core::array::from_fn(|_| domain.random.word()));
            }
            domain.serve(place, request);
            others.iter().for_each(|other| domain.serve(place, other));
            Ok(())
        }),
        Attack::Attachments
        | Attack::AttachedAgain
        | Attack::Lacking
        | Attack::Redescribed
        | Attack::Absent
        | Attack::ReadyAgain
        | Attack::Unknown
        | Attack::Page
        | Attack::PageDamage
        | Attack::Storm
        | Attack::Deaf
        | Attack::Neighbours
        | Attack::Dozes
        | Attack::Reset => return None,
    })
}

/// Completes what nobody asked for, and then what somebody did. Only the last may have an effect.
fn falsely(domain: &mut Domain, place: usize, request: &Request, all: &[Completion]) -> Outcome {
    let port = &mut domain.ports[place];
    // What the client must not get.
    garble(port, request);
    all.iter().for_each(|completion| port.complete(completion));
    let _ = domain.ports[place].tell();
    domain.serve(place, request);
    Ok(())
}

/// Fills the room that the request has with what is not asked for.
fn garble(port: &Port, request: &Request) {
    let Some(room) = port.room(request) else { return };
    for offset in (0..room.size()).step_by(8) {
        room.piece(offset, 8.min(room.size() - offset)).map(|piece| piece.write(&[0xdd; 8]));
    }
}

/// Serves every request, with one and the same word for a heartbeat.
fn still_heart(domain: &mut Domain, word: u32) -> Outcome {
    domain.is_heart_still = true;
    domain.beat(word);
    domain.behave_for(DOOM_MICROSECONDS);
    Ok(())
}

fn foreign(domain: &mut Domain) -> Outcome {
    for _ in 0..ROUNDS {
        let caught = domain.catch_each([Kind::Block, Kind::Entropy, Kind::Network])?;
        for (place, request) in &caught {
            // Each channel counts for itself, so that numbers may be the same.
            let is_out = |sequence| sequence == request.sequence || domain.ports[*place].is_out(sequence);
            let others = caught.iter().map(|(_, other)| other).filter(|other| !is_out(other.sequence));
            let others: ArrayVec<_, 3> = others.map(|other| completion(other, u32::MAX)).collect();
            ensure!(!others.is_empty(), "all channels count alike");
            falsely(domain, *place, request, &others)?;
        }
    }
    Ok(())
}

/// A counter that the domain writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Counter {
    Completions,
    Receptions,
}

/// The counter of every channel says what cannot be, with requests out.
fn jump(domain: &mut Domain, which: Counter) -> Outcome {
    for step in [129, 1 << 16, 1 << 31, u32::MAX, 0xffff_ff00] {
        let (place, request) = domain.catch(Kind::Block)?;
        for port in &domain.ports {
            let (word, counter) = match which {
                Counter::Completions => (control::COMPLETIONS_PRODUCED, port.completed),
                Counter::Receptions if port.receives() => (control::receptions_produced(0), port.received),
                Counter::Receptions => continue,
            };
            port.memory.store(word, counter.wrapping_add(step));
            let _ = port.tell();
            port.memory.store(word, counter);
        }
        domain.serve(place, &request);
    }
    Ok(())
}

fn receptions(domain: &mut Domain) -> Outcome {
    const END: u32 = RECEIVE_WINDOW_SIZE as u32;
    let lengths = [0, 1, 11, 12, 13, 14, 60, 901, 2047, 2048, 2049, 4096, 1 << 16, END, END + 1, 1 << 31, u32::MAX];
    for round in 0..6 * lengths.len() {
        for place in 0..domain.ports.len() {
            let word = domain.random.word() as u32;
            let port = &mut domain.ports[place];
            if !port.receives() || !port.has_slot() {
                continue;
            }
            if let Some(slot) = port.slot() {
                for offset in (0..slot.size()).step_by(32) {
                    slot.store_words(offset, [0xbbbb_bbbb_bbbb_bbbb; 4]);
                }
            }
            let length = lengths[round % lengths.len()];
            let sound = port.reception(length);
            let offset = match round % 6 {
                0 | 1 => sound.offset,
                2 => word % END,
                3 => END.wrapping_sub(length).wrapping_add(word % 2),
                4 => END + word % 4096,
                _ => u32::MAX - word % 4096,
            };
            port.receive(&Receive { offset, ..sound });
            let _ = port.tell();
        }
        domain.behave_for(500);
    }
    Ok(())
}

/// Receptions for every session but the client's.
fn sessions(domain: &mut Domain) -> Outcome {
    domain.each_kind(ROUNDS, |domain, place, request, _| {
        for port in domain.ports.iter_mut().filter(|port| port.receives()) {
            let session = port.session();
            for session in [0, session.wrapping_sub(1), session.wrapping_add(1), !session, u32::MAX] {
                let (true, Some(slot)) = (port.has_slot() && session != port.session(), port.slot()) else { continue };
                for offset in (0..slot.size()).step_by(32) {
                    slot.store_words(offset, [0xbbbb_bbbb_bbbb_bbbb; 4]);
                }
                port.receive(&Receive { session, ..port.reception(60) });
                let _ = port.tell();
            }
        }
        domain.serve(place, request);
        Ok(())
    })
}

/// Bytes of a piece while requests come in pieces.
const PIECE_SIZE: u32 = 128;

/// Has Bulkhead split each request of the disk, and does with its pieces what it likes.
fn pieces(domain: &mut Domain) -> Outcome {
    let (place, request) = domain.catch(Kind::Block)?;
    let Some(mut small) = description(&domain.ports[place]) else { return Ok(()) };
    for queue in &mut small.queues {
        (queue.size_max, queue.piece_unit) = (PIECE_SIZE, PIECE_SIZE);
    }
    let answer = domain.ports[place].attach(&small);
    ensure!(answer == 0, "a disk with small pieces cannot be attached: {answer:#x}");
    domain.serve(place, &request);
    let mut split = 0;
    for round in 0..4 * ROUNDS {
        let (place, request) = domain.catch(Kind::Block)?;
        split += u32::from(!request.is_last);
        let written = domain.fill(place, &request);
        let port = &mut domain.ports[place];
        let sound = completion(&request, written);
        match round % 4 {
            // Nothing is left to do, although there is.
            0 => port.complete(&Completion { is_end: true, tail: [1; 8], ..sound }),
            // Each of them twice: the second is of a piece that has not been posted, or of none.
            1 => {
                let next = Completion { sequence: request.sequence.wrapping_add(1), ..sound };
                [sound, sound, next].iter().for_each(|completion| port.complete(completion));
            }
            // More than a piece has room for, and all of it at once.
            2 => port.complete(&completion(&request, 512)),
            _ => port.complete(&sound),
        }
        let _ = port.tell();
    }
    ensure!(split > 0, "no request has come in pieces");
    let (place, request) = domain.catch(Kind::Block)?;
    let answer = attach(&domain.ports[place]);
    domain.serve(place, &request);
    ensure!(answer == 0, "attach answers {answer:#x}");
    Ok(())
}

/// What the other CPU spoils.
static SPOILT: Mutex<ArrayVec<(Shared, Layout), { crate::port::PORTS_MAX }>> = Mutex::new(ArrayVec::new_const());

/// Writes garbage, near to what is right and far from it, to all that Bulkhead reads, and to what it has written.
fn spoil(goes_on: GoesOn) {
    let ports = SPOILT.lock().clone();
    let mut random = Random::new(20);
    while goes_on() {
        for (memory, layout) in &ports {
            let word = random.word();
            for counter in [control::COMPLETIONS_PRODUCED, control::receptions_produced(0)] {
                let near = memory.load(counter).wrapping_add(word as u32 % 5);
                memory.store(counter, if word >> 60 == 0 { word as u32 } else { near });
            }
            memory.store(control::REQUESTS_EVENT, word as u32);
            memory.store(control::GENERATION, word as u32);
            let index = (word >> 32) % u64::from(RING_ENTRIES);
            let words = [word & 0xfff, random.word(), random.word(), random.word()];
            memory.store_words(COMPLETION_RING + index * COMPLETION_SIZE, words);
            if layout.filled() != 0 {
                // Of the client's session or the next, within the window or not far beyond.
                let session = memory.load(control::SESSION).wrapping_add(word as u32 % 2);
                let place = u64::from(session) | (random.word() & 0x7_ffff) << 32;
                memory.store_words(layout.receive_ring(0) + index * RECEIVE_SIZE, [place, word & 0xffff, 0, 0]);
            }
            // Flags of the first queue, which there are or are not: one look must decide.
            memory.store(QUEUE_FLAGS, memory.load(QUEUE_FLAGS) ^ NO_FLAG);
        }
    }
}

/// Where the flags of a description's first queue are, and a flag that there is not.
const QUEUE_FLAGS: u64 = DESCRIPTION + 16 + abi::io::CONFIGURATION_SIZE as u64;
const NO_FLAG: u32 = 1 << 31;

fn flips(domain: &mut Domain) -> Outcome {
    *SPOILT.lock() = domain.ports.iter().map(|port| (port.memory, port.layout)).collect();
    let outcome = beside(spoil, || {
        for _ in 0..FLIPS {
            for port in &domain.ports {
                let _ = port.tell();
                let answer = port.attach_described();
                ensure!(matches!(answer, 0 | INVALID_PARAMETER), "attach answers {answer:#x}");
            }
        }
        Ok(())
    });
    domain.ports.iter_mut().for_each(Port::mend);
    for port in &domain.ports {
        let answer = attach(port);
        ensure!(answer == 0, "attach answers {answer:#x}");
    }
    outcome
}

/// Keeps whatever is asked for until its client has given up, and completes it then.
fn silent(domain: &mut Domain) -> Outcome {
    let mut kept: ArrayVec<(usize, Request), KEPT_MAX> = ArrayVec::new();
    let end = timer::now() + timer::ticks(SILENCE_MICROSECONDS);
    while timer::now() < end {
        for place in 0..domain.ports.len() {
            if !kept.is_full()
                && let Some(request) = domain.ports[place].next()
            {
                kept.push((place, request));
            }
        }
        cpu::relax();
    }
    if kept.is_empty() {
        return Err(Failure::new(format_args!("nobody has asked for anything")));
    }
    for (place, request) in &kept {
        garble(&domain.ports[*place], request);
        domain.ports[*place].complete(&completion(request, request.writable));
        let _ = domain.ports[*place].tell();
    }
    Ok(())
}
