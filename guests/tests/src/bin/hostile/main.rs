//! A guest that does what no guest should: whatever comes of it, the guest itself goes on, and so does everybody else.
//!
//! Parameters: `seed=` (1) replays the random parts, `storm=` (20000) is how many random accesses each CPU makes.
//! Natively most of this is legal on a bare board, so only survival is tested there; under Bulkhead each refusal is.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod accesses;
mod calls;
mod registers;
mod storm;

use rt::{gic, interrupts, machine, memory, probe, timer};
use testkit::random::Random;
use testkit::{Outcome, ensure, report};

rt::entry!(main);

const AREA_WORDS: usize = 1 << 17; // 1 MiB

fn main() -> ! {
    interrupts::mask();
    let mut random = Random::from_parameter();
    let area = memory::take(AREA_WORDS);
    if let Some(area) = &area {
        // What a mistaken access of the hypervisor's, on this guest's behalf, would spoil.
        report::test("there is memory to watch", || {
            ensure!(area.len() == AREA_WORDS, "only {} words", area.len());
            Ok(())
        });
    }
    let area = area.map(|area| {
        let mut pattern = Random::new(7);
        area.fill_with(|| pattern.word());
        &*area
    });

    report::test("an undefined instruction is undefined", || {
        let outcome = probe::undefined();
        ensure!(outcome.is_err_and(|abort| abort.is_undefined()), "it ended with {outcome:?}");
        Ok(())
    });
    accesses::run();
    registers::run();
    calls::run(&mut random);
    storm::run();

    report::test("the guest's memory is as it was", || {
        let mut pattern = Random::new(7);
        let changed = area.map(|area| area.iter().filter(|&&word| word != pattern.word()).count());
        ensure!(changed == Some(0), "{changed:?} words changed");
        Ok(())
    });
    report::test("the guest still gets its interrupts", alive);
    report::finish()
}

/// The timer and an SGI still work after all that.
fn alive() -> Outcome {
    gic::init();
    gic::init_cpu();
    gic::enable(timer::VIRTUAL_TIMER);
    timer::arm(timer::now() + timer::ticks(1000));
    let came = testkit::acknowledge_within(500_000);
    timer::disarm();
    ensure!(came == Some(timer::VIRTUAL_TIMER), "{came:?} came, not the timer");
    gic::end(timer::VIRTUAL_TIMER);
    gic::enable(1);
    gic::send_sgi(1, gic::Target::Cpu(0));
    let came = testkit::acknowledge_within(500_000);
    ensure!(came == Some(1), "{came:?} came, not the SGI");
    gic::end(1);
    Ok(())
}

/// Runs a test whose outcome a bare board does not promise.
fn test_under_bulkhead(name: &str, body: impl FnOnce() -> Outcome) {
    if machine().under_bulkhead {
        report::test(name, body);
    } else {
        report::skip(name, "a bare board does not promise it");
    }
}
