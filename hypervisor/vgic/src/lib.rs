//! The virtual GICv3: what a guest sees of its interrupt controller, and what its cores' list registers hold.
//!
//! Two halves meet in one virtual machine's [`Vgic`]. The *guest-visible* half is the distributor and the
//! redistributors: bitmaps of 32 interrupts each, changed with atomic operations by whichever core runs a virtual CPU
//! or a device model, without a lock. The *hardware-facing* half is one [`CpuInterface`] per virtual CPU: it belongs to
//! the core that runs it and decides which interrupts are in that core's list registers.
//!
//! The halves meet in one protocol. Whoever makes an interrupt deliverable, or changes one that a list register holds,
//! marks its 32-interrupt word as *ready* for the virtual CPU concerned and gets that virtual CPU back in a [`Kicks`].
//! (New interrupts of the private bank need no mark: every flush looks there.)
//! The caller sees to it that the core of each virtual CPU in there runs [`CpuInterface::flush`], by a physical
//! interrupt if it is another core. The core of the virtual CPU that acts is treated no differently: its caller flushes
//! before it returns to the guest. Between a change and the flush that its kick brings about there must be a barrier,
//! as there is between any message and its doorbell: so a flush may read without order what others have changed, and
//! fears only what they change meanwhile.
//!
//! An interrupt that a list register holds is *in flight*, and its bit in the word's `inflight` bitmap is taken with an
//! atomic operation: so no interrupt is ever in two list registers. Every party publishes its own change first and
//! looks at the other's state second, both sequentially consistent, so that at least one of two racing cores sees the
//! other (a kick too many is harmless, a kick too few would lose an interrupt). Whoever clears the bit looks once more,
//! since all that happened meanwhile was told to it alone.
//!
//! A virtual CPU may have more interrupts than list registers. Then a flush puts the best of those that wait into the
//! list registers, and lets a worse one go back to its bank: a pending one, or, if all are active, one of those, whose
//! end is then counted or trapped ([`ListRegisters::take_unlisted_eois`]). So a list register is pending for as long as
//! somebody waits, it is as good as any that waits, and when the guest has acknowledged the last one, the no-pending
//! maintenance interrupt brings the next: the guest takes its interrupts in the order of a controller without list
//! registers. Priorities and routes are there as bitmaps too, so that finding the best costs the same whether one
//! interrupt waits or all do.
//!
//! What this crate leaves out: the system registers behind the list registers and the physical GIC (`arch`), which
//! core runs which virtual CPU (the scheduler), LPIs and the ITS, message-based SPIs, and the legacy (non-affinity)
//! mode, which GICv3 allows an implementation to omit.
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

mod bank;
mod cpu_interface;
mod detours;
mod distributor;
mod interrupt;
mod kicks;
mod list_register;
mod overflow;
mod quick;
mod redistributor;
mod registers;
mod residence;
mod shortcut;
mod spilled;
mod state;

#[cfg(test)]
mod tests;

pub use cpu_interface::CpuInterface;
pub use interrupt::IntId;
pub use kicks::Kicks;
pub use list_register::{ListRegister, ListRegisters, ListState};
pub use registers::{Frame, needs_sync};
pub use state::Vgic;

/// The most virtual CPUs that one virtual machine can have. All of them share Aff1 = Aff2 = Aff3 = 0.
pub const VCPUS_MAX: usize = 8;

/// The most words of 32 SPIs that one virtual machine can have: INTIDs 32 to 287.
pub const SPI_WORDS: usize = 8;

/// The words of 32 interrupts that a virtual CPU has to do with: its private bank, and the SPIs'.
const WORDS: usize = 1 + SPI_WORDS;

/// The most list registers that an implementation has (IHI0069, ICH_VTR_EL2.ListRegs).
pub const LIST_REGISTERS_MAX: usize = 16;

const _: () = assert!(VCPUS_MAX <= 16, "an SGI target list has 16 bits, and so has Kicks");
const _: () = assert!(VCPUS_MAX.is_power_of_two() && SPI_WORDS.is_power_of_two(), "indices are masked");
const _: () = assert!(SPI_WORDS < 16, "half a ready bitmap has one bit for each word and one for the private bank");
