//! A driver domain that behaves, until its client tells it not to.

use crate::port::{self, Kind, PORTS_MAX, Port, completion};
use crate::protocol::{Attack, COMMAND, PLAIN_SECTORS, RANDOM, RESULT, SECTOR_SIZE, SECTORS, State, pattern};
use abi::io::{
    COMPLETE_AGAIN, FUNCTION_ATTACH, FUNCTION_READY, HEARTBEAT_WAITING, Operation, RECEIVE_SLOT_SIZE, Receive, Request,
    control,
};
use arrayvec::{ArrayString, ArrayVec};
use core::fmt::Write;
use rt::gic::{self, Trigger};
use rt::{cpu, hypercall, interrupts, println, timer};
use testkit::random::Random;
use testkit::{Failure, Outcome};

/// How long the client may take to ask for something.
const PATIENCE_MICROSECONDS: u64 = 2_000_000;
/// The MTU of a card.
pub(crate) const MTU: u64 = 1500;

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

/// Says what is behind the channel, and gives Bulkhead's answer.
pub(crate) fn attach(port: &Port) -> u64 {
    let (size, block_size) = match port.kind {
        Kind::Block => (SECTORS, 512),
        Kind::Network => (MTU, 0),
        Kind::Console | Kind::Entropy => (0, 0),
    };
    hypercall::call(FUNCTION_ATTACH, [port.number, size, 0, block_size])
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

    /// Does what the request asks for, but for its completion; gives the bytes that are in the window then.
    pub(crate) fn fill(&mut self, place: usize, request: &Request) -> u32 {
        let Some(port) = self.ports.get_mut(place) else { return 0 };
        let Some(data) = port.data(request) else { return 0 };
        let sectors = (0..u64::from(request.length) / SECTOR_SIZE as u64).map(|index| (index, request.sector + index));
        let piece = |index: u64| data.piece(index * SECTOR_SIZE as u64, SECTOR_SIZE as u64);
        match (port.kind, Operation::from_number(request.operation)) {
            (Kind::Block, Some(Operation::Read)) => {
                for (index, sector) in sectors {
                    let bytes = if sector == RESULT { report(self.report.as_ref()) } else { pattern(sector) };
                    piece(index).map(|piece| piece.write(&bytes));
                }
                request.length
            }
            (Kind::Block, Some(Operation::Write)) => {
                for (index, sector) in sectors {
                    let mut bytes = [0; SECTOR_SIZE];
                    piece(index).map(|piece| piece.read(&mut bytes));
                    if sector == COMMAND {
                        self.command = bytes.first_chunk().map(|word| u32::from_le_bytes(*word));
                    } else if sector < PLAIN_SECTORS && bytes != pattern(sector) {
                        self.spoilt += 1;
                    }
                }
                0
            }
            (Kind::Network, _) => {
                // Whatever is sent comes back.
                if let (true, Some(slot)) = (port.has_slot(), port.slot()) {
                    let length = data.copy_to(&slot).min(RECEIVE_SLOT_SIZE) as u32;
                    port.receive(&Receive {
                        length,
                        flags: 0,
                        checksum_start: 0,
                        checksum_offset: 0,
                        reserved: [0; 5],
                    });
                }
                0
            }
            (Kind::Entropy, _) => {
                for offset in (0..data.size()).step_by(64) {
                    data.piece(offset, 64.min(data.size() - offset)).map(|piece| piece.write(&[RANDOM; 64]));
                }
                request.length
            }
            (Kind::Block | Kind::Console, _) => 0,
        }
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

/// Whether the two talk about an attack with this request.
fn is_special(kind: Kind, request: &Request) -> bool {
    kind == Kind::Block && request.sector >= PLAIN_SECTORS
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
