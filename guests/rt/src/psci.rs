//! PSCI (Arm DEN0022) from the caller's side.

use crate::smccc;

/// Function identifiers (DEN0022 5.1), in their 64-bit form where there is one.
pub mod function {
    /// PSCI_VERSION.
    pub const VERSION: u64 = 0x8400_0000;
    /// CPU_SUSPEND.
    pub const CPU_SUSPEND: u64 = 0xc400_0001;
    /// CPU_OFF.
    pub const CPU_OFF: u64 = 0x8400_0002;
    /// CPU_ON.
    pub const CPU_ON: u64 = 0xc400_0003;
    /// AFFINITY_INFO.
    pub const AFFINITY_INFO: u64 = 0xc400_0004;
    /// MIGRATE_INFO_TYPE.
    pub const MIGRATE_INFO_TYPE: u64 = 0x8400_0006;
    /// SYSTEM_OFF.
    pub const SYSTEM_OFF: u64 = 0x8400_0008;
    /// SYSTEM_RESET.
    pub const SYSTEM_RESET: u64 = 0x8400_0009;
    /// PSCI_FEATURES.
    pub const FEATURES: u64 = 0x8400_000a;
}

/// A PSCI return code (DEN0022 5.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// -1.
    NotSupported,
    /// -2.
    InvalidParameters,
    /// -3.
    Denied,
    /// -4.
    AlreadyOn,
    /// -5.
    OnPending,
    /// -6.
    InternalFailure,
    /// -7.
    NotPresent,
    /// -8.
    Disabled,
    /// -9.
    InvalidAddress,
    /// Any other answer, or none at all.
    Other(i64),
}

/// Reads a PSCI answer: a value that is not negative, or an error. Codes are 32 bits wide for some functions and 64 for
/// others, so the low half decides.
fn answer(value: u64) -> Result<u64, Error> {
    match value as u32 as i32 {
        0.. => Ok(value & 0xffff_ffff),
        -1 => Err(Error::NotSupported),
        -2 => Err(Error::InvalidParameters),
        -3 => Err(Error::Denied),
        -4 => Err(Error::AlreadyOn),
        -5 => Err(Error::OnPending),
        -6 => Err(Error::InternalFailure),
        -7 => Err(Error::NotPresent),
        -8 => Err(Error::Disabled),
        -9 => Err(Error::InvalidAddress),
        other => Err(Error::Other(i64::from(other))),
    }
}

/// Calls a PSCI function through the conduit of the device tree.
///
/// # Errors
/// The error that PSCI returns; [`Error::Other`] of zero where the call itself was undefined.
pub fn call(function: u64, arguments: [u64; 3]) -> Result<u64, Error> {
    let results = smccc::firmware(function, arguments).map_err(|_| Error::Other(0))?;
    answer(results[0])
}

/// CPU_ON: starts the CPU with affinity `target` at physical address `entry` with `context` in `x0`.
///
/// # Errors
/// As DEN0022 5.6 says.
pub fn cpu_on(target: u64, entry: u64, context: u64) -> Result<(), Error> {
    call(function::CPU_ON, [target, entry, context]).map(|_| ())
}

/// CPU_OFF: turns this CPU off; returns only if PSCI refuses.
pub fn cpu_off() {
    // An error leaves the CPU on, and the caller sees that this returned.
    let _ = call(function::CPU_OFF, [0; 3]);
}

/// The state that AFFINITY_INFO gives (DEN0022 5.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// 0.
    On,
    /// 1.
    Off,
    /// 2.
    OnPending,
    /// Any other number.
    Unknown(u64),
}

/// AFFINITY_INFO of the CPU with affinity `target`.
///
/// # Errors
/// As DEN0022 5.7 says.
pub fn affinity_info(target: u64) -> Result<Affinity, Error> {
    Ok(match call(function::AFFINITY_INFO, [target, 0, 0])? {
        0 => Affinity::On,
        1 => Affinity::Off,
        2 => Affinity::OnPending,
        other => Affinity::Unknown(other),
    })
}

/// SYSTEM_OFF: turns the guest off; returns only if PSCI fails.
pub fn system_off() {
    let _ = call(function::SYSTEM_OFF, [0; 3]);
}

/// SYSTEM_RESET: restarts the guest; returns only if PSCI fails.
pub fn system_reset() {
    let _ = call(function::SYSTEM_RESET, [0; 3]);
}
