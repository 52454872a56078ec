//! Self-hosted debug (Arm ARM D2): breakpoints and watchpoints, and something for them to hit.

use crate::probe::{Abort, probe};
use core::arch::{asm, global_asm};
use core::cell::UnsafeCell;

/// The exception class of a breakpoint that was hit at the level that takes it (ESR_EL1.EC).
pub const CLASS_BREAKPOINT: u64 = 0x31;
/// The same of a watchpoint.
pub const CLASS_WATCHPOINT: u64 = 0x35;

/// `DBGBCR<n>_EL1`: E, at EL1, all four bytes of the instruction.
pub const BREAK_AT_EL1: u64 = 1 | 0b01 << 1 | 0xf << 5;
/// `DBGWCR<n>_EL1`: E, at EL1, stores, all eight bytes.
pub const WATCH_STORES_AT_EL1: u64 = 1 | 0b01 << 1 | 0b10 << 3 | 0xff << 5;

/// How many things there are to hit, of either kind.
pub const TARGETS: usize = 2;

global_asm!(
    ".section .text.debug_targets, \"ax\"",
    ".balign 8",
    ".global debug_targets",
    "debug_targets:",
    "nop",
    "ret",
    "nop",
    "ret",
);

unsafe extern "C" {
    /// As many functions of two instructions; only the address is used.
    static debug_targets: u8;
}

#[repr(C, align(64))]
struct Words(UnsafeCell<[u64; TARGETS]>);

// SAFETY: no reference into it exists; all accesses are the volatile ones of `store`.
unsafe impl Sync for Words {}

static WORDS: Words = Words(UnsafeCell::new([0; TARGETS]));

/// The address of function `index`.
#[must_use]
pub fn function(index: usize) -> u64 {
    &raw const debug_targets as u64 + (index % TARGETS) as u64 * 8
}

/// The address of word `index`.
#[must_use]
pub fn word(index: usize) -> u64 {
    WORDS.0.get() as u64 + (index % TARGETS) as u64 * 8
}

/// Calls function `index` with debug exceptions let in.
///
/// # Errors
/// The exception, if it met one.
pub fn call(index: usize) -> Result<(), Abort> {
    let result = probe!(
        "msr daifclr, #8", "isb", "blr {target}";
        target = in(reg) function(index), out("x30") _,
    );
    mask();
    result
}

/// Stores to word `index` with debug exceptions let in.
///
/// # Errors
/// The exception, if it met one.
pub fn store(index: usize) -> Result<(), Abort> {
    let result = probe!("msr daifclr, #8", "isb", "str xzr, [{target}]"; target = in(reg) word(index));
    mask();
    result
}

fn mask() {
    // SAFETY: masks debug exceptions, as they are everywhere else.
    unsafe { asm!("msr daifset, #8", options(nomem, nostack)) };
}

macro_rules! numbered {
    ($number:expr, $register:literal, $value:expr; $($crm:literal)*) => {
        match $number {
            $($crm => probe!(
                concat!("msr S2_0_C0_C", $crm, "_", $register, ", {value}"), "isb"; value = in(reg) $value
            ),)*
            _ => Ok(()),
        }
    };
}

/// Sets `DBGBVR<n>_EL1` and `DBGBCR<n>_EL1`, n from 0 to 15.
///
/// # Errors
/// The exception, if the CPU has fewer.
pub fn set_breakpoint(number: u32, address: u64, control: u64) -> Result<(), Abort> {
    numbered!(number, 4, address; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)?;
    numbered!(number, 5, control; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
}

/// Sets `DBGWVR<n>_EL1` and `DBGWCR<n>_EL1`, n from 0 to 15.
///
/// # Errors
/// The exception, if the CPU has fewer.
pub fn set_watchpoint(number: u32, address: u64, control: u64) -> Result<(), Abort> {
    numbered!(number, 6, address; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)?;
    numbered!(number, 7, control; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)
}

macro_rules! named {
    ($($(#[$documentation:meta])* read $read:ident, $code:literal;)*) => {
        $(
            $(#[$documentation])*
            ///
            /// # Errors
            /// The exception, if the read met one.
            pub fn $read() -> Result<u64, Abort> {
                let value: u64;
                probe!(concat!("mrs {value}, ", $code); value = out(reg) value)?;
                Ok(value)
            }
        )*
    };
    ($($(#[$documentation:meta])* write $write:ident, $code:literal;)*) => {
        $(
            $(#[$documentation])*
            ///
            /// # Errors
            /// The exception, if the write met one.
            pub fn $write(value: u64) -> Result<(), Abort> {
                probe!(concat!("msr ", $code, ", {value}"), "isb"; value = in(reg) value)
            }
        )*
    };
}

named! {
    /// DBGBVR0_EL1.
    read breakpoint_value, "S2_0_C0_C0_4";
    /// DBGBCR0_EL1.
    read breakpoint_control, "S2_0_C0_C0_5";
    /// DBGWVR0_EL1.
    read watchpoint_value, "S2_0_C0_C0_6";
    /// DBGWCR0_EL1.
    read watchpoint_control, "S2_0_C0_C0_7";
    /// OSLSR_EL1.
    read lock_status, "S2_0_C1_C1_4";
    /// SCXTNUM_EL1.
    read software_context, "S3_0_C13_C0_7";
    /// SCXTNUM_EL0.
    read software_context_of_el0, "S3_3_C13_C0_7";
}

named! {
    /// MDSCR_EL1: KDE is bit 13, MDE bit 15.
    write set_monitor_control, "S2_0_C0_C2_2";
    /// OSLAR_EL1: 1 locks the OS lock.
    write set_lock, "S2_0_C1_C0_4";
    /// SCXTNUM_EL1.
    write set_software_context, "S3_0_C13_C0_7";
    /// SCXTNUM_EL0.
    write set_software_context_of_el0, "S3_3_C13_C0_7";
}
