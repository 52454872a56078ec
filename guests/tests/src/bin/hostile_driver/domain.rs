//! A driver domain that behaves, until its client tells it not to.

use crate::port::{self, Kind, PORTS_MAX, Port, completion};
use crate::protocol::{Attack, COMMAND, PLAIN_SECTORS, RANDOM, RESULT, SECTOR_SIZE, SECTORS, State, pattern};
use abi::io::{COMPLETE_AGAIN, Description, FUNCTION_READY, HEARTBEAT_WAITING, Request, control};
use arrayvec::{ArrayString, ArrayVec};
use core::fmt::Write;
use rt::gic::{self, Trigger};
use rt::shared::Shared;
use rt::{cpu, hypercall, interrupts, println, timer};
use services::block::Features;
use services::describe::block::Disk;
use services::describe::console::Console;
use services::describe::entropy;
use services::describe::network::Card;
use testkit::random::Random;
use testkit::{Failure, Outcome};

/// How long the client may take to ask for something.
const PATIENCE_MICROSECONDS: u64 = 2_000_000;
/// What a card is.
const CARD: Card = Card { mac: [2, 0, 0, 0, 0, 1], mtu: 1500 };
/// What a disk is.
pub(crate) const DISK: Disk = Disk { sectors: SECTORS, block_size: SECTOR_SIZE as u32, features: FEATURES };
const FEATURES: Features =
    Features { is_read_only: false, has_cache: false, discards: false, writes_zeroes: false, takes_grants: false };
/// The size of a network header in bytes.
const HEADER_SIZE: u64 = 12;

/// What is in sector [`RESULT`].
struct Report {
    attack: u32,
    state: State,
    reason: ArrayString<120>,
}

/// The domain.
pub(crate) struct Domain {
    pub(crate) ports: ArrayVec<Port, PORTS_MAX>,
    pub(crate) doorbell: u32,
    pub(crate) random: Random,
    /// What "complete" said of each channel before the domain was ready.
    pub(crate) early: ArrayVec<u64, PORTS_MAX>,
    /// Whether the heartbeat word is left alone, for an attack that says what is in it.
    pub(crate) is_heart_still: bool,
    beats: u32,
    report: Option<Report>,
    command: Option<u32>,
    /// Writes whose data was not what the client should have written.
    spoilt: u32,
}

/// Makes an attack; none for one that it does not know.
pub(crate) type Attacker = fn(Attack, &mut Domain) -> Option<Outcome>;

/// Serves the client for ever, and makes the attacks that it asks for: those that one of `attackers` knows.
pub(crate) fn run(attackers: &[Attacker]) -> ! {
    let ports = port::all();
    let (Some(doorbell), false) = (port::doorbell(), ports.is_empty()) else {
        println!("there is nothing to serve");
        interrupts::park()
    };
    gic::set_trigger(doorbell, Trigger::Edge);
    gic::enable(doorbell);
    let early = ports.iter().map(Port::tell).collect();
    for port in &ports {
        attach(port);
    }
    let mut domain = Domain {
        ports,
        doorbell,
        random: Random::from_parameter(),
        early,
        is_heart_still: false,
        beats: 0,
        report: None,
        command: None,
        spoilt: 0,
    };
    domain.live();
    hypercall::call(FUNCTION_READY, [0; 4]);
    // What was out when the one before this came to its end.
    for port in &domain.ports {
        while port.tell() == COMPLETE_AGAIN {}
    }
    loop {
        domain.behave();
        if let Some(number) = domain.command.take() {
            domain.attack(number, attackers);
        }
    }
}

/// What is behind the channel; `None` if there cannot be such a device.
pub(crate) fn description(port: &Port) -> Option<Description> {
    match port.kind {
        Kind::Block => DISK.describe(port.queues, port.window_size()),
        Kind::Network => CARD.describe(),
        Kind::Console => Some(Console { columns: 0, rows: 0 }.describe(port.window_size())),
        Kind::Entropy => Some(entropy::describe()),
    }
}

