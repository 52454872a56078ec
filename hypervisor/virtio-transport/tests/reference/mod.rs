//! One driver, two devices: Bulkhead's virtqueue and, as the reference, that of rust-vmm's `virtio-queue`.
//!
//! [`run`] reads its input as a sequence of what a driver and a device do, and does each step to both, in two memories
//! that begin alike. They must agree on every chain, every index and every byte. Where Bulkhead is stricter on purpose,
//! [`World::judge_refusal`] says so; there the chain that the reference made of it must show the reason.

mod input;
mod world;

use input::Input;
use vdev::testkit::MEMORY_BASE;
use world::World;

const TABLE: u64 = MEMORY_BASE.0 + 0x3000;
const BUFFERS: u64 = MEMORY_BASE.0 + 0x3800;
const END: u64 = MEMORY_BASE.0 + MEMORY_SIZE as u64;
const MEMORY_SIZE: usize = 0x4a00;

/// Steps of one run at most: the input may be long.
const STEPS_MAX: usize = 1000;

/// Does what `bytes` say.
///
/// # Panics
/// Where the two devices disagree.
pub fn run(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut world = World::new(1 << (input.byte() % 9), input.byte());
    for _ in 0..STEPS_MAX {
        if input.is_empty() {
            break;
        }
        step(&mut world, &mut input);
    }
    world.compare_memory();
}

fn step(world: &mut World, input: &mut Input<'_>) {
    match input.byte() % 24 {
        0..=3 => {
            let (head, count, writable) = (input.byte(), 1 + input.byte() % 6, input.byte());
            world.describe_chain(world.descriptors(), u16::from(head) % world.size(), count, writable, input);
            world.offer(u16::from(head) % world.size());
        }
        4 | 5 => {
            let (head, count, writable) = (input.byte(), 1 + input.byte() % 40, input.byte());
            let head = u16::from(head) % world.size();
            world.describe_chain(TABLE, 0, count, writable, input);
            world.describe(world.descriptors(), head, (TABLE, 16 * u32::from(count)), world::INDIRECT, 0);
            world.offer(head);
        }
        6 => {
            let index = u16::from(input.byte()) % world.size();
            world.describe(world.descriptors(), index, input.buffer(), input.flags(), u16::from(input.byte()));
        }
        7 => {
            let index = u16::from(input.byte() % 42);
            world.describe(TABLE, index, input.buffer(), input.flags(), u16::from(input.byte()));
        }
        8 => world.describe_indirect(input),
        9 => world.offer(u16::from(input.byte())),
        10 => world.publish_by(input.signed()),
        11 => world.set_used_event_by(input.signed()),
        12 => world.set_flags(u16::from(input.byte())),
        13..=17 => world.pop(),
        18 => world.put_back(),
        19 | 20 => world.push_used(input.byte(), u32::from(input.byte())),
        21 => world.take_interrupt(),
        22 => world.enable_notifications(),
        _ => world.disable_notifications(),
    }
}
