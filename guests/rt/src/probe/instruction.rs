//! Loads and stores by their encoding, at any of the levels that a guest has.

use super::{Abort, probe, refuse_memory};
use crate::mmu;
use core::arch::asm;
use core::cell::UnsafeCell;

/// Where an instruction runs, and what SP is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// EL1, with SP_EL1. An exception would use that too: no instruction that faults may have SP as its base.
    El1,
    /// EL1, with SP_EL0.
    El1WithSpEl0,
    /// EL0.
    El0,
}

/// X0 to X3: base, two registers to transfer, another base or an index.
pub type Registers = [u64; 4];

/// The instruction, and the way back.
#[repr(C, align(64))]
struct Code(UnsafeCell<[u32; 8]>);

// SAFETY: no reference into it exists; it is written and executed, by any CPU, and never read by Rust code.
unsafe impl Sync for Code {}

static CODE: Code = Code(UnsafeCell::new([0; 8]));

/// Memory of this guest's that the instructions may touch.
#[repr(C, align(4096))]
struct Scratch(UnsafeCell<[u8; SCRATCH_BYTES]>);

// SAFETY: no reference into it exists; all accesses are volatile, or those of the instructions.
unsafe impl Sync for Scratch {}

static SCRATCH: Scratch = Scratch(UnsafeCell::new([0; SCRATCH_BYTES]));
const SCRATCH_BYTES: usize = 4096;

/// Where the memory is that instructions may touch, a page.
#[must_use]
pub fn scratch() -> u64 {
    SCRATCH.0.get() as u64
}

/// Sets a byte of it.
///
/// # Panics
/// If `offset` is outside of it.
pub fn set_scratch(offset: usize, value: u8) {
    assert!(offset < SCRATCH_BYTES, "the scratch memory is a page");
    // SAFETY: inside of it, and no reference into it exists.
    unsafe { SCRATCH.0.get().cast::<u8>().wrapping_add(offset).write_volatile(value) };
}

/// A byte of it.
///
/// # Panics
/// If `offset` is outside of it.
#[must_use]
pub fn scratch_byte(offset: usize) -> u8 {
    assert!(offset < SCRATCH_BYTES, "the scratch memory is a page");
    // SAFETY: inside of it, and no reference into it exists.
    unsafe { SCRATCH.0.get().cast::<u8>().wrapping_add(offset).read_volatile() }
}

/// Refuses an address in this guest's own memory, the middle of the scratch memory apart.
fn check_address(address: u64) {
    let physical = if address >= mmu::USER_ALIAS_BASE { address - mmu::USER_ALIAS_BASE } else { address };
    if physical.wrapping_sub(scratch() + 512) >= SCRATCH_BYTES as u64 - 1024 {
        refuse_memory(address, 512);
        refuse_memory(address.saturating_sub(512), 512);
    }
}

/// The place of the instruction, behind what sets SP.
const INSTRUCTION: usize = 2;
const NOP: u32 = 0xd503_201f;
const RET: u32 = 0xd65f_03c0;
const SVC: u32 = 0xd400_0001;
/// `MOV X4, SP`, `MOV SP, X0`; `MOV X0, SP`, `MOV SP, X4`.
const STACK_IN: [u32; 2] = [0x9100_03e4, 0x9100_001f];
const STACK_OUT: [u32; 2] = [0x9100_03e0, 0x9100_009f];
/// The exception class of `SVC` (ESR_EL1.EC).
const CLASS_SVC: u64 = 0x15;
/// SPSR_EL1 for EL0 and for EL1 with SP_EL0, everything masked.
const PSTATE_EL0: u64 = 0x3c0;
const PSTATE_EL1_WITH_SP_EL0: u64 = 0x3c4;

