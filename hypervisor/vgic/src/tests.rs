//! The virtual GIC as its guest's drivers use it, on a simulated CPU interface.

mod assigned;
mod away;
mod bounds;
mod core;
mod driver;
mod edges;
mod linked;
mod machine;
mod order;
mod overflow;
mod random;
mod remote;
mod rerouted;
mod threads;

pub(super) use rerouted::meanwhile;
