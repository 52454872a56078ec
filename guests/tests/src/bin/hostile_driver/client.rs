//! The client: asks for something of every device all the time, gives up and begins anew where nothing comes, and
//! watches its memory.

use crate::lane::{DATA_BYTES, Lane, SLOTS};
use crate::protocol::{
    Attack, BLOCK_BLK_SIZE, COMMAND, Harm, NET_GUEST_CSUM, PLAIN_SECTORS, RANDOM, RESULT, SECTOR_SIZE, State, pattern,
};
use arrayvec::ArrayVec;
use bulkhead_guest_tests::device::{self, Device, Kind, register};
use bulkhead_guest_tests::ring::{ENTRIES, Ring};
use rt::shared::Shared;
use rt::{cpu, machine, println, timer};
use testkit::random::Random;
use testkit::{Failure, Outcome, ensure, report};

/// The most queues.
const LANES_MAX: usize = 6;
/// How long a request may take before its device is reset.
const PATIENCE_MICROSECONDS: u64 = 40_000;
/// How long an attack may take, with all that follows from it.
const LIMIT_MICROSECONDS: u64 = 20_000_000;
/// How many rounds without a fault in a row show that all is well again.
const CALM_ROUNDS: u32 = 2;
/// A card's header and a frame.
const FRAME_SIZE: usize = 12 + 60;
const RECEIVE_SIZE: usize = 800;
const RANDOM_SIZE: usize = 64;
/// How often a domain asks for its own reset.
const RESETS: usize = 3;

/// What one round has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Round {
    /// Devices from which something did not come.
    timeouts: u32,
    /// I/O errors.
    errors: u32,
    /// Sectors that were not what they should be.
    sectors: u32,
    /// Other data that were not.
    wrong: u32,
}

impl Round {
    fn add(&mut self, other: Self) {
        self.timeouts += other.timeouts;
        self.errors += other.errors;
        self.sectors += other.sectors;
        self.wrong += other.wrong;
    }
}

struct Client {
    lanes: ArrayVec<Lane, LANES_MAX>,
    random: Random,
    sum: Round,
    rounds: u32,
    frames: u32,
    longest: u64,
}

pub(crate) fn run() -> ! {
    let rings = Ring::claim::<LANES_MAX>();
    let copies = copies();
    let mut client = None;
    report::test("there is a device of each kind, and memory for its queues", || {
        let mut rings = rings.into_iter().flatten();
        let mut lanes = ArrayVec::new();
        for device in device::all() {
            for queue in 0..device.queues() {
                let copy = copies.and_then(|copies| copies.piece((lanes.len() * DATA_BYTES) as u64, DATA_BYTES as u64));
                let (Some(ring), Some(copy)) = (rings.next(), copy) else { continue };
                lanes.push(Lane::new(device, queue, ring, copy));
            }
        }
        ensure!(lanes.len() == LANES_MAX, "there are {} queues", lanes.len());
        let random = Random::new(20);
        client = Some(Client { lanes, random, sum: Round::default(), rounds: 0, frames: 0, longest: 0 });
        Ok(())
    });
    if let Some(client) = &mut client {
        report::test("every device works", || {
            for place in 0..LANES_MAX {
                client.restart(client.lanes[place].device)?;
            }
            client.calm(None).map(drop)
        });
        for attack in Attack::ALL {
            report::test(attack.name(), || client.stand(*attack));
        }
        let Client { sum: Round { timeouts, errors, sectors, wrong }, rounds, frames, longest, .. } = *client;
        let longest = timer::microseconds(longest);
        println!("rounds={rounds} timeouts={timeouts} errors={errors} wrong={} frames={frames}", sectors + wrong);
        println!("longest_us={longest}");
        report::test("frames have come, and errors", || {
            ensure!(frames > 0 && errors > 0 && timeouts > 0, "that cannot have been all");
            Ok(())
        });
    }
    report::finish()
}

/// Memory for a copy of each queue's data.
fn copies() -> Option<Shared> {
    let size = (LANES_MAX * DATA_BYTES) as u64;
    let memory = machine().memory.first()?;
    // Below the queues, and above what a loader may have left.
    (32..256).find_map(|step| Shared::claim(memory.end() - step * size, size))
}

