//! Registers: queues that there are not, sizes, places, features, and the order in which a driver comes up.

use crate::attack::{Fate, Field, Target};
use bulkhead_guest_tests::device::{self, Device, Kind, register, status};
use bulkhead_guest_tests::ring::ENTRIES;
use rt::shared::Shared;
use rt::{machine, timer};
use testkit::{Failure, Outcome, ensure, report};

/// The size of the last page of memory.
const EDGE_BYTES: u64 = 4096;
/// How long a request may take there.
const EDGE_MICROSECONDS: u64 = 5_000_000;

pub(crate) fn run(field: &mut Field) {
    report::test("1: a queue that there is not can be selected and notified, and nothing comes of it", || {
        field.each(absent_queues)
    });
    report::test("2: a queue of size 0, 3, 257 or 65535 is not taken", || field.each_raw(sizes));
    report::test("2: the size and the places of a queue that is ready do not change", || {
        field.each(changed_when_ready)
    });
    report::test("3: rings outside of memory are refused", || field.each_raw(places_outside));
    report::test(
        "3: rings at the end of memory are served where they end with it, and refused where they leave it",
        || {
            let Some(edge) = edge() else {
                return Err(Failure::new(format_args!("the last page of memory is in use")));
            };
            field.each_raw(|target| places_at_the_end(target, &edge))
        },
    );
    report::test("3: rings that are not aligned are not taken", || field.each_raw(places_misaligned));
    report::test("4: a queue without places is not taken", || field.each_raw(without_places));
    report::test("14: a driver that is ready without settled features is not served", || {
        field.each_raw(ready_without_features)
    });
    report::test("14: features that were not offered are refused", || field.each_raw(not_offered));
    report::test("15: a notification before the driver is ready does nothing", || field.each_raw(too_early));
    report::test("18: interrupts that are not pending can be acknowledged", || field.each(acknowledges_anything));
    report::test("18: a driver that never acknowledges is served", || field.each(never_acknowledges));
}

/// Addresses that are nobody's memory, or somebody else's: devices, the rest of the board's RAM where other machines,
/// driver domain, Bulkhead and channels are, and numbers of every length.
pub(crate) fn outside() -> impl Iterator<Item = u64> {
    let end = machine().memory.last().map_or(0, |memory| memory.end());
    let start = machine().memory.first().map_or(0, |memory| memory.start);
    let devices = [0x0800_0000, 0x080a_0000, 0x0900_0000, 0x0a00_0000, 0x0a00_1000];
    let board = [0x0400_0000, 0x2000_0000, 0x600_0000, 0x800_0000, 0xe00_0000, 0x1c00_0000, 0x1fff_f000];
    let large = [1 << 32, 1 << 36, 1 << 39, 1 << 40, 1 << 48, 1 << 52, 1 << 63, !0xfff, !0xf];
    let all = devices
        .into_iter()
        .chain(board.map(|offset| start + offset))
        .chain([end, end + 0x1000, start - 0x1000])
        .chain(large);
    all.filter(|&address| machine().memory_at(address, 0x1000).is_none())
}

fn absent_queues(target: &mut Target<'_>) -> Outcome {
    let device = target.device;
    let count = u32::from(device.queues());
    for queue in [count, 8, 9, 255, 256, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff] {
        device.write(register::QUEUE_SEL, queue)?;
        let (most, ready) = (device.read(register::QUEUE_NUM_MAX)?, device.read(register::QUEUE_READY)?);
        ensure!((most, ready) == (0, 0), "queue {queue:#x} has QueueNumMax {most} and QueueReady {ready}");
        ensure!(!device.start_queue(queue, 16, target.ring.places())?, "queue {queue:#x} is taken");
        device.notify(queue)?;
    }
    ensure!(!device.needs_reset()?, "the device needs a reset");
    target.write_request(0);
    target.ring.offer(0);
    in_order(target)
}

/// The request that was offered is served.
pub(crate) fn in_order(target: &mut Target<'_>) -> Outcome {
    let fate = target.kick()?;
    let is_idle = target.device.kind == Kind::Console && target.queue == 0;
    ensure!(matches!(fate, Fate::Used(_)) || is_idle, "a request in order ended with {fate:?}");
    Ok(())
}

fn sizes(target: &mut Target<'_>) -> Outcome {
    let Target { device, queue, .. } = *target;
    ensure!(device.negotiate(device::VERSION_1)?, "no negotiation");
    for size in [0, 3, 5, 255, 257, 512, 0x8000, 65535, 0x1_0000, 0x1_0010, 0x8000_0000, 0xffff_ffff] {
        ensure!(!device.start_queue(queue.into(), size, target.ring.places())?, "a queue of size {size:#x} is taken");
    }
    device.go()?;
    ensure!(target.kick_in_vain()? == Fate::Nothing, "a queue that was not taken is served");
    Ok(())
}

