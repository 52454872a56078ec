//! What the bytes of a request say: sectors, operations, status bytes, frames, amounts.

use crate::attack::{Fate, Field, Target, block_status, write_block_header};
use bulkhead_guest_tests::device::{Kind, register};
use bulkhead_guest_tests::ring::{Descriptor, NEXT, WRITE};
use rt::machine;
use testkit::{Failure, Outcome, ensure, report};

/// Kinds of block request (VIRTIO 1.2, 5.2.6).
const READ: u32 = 0;
const STORE: u32 = 1;

pub(crate) fn run(field: &mut Field) {
    let mut each = |name: &str, kind: Kind, attack: fn(&mut Target<'_>) -> Outcome| {
        report::test(name, || field.each_asking(Some(kind), attack));
    };
    each("16: a sector beyond the end, or one that overflows, is an I/O error", Kind::Block, sectors);
    each("16: an operation that nobody knows is unsupported", Kind::Block, operations);
    each("16: a request without a status byte, or without a header, comes back", Kind::Block, incomplete);
    each("16: data that is no whole number of sectors is an I/O error", Kind::Block, fractions);
    each("16: a header in pieces of one byte is a header", Kind::Block, pieces);
    each("16: data in pieces of one byte, and more of it than passes at a time, is read", Kind::Block, many);
    each("16: a request for 64 MiB of a small disk is an I/O error", Kind::Block, long);
    each("16: frames that are too short, too long, or ask for too much are dropped", Kind::Network, frames);
    each("16: any amount of text is taken", Kind::Console, amounts);
    each("16: any amount of random numbers is given", Kind::Entropy, amounts);
}

/// A block request of `kind` at `sector` with `length` bytes of data.
fn block(target: &mut Target<'_>, kind: u32, sector: u64, length: u32) -> Result<Fate, Failure> {
    target.ring.restore_data();
    write_block_header(target.ring, kind, sector);
    let data_flags = if kind == STORE { NEXT } else { NEXT | WRITE };
    let (header, body, status) = (target.ring.data(0), target.ring.data(0x400), target.ring.data(0xf00));
    target.ring.set_descriptor(0, Descriptor::new(header, 16, NEXT, 1));
    target.ring.set_descriptor(1, Descriptor::new(body, length, data_flags, 2));
    target.ring.set_descriptor(2, Descriptor::new(status, 1, WRITE, 0));
    target.ring.offer(0);
    target.kick()
}

fn expect(target: &Target<'_>, fate: Fate, status: u8, what: core::fmt::Arguments<'_>) -> Outcome {
    let found = block_status(target.ring);
    ensure!(fate == Fate::Used(1) && found == status, "{what} ended with {fate:?}, status {found:#x}");
    Ok(())
}

fn sectors(target: &mut Target<'_>) -> Outcome {
    let low = target.device.read(register::CONFIGURATION)?;
    let high = target.device.read(register::CONFIGURATION + 4)?;
    let capacity = u64::from(high) << 32 | u64::from(low);
    for sector in [capacity, capacity - 1, capacity + 1, u64::MAX, u64::MAX - 1, u64::MAX / 512, 1 << 55, 1 << 63] {
        for kind in [READ, STORE] {
            let fate = block(target, kind, sector, 1024)?;
            expect(target, fate, 1, format_args!("operation {kind} at sector {sector:#x}"))?;
        }
    }
    Ok(())
}

fn operations(target: &mut Target<'_>) -> Outcome {
    for kind in [2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 0x8000_0000, 0xffff_ffff] {
        let fate = block(target, kind, 0, 512)?;
        expect(target, fate, 2, format_args!("operation {kind:#x}"))?;
    }
    Ok(())
}

fn incomplete(target: &mut Target<'_>) -> Outcome {
    let (header, body) = (target.ring.data(0), target.ring.data(0x400));
    // Without anything that can be written, there is nowhere to say what was wrong.
    for length in [0, 1, 15, 16, 528] {
        write_block_header(target.ring, STORE, 0);
        target.ring.set_descriptor(0, Descriptor::new(header, length, 0, 0));
        target.ring.offer(0);
        let fate = target.kick()?;
        ensure!(fate == Fate::Used(0), "{length} bytes to read and none to write ended with {fate:?}");
    }
    // No header, or a part of one, and a byte for the status.
    for length in [0, 1, 15] {
        target.ring.set_descriptor(0, Descriptor::new(header, length, NEXT, 1));
        target.ring.set_descriptor(1, Descriptor::new(body, 1, WRITE, 0));
        target.ring.offer(0);
        let fate = target.kick()?;
        let [status] = target.ring.read_data(0x400);
        ensure!(fate == Fate::Used(1) && status == 1, "{length} bytes of header: {fate:?}, status {status:#x}");
    }
    Ok(())
}

fn fractions(target: &mut Target<'_>) -> Outcome {
    for length in [0, 1, 511, 513, 1023] {
        for kind in [READ, STORE] {
            let fate = block(target, kind, 0, length)?;
            expect(target, fate, 1, format_args!("operation {kind} of {length} bytes"))?;
        }
    }
    Ok(())
}