impl Client {
    /// Has the driver domain make `attack`, and all is well afterwards.
    fn stand(&mut self, attack: Attack) -> Outcome {
        let times = if attack == Attack::Reset { RESETS } else { 1 };
        for _ in 0..times {
            let before = self.sum;
            self.command(attack)?;
            if attack == Attack::Kept {
                self.wait_out()?;
            }
            let report = self.calm(Some(attack))?;
            let is_within = match attack.harm() {
                Harm::None => self.sum == before,
                Harm::Errors => self.sum.sectors == before.sectors,
                Harm::Data | Harm::Restart(_) => true,
            };
            ensure!(is_within, "it went from {before:?} to {:?}", self.sum);
            if let Harm::Restart(reason) = attack.harm() {
                ensure!(report[4] == 0, "the driver domain has not been started anew");
                // Whoever judges this run compares it with what Bulkhead has said.
                println!("restarted: {reason}");
            }
            if report[4] == State::Failed as u8 {
                let reason = report[8..].get(..usize::from(report[5])).and_then(|text| core::str::from_utf8(text).ok());
                return Err(Failure::new(format_args!("the driver domain says: {}", reason.unwrap_or("?"))));
            }
        }
        Ok(())
    }

    /// Goes on until the driver domain behaves again: gives what it says of `attack`, if that is waited for.
    fn calm(&mut self, attack: Option<Attack>) -> Result<[u8; SECTOR_SIZE], Failure> {
        let end = timer::now() + timer::ticks(LIMIT_MICROSECONDS);
        let (mut calm, mut last) = (0, Round::default());
        while timer::now() < end {
            last = self.round()?;
            calm = if last == Round::default() { calm + 1 } else { 0 };
            if calm < CALM_ROUNDS {
                continue;
            }
            let Some(report) = self.ask(RESULT, None)? else { continue };
            let Some(attack) = attack else { return Ok(report) };
            let of = report.first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
            match report[4] {
                0 if matches!(attack.harm(), Harm::Restart(_)) => return Ok(report),
                0 => return Err(Failure::new(format_args!("the driver domain has started anew"))),
                state if of == attack as u32 && state != State::Running as u8 => return Ok(report),
                _ => {}
            }
        }
        Err(Failure::new(format_args!("nothing works any more: {last:?}")))
    }

    /// Reads a sector, and has patience for as long as it takes: until that was longer than for any other attack.
    fn wait_out(&mut self) -> Outcome {
        let end = timer::now() + timer::ticks(LIMIT_MICROSECONDS);
        while timer::now() < end {
            let started = timer::now();
            let read = self.ask_for(LIMIT_MICROSECONDS, 3, None)?;
            ensure!(read == Some(pattern(3)), "the read that was kept has failed, or has given something else");
            if timer::now() - started > timer::ticks(PATIENCE_MICROSECONDS) {
                return Ok(());
            }
        }
        Err(Failure::new(format_args!("no read was kept")))
    }

    fn command(&mut self, attack: Attack) -> Outcome {
        let mut data = [0; SECTOR_SIZE];
        data[..4].copy_from_slice(&(attack as u32).to_le_bytes());
        let end = timer::now() + timer::ticks(LIMIT_MICROSECONDS);
        while timer::now() < end {
            if self.ask(COMMAND, Some(&data))?.is_some() {
                return Ok(());
            }
        }
        Err(Failure::new(format_args!("the driver domain takes no command")))
    }

    /// One request to the disk, with nothing else on its queue; `None` if it fails.
    fn ask(&mut self, sector: u64, data: Option<&[u8]>) -> Result<Option<[u8; SECTOR_SIZE]>, Failure> {
        self.ask_for(PATIENCE_MICROSECONDS, sector, data)
    }

    /// As [`Self::ask`], with so much patience.
    fn ask_for(
        &mut self,
        patience_microseconds: u64,
        sector: u64,
        data: Option<&[u8]>,
    ) -> Result<Option<[u8; SECTOR_SIZE]>, Failure> {
        let Some(place) = self.lanes.iter().position(|lane| lane.device.kind == Kind::Block) else { return Ok(None) };
        let lane = &mut self.lanes[place];
        let device = lane.device;
        lane.post_block(0, sector, data);
        device.notify(0)?;
        let end = timer::now() + timer::ticks(patience_microseconds);
        let mut result = None;
        while !lane.is_idle() && timer::now() < end {
            lane.poll(|lane, back| {
                let is_done = lane.status(back.slot) == 0;
                result = is_done.then(|| lane.data(back.slot));
            })?;
            cpu::relax();
        }
        if !lane.is_idle() {
            self.restart(device)?;
        }
        Ok(result)
    }

