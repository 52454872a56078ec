//! The system description in its binary form: what `xtask` writes into a bundle and EL2 reads from it.
//!
//! The manifest is the only source of addresses, interrupts and names. The same [`System::validate`] runs on the host,
//! before a bundle is made, and at EL2, before a virtual machine is built: the bundle is input.
//!
//! Reading order: [`System`] (what there is to say), [`System::validate`] (what must hold), [`encode`] and [`decode`]
//! (the file `manifest.bin`, whose records are in `record`), [`Bundle`] (the archive that carries it).
//!
//! What this crate leaves out: the TOML form with its file and line numbers (`xtask`), which kinds of device exist
//! (`devices`), and building anything.
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

mod binary;
mod bundle;
mod error;
mod limits;
mod record;
mod rule;
mod span;
mod system;
pub mod takes;
mod validate;

pub use binary::{MAGIC, MANIFEST_SIZE_MAX, decode, encode};
pub use bundle::{Bundle, Entries, Entry, MANIFEST_FILE};
pub use error::{Damage, Error, Place};
pub use limits::{
    ASSIGNED_INSTANCES_MAX, ASSIGNED_INTERRUPTS_MAX, ASSIGNED_MAX, BoardLimits, CHAINS_MAX, CHANNEL_SIZE_MAX,
    CHANNELS_MAX, DEVICES_MAX, GUEST_ADDRESS_BITS, GicWindows, INTERRUPT_MAX, INTERRUPT_MIN, LOADS_MAX, MEMORY_ALIGN,
    NAME_LENGTH_MAX, PAGE_SIZE, QUEUES_MAX, REGIONS_MAX, REQUESTS_MAX, SEEDS_MAX, SILENCE_MAX, VCPUS_MAX, VMS_MAX,
    WATCH_MS_MAX, WATCH_MS_MIN,
};
pub use record::VERSION;
pub use rule::{Name, Owner, Rule};
pub use span::{Address, Span};
pub use system::{Assigned, Device, Load, MemoryRegion, Seed, Service, Store, System, Trigger, Vcpu, Vm, Watch};
