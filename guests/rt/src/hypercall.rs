//! Calls to Bulkhead that belong to no standard.

use core::arch::asm;

/// `HVC #0` with `x0` = function and `x1..=x4` = arguments; gives `x0`. Where the instruction is undefined the guest
/// ends with a panic.
#[inline(always)]
pub fn call(function: u32, arguments: [u64; 4]) -> u64 {
    let [x1, x2, x3, x4] = arguments;
    let result;
    // SAFETY: SMCCC 1.1 (DEN0028 2.6) lets a call change `x0` to `x3` alone. What Bulkhead writes is what this guest
    // gave it to write: memory of a `Shared` (see there), which no reference covers; the block clobbers memory.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") u64::from(function) => result,
            inout("x1") x1 => _, inout("x2") x2 => _, inout("x3") x3 => _, in("x4") x4,
            options(nostack),
        );
    }
    result
}
