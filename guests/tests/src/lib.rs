//! What the guests that misbehave towards virtio devices, and those that watch for it, have in common: registers and
//! queues without a driver in between.
#![no_std]
#![forbid(unsafe_code)]

pub mod beside;
pub mod device;
pub mod ring;
