//! Rings: loops, indices, lengths, tables, and buffers that are not this guest's.

use crate::attack::{Fate, Field, Target};
use crate::registers::outside;
use bulkhead_guest_tests::device::{self, Kind};
use bulkhead_guest_tests::ring::{Descriptor, ENTRIES, INDIRECT, NEXT, WRITE};
use rt::machine;
use testkit::{Failure, Outcome, ensure, report};

/// How long a queue full of requests may take.
const LIMIT_MICROSECONDS: u64 = 5_000_000;

pub(crate) fn run(field: &mut Field) {
    report::test("5: a descriptor that follows itself is refused", || field.each(|target| cycle(target, 1)));
    report::test("5: two descriptors that follow each other are refused", || field.each(|target| cycle(target, 2)));
    report::test("5: all descriptors in a circle are refused", || field.each(|target| cycle(target, ENTRIES)));
    report::test("5: a loop in an indirect table is refused", || field.each(indirect_cycle));
    report::test("6: a head that is no descriptor is refused", || field.each(heads));
    report::test("6: a next that is no descriptor is refused", || field.each(nexts));
    report::test("7: a buffer that wraps around the address space is refused", || field.each(wrapping));
    report::test("8: a buffer that leaves memory is refused", || field.each(straddling));
    report::test("8: a buffer across two regions of memory is refused", || field.each(across));
    report::test("8: a buffer outside of memory is refused", || field.each(foreign));
    report::test("8: a buffer to read behind one to write is refused", || field.each(disordered));
    report::test("9: a table in a table is refused", || field.each(nested));
    report::test("9: a table with a successor is refused", || field.each(followed));
    report::test("9: a table of a length that no table has is refused", || field.each(lengths));
    report::test("9: a table outside of memory is refused", || field.each(foreign_tables));
    report::test("9: a table that was not negotiated is refused", || field.each_raw(not_negotiated));
    report::test("10: an available index that jumps ahead is refused", || {
        field.each(|target| index(target, &[ENTRIES + 1, 0x7fff, 0x8000]))
    });
    report::test("10: an available index that goes back is refused", || {
        field.each(|target| index(target, &[u16::MAX, 0xfff0]))
    });
    report::test("11: the same head twice in flight is refused, or is twice the same request", || field.each(twice));
    report::test("11: a full queue of one and the same head comes to an end", || field.each(many_times));
}

/// Kicks what `write` wrote, in a fresh queue each time; the device is to ask for a reset.
fn refused(target: &mut Target<'_>, what: impl core::fmt::Display) -> Outcome {
    let outcome = target.expect_needs_reset();
    outcome.map_err(|reason| Failure::new(format_args!("{what}: {reason}")))
}

/// Starts anew, for the next of several variants.
fn anew(target: &mut Target<'_>) -> Outcome {
    target.ring.clear();
    target.other.clear();
    target.start()
}

fn cycle(target: &mut Target<'_>, length: u16) -> Outcome {
    let flags = NEXT | target.direction();
    for index in 0..length {
        let next = (index + 1) % length;
        target.ring.set_descriptor(index, Descriptor::new(target.ring.data(0), 16, flags, next));
    }
    target.ring.offer(0);
    refused(target, "a circle")?;
    // Empty buffers add up to nothing, however often.
    anew(target)?;
    for index in 0..length {
        target.ring.set_descriptor(index, Descriptor::new(target.ring.data(0), 0, flags, (index + 1) % length));
    }
    target.ring.offer(0);
    refused(target, "a circle of empty buffers")
}

/// One descriptor that names the table, of `bytes` bytes.
fn offer_table(target: &mut Target<'_>, bytes: u32) {
    target.ring.set_descriptor(0, Descriptor::new(target.ring.table(), bytes, INDIRECT, 0));
    target.ring.offer(0);
}

fn indirect_cycle(target: &mut Target<'_>) -> Outcome {
    let flags = NEXT | target.direction();
    for (index, next) in [(0, 1), (1, 2), (2, 1)] {
        target.ring.set_indirect(index, Descriptor::new(target.ring.data(0), 16, flags, next));
    }
    offer_table(target, 48);
    refused(target, "a circle in a table")
}

fn heads(target: &mut Target<'_>) -> Outcome {
    for head in [ENTRIES, ENTRIES + 1, 255, 256, 0x7fff, 0xffff] {
        anew(target)?;
        target.write_request(0);
        target.ring.offer(head);
        refused(target, head)?;
    }
    Ok(())
}

