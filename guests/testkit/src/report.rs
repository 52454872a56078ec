//! What a test guest found, in lines that a scenario can read.
//!
//! `PASS name`, `FAIL name: reason` or `SKIP name: reason` for each test, and `DONE` at the end. A guest that says
//! nothing more, or `GUEST PANIC: …`, has failed.

use arrayvec::ArrayString;
use core::fmt::{self, Write};
use rt::{Abort, println, psci};

const REASON_BYTES: usize = 120;

/// Why a test failed, in words.
#[derive(Debug)]
pub struct Failure(ArrayString<REASON_BYTES>);

impl Failure {
    /// A failure with the given words; what is beyond 120 bytes is cut off.
    #[must_use]
    pub fn new(reason: fmt::Arguments<'_>) -> Self {
        let mut text = ArrayString::new();
        // An error means that the text is full; its start is what tells most.
        let _ = text.write_fmt(reason);
        Self(text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl From<Abort> for Failure {
    fn from(abort: Abort) -> Self {
        Self::new(format_args!("unexpected {abort}"))
    }
}

impl From<psci::Error> for Failure {
    fn from(error: psci::Error) -> Self {
        Self::new(format_args!("PSCI answered {error:?}"))
    }
}

/// The result of a test.
pub type Outcome = Result<(), Failure>;

/// Ends a test with a failure, described as by `format!`, unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return Err($crate::report::Failure::new(format_args!($($reason)+)));
        }
    };
}

/// Runs one test and prints its result.
pub fn test(name: &str, body: impl FnOnce() -> Outcome) {
    match body() {
        Ok(()) => println!("PASS {name}"),
        Err(reason) => println!("FAIL {name}: {}", reason.0),
    }
}

/// Says that a test cannot be run here, and why.
pub fn skip(name: &str, reason: &str) {
    println!("SKIP {name}: {reason}");
}

/// Says that the guest is done, and turns it off.
pub fn finish() -> ! {
    println!("DONE");
    psci::system_off();
    panic!("SYSTEM_OFF returned");
}