fn pieces(target: &mut Target<'_>) -> Outcome {
    write_block_header(target.ring, READ, 0);
    // Sixteen descriptors of a queue are too few, so the chain is in a table.
    for byte in 0..16 {
        target.ring.set_indirect(byte, Descriptor::new(target.ring.data(byte.into()), 1, NEXT, byte + 1));
    }
    target.ring.set_indirect(16, Descriptor::new(target.ring.data(0x400), 512, NEXT | WRITE, 17));
    target.ring.set_indirect(17, Descriptor::new(target.ring.data(0xf00), 1, WRITE, 0));
    target
        .ring
        .set_descriptor(0, Descriptor::new(target.ring.table(), 18 * 16, bulkhead_guest_tests::ring::INDIRECT, 0));
    target.ring.offer(0);
    let fate = target.kick()?;
    let status = block_status(target.ring);
    ensure!(fate == Fate::Used(513) && status == 0, "it ended with {fate:?}, status {status:#x}");
    Ok(())
}

/// Offers a block request of `kind` at sector 0 whose data are `pieces`, in a table.
fn offer_table(target: &mut Target<'_>, kind: u32, pieces: impl Iterator<Item = (u64, u32)>) {
    write_block_header(target.ring, kind, 0);
    target.ring.write_data(0xf00, &[0xff]);
    let flags = if kind == STORE { NEXT } else { NEXT | WRITE };
    let mut count = 0;
    let mut describe = |address, length, flags| {
        target.ring.set_indirect(count, Descriptor::new(address, length, flags, count + 1));
        count += 1;
    };
    describe(target.ring.data(0), 16, NEXT);
    pieces.for_each(|(address, length)| describe(address, length, flags));
    describe(target.ring.data(0xf00), 1, WRITE);
    let bytes = u32::from(count) * 16;
    target.ring.set_descriptor(0, Descriptor::new(target.ring.table(), bytes, bulkhead_guest_tests::ring::INDIRECT, 0));
    target.ring.offer(0);
}

fn many(target: &mut Target<'_>) -> Outcome {
    // As many descriptors as a chain may have, with header and status.
    const MANY: u64 = 254;
    let body = target.ring.data(0x400);
    let last = (body + MANY - 1, 512 - (MANY as u32 - 1));
    offer_table(target, READ, (0..MANY - 1).map(|byte| (body + byte, 1)).chain([last]));
    let (fate, status) = (target.kick()?, block_status(target.ring));
    ensure!(fate == Fate::Used(513) && status == 0, "a sector in bytes ended with {fate:?}, status {status:#x}");
    // One and the same buffer, so that only its last contents are left.
    offer_table(target, READ, (0..MANY).map(|_| (body, 2048)));
    let (fate, status) = (target.kick()?, block_status(target.ring));
    let bytes = MANY as u32 * 2048;
    ensure!(fate == Fate::Used(bytes + 1) && status == 0, "{bytes} bytes ended with {fate:?}, status {status:#x}");
    Ok(())
}

/// Both disks have 1 MiB.
fn long(target: &mut Target<'_>) -> Outcome {
    let Some(memory) = machine().memory.first() else { return Ok(()) };
    // All that is this guest's may be read, as often as it likes.
    for length in [32_u32 << 20, 1 << 20, 4096 + 512] {
        let count = ((64 << 20) / length).min(254);
        offer_table(target, STORE, (0..count).map(|_| (memory.start, length)));
        let fate = target.kick()?;
        expect(target, fate, 1, format_args!("{count} times {length:#x} bytes"))?;
    }
    Ok(())
}

fn frames(target: &mut Target<'_>) -> Outcome {
    for length in [0, 1, 11, 12, 13, 25, 2061, 4096] {
        target.ring.restore_data();
        target.ring.write_data(0, &[0; 12]);
        target.ring.set_descriptor(0, Descriptor::new(target.ring.data(0), length, 0, 0));
        target.ring.offer(0);
        let fate = target.kick()?;
        ensure!(fate == Fate::Used(0), "a frame of {length} bytes ended with {fate:?}");
    }
    // Flags, segmentation, lengths and places of checksums that no driver may ask for.
    for header in [
        [1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
        [1, 0, 0, 0, 0, 0, 70, 0, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0, 0, 0, 59, 0, 0, 0],
        [0, 1, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0],
        [0xff; 12],
    ] {
        target.write_request(0);
        target.ring.write_data(0, &header);
        target.ring.offer(0);
        let fate = target.kick()?;
        ensure!(fate == Fate::Used(0), "a frame with the header {header:02x?} ended with {fate:?}");
    }
    Ok(())
}

fn amounts(target: &mut Target<'_>) -> Outcome {
    let flags = target.direction();
    for length in [0, 1, 63, 2049, 4096] {
        target.ring.restore_data();
        if flags == 0 {
            // Short of the end of a line: what follows is another's.
            target.ring.write_data(0, b"hostile\n");
        }
        target.ring.set_descriptor(0, Descriptor::new(target.ring.data(0), length, flags, 0));
        target.ring.offer(0);
        let fate = target.kick()?;
        ensure!(matches!(fate, Fate::Used(written) if written <= length), "{length} bytes ended with {fate:?}");
    }
    Ok(())
}