fn nexts(target: &mut Target<'_>) -> Outcome {
    let flags = NEXT | target.direction();
    for next in [ENTRIES, ENTRIES + 1, 256, 0xffff] {
        anew(target)?;
        target.ring.set_descriptor(0, Descriptor::new(target.ring.data(0), 16, flags, next));
        target.ring.offer(0);
        refused(target, next)?;
        // And out of a table that is shorter than the queue.
        anew(target)?;
        target.ring.set_indirect(0, Descriptor::new(target.ring.data(0), 16, flags, next.min(2)));
        offer_table(target, 32);
        refused(target, "out of a table")?;
    }
    Ok(())
}

/// Puts a buffer into a request where the device uses it: the only one, or a disk's data.
fn with_buffer(target: &mut Target<'_>, address: u64, length: u32) -> Outcome {
    anew(target)?;
    target.write_request(0);
    match target.device.kind {
        Kind::Block => {
            target.ring.set_descriptor(1, Descriptor::new(address, length, NEXT | WRITE, 2));
        }
        Kind::Network | Kind::Console | Kind::Entropy => {
            target.ring.set_descriptor(0, Descriptor::new(address, length, target.direction(), 0));
        }
    }
    target.ring.offer(0);
    Ok(())
}

/// As [`refused`]; what would be too long anyway may come back unused, and a disk may answer with an error.
fn refused_or_unused(target: &mut Target<'_>, address: u64) -> Outcome {
    let fate = target.kick()?;
    let is_idle = target.device.kind == Kind::Console && target.device.receives_in(target.queue);
    let status = crate::attack::block_status(target.ring);
    let is_contained = match fate {
        Fate::NeedsReset => true,
        Fate::Used(1) => target.device.kind == Kind::Block && status == 1,
        // Nothing was written, or only what is this guest's: a frame may be shorter than its buffer.
        Fate::Used(length) => length == 0 || is_own(address, length),
        Fate::Nothing => is_idle,
    };
    ensure!(is_contained, "a buffer at {address:#x} ended with {fate:?}, status {status:#x}");
    Ok(())
}

fn is_own(address: u64, length: u32) -> bool {
    let end = address.saturating_add(length.into());
    machine().memory.iter().any(|memory| memory.start <= address && end <= memory.end())
}

fn wrapping(target: &mut Target<'_>) -> Outcome {
    for (address, length) in [(u64::MAX, 512), (u64::MAX - 510, 512), (u64::MAX - 0xfff, 0x1001), (1 << 63, u32::MAX)] {
        with_buffer(target, address, length)?;
        refused_or_unused(target, address)?;
    }
    Ok(())
}

fn straddling(target: &mut Target<'_>) -> Outcome {
    let [Some(first), Some(last)] = [machine().memory.first(), machine().memory.last()] else { return Ok(()) };
    for (address, length) in [(last.end() - 1, 512), (last.end() - 511, 512), (last.end() - 16, 1536)] {
        with_buffer(target, address, length)?;
        refused_or_unused(target, address)?;
    }
    // From before the first byte into memory. What the buffer would reach of it is Bulkhead's to refuse.
    with_buffer(target, first.start - 1, 512)?;
    refused_or_unused(target, first.start - 1)
}

/// What follows the first region is this guest's too, and not what follows it on the board.
fn across(target: &mut Target<'_>) -> Outcome {
    let boundary = crate::attack::boundary()?;
    for before in [1, 256, 511] {
        with_buffer(target, boundary - before, 512)?;
        refused_or_unused(target, boundary - before)?;
    }
    Ok(())
}

fn foreign(target: &mut Target<'_>) -> Outcome {
    for address in outside() {
        with_buffer(target, address, 512)?;
        refused_or_unused(target, address)?;
    }
    // A disk's header and status, too.
    if target.device.kind == Kind::Block {
        for address in outside() {
            for (descriptor, length, flags) in [(0, 16, NEXT), (2, 1, WRITE)] {
                anew(target)?;
                target.write_request(0);
                let descriptor = (descriptor, Descriptor::new(address, length, flags, descriptor + 1));
                target.ring.set_descriptor(descriptor.0, descriptor.1);
                target.ring.offer(0);
                refused(target, format_args!("descriptor {} at {address:#x}", descriptor.0))?;
            }
        }
    }
    Ok(())
}

