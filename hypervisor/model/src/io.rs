//! EL2's end of a channel to a driver domain: what becomes of a client's virtqueue chains, and of what comes back.
//!
//! | module | its one question |
//! | --- | --- |
//! | [`service`] | what happens when a client notifies, and when the driver domain completes? |
//! | [`attach`] | what may a driver domain say of a device? |
//! | [`counters`] | how often did what happen? |
//! | [`channel`] | what is in the rings that EL2 shares with the driver domain? |
//! | `flights` | which requests are out, and what belongs to each? |
//! | [`watch`] | is the driver domain alive, and may it start again? |
//! | `window` | which pages of the request window are free? |
//! | `block`, `network` | what does a chain of this kind of device ask for? |
//!
//! Both sides are guests, and neither is believed. A client's chain is copied once and the copy is checked
//! (`virtqueue`); of a completion only its sequence number is used, to find what EL2 itself wrote down. So a hostile
//! driver domain can give a client wrong data or none, which is in the nature of a back end, but cannot reach a byte
//! outside the buffers that the client offered for that very request.
//!
//! What this module leaves out: registers and interrupts lines (`devices::virtio_mmio`), and whose memory is whose
//! (`bulkhead`).

pub mod attach;
mod block;
pub mod channel;
pub mod counters;
mod flights;
mod network;
pub mod service;
#[cfg(test)]
mod tests;
pub mod watch;
mod window;

pub use channel::{Channel, Forged};
pub use service::{Outcome, Service, ServiceKind};

/// The most queues of a device.
pub const QUEUES_MAX: usize = 8;
