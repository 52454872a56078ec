//! Pure hypervisor logic: exits, translation tables, vGIC, PSCI, memory and bus planning, console.
//!
//! Everything here is a function of its arguments: time, memory, registers and identity come in, answers go out. So all
//! of it runs, and is tested, on the development host. `arch` reads and writes the real registers around it; `bulkhead`
//! puts the two together.
//!
//! | module | its one question |
//! | --- | --- |
//! | [`exit`] | why did the guest stop? |
//! | [`load_store`] | what does the instruction load or store that a syndrome does not tell? |
//! | [`inject`] | what does EL1 see when we hand it an exception? |
//! | [`table`] | which descriptors map this range? |
//! | [`smccc`] | whose is a call by HVC or SMC? |
//! | [`psci`] | what did a guest ask of its power, and which virtual CPUs are on? |
//! | [`trng`] | what did a guest ask for random numbers? |
//! | [`deadline`] | what has a core to see to next, and when? |
//! | [`debug`] | what do a guest's breakpoints and watchpoints hold, and what does the core get of it? |
//! | [`id_registers`] | which processor features does a guest see? |
//! | [`lifecycle`] | what may be asked of a VM, by whom, and what is its next phase? |
//! | [`preparation`] | which of the VMs that are being prepared does a core work for? |
//! | [`ram`] | which physical memory is free? |
//! | [`repeated`] | what of that which a guest repeats is logged? |
//! | [`io`] | what becomes of a virtio request on its way to the driver domain and back? |
//! | [`access`] | which virtual CPUs wait for the answer to an access? |
//! | [`bus`] | which device answers at this address? |
//! | [`vgic`] | which interrupts does a guest see, and which are in the list registers? |
//! | [`virtqueue`] | what did a driver put into its queue, and does it want to hear of what comes back? |
//!
//! What this crate leaves out: hardware (`arch`), device models (`devices`), and the order in which things happen
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

pub mod access;
pub mod bus;
pub mod console;
pub mod deadline;
pub mod debug;
pub mod exit;
pub mod id_registers;
pub mod inject;
pub mod io;
pub mod lifecycle;
pub mod load_store;
pub mod preparation;
pub mod psci;
pub mod ram;
pub mod repeated;
pub mod smccc;
pub mod table;
pub mod trng;
pub mod vgic;
pub mod virtqueue;

pub use vdev::{Access, GuestAddr, Width};

/// An address on the board's physical bus (an output address of stage 2, and of EL2's own stage 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysAddr(pub u64);

impl core::fmt::LowerHex for PhysAddr {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::LowerHex::fmt(&self.0, formatter)
    }
}