fn disordered(target: &mut Target<'_>) -> Outcome {
    target.ring.set_descriptor(0, Descriptor::new(target.ring.data(0), 16, NEXT | WRITE, 1));
    target.ring.set_descriptor(1, Descriptor::new(target.ring.data(64), 16, NEXT, 2));
    target.ring.set_descriptor(2, Descriptor::new(target.ring.data(128), 16, WRITE, 0));
    target.ring.offer(0);
    refused(target, "a mixture")
}

fn nested(target: &mut Target<'_>) -> Outcome {
    let table = target.ring.table();
    target.ring.set_indirect(0, Descriptor::new(table, 32, INDIRECT, 0));
    offer_table(target, 32);
    refused(target, "a table that names itself")?;
    anew(target)?;
    target.ring.set_indirect(0, Descriptor::new(target.ring.data(0), 16, NEXT | target.direction(), 1));
    target.ring.set_indirect(1, Descriptor::new(table + 512, 32, INDIRECT, 0));
    offer_table(target, 32);
    refused(target, "a table at the end of a table")
}

fn followed(target: &mut Target<'_>) -> Outcome {
    let direction = target.direction();
    target.ring.set_indirect(0, Descriptor::new(target.ring.data(0), 16, direction, 0));
    target.ring.set_descriptor(0, Descriptor::new(target.ring.table(), 16, INDIRECT | NEXT, 1));
    target.ring.set_descriptor(1, Descriptor::new(target.ring.data(64), 16, direction, 0));
    target.ring.offer(0);
    refused(target, "INDIRECT and NEXT")
}

fn lengths(target: &mut Target<'_>) -> Outcome {
    for length in [0, 1, 15, 17, 31, u32::MAX, u32::MAX - 15, 0x8000_0000, 16 << 16] {
        anew(target)?;
        target.ring.set_indirect(0, Descriptor::new(target.ring.data(0), 16, target.direction(), 0));
        offer_table(target, length);
        refused(target, format_args!("length {length:#x}"))?;
    }
    Ok(())
}

fn foreign_tables(target: &mut Target<'_>) -> Outcome {
    let end = machine().memory.last().map_or(0, |memory| memory.end());
    for address in outside().chain([end - 8, u64::MAX - 8]) {
        anew(target)?;
        target.ring.set_descriptor(0, Descriptor::new(address, 64, INDIRECT, 0));
        target.ring.offer(0);
        refused(target, format_args!("a table at {address:#x}"))?;
    }
    Ok(())
}

fn not_negotiated(target: &mut Target<'_>) -> Outcome {
    target.start_with(device::VERSION_1)?;
    target.ring.set_indirect(0, Descriptor::new(target.ring.data(0), 16, target.direction(), 0));
    offer_table(target, 16);
    refused(target, "a table")
}

fn index(target: &mut Target<'_>, indices: &[u16]) -> Outcome {
    for index in indices {
        anew(target)?;
        target.write_request(0);
        target.ring.set_available_index(*index);
        refused(target, format_args!("index {index:#x}"))?;
    }
    // After requests that were in order, too, where there are any without somebody else's doing.
    if target.device.receives_in(target.queue) {
        return Ok(());
    }
    for index in indices {
        anew(target)?;
        target.write_request(0);
        target.ring.offer(0);
        let fate = target.kick()?;
        ensure!(matches!(fate, Fate::Used(_)), "a request in order ended with {fate:?}");
        target.ring.set_available_index(index.wrapping_add(1));
        refused(target, format_args!("index {index:#x} after a request"))?;
    }
    Ok(())
}

fn twice(target: &mut Target<'_>) -> Outcome {
    repeated(target, 2)
}

fn many_times(target: &mut Target<'_>) -> Outcome {
    repeated(target, ENTRIES)
}

/// The same head, so many times at once.
fn repeated(target: &mut Target<'_>, times: u16) -> Outcome {
    target.write_request(0);
    (0..times).for_each(|_| target.ring.offer(0));
    let fate = target.kick()?;
    let receives = target.device.receives_in(target.queue);
    // Where a chain comes back before the next is looked at, nothing is in flight twice.
    let is_at_once = matches!(target.device.kind, Kind::Network | Kind::Console);
    let is_right = match fate {
        Fate::NeedsReset => !is_at_once || receives,
        Fate::Used(_) => is_at_once,
        Fate::Nothing => target.device.kind == Kind::Console && receives,
    };
    ensure!(is_right, "it ended with {fate:?}");
    if is_at_once && !receives { target.ring.wait_used(times, LIMIT_MICROSECONDS) } else { Ok(()) }
}
