//! What keeps its abort, and leaves no trace.

use rt::probe::instruction::{self, Level};
use rt::probe::{self, OddAccess, Width};
use rt::{gic, machine, mmu};
use testkit::{Outcome, ensure, report};

/// Instructions on X0 that are more than loads and stores of general-purpose registers; the second says whether the CPU
/// may not have them.
const REFUSED: [(u32, bool, &str); 14] = [
    (0x885f_7c01, false, "ldxr w1, [x0]"),
    (0x887f_0801, false, "ldxp w1, w2, [x0]"),
    (0x885f_fc01, false, "ldaxr w1, [x0]"),
    (0xb821_0002, true, "ldadd w1, w2, [x0]"),
    (0xb821_8002, true, "swp w1, w2, [x0]"),
    (0x88a1_7c02, true, "cas w1, w2, [x0]"),
    (0x3dc0_0001, false, "ldr q1, [x0]"),
    (0x3cc1_0401, false, "ldr q1, [x0], #16"),
    (0xad00_0801, false, "stp q1, q2, [x0]"),
    (0xbc40_4401, false, "ldr s1, [x0], #4"),
    (0x4c40_7801, false, "ld1 {v1.4s}, [x0]"),
    // The manual leaves to the CPU what this does.
    (0x2940_0401, false, "ldp w1, w1, [x0]"),
    // Not all at widths that the registers have.
    (0x7840_2401, false, "ldrh w1, [x0], #2"),
    (0xa940_0801, false, "ldp x1, x2, [x0]"),
];

pub(crate) fn run() {
    report::test("what is more than loads and stores of general registers is refused, and does nothing", odd_forms);
    report::test("zeroing a block of a device is refused, and does nothing", zero_block);
    report::test("an access that leaves its page is refused, and does nothing", across_pages);
    report::test("a pair of which one word is refused is refused", half);
}

fn priorities() -> u64 {
    machine().distributor.start + gic::offset::IPRIORITYR + 64
}

/// Runs `word` at `address`, which must end in an external abort and change neither registers nor priorities.
fn refused(word: u32, may_be_undefined: bool, name: &str, address: u64) -> Outcome {
    let before = priorities_now()?;
    let registers = [address, 0x8181_8181_9191_9191, 0xa1a1_a1a1_b1b1_b1b1, 0];
    let mut after = registers;
    let result = instruction::execute(Level::El1, word, &mut after);
    let Err(abort) = result else {
        ensure!(false, "{name} at {address:#x} went through");
        return Ok(());
    };
    ensure!(
        abort.is_external() && abort.address & !0xfff == address & !0xfff || may_be_undefined && abort.is_undefined(),
        "{name} at {address:#x}: {abort}"
    );
    ensure!(after == registers, "{name} at {address:#x} left {after:x?}");
    ensure!(priorities_now()? == before, "{name} at {address:#x} changed the device");
    Ok(())
}

fn priorities_now() -> Result<[u64; 8], rt::Abort> {
    let mut words = [0; 8];
    for (word, place) in words.iter_mut().zip((priorities()..).step_by(4)) {
        *word = probe::read(place, Width::Word)?;
    }
    Ok(words)
}

fn odd_forms() -> Outcome {
    for (word, may_be_undefined, name) in REFUSED {
        refused(word, may_be_undefined, name, mmu::ALIAS_BASE + priorities())?;
    }
    Ok(())
}

fn zero_block() -> Outcome {
    let before = priorities_now()?;
    let outcome = probe::odd(OddAccess::ZeroBlock, mmu::ALIAS_BASE + priorities());
    ensure!(outcome.result.is_err_and(|abort| abort.is_external()), "it ended with {:?}", outcome.result);
    ensure!(priorities_now()? == before, "it changed the device");
    Ok(())
}

fn across_pages() -> Outcome {
    // In the midst of the routes.
    let edge = machine().distributor.start + gic::offset::IROUTER + 0x1000;
    for (word, name, place) in [
        (0x2940_0801, "ldp w1, w2, [x0]", edge - 4),
        (0x2900_0801, "stp w1, w2, [x0]", edge - 4),
        (0xa8c1_0801, "ldp x1, x2, [x0], #16", edge - 8),
        (0xb840_1001, "ldur w1, [x0, #1]", edge - 4),
        (0xb840_1001, "ldur w1, [x0, #1]", edge - 2),
    ] {
        refused(word, false, name, mmu::ALIAS_BASE + place)?;
    }
    Ok(())
}

fn half() -> Outcome {
    // The last of the routes: what is behind it has no double words.
    let distributor = machine().distributor.start;
    let answers = |place| probe::read(place, Width::DoubleWord).is_ok();
    let mut routes = (distributor + gic::offset::IROUTER + 32 * 8..distributor + 0x8000).step_by(8);
    let Some(edge) = routes.find(|place| answers(*place) && !answers(place + 8)) else {
        ensure!(false, "all that is behind the routes answers");
        return Ok(());
    };
    refused(0xa940_0801, false, "ldp x1, x2, [x0]", edge)?;
    refused(0xa8c1_0801, false, "ldp x1, x2, [x0], #16", edge)?;
    refused(0xa900_0801, false, "stp x1, x2, [x0]", edge)
}
