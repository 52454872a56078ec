//! What a driver domain can put into rings.

use crate::domain::Domain;
use crate::port::{Kind, Port, completion};
use crate::protocol::Attack;
use abi::io::{
    COMPLETION_RING, Completion, HEARTBEAT_WAITING, Operation, RECEIVE_RING, RECEIVE_SLOT_SIZE, REQUEST_RING, Receive,
    Request, control,
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
            let others = others.map(|generation| Completion { generation, ..completion(request, request.length) });
            falsely(domain, place, request, &others)
        }),
        Attack::Lengths => domain.each_kind(ROUNDS, |domain, place, request, round| {
            let length = request.length;
            let lengths = [u32::MAX, length + 1, length * 2, 1 << 31, 0, length.saturating_sub(1), 1, 1 << 20];
            domain.fill(place, request);
            let given = lengths[2 * round + domain.random.below(2) as usize];
            domain.ports[place].complete(&completion(request, given));
            let _ = domain.ports[place].tell();
            Ok(())
        }),
        Attack::Statuses => domain.each_kind(ROUNDS, |domain, place, request, _| {
            garble(&domain.ports[place], request);
            let status = [3, 4, 0x80, 0xff, 0x100, 0x8000, 0xfffe, 0xffff][domain.random.below(8) as usize];
            domain.ports[place].complete(&Completion { status, ..completion(request, request.length) });
            let _ = domain.ports[place].tell();
            Ok(())
        }),
        Attack::Completions => jump(domain, control::COMPLETIONS_PRODUCED),
        Attack::ReceptionCounter => jump(domain, control::RECEPTIONS_PRODUCED),
        Attack::Events => domain.each_kind(2 * ROUNDS, |domain, place, request, _| {
            domain.serve(place, request);
            for port in &domain.ports {
                port.memory.store(control::REQUESTS_EVENT, domain.random.word() as u32);
            }
            Ok(())
        }),
        Attack::Receptions => receptions(domain),
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
            for offset in (0..0x1000).step_by(32) {
                port.memory.store_words(REQUEST_RING + offset, core::array::from_fn(|_| domain.random.word()));
            }
            domain.serve(place, request);
            others.iter().for_each(|other| domain.serve(place, other));
            Ok(())
        }),
        Attack::Attachments
        | Attack::AttachedAgain
        | Attack::Absent
        | Attack::ReadyAgain
        | Attack::Unknown
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
    if Operation::from_number(request.operation).is_some_and(Operation::fills_window) {
        // What the client must not get.
        garble(port, request);
    }
    all.iter().for_each(|completion| port.complete(completion));
    let _ = domain.ports[place].tell();
    domain.serve(place, request);
    Ok(())
}

/// Fills the request's part of the window with what is not asked for.
fn garble(port: &Port, request: &Request) {
    let Some(data) = port.data(request) else { return };
    for offset in (0..data.size()).step_by(8) {
        data.piece(offset, 8.min(data.size() - offset)).map(|piece| piece.write(&[0xdd; 8]));
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

/// The counter at `word` of every channel says what cannot be, with requests out.
fn jump(domain: &mut Domain, word: u64) -> Outcome {
    for step in [129, 1 << 16, 1 << 31, u32::MAX, 0xffff_ff00] {
        let (place, request) = domain.catch(Kind::Block)?;
        for port in &domain.ports {
            let counter = if word == control::COMPLETIONS_PRODUCED { port.completed } else { port.received };
            port.memory.store(word, counter.wrapping_add(step));
            let _ = port.tell();
            port.memory.store(word, counter);
        }
        domain.serve(place, &request);
    }
    Ok(())
}

fn receptions(domain: &mut Domain) -> Outcome {
    let lengths = [0, 1, 13, 14, 60, 901, 2047, 2048, 2049, 4096, 1 << 16, 1 << 31, u32::MAX];
    for round in 0..6 * lengths.len() {
        for place in 0..domain.ports.len() {
            let (flags, checksum) = (domain.random.word() as u32, domain.random.word());
            let port = &mut domain.ports[place];
            if !matches!(port.kind, Kind::Network | Kind::Console) || !port.has_slot() {
                continue;
            }
            if let Some(slot) = port.slot() {
                for offset in (0..RECEIVE_SLOT_SIZE).step_by(32) {
                    slot.store_words(offset, [0xbbbb_bbbb_bbbb_bbbb; 4]);
                }
            }
            let (checksum_start, checksum_offset) = match round % 3 {
                0 => (checksum as u16, (checksum >> 16) as u16),
                1 => (14, lengths[round % lengths.len()].wrapping_sub(16) as u16),
                _ => (u16::MAX, u16::MAX),
            };
            let length = lengths[round % lengths.len()];
            port.receive(&Receive { length, flags, checksum_start, checksum_offset, reserved: [u32::MAX; 5] });
            let _ = port.tell();
        }
        domain.behave_for(500);
    }
    Ok(())
}

/// What the other CPU spoils.
static SPOILT: Mutex<ArrayVec<Shared, { crate::port::PORTS_MAX }>> = Mutex::new(ArrayVec::new_const());

/// Writes garbage, near to what is right and far from it, to all that Bulkhead reads.
fn spoil(goes_on: GoesOn) {
    let ports = SPOILT.lock().clone();
    let mut random = Random::new(20);
    while goes_on() {
        for memory in &ports {
            let word = random.word();
            for counter in [control::COMPLETIONS_PRODUCED, control::RECEPTIONS_PRODUCED] {
                let near = memory.load(counter).wrapping_add(word as u32 % 5);
                memory.store(counter, if word >> 60 == 0 { word as u32 } else { near });
            }
            memory.store(control::REQUESTS_EVENT, word as u32);
            memory.store(control::GENERATION, word as u32);
            for ring in [COMPLETION_RING, RECEIVE_RING] {
                let words = [word & 0xfff, random.word(), random.word(), random.word()];
                memory.store_words(ring + (word >> 32) % 128 * 32, words);
            }
        }
    }
}

fn flips(domain: &mut Domain) -> Outcome {
    *SPOILT.lock() = domain.ports.iter().map(|port| port.memory).collect();
    let outcome = beside(spoil, || {
        for _ in 0..FLIPS {
            for port in &domain.ports {
                let _ = port.tell();
            }
        }
        Ok(())
    });
    domain.ports.iter_mut().for_each(Port::mend);
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
        domain.ports[*place].complete(&completion(request, request.length));
        let _ = domain.ports[*place].tell();
    }
    Ok(())
}