fn changed_when_ready(target: &mut Target<'_>) -> Outcome {
    let Target { device, queue, .. } = *target;
    device.write(register::QUEUE_SEL, queue.into())?;
    for size in [0, 1, 3, 256, 65535] {
        device.write(register::QUEUE_NUM, size)?;
    }
    for part in [register::QUEUE_DESC, register::QUEUE_DRIVER, register::QUEUE_DEVICE] {
        device.write_address(part, 0xffff_ffff_ffff_f001)?;
    }
    for ready in [1, 2, 0xffff_ffff] {
        device.write(register::QUEUE_READY, ready)?;
        ensure!(device.read(register::QUEUE_READY)? == 1, "QueueReady does not stay 1 when {ready:#x} is stored");
    }
    target.write_request(0);
    target.ring.offer(0);
    in_order(target)
}

/// Each part of the queue in turn is at `place`, the others where they belong.
fn each_part(target: &mut Target<'_>, place: u64, mut judge: impl FnMut(&mut Target<'_>, bool) -> Outcome) -> Outcome {
    for part in 0..3 {
        target.ring.clear();
        let mut places = target.ring.places();
        places[part] = place;
        target.write_request(0);
        target.ring.offer(0);
        let taken = target.start_at(device::VERSION_1 | device::INDIRECT, places)?;
        judge(target, taken).map_err(|reason| Failure::new(format_args!("part {part} at {place:#x}: {reason}")))?;
    }
    Ok(())
}

fn places_outside(target: &mut Target<'_>) -> Outcome {
    for place in outside() {
        // A ring that the device cannot reach shows at once, or when a request ends.
        each_part(target, place, |target, taken| if taken { target.expect_needs_reset() } else { Ok(()) })?;
    }
    Ok(())
}

/// The last page of memory.
fn edge() -> Option<Shared> {
    let end = machine().memory.last()?.end();
    Shared::claim(end - EDGE_BYTES, EDGE_BYTES)
}

/// Puts the part of a queue so many bytes before the end of memory, with what it should hold as far as there is room.
fn at_the_end(target: &mut Target<'_>, edge: &Shared, part: usize, bytes: u64) -> Result<bool, Failure> {
    target.ring.clear();
    target.other.clear();
    // The last descriptors of the table.
    let head = ENTRIES - if target.device.kind == Kind::Block { 3 } else { 1 };
    target.write_request(head);
    target.ring.offer(head);
    let mut places = target.ring.places();
    let moved = edge.piece(EDGE_BYTES - bytes, bytes);
    if let (Some(from), Some(to)) = (target.ring.part(part), &moved) {
        from.copy_to(to);
        places[part] = to.address();
    }
    target.start_at(device::VERSION_1, places)
}

fn places_at_the_end(target: &mut Target<'_>, edge: &Shared) -> Outcome {
    let entries = u64::from(ENTRIES);
    // The whole part; and one that ends where its last entry, its first, or its index should be.
    let (table, available, used) = (16 * entries, 6 + 2 * entries, 8 + 8 * entries);
    for (part, whole, cut) in [(0, table, [table - 16, 16]), (1, available, [4, 2]), (2, used, [8, 4])] {
        let name =
            |bytes: u64, reason| Failure::new(format_args!("part {part}, {bytes} bytes before the end: {reason}"));
        ensure!(at_the_end(target, edge, part, whole)?, "part {part} is not taken where it ends with memory");
        served_at_the_end(target, edge, part, whole).map_err(|reason| name(whole, reason))?;
        for bytes in cut {
            if at_the_end(target, edge, part, bytes)? {
                target.expect_needs_reset().map_err(|reason| name(bytes, reason))?;
            }
        }
    }
    Ok(())
}

/// The request that was offered is served, with one part of the queue at the end of memory.
fn served_at_the_end(target: &mut Target<'_>, edge: &Shared, part: usize, bytes: u64) -> Outcome {
    if part != 2 {
        return in_order(target);
    }
    if target.device.receives_in(target.queue) {
        return Ok(());
    }
    target.device.notify(target.queue.into())?;
    let index = || edge.load(EDGE_BYTES - bytes) >> 16;
    ensure!(timer::wait_until(EDGE_MICROSECONDS, || index() == 1), "the used index is {}", index());
    ensure!(!target.device.needs_reset()?, "the device needs a reset");
    Ok(())
}

fn places_misaligned(target: &mut Target<'_>) -> Outcome {
    let Target { device, queue, .. } = *target;
    ensure!(device.negotiate(device::VERSION_1)?, "no negotiation");
    for (part, offsets) in [(0, [1, 2, 4, 8, 15].as_slice()), (1, &[1, 3, 511]), (2, &[1, 2, 3, 6])] {
        for offset in offsets {
            let mut places = target.ring.places();
            places[part] += offset;
            let taken = device.start_queue(queue.into(), ENTRIES.into(), places)?;
            ensure!(!taken, "part {part} is taken, {offset} bytes from where it belongs");
        }
    }
    Ok(())
}

