//! What a guest may expect of its GICv3 (Arm IHI0069), one PASS or FAIL line for each expectation.
//!
//! It uses SPIs 40 to 59, which no device of a test system has, and the UART's interrupt as a real level line. It
//! passes natively on QEMU's own GIC, which is the reference.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

mod delivery;
mod nesting;
mod registers;
mod several;
mod timers;

use rt::{gic, interrupts, timer};
use testkit::{Outcome, ensure, report};

rt::entry!(main);

const SPIS: u32 = 20;
/// Long enough for any interrupt on a loaded host.
const SOON_MICROSECONDS: u64 = 500_000;
/// How long a test looks for an interrupt that must not come.
const QUIET_MICROSECONDS: u64 = 300;

/// The n-th SPI that the tests may use.
fn spi(number: u32) -> u32 {
    assert!(number < SPIS, "the tests have {SPIS} SPIs");
    40 + number
}

fn main() -> ! {
    interrupts::mask();
    registers::run();
    delivery::run();
    nesting::run();
    timers::run();
    several::run();
    report::finish()
}

/// Runs one test on a GIC in a known state, and leaves nothing of it behind.
fn test(name: &str, body: impl FnOnce() -> Outcome) {
    interrupts::mask();
    gic::init();
    gic::init_cpu();
    report::test(name, body);
    gic::init();
    gic::init_cpu();
}

/// Acknowledges the next interrupt, which must be `id`.
fn expect(id: u32) -> Outcome {
    let got = testkit::acknowledge_within(SOON_MICROSECONDS);
    ensure!(got == Some(id), "interrupt {id} was due, and {got:?} came");
    Ok(())
}

/// Acknowledges and ends the next interrupt, which must be `id`.
fn expect_and_end(id: u32) -> Outcome {
    expect(id)?;
    gic::end(id);
    Ok(())
}

/// No interrupt comes.
fn expect_quiet() -> Outcome {
    let got = testkit::acknowledge_within(QUIET_MICROSECONDS);
    ensure!(got.is_none(), "no interrupt was due, and {got:?} came");
    Ok(())
}

/// Waits until `condition` holds; a failure tells `what` did not come to be.
fn eventually(what: &str, condition: impl FnMut() -> bool) -> Outcome {
    ensure!(timer::wait_until(SOON_MICROSECONDS, condition), "it never came to be that {what}");
    Ok(())
}
