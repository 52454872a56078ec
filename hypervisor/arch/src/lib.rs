//! AArch64 EL2 and real hardware: the one hypervisor crate with unsafe code.
#![no_std]