fn without_places(target: &mut Target<'_>) -> Outcome {
    let Target { device, queue, .. } = *target;
    ensure!(device.negotiate(device::VERSION_1)?, "no negotiation");
    for missing in 0..3 {
        let mut places = target.ring.places();
        places[missing] = 0;
        ensure!(!device.start_queue(queue.into(), ENTRIES.into(), places)?, "part {missing} at 0 is taken");
    }
    ensure!(device.negotiate(device::VERSION_1)?, "no second negotiation");
    device.write(register::QUEUE_SEL, queue.into())?;
    device.write(register::QUEUE_READY, 1)?;
    ensure!(device.read(register::QUEUE_READY)? == 0, "a queue that was never described is ready");
    device.go()?;
    ensure!(target.kick_in_vain()? == Fate::Nothing, "a queue that was not taken is served");
    Ok(())
}

fn ready_without_features(target: &mut Target<'_>) -> Outcome {
    let Target { device, queue, .. } = *target;
    for stored in [
        status::DRIVER_OK,
        status::ACKNOWLEDGE | status::DRIVER | status::DRIVER_OK,
        // No feature is accepted, and one must be.
        status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK,
        0xffff_ffff,
    ] {
        device.reset()?;
        target.ring.clear();
        target.write_request(0);
        target.ring.offer(0);
        let _ = device.start_queue(queue.into(), ENTRIES.into(), target.ring.places())?;
        device.write(register::STATUS, stored)?;
        let read = device.status()?;
        let refused = status::DRIVER_OK | status::FEATURES_OK | status::NEEDS_RESET;
        ensure!(read & refused == 0, "Status is {read:#x} after {stored:#x}");
        ensure!(target.kick_in_vain()? == Fate::Nothing, "a driver that is not ready is served");
    }
    Ok(())
}

fn not_offered(target: &mut Target<'_>) -> Outcome {
    let device = target.device;
    let offered = device.offered()?;
    ensure!(offered & device::VERSION_1 != 0, "VERSION_1 is not offered");
    for bit in (0..64).filter(|bit| offered & 1 << bit == 0) {
        ensure!(!device.negotiate(device::VERSION_1 | 1 << bit)?, "feature {bit} is accepted and was not offered");
    }
    ensure!(!device.negotiate(offered & !device::VERSION_1)?, "a legacy driver is accepted");
    ensure!(device.negotiate(offered)?, "what is offered is not accepted");
    // Once they are settled they stay as they are.
    device.write(register::DRIVER_FEATURES_SEL, 1)?;
    device.write(register::DRIVER_FEATURES, 0xffff_ffff)?;
    device.write(register::DRIVER_FEATURES_SEL, 0xffff_ffff)?;
    device.write(register::DRIVER_FEATURES, 0xffff_ffff)?;
    device.write(register::DEVICE_FEATURES_SEL, 0xffff_ffff)?;
    ensure!(device.read(register::DEVICE_FEATURES)? == 0, "there are features beyond the last");
    Ok(())
}

fn too_early(target: &mut Target<'_>) -> Outcome {
    let Target { device, queue, .. } = *target;
    ensure!(device.negotiate(device::VERSION_1)?, "no negotiation");
    target.write_request(0);
    target.ring.offer(0);
    ensure!(device.start_queue(queue.into(), ENTRIES.into(), target.ring.places())?, "the queue is not taken");
    ensure!(target.kick_in_vain()? == Fate::Nothing, "a queue is served before its driver is ready");
    if device.kind == Kind::Network && queue == 0 {
        ensure!(device.start_queue(1, ENTRIES.into(), target.other.places())?, "the other queue is not taken");
    }
    device.go()?;
    in_order(target)
}

fn acknowledges_anything(target: &mut Target<'_>) -> Outcome {
    for bits in [0, 1, 2, 3, 0x8000_0000, 0xffff_ffff] {
        target.device.write(register::INTERRUPT_ACK, bits)?;
        // Nothing was pending, and what cannot be stored to stays as it is.
        target.device.write(register::INTERRUPT_STATUS, bits)?;
        let pending = target.device.read(register::INTERRUPT_STATUS)?;
        ensure!(pending == 0, "InterruptStatus is {pending:#x}");
    }
    target.write_request(0);
    target.ring.offer(0);
    in_order(target)
}

fn never_acknowledges(target: &mut Target<'_>) -> Outcome {
    let Device { kind, .. } = target.device;
    if kind == Kind::Console && target.queue == 0 {
        return Ok(());
    }
    for _ in 0..20 {
        target.write_request(0);
        target.ring.offer(0);
        in_order(target)?;
    }
    let pending = target.device.read(register::INTERRUPT_STATUS)?;
    ensure!(pending == 1, "InterruptStatus is {pending:#x} after twenty requests");
    Ok(())
}
