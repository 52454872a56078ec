//! Resets itself while large reads are under way, again and again. Their memory is a real device's until they are done,
//! so the next start has to wait for that.
//!
//! Parameter: `until=` (3), in seconds since the board started, since nothing of the guest survives a reset.

use crate::Slots;
use crate::block::{in_block, room};
use rt::virtio::Kind;
use rt::{machine, memory, psci, timer};
use testkit::{Failure, Outcome, ensure, report};

const SECTORS_PER_KIBIBYTE: u64 = 2;
/// How large a read is, and how many are under way.
const READ_KIBIBYTES: u64 = 128;
const DEPTH: u64 = 8;

pub(crate) fn run(mut slots: Slots) {
    report::test("memory is zeroed at each start, and no device has written to it since", || {
        let (nonzero, looked) = memory::first_nonzero();
        ensure!(nonzero.is_none(), "the word at {:#x} is not zero", nonzero.unwrap_or(0));
        ensure!(looked > 0, "there is no memory beyond the image");
        Ok(())
    });
    if timer::physical_now() < machine().number("until", 3) * timer::frequency() {
        report::test("the reset comes", || reset(&mut slots));
    }
}

fn reset(slots: &mut Slots) -> Outcome {
    let disk = slots.iter_mut().find(|slot| slot.kind() == Some(Kind::Block));
    let Some(slot) = disk else { return Err(Failure::new(format_args!("there is no disk"))) };
    in_block(slot, |disk| {
        let bytes = READ_KIBIBYTES << 10;
        let Some(room) = room(DEPTH * bytes) else {
            return Err(Failure::new(format_args!("there is no room for buffers")));
        };
        for index in 0..DEPTH {
            let Some(buffer) = room.piece(index * bytes, bytes) else { break };
            let taken = disk.read(index * READ_KIBIBYTES * SECTORS_PER_KIBIBYTE, buffer, (0, 0)).is_ok();
            ensure!(taken, "read {index} was not taken");
        }
        disk.kick();
        psci::system_reset();
        ensure!(false, "SYSTEM_RESET returned");
        Ok(())
    })
}
