//! Calls to firmware or to the hypervisor (SMCCC, Arm DEN0028).

use crate::machine::{Conduit, try_machine};
use crate::probe::{Abort, probe};
use core::arch::asm;

/// The answer to any function that does not exist.
pub const NOT_SUPPORTED: u64 = u64::MAX;
/// SMCCC_VERSION.
pub const VERSION: u64 = 0x8000_0000;
/// SMCCC_ARCH_FEATURES.
pub const ARCH_FEATURES: u64 = 0x8000_0001;

/// `HVC #0` or `SMC #0` with `x0` = function and `x1..=x3` = arguments; gives `x0..=x3`.
///
/// # Errors
/// The exception, where the instruction is undefined.
pub fn call(conduit: Conduit, function: u64, arguments: [u64; 3]) -> Result<[u64; 4], Abort> {
    match conduit {
        Conduit::Hvc => hvc::<0>(function, arguments),
        Conduit::Smc => smc::<0>(function, arguments),
    }
}

/// [`call`] through the conduit that the device tree names.
///
/// # Errors
/// As [`call`].
pub fn firmware(function: u64, arguments: [u64; 3]) -> Result<[u64; 4], Abort> {
    call(try_machine().map_or(Conduit::Hvc, |machine| machine.conduit), function, arguments)
}

macro_rules! conduit {
    ($(#[$documentation:meta])* $name:ident, $instruction:literal) => {
        $(#[$documentation])*
        ///
        /// # Errors
        /// The exception, where the instruction is undefined.
        pub fn $name<const IMMEDIATE: u16>(function: u64, arguments: [u64; 3]) -> Result<[u64; 4], Abort> {
            let mut result = [function, arguments[0], arguments[1], arguments[2]];
            let [x0, x1, x2, x3] = &mut result;
            // The callee may change x4 to x17 only under SMCCC 1.0; assume that old version.
            probe!(
                $instruction;
                immediate = const IMMEDIATE,
                inout("x0") *x0, inout("x1") *x1, inout("x2") *x2, inout("x3") *x3,
                out("x4") _, out("x5") _, out("x6") _, out("x7") _, out("x8") _, out("x9") _,
                out("x10") _, out("x11") _, out("x12") _, out("x13") _, out("x14") _,
                out("x15") _, out("x16") _, out("x17") _,
            )?;
            Ok(result)
        }
    };
}

conduit!(
    /// `HVC #IMMEDIATE`.
    hvc,
    "hvc #{immediate}"
);
conduit!(
    /// `SMC #IMMEDIATE`.
    smc,
    "smc #{immediate}"
);

/// `HVC #0` with nothing around it, for measurements: no arguments, the result of `x0` alone. Where the instruction is
/// undefined the guest ends with a panic.
#[inline(always)]
pub fn bare_hvc(function: u64) -> u64 {
    let result;
    // SAFETY: a function without arguments has no address to write to; SMCCC 1.1 (DEN0028 2.6) lets it change `x0` to
    // `x3` alone.
    unsafe {
        asm!(
            "hvc #0",
            inout("x0") function => result, lateout("x1") _, lateout("x2") _, lateout("x3") _,
            options(nostack),
        );
    }
    result
}

/// Calls `function` by HVC or SMC and says whether `x4..=x17` came back as they went in, as SMCCC 1.1 promises.
///
/// # Errors
/// The exception, where the instruction is undefined.
pub fn preserves_registers(conduit: Conduit, function: u64) -> Result<bool, Abort> {
    let mut values: [u64; 14] = core::array::from_fn(|index| 0x5a5a_0000 + index as u64);
    let [x4, x5, x6, x7, x8, x9, x10, x11, x12, x13, x14, x15, x16, x17] = &mut values;
    macro_rules! go {
        ($instruction:literal) => {
            probe!(
                $instruction;
                inout("x0") function => _, inout("x1") 0u64 => _, inout("x2") 0u64 => _,
                inout("x3") 0u64 => _, inout("x4") *x4, inout("x5") *x5, inout("x6") *x6,
                inout("x7") *x7, inout("x8") *x8, inout("x9") *x9, inout("x10") *x10,
                inout("x11") *x11, inout("x12") *x12, inout("x13") *x13, inout("x14") *x14,
                inout("x15") *x15, inout("x16") *x16, inout("x17") *x17,
            )
        };
    }
    match conduit {
        Conduit::Hvc => go!("hvc #0")?,
        Conduit::Smc => go!("smc #0")?,
    }
    Ok(values.iter().enumerate().all(|(index, &value)| value == 0x5a5a_0000 + index as u64))
}
