//! Pure hypervisor logic: exits, stage-2 tables, vGIC, PSCI, console.
#![no_std]
#![forbid(unsafe_code)]
