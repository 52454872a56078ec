//! Large requests: between a client's memory and a real disk nobody copies them, so that whatever is let through here,
//! a device does to the board's memory.

use crate::attack::{Fate, Field, Target, boundary, write_block_header};
use crate::registers::outside;
use bulkhead_guest_tests::beside::{GoesOn, beside};
use bulkhead_guest_tests::device::{Kind, register};
use bulkhead_guest_tests::ring::{Descriptor, ENTRIES, NEXT, Ring, WRITE};
use rt::shared::Shared;
use rt::{cpu, machine, timer};
use spin::Mutex;
use testkit::{Failure, Outcome, ensure, report};

const PAGE: u64 = 4096;
/// The data of a request, above the size from which on it is granted.
const SIZE: u32 = 64 << 10;
/// A piece of it.
const PIECE: u32 = SIZE / 4;
/// Descriptors of a request whose data is one piece.
const DESCRIPTORS: u16 = 3;
/// `size_max` (VIRTIO 1.2, 5.2.4), which is larger than a page where requests are granted.
const SEGMENT_SIZE_MAX: u64 = register::CONFIGURATION + 8;
/// Kinds of block request (VIRTIO 1.2, 5.2.6).
const READ: u32 = 0;
const STORE: u32 = 1;
/// How often requests are stopped in the middle, and race with another CPU.
const ROUNDS: u64 = 10;
const RACES: usize = 100;
/// How long one looks whether a request goes on.
const QUIET_MICROSECONDS: u64 = 3_000;
/// What no disk has.
const MARK: [u64; 4] = [0x6d61_726b_0bad_cafe; 4];

/// The data of a request, between two pages that nobody may touch.
#[derive(Clone, Copy)]
struct Room {
    memory: Shared,
}

impl Room {
    fn claim() -> Option<Self> {
        const BYTES: u64 = SIZE as u64 + 2 * PAGE;
        let end = machine().memory.last()?.end();
        let memory = (1..32).find_map(|step| Shared::claim(end - step * BYTES, BYTES))?;
        Some(Self { memory })
    }

    fn address(&self) -> u64 {
        self.memory.address() + PAGE
    }

    /// Puts a mark wherever a disk or somebody else could write.
    fn mark(&self) {
        self.each_place(|place| self.memory.store_words(place, MARK));
    }

    fn check(&self, is_meant: impl Fn(u64) -> bool, who: &str) -> Outcome {
        let mut changed = None;
        self.each_place(|place| {
            if is_meant(place) && self.memory.load_words(place) != MARK {
                changed = Some(place);
            }
        });
        ensure!(changed.is_none(), "{who} has changed at {:#x}", changed.unwrap_or(0));
        Ok(())
    }

    /// The first line of each sector, and the last before the data.
    fn each_place(&self, body: impl FnMut(u64)) {
        (0..self.memory.size()).step_by(512).chain([PAGE - 32]).for_each(body);
    }

    /// Nobody has touched the pages beside the data.
    fn check_guards(&self) -> Outcome {
        self.check(|place| !(PAGE..PAGE + u64::from(SIZE)).contains(&place), "a guard")
    }

    /// Nobody has touched anything.
    fn check_all(&self) -> Outcome {
        self.check(|_| true, "a buffer")
    }
}

pub(crate) fn run(field: &mut Field) {
    let room = Room::claim();
    let mut each = |name: &str, attack: fn(&mut Target<'_>, &Room) -> Outcome| {
        report::test(name, || {
            let Some(room) = room else {
                return Err(Failure::new(format_args!("there is no room for large requests")));
            };
            let mut granted = 0;
            field.each_asking(Some(Kind::Block), |target| {
                // Elsewhere large requests are copied, as small ones are.
                if u64::from(target.device.read(SEGMENT_SIZE_MAX)?) <= PAGE {
                    return Ok(());
                }
                granted += 1;
                room.mark();
                in_order(target, &room)?;
                attack(target, &room)?;
                room.check_guards()
            })?;
            ensure!(granted > 0, "there is no disk to which anything is granted");
            Ok(())
        });
    };
    each("7: large: a buffer that wraps around the address space is refused", wrapping);
    each("8: large: a buffer that leaves memory, or lies across two regions of it, is refused", straddling);
    each("8: large: a buffer outside of memory is refused, also as the last of several", foreign);
    each("11: large: the same head twice in flight is refused, and nothing is written after the reset", twice);
    let name =
        "12: large: descriptors that change behind the device's back do nothing that they could not say themselves";
    if cpu::count() > 1 {
        each(name, race);
    } else {
        report::skip(name, "there is one CPU");
    }
    each("13: large: after a reset in the middle of requests nothing of them comes", |target, room| {
        interrupted(target, room, |target| target.device.reset())
    });
    each("13: large: after a queue was stopped in the middle of requests nothing of them comes", |target, room| {
        interrupted(target, room, |target| {
            target.device.write(register::QUEUE_SEL, target.queue.into())?;
            target.device.write(register::QUEUE_READY, 0)?;
            ensure!(target.device.read(register::QUEUE_READY)? == 0, "QueueReady stays 1");
            Ok(())
        })
    });
}

