//! EL2's end of a channel to a backend: what becomes of a frontend's virtqueue chains, and of what comes back.
//!
//! | module | its one question |
//! | --- | --- |
//! | [`service`] | what happens when a frontend notifies, and when the backend completes? |
//! | [`policy`] | what may a backend say of a device? |
//! | [`counters`] | how often did what happen? |
//! | [`channel`] | what is in the rings that EL2 shares with the backend? |
//! | [`in_flight`] | which requests are out, which chains wait, and what belongs to each? |
//! | [`virtqueue`] | what did a driver put into its queue, and does it want to hear of what comes back? |
//! | `window` | which pages of the request window are free? |
//!
//! Nothing here knows a kind of device: bytes that the frontend gives go to the backend, bytes that the backend gives
//! go into the room that the frontend has for them, and what is done with a chain is in its queue's description.
//!
//! Both sides are guests, and neither is believed. A frontend's chain is copied once and the copy is checked
//! (`virtqueue`); of a completion only its sequence number is used, to find what EL2 itself wrote down. So a hostile
//! backend can give a frontend wrong data or none, which is in the nature of a backend, but cannot reach a byte outside
//! the buffers that the frontend offered for that very request.
//!
//! What this crate leaves out: registers and interrupt lines (`devices::virtio_mmio`), and whose memory is whose
//! (`bulkhead`).
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

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod channel;
pub mod counters;
pub mod in_flight;
pub mod policy;
pub mod room;
pub mod service;
#[cfg(test)]
mod tests;
pub mod virtqueue;
mod window;

pub use channel::{Channel, RingCorrupt};
pub use policy::Allocation;
pub use service::{Holdings, MemoryPair, Outcome, ProtocolError, Service, TAKE_BACK_STEPS};

/// The most queues of a device.
pub const QUEUES_MAX: usize = abi::io::QUEUES_MAX;
