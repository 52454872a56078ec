//! When things happen: changes behind the device's back, resets in the middle, notifications without end.

use crate::attack::{Fate, Field, Target, write_block_header, write_request};
use crate::registers::outside;
use arrayvec::ArrayVec;
use bulkhead_guest_tests::beside::{GoesOn, beside};
use bulkhead_guest_tests::device::{self, Kind, register};
use bulkhead_guest_tests::ring::{Descriptor, ENTRIES, INDIRECT, NEXT, Ring, WRITE};
use rt::{cpu, timer};
use spin::Mutex;
use testkit::{Outcome, ensure, report};

/// Notifications of a storm.
const STORM: usize = 10_000;
/// Requests of one.
const STORM_REQUESTS: u16 = 100;
/// How often a request races with another CPU.
const RACES: usize = 200;
/// How often a device is reset in the middle.
const ROUNDS: u64 = 10;
/// How long one looks whether a request goes on after a reset.
const QUIET_MICROSECONDS: u64 = 3_000;

/// What the other CPU spoils.
static RACE: Mutex<Option<Ring>> = Mutex::new(None);

pub(crate) fn run(field: &mut Field) {
    let name = "12: descriptors that change behind the device's back do nothing that they could not say themselves";
    let name_of_tables = "12: tables that change behind the device's back, and their lengths, do no more";
    if cpu::count() > 1 {
        report::test(name, || race(field, spoil, lose));
        report::test(name_of_tables, || race(field, spoil_table, lose_in_table));
    } else {
        report::skip(name, "there is one CPU");
        report::skip(name_of_tables, "there is one CPU");
    }
    report::test("13: after a reset in the middle of requests nothing of them comes", || {
        field.each(|target| interrupted(target, |target| target.device.reset()))
    });
    report::test("13: after a queue was stopped in the middle of requests nothing of them comes", || {
        field.each(|target| {
            interrupted(target, |target| {
                target.device.write(register::QUEUE_SEL, target.queue.into())?;
                target.device.write(register::QUEUE_READY, 0)?;
                ensure!(target.device.read(register::QUEUE_READY)? == 0, "QueueReady stays 1");
                Ok(())
            })
        })
    });
    report::test("15: a storm of notifications of an empty queue comes to an end", || field.each(empty_storm));
    report::test("15: a storm of requests comes to an end", || field.each(full_storm));
    report::test("18: an event index that never comes does no harm", || field.each_raw(event_index));
}

/// Flips the first descriptors between what is in order and what is not, as long as the race goes on.
fn spoil(goes_on: GoesOn) {
    let ring = *RACE.lock();
    let Some(ring) = ring else { return };
    let places: ArrayVec<u64, 64> = outside().collect();
    let mut places = places.iter().cycle();
    while goes_on() {
        let address = places.next().copied().unwrap_or(0);
        for index in 0..3 {
            let flags = if index == 0 { NEXT } else { NEXT | WRITE };
            ring.set_descriptor(index, Descriptor::new(address, u32::MAX, flags, index));
            ring.set_descriptor(index, Descriptor::new(ring.data(0), 16, flags, 0xffff));
        }
    }
}

/// As [`spoil`], for the table of indirect descriptors and for the one that names it.
fn spoil_table(goes_on: GoesOn) {
    let ring = *RACE.lock();
    let Some(ring) = ring else { return };
    let places: ArrayVec<u64, 64> = outside().collect();
    let mut places = places.iter().cycle();
    let mut lengths = [48, 16, 0, 15, u32::MAX - 15, 1 << 20, 32].into_iter().cycle();
    while goes_on() {
        let address = places.next().copied().unwrap_or(0);
        for index in 0..3 {
            let flags = if index == 0 { NEXT } else { NEXT | WRITE };
            ring.set_indirect(index, Descriptor::new(address, u32::MAX, flags, index));
            ring.set_indirect(index, Descriptor::new(ring.table(), 48, INDIRECT, 0));
            ring.set_indirect(index, Descriptor::new(ring.data(0), 16, flags, 0xffff));
        }
        ring.set_descriptor(0, Descriptor::new(address, 48, INDIRECT, 0));
        ring.set_descriptor(0, Descriptor::new(ring.table(), lengths.next().unwrap_or(0), INDIRECT, 0));
    }
}

