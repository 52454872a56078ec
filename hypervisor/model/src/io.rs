//! EL2's end of a channel to a backend: what becomes of a frontend's virtqueue chains, and of what comes back.
//!
//! | module | its one question |
//! | --- | --- |
//! | [`service`] | what happens when a frontend notifies, and when the backend completes? |
//! | [`policy`] | what may a backend say of a device? |
//! | [`counters`] | how often did what happen? |
//! | [`channel`] | what is in the rings that EL2 shares with the backend? |
//! | [`in_flight`] | which requests are out, which chains wait, and what belongs to each? |
//! | [`watch`] | is the backend alive, and may it start again? |
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
//! What this module leaves out: registers and interrupt lines (`devices::virtio_mmio`), and whose memory is whose
//! (`bulkhead`).

pub mod channel;
pub mod counters;
pub mod in_flight;
pub mod policy;
pub mod service;
#[cfg(test)]
mod tests;
pub mod watch;
mod window;

pub use channel::{Channel, RingCorrupt};
pub use policy::Allocation;
pub use service::{Holdings, MemoryPair, Outcome, ProtocolError, Service};

/// The most queues of a device.
pub const QUEUES_MAX: usize = abi::io::QUEUES_MAX;
