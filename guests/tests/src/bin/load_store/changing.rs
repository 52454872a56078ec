//! An instruction that another CPU changes while it runs: what is done is what one of the two does, whole, or nothing.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use rt::probe::instruction::{self, Level};
use rt::probe::{self, Width};
use rt::{cpu, gic, machine, println, timer};
use testkit::{Outcome, ensure, report};

/// `ldp w1, w2, [x0], #8`, and `stp w1, w2, [x3], #-8`.
const LOAD: u32 = 0x28c1_0801;
const STORE: u32 = 0x28bf_0861;

const ROUNDS: u64 = 1500;
static OVER: AtomicBool = AtomicBool::new(false);
static CHANGES: AtomicU64 = AtomicU64::new(0);
const SOON_MICROSECONDS: u64 = 2_000_000;

pub(crate) fn run() {
    report::test("an instruction that another CPU changes does what one of the two does, or nothing", || {
        instruction::execute(Level::El1, LOAD, &mut [priorities(), 0, 0, priorities()])?;
        cpu::start_others(change)?;
        let result = race();
        OVER.store(true, Ordering::Release);
        result
    });
}

fn priorities() -> u64 {
    machine().distributor.start + gic::offset::IPRIORITYR + 64
}

fn change(_: usize) {
    while !OVER.load(Ordering::Acquire) {
        instruction::rewrite(STORE);
        instruction::rewrite(LOAD);
        CHANGES.fetch_add(1, Ordering::Relaxed);
    }
}

fn race() -> Outcome {
    ensure!(timer::wait_until(SOON_MICROSECONDS, || CHANGES.load(Ordering::Relaxed) > 1), "nobody changes it");
    let (loaded_from, stored_to) = (priorities(), priorities() + 64 - 16);
    let [mut loads, mut stores, mut refusals] = [0_u64; 3];
    for round in 0..ROUNDS {
        let old = [0x1020_3040, 0x5060_7080];
        let new = [0x8898_a8b8, 0xc8d8_e8f0 - (round & 7) * 8];
        for (number, (source, target)) in (0..).zip([(0x1122_3344_u64 & 0xf8f8_f8f8, old[0]), (0x90a0_b0c0, old[1])]) {
            probe::write(loaded_from + 4 * number, Width::Word, source)?;
            probe::write(stored_to + 4 * number, Width::Word, target)?;
        }
        let source = [probe::read(loaded_from, Width::Word)?, probe::read(loaded_from + 4, Width::Word)?];
        let before = [loaded_from, new[0], new[1], stored_to];
        let mut after = before;
        let result = instruction::again(Level::El1, &mut after);
        let target = [probe::read(stored_to, Width::Word)?, probe::read(stored_to + 4, Width::Word)?];
        let what = if let Err(abort) = result {
            ensure!(abort.is_external(), "{abort}");
            ensure!(after == before && target == old, "it was refused, and left {after:x?}, {target:x?}");
            &mut refusals
        } else if after[0] != before[0] {
            let wanted = [loaded_from + 8, source[0], source[1], stored_to];
            ensure!(after == wanted && target == old, "the load left {after:x?}, {target:x?}");
            &mut loads
        } else {
            let wanted = [loaded_from, new[0], new[1], stored_to - 8];
            ensure!(after == wanted && target == new, "the store left {after:x?}, {target:x?}");
            &mut stores
        };
        *what += 1;
    }
    println!(
        "changed: {loads} loads, {stores} stores, {refusals} refusals, {} changes",
        CHANGES.load(Ordering::Relaxed)
    );
    ensure!(loads > 0 && stores > 0, "one of the two has never run");
    Ok(())
}