fn race(field: &mut Field, spoil: fn(GoesOn), lose: fn(&mut Target<'_>) -> Outcome) -> Outcome {
    field.each(|target| {
        *RACE.lock() = Some(*target.ring);
        beside(spoil, || lose(target))
    })
}

fn lose(target: &mut Target<'_>) -> Outcome {
    for _ in 0..RACES {
        write_request(target.ring, target.device, target.queue, 0);
        target.ring.offer(0);
        target.device.notify(target.queue.into())?;
        if target.device.needs_reset()? {
            // Not `clear`: the other CPU is writing there.
            target.ring.set_available_index(0);
            target.start()?;
        }
    }
    timer::spin(QUIET_MICROSECONDS);
    target.device.reset()
}

/// As [`lose`], with requests in a table.
fn lose_in_table(target: &mut Target<'_>) -> Outcome {
    for _ in 0..RACES {
        let direction = target.direction();
        let ring = &mut *target.ring;
        if target.device.kind == Kind::Block {
            write_block_header(ring, 0, 0);
            ring.set_indirect(0, Descriptor::new(ring.data(0), 16, NEXT, 1));
            ring.set_indirect(1, Descriptor::new(ring.data(0x400), 512, NEXT | WRITE, 2));
            ring.set_indirect(2, Descriptor::new(ring.data(0xf00), 1, WRITE, 0));
        } else {
            ring.set_indirect(0, Descriptor::new(ring.data(0), 16, direction, 0));
        }
        ring.set_descriptor(0, Descriptor::new(ring.table(), 48, INDIRECT, 0));
        ring.offer(0);
        target.device.notify(target.queue.into())?;
        if target.device.needs_reset()? {
            target.ring.set_available_index(0);
            target.start()?;
        }
    }
    timer::spin(QUIET_MICROSECONDS);
    target.device.reset()
}

fn interrupted(target: &mut Target<'_>, mut stop: impl FnMut(&mut Target<'_>) -> Outcome) -> Outcome {
    for round in 0..ROUNDS {
        target.ring.clear();
        target.other.clear();
        target.start()?;
        // As many requests as there are descriptors for, a disk's of three each.
        let per_request = if target.device.kind == Kind::Block { 3 } else { 1 };
        for request in 0..ENTRIES / per_request {
            target.write_request(request * per_request);
            target.ring.offer(request * per_request);
        }
        target.device.notify(target.queue.into())?;
        timer::spin(round * 10);
        stop(target)?;
        // From here on all that memory is this guest's alone.
        let used = target.ring.used_index();
        target.ring.restore_data();
        timer::spin(QUIET_MICROSECONDS);
        ensure!(target.ring.is_data_untouched(), "round {round}: a buffer was written afterwards");
        ensure!(target.ring.used_index() == used, "round {round}: a chain was given back afterwards");
    }
    Ok(())
}

fn empty_storm(target: &mut Target<'_>) -> Outcome {
    for _ in 0..STORM {
        target.device.notify(target.queue.into())?;
    }
    ensure!(!target.device.needs_reset()?, "the device needs a reset");
    Ok(())
}

fn full_storm(target: &mut Target<'_>) -> Outcome {
    if target.device.receives_in(target.queue) {
        return Ok(());
    }
    for request in 1..=STORM_REQUESTS {
        target.write_request(0);
        target.ring.offer(0);
        // Many for each.
        for _ in 0..10 {
            target.device.notify(target.queue.into())?;
        }
        target.ring.wait_used(request, 5_000_000)?;
    }
    Ok(())
}

fn event_index(target: &mut Target<'_>) -> Outcome {
    target.start_with(device::VERSION_1 | device::EVENT_INDEX)?;
    for event in [0, 1, 0x7fff, 0x8000, 0xffff] {
        target.ring.set_used_event(event);
        target.write_request(0);
        target.ring.offer(0);
        let fate = target.kick()?;
        let is_idle = target.device.kind == Kind::Console && target.device.receives_in(target.queue);
        ensure!(matches!(fate, Fate::Used(_)) || is_idle, "with used_event {event:#x} a request ended with {fate:?}");
        if is_idle {
            break;
        }
    }
    Ok(())
}
