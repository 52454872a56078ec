//! Measures a disk and a network card from inside a Linux guest: so many operations, one at a time or several, and how
//! long they took. On a board that counts time in instructions the time is what they cost.
//!
//! The program of the same name runs in the guest; [`server`] is what it talks to over the network, in another guest or
//! on the host. What this crate leaves out: judging the figures, which `cargo xtask bench io` does.

#![forbid(unsafe_code)]

mod amount;
pub mod block;
pub mod network;
pub mod options;
pub mod report;
pub mod server;
mod service;