/// Refuses what could write to this guest's own memory, or change registers that Rust has in use: anything but a load
/// or store of X1, X2 and XZR, or of FP registers (the runtime has none in use), whose base is X0, X3 or SP.
fn check(instruction: u32) {
    // Bits 27 and 25 (Arm ARM C4.1): loads and stores.
    let is_load_or_store = instruction & 0x0a00_0000 == 0x0800_0000;
    let base = instruction >> 5 & 0x1f;
    let is_vector = instruction & 1 << 26 != 0;
    let is_transferable = |register: u32| is_vector || matches!(register & 0x1f, 1 | 2 | 31);
    let is_pair = instruction & 0x3a00_0000 == 0x2800_0000;
    assert!(
        is_load_or_store && matches!(base, 0 | 3 | 31),
        "{instruction:#x} is none of the loads and stores to probe"
    );
    assert!(is_transferable(instruction) && (!is_pair || is_transferable(instruction >> 10)), "of other registers");
}

/// Makes `instruction` the one that [`again`] runs, on whatever CPU.
///
/// # Panics
/// If it is no load or store of X1 and X2 with the base X0, X3 or SP.
pub fn rewrite(instruction: u32) {
    check(instruction);
    put(INSTRUCTION, instruction);
}

fn put(index: usize, instruction: u32) {
    let place = CODE.0.get().cast::<u32>().wrapping_add(index);
    // SAFETY: `index` is one of the eight words', which are this static's own.
    unsafe { place.write_volatile(instruction) };
    // SAFETY: cache maintenance of that word, so that it is executed (Arm ARM B2.7.4.2).
    unsafe { asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", "dsb ish", "isb", in(reg) place, options(nostack)) };
}

/// Runs `instruction`, a load or store, with `registers`, of which X0, or SP if that is the base, and X3 are addresses.
///
/// # Errors
/// The exception, if the instruction met one.
///
/// # Panics
/// As [`rewrite`], or if one of the addresses is in this guest's own RAM, but for the middle of [`scratch`].
pub fn execute(level: Level, instruction: u32, registers: &mut Registers) -> Result<(), Abort> {
    let moves_stack = level == Level::El1 && instruction >> 5 & 0x1f == 31;
    let [first, second] = if moves_stack { STACK_IN } else { [NOP; 2] };
    let [third, fourth] = if moves_stack { STACK_OUT } else { [NOP; 2] };
    let end = if level == Level::El1 { RET } else { SVC };
    check(instruction);
    for (index, word) in [first, second, instruction, third, fourth, end].into_iter().enumerate() {
        put(index, word);
    }
    again(level, registers)
}

/// The same with the instruction that is there.
///
/// # Errors
/// As [`execute`].
///
/// # Panics
/// As [`execute`].
pub fn again(level: Level, registers: &mut Registers) -> Result<(), Abort> {
    let [mut x0, mut x1, mut x2, mut x3] = *registers;
    [x0, x3].into_iter().for_each(check_address);
    let code = CODE.0.get() as u64;
    let result = match level {
        Level::El1 => probe!(
            "blr {code}"; code = in(reg) code, inout("x0") x0, inout("x1") x1, inout("x2") x2, inout("x3") x3,
            out("x4") _, out("x30") _,
        ),
        Level::El1WithSpEl0 | Level::El0 => {
            let (code, pstate) = match level {
                Level::El0 => (mmu::USER_ALIAS_BASE + code, PSTATE_EL0),
                Level::El1 | Level::El1WithSpEl0 => (code, PSTATE_EL1_WITH_SP_EL0),
            };
            let stack: u64;
            let result = probe!(
                "msr sp_el0, x0", "msr elr_el1, {code}", "msr spsr_el1, {pstate}", "isb", "eret";
                code = in(reg) code, pstate = in(reg) pstate,
                inout("x0") x0, inout("x1") x1, inout("x2") x2, inout("x3") x3,
            );
            // SAFETY: SP_EL0 is nobody's.
            unsafe { asm!("mrs {0}, sp_el0", out(reg) stack, options(nomem, nostack)) };
            // One of the two is the base; the other is as it was.
            x0 = x0.wrapping_add(stack.wrapping_sub(registers[0]));
            match result {
                Err(abort) if abort.class() == CLASS_SVC => Ok(()),
                other => other,
            }
        }
    };
    *registers = [x0, x1, x2, x3];
    result
}
