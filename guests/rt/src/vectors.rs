//! The EL1 exception vectors: probes go on after the faulting instruction, interrupts reach the guest's handler
//! ([`crate::interrupts`]), and everything else is a panic with its registers.

use crate::{gic, interrupts, per_cpu};
use core::arch::global_asm;
use core::mem::offset_of;

global_asm!(
    include_str!("vectors.s"),
    RESUME = const offset_of!(per_cpu::Block, resume),
    SYNDROME = const offset_of!(per_cpu::Block, syndrome),
    FAULT_ADDRESS = const offset_of!(per_cpu::Block, fault_address),
    FAULT_PC = const offset_of!(per_cpu::Block, fault_pc),
    interrupt = sym interrupt,
    unexpected = sym unexpected,
);

extern "C" fn interrupt() {
    let Some(id) = gic::acknowledge() else { return };
    if let Some(handler) = interrupts::handler() {
        handler(per_cpu::index(), id);
    }
    gic::end(id);
}

extern "C" fn unexpected(vector: u64, syndrome: u64, address: u64, pc: u64, link: u64) -> ! {
    let kind = match vector & 3 {
        0 => "synchronous exception",
        1 => "IRQ",
        2 => "FIQ",
        _ => "SError",
    };
    panic!("{kind} in vector {vector}: ESR_EL1={syndrome:#x} FAR_EL1={address:#x} ELR_EL1={pc:#x} x30={link:#x}");
}
