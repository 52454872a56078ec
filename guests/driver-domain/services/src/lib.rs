//! What a driver domain decides: what its devices are, which sectors a client's request reaches, where a frame or a
//! packet of a stream goes and whether it may, how the consoles of several clients share one.
//!
//! What this crate leaves out: devices and memory. Time, sectors and frames are arguments, so all of it runs on the
//! host under a test.
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

pub mod block;
pub mod checksum;
pub mod describe;
pub mod entropy;
pub mod lines;
pub mod network;
pub mod partition;
pub mod rate;
pub mod share;
pub mod slice;
pub mod switch;
pub mod typed;
pub mod vsock;

pub use slice::{Access, Slice};
