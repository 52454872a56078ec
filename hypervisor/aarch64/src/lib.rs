//! What the architecture lays down about a guest, as functions of their arguments: why it stopped, what it asked for,
//! what it sees of the processor.
//!
//! | module | its one question |
//! | --- | --- |
//! | [`exit`] | why did the guest stop? |
//! | [`load_store`] | what does the instruction load or store that a syndrome does not tell? |
//! | [`inject`] | what does EL1 see when we hand it an exception? |
//! | [`smccc`] | whose is a call, by its function number? |
//! | [`psci`] | what did a guest ask its firmware, and which virtual CPUs are on? |
//! | [`trng`] | which random numbers did it ask for? |
//! | [`debug`] | what do a guest's breakpoints and watchpoints hold, and what does the core get of it? |
//! | [`id_registers`] | which processor features does a guest see? |
//!
//! What this crate leaves out: the registers themselves (`arch`), and what is done about an exit (`bulkhead`).
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

#[cfg(test)]
extern crate std;

pub mod debug;
pub mod exit;
pub mod id_registers;
pub mod inject;
pub mod load_store;
pub mod psci;
pub mod smccc;
pub mod trng;
