//! Random operations on registers and rings, from a seed that replays them.
//!
//! Places and buffers are drawn from this guest's own pages for them and from what is not its memory at all, so that
//! what changes elsewhere was changed against the rules.

use crate::attack::{Field, works, write_request};
use crate::registers::outside;
use bulkhead_guest_tests::device::{self, Device, register};
use bulkhead_guest_tests::ring::{Descriptor, ENTRIES, Ring};
use rt::machine;
use testkit::random::Random;
use testkit::{Failure, Outcome, ensure, report};

/// Operations between two looks at the guards.
const ROUND: u64 = 200;

pub(crate) fn run(field: &mut Field, random: &mut Random) {
    report::test("random operations on registers and rings harm nobody else", || {
        let operations = machine().number("operations", 20_000);
        for round in 0..operations / ROUND {
            let device = field.devices[random.below(field.devices.len() as u64) as usize];
            let [ring, other] = &mut field.rings;
            ring.clear();
            other.clear();
            let outcome = one_round(device, ring, random)
                .and_then(|()| device.reset())
                .and_then(|()| ring.check_guards())
                .and_then(|()| other.check_guards());
            if let Err(reason) = outcome {
                return Err(Failure::new(format_args!("round {round}, {device}: {reason}")));
            }
        }
        for device in &field.devices {
            works(*device, &mut field.rings[0])?;
        }
        Ok(())
    });
}

fn pick(random: &mut Random, from: &[u64]) -> u64 {
    from[random.below(from.len() as u64) as usize]
}

/// Somewhere that is not this guest's memory, once in a while; otherwise `here`.
fn place(random: &mut Random, here: u64) -> u64 {
    if random.below(8) != 0 {
        return here;
    }
    let count = outside().count() as u64;
    outside().nth(random.below(count) as usize).unwrap_or(0)
}

fn one_round(device: Device, ring: &mut Ring, random: &mut Random) -> Outcome {
    // Mostly from a good start, since little happens without one.
    let queue = random.below(device.queues().into()) as u16;
    let features = device::VERSION_1 | pick(random, &[0, device::INDIRECT, device::EVENT_INDEX, 3 << 28]);
    if random.below(8) != 0 {
        ensure!(device.negotiate(features)?, "the device does not accept what it offers");
        for queue in 0..u32::from(device.queues()) {
            // Both queues in one and the same memory: nobody forbids that.
            let _ = device.start_queue(queue, ENTRIES.into(), ring.places())?;
        }
        device.go()?;
    }
    for _ in 0..ROUND {
        match random.below(8) {
            0 => store(device, ring, random)?,
            1 => {
                let descriptor = descriptor(ring, random);
                ring.set_descriptor(random.below(ENTRIES.into()) as u16, descriptor);
            }
            2 => {
                let descriptor = descriptor(ring, random);
                ring.set_indirect(random.below(32) as u16, descriptor);
            }
            3 => ring.set_available_index(random.word() as u16),
            4 => write_request(ring, device, queue, random.below(4) as u16),
            5 => ring.offer(random.below(u64::from(ENTRIES) + 2) as u16),
            6 => ring.write_data(0, &random.word().to_le_bytes()),
            _ => device.notify(queue.into())?,
        }
        if device.needs_reset()? && random.below(2) == 0 {
            ring.clear();
            let _ = device.negotiate(features)?;
            let _ = device.start_queue(queue.into(), ENTRIES.into(), ring.places())?;
            device.go()?;
        }
    }
    Ok(())
}

/// A descriptor whose buffer is in the data page, the table's, or nobody's memory.
fn descriptor(ring: &Ring, random: &mut Random) -> Descriptor {
    let length = pick(random, &[0, 1, 16, 64, 512, 1024, 2048]);
    let here = pick(random, &[ring.data(0), ring.data(0x400), ring.data(0x800), ring.table(), ring.table() + 16]);
    let address = place(random, here);
    // Too long only where it is refused whatever its length.
    let length = if address != here && random.below(2) == 0 { random.word() as u32 } else { length as u32 };
    Descriptor::new(address, length, random.below(8) as u16, random.below(u64::from(ENTRIES) + 1) as u16)
}

/// A store to a register.
fn store(device: Device, ring: &Ring, random: &mut Random) -> Outcome {
    let parts = [register::QUEUE_DESC, register::QUEUE_DRIVER, register::QUEUE_DEVICE];
    let part = random.below(3) as usize;
    match random.below(4) {
        0 => {
            let here = ring.places()[part];
            let address = place(random, here);
            device.write_address(parts[part], address)
        }
        1 => {
            device.write(register::QUEUE_SEL, random.below(4) as u32)?;
            device.write(register::QUEUE_READY, random.below(3) as u32)
        }
        _ => {
            let offset = random.below(0x80) * 4;
            let is_address = (register::QUEUE_DESC..register::QUEUE_DEVICE + 8).contains(&offset);
            let value = if random.below(2) == 0 { random.word() } else { random.below(17) };
            // What does not fit is refused or ignored; either will do.
            let is_taken = is_address || rt::probe::try_write32(device.base + offset, value as u32).is_ok();
            ensure!(is_taken || offset >= 0x1000, "a store to {offset:#x} was refused");
            Ok(())
        }
    }
}
