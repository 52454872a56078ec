//! Exceptions that EL2 itself takes: a defect, or an SError that was asked for.

use crate::epitaph::{OwnFrame, fail};
use aarch64_cpu::registers::{ELR_EL2, ESR_EL2};
use tock_registers::interfaces::{Readable, Writeable};

// In `vectors`.
unsafe extern "C" {
    /// Takes this core's pending SError, if there is one, at EL2. Returns its ESR_EL2, or 0.
    ///
    /// # Safety
    /// No guest's SP_EL0, ELR_EL2 or SPSR_EL2 may be live on this core.
    pub(crate) fn absorb_system_error() -> u64;

    /// The instruction at which `absorb_system_error` takes one.
    pub(crate) static system_error_expected: u8;
    /// Where it goes on.
    pub(crate) static system_error_taken: u8;
}

/// The number that the vectors give an SError.
const SYSTEM_ERROR: u64 = 3;

/// An exception that EL2 itself took: a defect of Bulkhead, or the SError that `absorb_system_error` asked for, whose
/// syndrome it returns.
pub(crate) extern "C" fn own_exception(frame: &OwnFrame, kind: u64) -> u64 {
    let window = &raw const system_error_expected as u64..=&raw const system_error_taken as u64;
    if kind == SYSTEM_ERROR && window.contains(&ELR_EL2.get()) {
        ELR_EL2.set(*window.end());
        return ESR_EL2.get();
    }
    let kind = ["synchronous exception", "IRQ", "FIQ", "SError"].get(kind as usize).unwrap_or(&"exception");
    fail(format_args!("unexpected {kind} at EL2"), Some(frame))
}
