//! A neighbour: uses all of its devices, again and again, and verifies what they give.

use crate::{Slots, block, console, entropy, network};
use rt::virtio::{Kind, Slot};
use rt::{machine, println, timer};
use testkit::{Outcome, ensure, report};

pub(crate) fn run(mut slots: Slots) {
    let seconds = machine().number("seconds", 10);
    report::test("undisturbed: every request is done, and every byte is what it should be", || {
        let end = timer::now() + timer::ticks(seconds * 1_000_000);
        let mut rounds = 0;
        while timer::now() < end {
            for slot in &mut slots {
                one(slot, rounds)?;
            }
            rounds += 1;
        }
        let (longest, limit) = (block::longest_microseconds(), machine().number("longest", u64::MAX));
        println!("rounds={rounds} longest_request_us={longest}");
        ensure!(longest <= limit, "one request took {longest} us");
        ensure!(rounds > 1, "there was time for {rounds} rounds only");
        Ok(())
    });
}

/// One round with each device.
pub(crate) fn once(slots: &mut Slots) {
    report::test("each device does what is asked of it", || slots.iter_mut().try_for_each(|slot| one(slot, 0)));
}

/// One round with one device.
pub(crate) fn one(slot: &mut Slot, round: u64) -> Outcome {
    match slot.kind() {
        Some(Kind::Block) => block::load(slot, 1000 + round),
        Some(Kind::Network) => network::load(slot),
        Some(Kind::Console) => console::load(slot, "another round\n"),
        Some(Kind::Entropy) => entropy::differ(slot),
        Some(Kind::Other(_)) | None => Ok(()),
    }
}
