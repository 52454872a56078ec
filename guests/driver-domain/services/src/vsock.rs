//! Streams between clients by way of their virtio socket devices (VIRTIO 1.2, 5.10): what a packet says, and where it
//! goes.

mod header;
mod switch;

pub use header::{HEADER_SIZE, Header, Operation, PIECE_SIZE_MAX, STREAM, TRANSPORT_RESET};
pub use switch::{CONNECTIONS_MAX, Counters, Decision, NoRoom, PORTS_MAX, Switch};
