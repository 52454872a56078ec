//! Virtio devices behind virtio-mmio registers, driven by the `virtio-drivers` crate.
//!
//! That crate's calls that do not wait are `unsafe`, because the device goes on using the buffers after they return.
//! The drivers here own those buffers, or take a [`Shared`](crate::shared::Shared) piece that no reference covers, and
//! so offer the same without `unsafe`.
//!
//! Nothing here takes interrupts: a device's owner acknowledges them ([`Block::acknowledge_interrupt`] and its like)
//! and polls.

mod block;
mod console;
mod entropy;
mod network;
mod plain_block;
mod queue;
mod slot;

pub use crate::dma::Platform;
pub use block::{Block, Failed, Refused};
pub use console::Console;
pub use entropy::Entropy;
pub use network::Network;
pub use plain_block::PlainBlock;
pub use queue::{Access, Granted};
pub use slot::{Kind, SLOTS_MAX, Slot, take_slots};

/// The transport of every driver.
type Transport = virtio_drivers::transport::mmio::MmioTransport<'static>;

/// Why a driver could not be brought up.
pub use virtio_drivers::Error;