/// Says what is behind the channel, and gives Bulkhead's answer.
pub(crate) fn attach(port: &Port) -> u64 {
    description(port).map_or(u64::MAX, |description| port.attach(&description))
}

impl Domain {
    fn attack(&mut self, number: u32, attackers: &[Attacker]) {
        let Some(attack) = Attack::from_number(number) else { return };
        self.report = Some(Report { attack: number, state: State::Running, reason: ArrayString::new() });
        let spoilt = self.spoilt;
        let outcome = attackers.iter().find_map(|attacker| attacker(attack, self)).unwrap_or(Ok(()));
        let outcome = outcome.and_then(|()| match self.spoilt - spoilt {
            0 => Ok(()),
            count => Err(Failure::new(format_args!("{count} writes came with other data than they should"))),
        });
        let mut reason = ArrayString::new();
        let state = match outcome {
            Ok(()) => State::Done,
            Err(failure) => {
                let _ = write!(reason, "{failure}");
                State::Failed
            }
        };
        self.report = Some(Report { attack: number, state, reason });
    }

    /// Sets the heartbeat word.
    pub(crate) fn beat(&self, word: u32) {
        if let Some(first) = self.ports.first() {
            first.memory.store(control::HEARTBEAT, word);
        }
    }

    /// Shows that it lives: a count, and that it may be waiting for a device, so that only what takes as long as a
    /// request may be out is taken for silence.
    pub(crate) fn live(&mut self) {
        if !self.is_heart_still {
            self.beats = self.beats.wrapping_add(1);
            self.beat(HEARTBEAT_WAITING | self.beats);
        }
    }

    /// Does what there is to do, well.
    pub(crate) fn behave(&mut self) {
        self.live();
        for place in 0..self.ports.len() {
            while let Some(request) = self.take(place) {
                self.serve(place, &request);
            }
        }
        cpu::relax();
    }

    fn take(&mut self, place: usize) -> Option<Request> {
        self.ports.get_mut(place)?.next()
    }

    /// Waits for a request to a device of this kind that means nothing special, and behaves meanwhile.
    pub(crate) fn catch(&mut self, kind: Kind) -> Result<(usize, Request), Failure> {
        let [caught] = self.catch_each([kind])?;
        Ok(caught)
    }

    /// As [`Self::catch`], for one request of each kind, which are out at the same time.
    pub(crate) fn catch_each<const N: usize>(&mut self, kinds: [Kind; N]) -> Result<[(usize, Request); N], Failure> {
        let end = timer::now() + timer::ticks(PATIENCE_MICROSECONDS);
        let mut caught = [None; N];
        while timer::now() < end {
            self.live();
            for place in 0..self.ports.len() {
                while let Some(request) = self.take(place) {
                    let kind = self.ports[place].kind;
                    let wanted = kinds.iter().position(|other| *other == kind).filter(|_| !is_special(kind, &request));
                    match wanted.and_then(|index| caught.get_mut(index)) {
                        Some(free @ None) => *free = Some((place, request)),
                        Some(Some(_)) | None => self.serve(place, &request),
                    }
                }
            }
            let all: ArrayVec<_, N> = caught.iter().flatten().copied().collect();
            if let Ok(all) = all.into_inner() {
                return Ok(all);
            }
            cpu::relax();
        }
        Err(Failure::new(format_args!("the client does not ask its devices for {kinds:?} any more")))
    }

    /// Serves a request well.
    pub(crate) fn serve(&mut self, place: usize, request: &Request) {
        let length = self.fill(place, request);
        let Some(port) = self.ports.get_mut(place) else { return };
        port.complete(&completion(request, length));
        let _ = port.tell();
    }