    /// Asks every device for something, as much as it takes, and checks all that comes and all that must not.
    fn round(&mut self) -> Result<Round, Failure> {
        self.rounds += 1;
        let mut sectors = [0; SLOTS];
        for lane in &mut self.lanes {
            post(lane, &mut self.random, &mut sectors);
        }
        for lane in &self.lanes {
            lane.device.notify(lane.queue.into())?;
        }
        let started = timer::now();
        let end = started + timer::ticks(PATIENCE_MICROSECONDS);
        let mut round = Round::default();
        let mut frames = 0;
        loop {
            for lane in &mut self.lanes {
                let outcome = lane.poll(|lane, back| match (lane.device.kind, lane.queue) {
                    (Kind::Block, _) if lane.status(back.slot) != 0 => round.errors += 1,
                    (Kind::Block, _) => {
                        let is_right = lane.data(back.slot) == pattern(sectors[back.slot]);
                        round.sectors += u32::from(!is_right);
                    }
                    (Kind::Entropy, _) => {
                        let is_right =
                            back.length as usize == RANDOM_SIZE && lane.data(back.slot) == [RANDOM; RANDOM_SIZE];
                        round.wrong += u32::from(!is_right);
                    }
                    (Kind::Network, 0) => {
                        frames += 1;
                        let is_right = back.length as usize == FRAME_SIZE
                            && lane.data::<FRAME_SIZE>(back.slot)[12..] == frame()[12..];
                        round.wrong += u32::from(!is_right);
                    }
                    (Kind::Console, 0) => round.wrong += 1,
                    (Kind::Network | Kind::Console, _) => {}
                });
                outcome
                    .map_err(|reason| Failure::new(format_args!("{}, queue {}: {reason}", lane.device, lane.queue)))?;
            }
            let is_done = self.lanes.iter().all(|lane| lane.device.receives_in(lane.queue) || lane.is_idle());
            if is_done || timer::now() >= end {
                break;
            }
            cpu::relax();
        }
        self.longest = self.longest.max(timer::now() - started);
        self.frames += frames;
        self.check()?;
        round.timeouts = self.give_up()?;
        self.sum.add(round);
        Ok(round)
    }

    fn check(&self) -> Outcome {
        for lane in &self.lanes {
            let checked = lane.check();
            checked.map_err(|reason| Failure::new(format_args!("{}, queue {}: {reason}", lane.device, lane.queue)))?;
            // Only a driver can break a rule that costs it its device, and this one has broken none.
            ensure!(!lane.device.needs_reset()?, "{} asks to be reset", lane.device);
            let status = lane.device.read(register::INTERRUPT_STATUS)?;
            if status != 0 {
                lane.device.write(register::INTERRUPT_ACK, status)?;
            }
        }
        Ok(())
    }

    /// Resets the devices from which something has not come; gives their number.
    fn give_up(&mut self) -> Result<u32, Failure> {
        let mut count = 0;
        for place in 0..self.lanes.len() {
            let lane = &self.lanes[place];
            if !lane.device.receives_in(lane.queue) && !lane.is_idle() {
                count += 1;
                self.restart(lane.device)?;
            }
        }
        Ok(count)
    }

    /// Resets `device`; nothing of what was out may come any more.
    fn restart(&mut self, device: Device) -> Outcome {
        let accepted = device::VERSION_1 | own_features(device.kind);
        ensure!(device.negotiate(accepted)?, "{device} does not accept what it must");
        for lane in self.lanes.iter_mut().filter(|lane| lane.device.base == device.base) {
            lane.clear();
            let taken = device.start_queue(lane.queue.into(), ENTRIES.into(), lane.places())?;
            ensure!(taken, "{device} does not take queue {}", lane.queue);
        }
        device.go()
    }
}

/// What the client accepts of a device's own features: that a disk says how large its blocks are, and that a card may
/// leave checksums partial. What comes is the same without.
const fn own_features(kind: Kind) -> u64 {
    match kind {
        Kind::Block => BLOCK_BLK_SIZE,
        Kind::Network => NET_GUEST_CSUM,
        Kind::Console | Kind::Entropy => 0,
    }
}

/// Puts as much into `lane` as it takes; `sectors` has what a disk's slots are about.
fn post(lane: &mut Lane, random: &mut Random, sectors: &mut [u64; SLOTS]) {
    while let Some(slot) = lane.free() {
        match (lane.device.kind, lane.queue) {
            (Kind::Block, _) => {
                let (sector, is_write) = (random.below(PLAIN_SECTORS), random.below(2) == 1);
                sectors[slot] = sector;
                lane.post_block(
                    slot,
                    sector,
                    is_write.then(|| pattern(sector)).as_ref().map(<[u8; SECTOR_SIZE]>::as_slice),
                );
            }
            (Kind::Network, 0) => lane.post_in(slot, RECEIVE_SIZE),
            (Kind::Console, 0) => lane.post_in(slot, 16),
            (Kind::Network, _) => lane.post_out(slot, &frame()),
            (Kind::Console, _) => lane.post_out(slot, b"harmless"),
            (Kind::Entropy, _) => lane.post_in(slot, RANDOM_SIZE),
        }
    }
}

/// A card's header and a frame to everybody.
fn frame() -> [u8; FRAME_SIZE] {
    let mut frame = [0x5a; FRAME_SIZE];
    frame[..12].fill(0);
    frame[12..18].fill(0xff);
    frame
}
