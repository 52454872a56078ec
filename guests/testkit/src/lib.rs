//! What bare-metal guests that test, attack and measure have beside the runtime; no product code uses it.
//!
//! A test guest says what it found with [`report::test`], and ends with [`report::finish`]; a scenario reads it.
#![no_std]
#![forbid(unsafe_code)]

pub mod clock;
pub mod random;
pub mod report;

use rt::{gic, timer};

pub use report::{Failure, Outcome};

/// Acknowledges the most urgent interrupt that comes within `microseconds`.
pub fn acknowledge_within(microseconds: u64) -> Option<u32> {
    let mut id = None;
    timer::wait_until(microseconds, || {
        id = gic::acknowledge();
        id.is_some()
    });
    id
}