/// Offers a request of `kind` whose data are `pieces`.
fn offer(ring: &mut Ring, kind: u32, head: u16, pieces: &[(u64, u32)]) {
    write_block_header(ring, kind, 0);
    let flags = if kind == STORE { NEXT } else { NEXT | WRITE };
    let mut at = head;
    let mut describe = |address, length, flags| {
        ring.set_descriptor(at, Descriptor::new(address, length, flags, at + 1));
        at += 1;
    };
    describe(ring.data(0), 16, NEXT);
    pieces.iter().for_each(|(address, length)| describe(*address, *length, flags));
    describe(ring.data(0xf00), 1, WRITE);
    ring.offer(head);
}

/// A request that breaks no rule is done.
fn in_order(target: &mut Target<'_>, room: &Room) -> Outcome {
    offer(target.ring, READ, 0, &[(room.address(), SIZE)]);
    let fate = target.kick()?;
    ensure!(fate == Fate::Used(SIZE + 1), "a large request in order ended with {fate:?}");
    anew(target)
}

fn anew(target: &mut Target<'_>) -> Outcome {
    target.device.reset()?;
    target.ring.clear();
    target.start()
}

/// Refused, whatever it asks for, before anything is done.
fn refused(target: &mut Target<'_>, room: &Room, pieces: &[(u64, u32)]) -> Outcome {
    for kind in [READ, STORE] {
        anew(target)?;
        room.mark();
        offer(target.ring, kind, 0, pieces);
        let fate = target.kick()?;
        let [(address, length), ..] = *pieces else { continue };
        ensure!(fate == Fate::NeedsReset, "operation {kind} of {length:#x} bytes at {address:#x} ended with {fate:?}");
        target.device.reset()?;
        room.check_all()?;
    }
    Ok(())
}

fn wrapping(target: &mut Target<'_>, room: &Room) -> Outcome {
    let size = u64::from(SIZE);
    for address in [u64::MAX, u64::MAX - 511, u64::MAX - size / 2 + 1, u64::MAX - size + 2, !0xfff] {
        refused(target, room, &[(address, SIZE)])?;
    }
    Ok(())
}

fn straddling(target: &mut Target<'_>, room: &Room) -> Outcome {
    let (size, boundary) = (u64::from(SIZE), boundary()?);
    let [Some(first), Some(last)] = [machine().memory.first(), machine().memory.last()] else { return Ok(()) };
    for inside in [1, 512, size / 2, size - 1] {
        refused(target, room, &[(last.end() - inside, SIZE)])?;
        refused(target, room, &[(boundary - inside, SIZE)])?;
        refused(target, room, &[(first.start - inside, SIZE)])?;
    }
    Ok(())
}

fn foreign(target: &mut Target<'_>, room: &Room) -> Outcome {
    let own = |index: u32| (room.address() + u64::from(index * PIECE), PIECE);
    // Small requests try every one of them.
    for address in outside().step_by(3) {
        refused(target, room, &[(address, SIZE)])?;
        refused(target, room, &[own(0), own(1), own(2), (address, PIECE)])?;
    }
    Ok(())
}

fn twice(target: &mut Target<'_>, room: &Room) -> Outcome {
    for _ in 0..ROUNDS {
        anew(target)?;
        offer(target.ring, READ, 0, &[(room.address(), SIZE)]);
        target.ring.offer(0);
        let fate = target.kick()?;
        ensure!(fate == Fate::NeedsReset, "it ended with {fate:?}");
        target.device.reset()?;
        room.mark();
        timer::spin(QUIET_MICROSECONDS);
        room.check_all()?;
    }
    Ok(())
}

/// What the other CPU spoils.
static RACE: Mutex<Option<(Ring, Room)>> = Mutex::new(None);

/// Flips the data of the first request between what is in order and what is not.
fn spoil(goes_on: GoesOn) {
    let Some((ring, room)) = *RACE.lock() else { return };
    while goes_on() {
        for address in outside() {
            for (address, length) in [(address, SIZE), (room.address(), SIZE), (room.address(), u32::MAX)] {
                ring.set_descriptor(1, Descriptor::new(address, length, NEXT | WRITE, 2));
            }
            ring.set_descriptor(1, Descriptor::new(room.address(), SIZE, NEXT | WRITE, 2));
        }
    }
}

fn race(target: &mut Target<'_>, room: &Room) -> Outcome {
    *RACE.lock() = Some((*target.ring, *room));
    beside(spoil, || {
        for _ in 0..RACES {
            offer(target.ring, READ, 0, &[(room.address(), SIZE)]);
            target.device.notify(target.queue.into())?;
            if target.device.needs_reset()? {
                // Not `clear`: the other CPU is writing there.
                target.ring.set_available_index(0);
                target.start()?;
            }
        }
        target.device.reset()
    })?;
    // The other CPU has stopped, and so has the device.
    room.mark();
    timer::spin(QUIET_MICROSECONDS);
    room.check_all()
}

fn interrupted(target: &mut Target<'_>, room: &Room, mut stop: impl FnMut(&mut Target<'_>) -> Outcome) -> Outcome {
    for round in 0..ROUNDS {
        anew(target)?;
        for request in 0..ENTRIES / DESCRIPTORS {
            offer(target.ring, READ, request * DESCRIPTORS, &[(room.address(), SIZE)]);
        }
        target.device.notify(target.queue.into())?;
        timer::spin(round * 50);
        stop(target)?;
        // From here on all that memory is this guest's alone.
        let used = target.ring.used_index();
        room.mark();
        timer::spin(QUIET_MICROSECONDS);
        room.check_all()?;
        ensure!(target.ring.used_index() == used, "round {round}: a chain was given back afterwards");
    }
    Ok(())
}