    /// Does what the request asks for, but for its completion; gives the bytes that are in its room then.
    pub(crate) fn fill(&mut self, place: usize, request: &Request) -> u32 {
        let Some(port) = self.ports.get_mut(place) else { return 0 };
        let (Some(given), Some(room)) = (port.given(request), port.room(request)) else { return 0 };
        match port.kind {
            Kind::Block => {
                for Part { piece, sector, within } in parts(request, &room) {
                    let bytes = if sector == RESULT { report(self.report.as_ref()) } else { pattern(sector) };
                    bytes.get(within..).map(|bytes| piece.write(bytes));
                }
                for Part { piece, sector, within } in parts(request, &given) {
                    let mut bytes = pattern(sector);
                    bytes.get_mut(within..).map(|bytes| piece.read(bytes));
                    if sector == COMMAND && within == 0 {
                        self.command = bytes.first_chunk().map(|word| u32::from_le_bytes(*word));
                    } else if sector < PLAIN_SECTORS && bytes != pattern(sector) {
                        self.spoilt += 1;
                    }
                }
            }
            Kind::Network => {
                // Whatever is sent comes back, with a header that asks for nothing.
                if let (true, Some(slot)) = (port.has_slot(), port.slot())
                    && let Some(place) = slot.piece(HEADER_SIZE, slot.size() - HEADER_SIZE)
                {
                    slot.store_pair(0, [0; 2]);
                    let length = HEADER_SIZE + given.copy_to(&place);
                    port.receive(&port.reception(length as u32));
                }
            }
            Kind::Entropy => {
                for offset in (0..room.size()).step_by(64) {
                    room.piece(offset, 64.min(room.size() - offset)).map(|piece| piece.write(&[RANDOM; 64]));
                }
            }
            Kind::Console => {}
        }
        request.writable
    }

    /// Goes on for a while.
    pub(crate) fn behave_for(&mut self, microseconds: u64) {
        let end = timer::now() + timer::ticks(microseconds);
        while timer::now() < end {
            self.behave();
        }
    }

    /// Catches a request of each kind in turn, `rounds` times, and has `twist` do with it what it likes.
    pub(crate) fn each_kind(
        &mut self,
        rounds: usize,
        mut twist: impl FnMut(&mut Self, usize, &Request, usize) -> Outcome,
    ) -> Outcome {
        for round in 0..rounds {
            for kind in [Kind::Block, Kind::Entropy, Kind::Network, Kind::Console] {
                let (place, request) = self.catch(kind)?;
                twist(self, place, &request, round)?;
            }
        }
        Ok(())
    }
}

/// The sector in the header of a block request.
fn first_sector(request: &Request) -> u64 {
    (u128::from_le_bytes(request.header) >> 64) as u64
}

/// A sector, or a part of one, of a block request.
struct Part {
    /// Where its bytes are.
    piece: Shared,
    sector: u64,
    /// How many bytes of the sector lie before it.
    within: usize,
}

/// The sectors that the bytes in `data` are about.
fn parts(request: &Request, data: &Shared) -> impl Iterator<Item = Part> {
    let (first, position, data) = (first_sector(request), request.position, *data);
    let mut done = 0;
    core::iter::from_fn(move || {
        let at = position.checked_add(done)?;
        let within = at % SECTOR_SIZE as u64;
        let length = (SECTOR_SIZE as u64 - within).min(data.size() - done);
        let piece = data.piece(done, length).filter(|piece| piece.size() != 0)?;
        done += length;
        Some(Part { piece, sector: first.wrapping_add(at / SECTOR_SIZE as u64), within: within as usize })
    })
}

/// Whether the two talk about an attack with this request.
fn is_special(kind: Kind, request: &Request) -> bool {
    kind == Kind::Block && first_sector(request) >= PLAIN_SECTORS
}

fn report(report: Option<&Report>) -> [u8; SECTOR_SIZE] {
    let mut bytes = [0; SECTOR_SIZE];
    if let Some(Report { attack, state, reason }) = report {
        bytes[..4].copy_from_slice(&attack.to_le_bytes());
        bytes[4] = *state as u8;
        bytes[5] = reason.len() as u8;
        bytes[8..8 + reason.len()].copy_from_slice(reason.as_bytes());
    }
    bytes
}
