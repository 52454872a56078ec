//! Physical memory: what of it is free, and the translation tables that map it.
//!
//! | module | its one question |
//! | --- | --- |
//! | [`ram`] | which physical memory is free? |
//! | [`table`] | which descriptors map this range? |
//!
//! What this crate leaves out: the memory that tables are in, TLBs and system registers (`arch`).
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

pub mod ram;
pub mod table;

/// An address on the board's physical bus (an output address of stage 2, and of EL2's own stage 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysAddr(pub u64);

impl core::fmt::LowerHex for PhysAddr {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::LowerHex::fmt(&self.0, formatter)
    }
}
