//! Bulkhead's device models, written against `vdev` alone.
//!
//! Each model is a module with one type that implements [`vdev::Device`] and [`vdev::Model`]; one line in [`registry`]
//! makes it known to systems, device trees and EL2. Start with [`pl011`] to see what a model looks like.
//!
//! What this crate leaves out: where a device is and whom it belongs to (the manifest), and everything that `vdev`'s
//! [`Host`](vdev::Host) does not hand to a model.
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

pub mod pl011;
pub mod registry;
#[cfg(feature = "test-devices")]
pub mod test_timer;
pub mod virtio_mmio;

pub use registry::{AnyDevice, KINDS, Kind, VIRTIO_NODE, find};
