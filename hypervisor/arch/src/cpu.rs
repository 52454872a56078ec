//! One core at EL2: its traps, and what the fast tier asks of it and does with the guest that left.

use crate::controls::{CPTR_GUEST, HCR_GUEST, MDCR_GUEST};
use crate::exception::absorb_system_error;
use crate::mmu;
use crate::registers::{
    CPTR_EL2, HSTR_EL2, ID_AA64DFR0_EL1, ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1, ID_AA64PFR0_EL1, ID_AA64PFR1_EL1,
    MDSCR_EL1, OSDLR_EL1, OSLAR_EL1, PMCR_EL0, VPIDR_EL2,
};
use aarch64::exit::{DeviceAccess, Syndrome};
use aarch64::inject::{El1Entry, El1Target};
use aarch64_cpu::registers::{
    CNTHCTL_EL2, ELR_EL1, ELR_EL2, ESR_EL2, FAR_EL2, HCR_EL2, HPFAR_EL2, MDCR_EL2, MIDR_EL1, SCTLR_EL1, SP_EL0, SP_EL1,
    SPSR_EL2,
};
use core::arch::{asm, global_asm};
use tock_registers::interfaces::{Readable, Writeable};
use vdev::GuestAddr;

/// EL1 may read the physical counter and owns the physical timer: EL2 keeps CNTHP for itself.
const CNTHCTL_GUEST: u64 = 0b11;

/// Sets this core's traps and controls up for guests. Once per core, before the first guest.
pub fn configure() {
    mmu::configure_stage2();
    HCR_EL2.set(HCR_GUEST);
    CPTR_EL2.set(CPTR_GUEST);
    HSTR_EL2.set(0);
    // MDCR_EL2.HPMN must not exceed the number of counters; with no PMU it is RES0.
    let pmu_version = (ID_AA64DFR0_EL1.get() >> 8) & 0xf;
    let counters = if pmu_version == 0 || pmu_version == 0xf { 0 } else { (PMCR_EL0.get() >> 11) & 0x1f };
    MDCR_EL2.set(MDCR_GUEST | MDCR_EL2::HPMN.val(counters).value);
    CNTHCTL_EL2.set(CNTHCTL_GUEST);
    VPIDR_EL2.set(MIDR_EL1.get());
    close_later_extensions();
    refuse_system_error();
    // A locked OS lock would suppress the guests' single-step exceptions.
    OSLAR_EL1.set(0);
    OSDLR_EL1.set(0);
    MDSCR_EL1.set(0);
    instruction_barrier();
}

/// Traps what extensions after Armv8.5 would otherwise let through. The registers of FEAT_FGT and FEAT_HCX are UNKNOWN
/// at reset; zero traps the features with an inverted bit (TPIDR2_EL0, SMPRI_EL1, GCS, PIE, BRBE …) and nothing else.
fn close_later_extensions() {
    let mmfr0 = ID_AA64MMFR0_EL1.get();
    if (mmfr0 >> 56) & 0xf != 0 {
        // SAFETY: FEAT_FGT exists: HFGRTR_EL2, HFGWTR_EL2, HFGITR_EL2, HDFGRTR_EL2, HDFGWTR_EL2 only trap EL1 and EL0.
        unsafe {
            asm!(
                "msr s3_4_c1_c1_4, xzr",
                "msr s3_4_c1_c1_5, xzr",
                "msr s3_4_c1_c1_6, xzr",
                "msr s3_4_c3_c1_4, xzr",
                "msr s3_4_c3_c1_5, xzr",
                options(nomem, nostack)
            );
        }
    }
    let mmfr1 = ID_AA64MMFR1_EL1.get();
    if (mmfr1 >> 40) & 0xf != 0 {
        // SAFETY: FEAT_HCX exists: HCRX_EL2 enables features for EL1 and EL0.
        unsafe { asm!("msr s3_4_c1_c2_2, xzr", options(nomem, nostack)) };
    }
}

/// Clears the registers of hidden features that no trap covers, so that they carry nothing from one guest to another:
/// TPIDR2_EL0, which without FEAT_FGT is a guest's to read and write although SME is hidden, and DISR_EL1.
#[inline(always)]
pub(crate) fn clear_hidden_registers() {
    if (ID_AA64PFR1_EL1.get() >> 24) & 0xf != 0 {
        // SAFETY: FEAT_SME exists; the register is software's own.
        unsafe { asm!("msr s3_3_c13_c0_5, xzr", options(nomem, nostack)) };
    }
    if (ID_AA64PFR0_EL1.get() >> 28) & 0xf != 0 {
        // With HCR_EL2.AMO, what EL1 knows as DISR_EL1 is VDISR_EL2.
        // SAFETY: FEAT_RAS exists; the register is read by EL1's DISR_EL1 alone.
        unsafe { asm!("msr s3_4_c12_c1_1, xzr", options(nomem, nostack)) };
    }
}

#[inline(always)]
pub(crate) fn instruction_barrier() {
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nostack)) };
}

/// PSTATE.SS and, in AArch64 state, PSTATE.BTYPE: both belong to the instruction that was just emulated.
const PSTATE_SS: u64 = 1 << 21;
const PSTATE_BTYPE: u64 = 0b11 << 10;
/// PSTATE.nRW: AArch32 state, which EL0 may be in.
const PSTATE_AARCH32: u64 = 1 << 4;
/// PSTATE.nRW, EL and SP together, and their value in an exception handler at EL1.
const PSTATE_MODE: u64 = 0x1f;
/// PSTATE.EL, in AArch64 state.
const PSTATE_EL: u64 = 0b11 << 2;
const PSTATE_EL1H: u64 = 0b00101;
/// PSTATE.IT as an exception from AArch32 state saves it (Arm ARM, SPSR_EL2): bits 7:2, then bits 1:0.
const PSTATE_IT_HIGH: u64 = 0x3f << 10;
const PSTATE_IT_LOW: u64 = 0b11 << 25;

/// The bytes of the instruction that trapped, in the state `pstate`. In AArch32 state ESR_EL2.IL tells: the syndrome is
/// still that of this exit, since EL2 takes no exceptions of its own.
#[inline(always)]
fn instruction_size(pstate: u64) -> u64 {
    if pstate & PSTATE_AARCH32 == 0 || ESR_EL2.get() & (1 << 25) != 0 { 4 } else { 2 }
}

/// PSTATE behind the instruction that trapped: the next one of an IT block, if it was in one (Arm ARM,
/// AArch32.ITAdvance).
#[inline(always)]
fn pstate_after(pstate: u64) -> u64 {
    if pstate & PSTATE_AARCH32 == 0 {
        return pstate & !(PSTATE_SS | PSTATE_BTYPE);
    }
    let block = (pstate & PSTATE_IT_HIGH) >> 8 | (pstate & PSTATE_IT_LOW) >> 25;
    let next = if block & 0b111 == 0 { 0 } else { (block & 0xe0) | ((block << 1) & 0x1f) };
    let rest = pstate & !(PSTATE_SS | PSTATE_IT_HIGH | PSTATE_IT_LOW);
    rest | (next << 8) & PSTATE_IT_HIGH | (next << 25) & PSTATE_IT_LOW
}

/// In the fast tier: where the guest will go on.
#[inline]
pub fn program_counter() -> u64 {
    ELR_EL2.get()
}

/// In the fast tier: skips the instruction that trapped.
#[inline(always)]
pub fn skip_instruction() {
    ELR_EL2.set(ELR_EL2.get().wrapping_add(4));
    let pstate = SPSR_EL2.get();
    if pstate & (PSTATE_AARCH32 | PSTATE_SS | PSTATE_BTYPE) != 0 {
        skip_unusual_instruction(pstate);
    }
}

/// In the fast tier: has the instruction that was skipped executed again, which must be one that goes on where it left
/// off.
pub fn repeat_instruction() {
    ELR_EL2.set(ELR_EL2.get().wrapping_sub(instruction_size(SPSR_EL2.get())));
}

/// The rest of [`skip_instruction`], where PSTATE changes or the instruction may have had two bytes.
#[cold]
#[inline(never)]
fn skip_unusual_instruction(pstate: u64) {
    // Never more than 4, which is what nearly every instruction has.
    ELR_EL2.set(ELR_EL2.get().wrapping_sub(4 - instruction_size(pstate)));
    SPSR_EL2.set(pstate_after(pstate));
}

/// In the fast tier: what the exit was.
#[inline]
pub fn syndrome(esr: u64) -> Syndrome {
    let far = FAR_EL2.get();
    let mut hpfar = HPFAR_EL2.get();
    // HPFAR_EL2 is UNKNOWN for a permission fault that was not on a table walk: ask the MMU. An address that no longer
    // translates (another virtual CPU of the same VM changed the tables) gives 0, where no guest has anything.
    let class = esr >> 26;
    let aborted = class == 0x20 || class == 0x24;
    if aborted && (esr & 0x3c) == 0x0c && (esr & (1 << 7)) == 0 {
        hpfar = (mmu::translate_stage1(far).unwrap_or(0) >> 12) << 4;
    }
    Syndrome { esr, far, hpfar }
}

/// In the fast tier: the guest address of `access`, if it is aligned.
#[inline(always)]
pub fn fault_address(access: DeviceAccess) -> Option<GuestAddr> {
    access.address(FAR_EL2.get(), HPFAR_EL2.get())
}

/// In the fast tier: the guest address of `access`, which is a permission fault, if it is aligned and still translates.
#[inline]
pub fn permission_fault_address(access: DeviceAccess) -> Option<GuestAddr> {
    let far = FAR_EL2.get();
    access.address(far, (mmu::translate_stage1(far)? >> 12) << 4)
}

/// In the fast tier: makes the access that trapped one at `virtual_address`, on the same page, and the guest go on at
/// `program_counter` with `pstate`, whatever [`skip_instruction`] has done since the exit.
pub fn set_access(virtual_address: u64, (program_counter, pstate): (u64, u64)) {
    FAR_EL2.set(virtual_address);
    ELR_EL2.set(program_counter);
    SPSR_EL2.set(pstate);
}

/// In the fast tier: where and as the guest will go on, its PC and PSTATE.
pub fn resume_state() -> (u64, u64) {
    (ELR_EL2.get(), SPSR_EL2.get())
}

/// In the fast tier: the address of the instruction that trapped, by the guest's own stage 1, if a load or store of
/// AArch64 state that touches data in little-endian order is what it may be.
#[inline(never)]
pub fn address_of_instruction() -> Option<GuestAddr> {
    // SCTLR_EL1: EE and E0E.
    const BIG_ENDIAN: [u64; 2] = [1 << 25, 1 << 24];
    let (pstate, pc) = (SPSR_EL2.get(), ELR_EL2.get());
    let is_el0 = pstate & PSTATE_EL == 0;
    if pstate & PSTATE_AARCH32 != 0 || SCTLR_EL1.get() & BIG_ENDIAN[usize::from(is_el0)] != 0 {
        return None;
    }
    let translate = if is_el0 { mmu::translate_stage1_at_el0 } else { mmu::translate_stage1 };
    translate(pc).map(GuestAddr)
}

/// In the fast tier: the guest's stack pointer, that of the level that it is at (Arm ARM D1.2.2).
pub fn stack_pointer() -> u64 {
    if has_stack_of_el1() { SP_EL1.get() } else { SP_EL0.get() }
}

/// In the fast tier: sets the guest's [`stack_pointer`].
pub fn set_stack_pointer(value: u64) {
    if has_stack_of_el1() { SP_EL1.set(value) } else { SP_EL0.set(value) }
}

fn has_stack_of_el1() -> bool {
    SPSR_EL2.get() & PSTATE_MODE == PSTATE_EL1H
}

/// In the fast tier: makes the loaded guest take an exception, as `entry` computes it from the guest's state.
pub fn inject(entry: impl FnOnce(&El1Target) -> El1Entry) {
    let (vbar, sctlr): (u64, u64);
    // SAFETY: reads of EL1 registers have no side effects at EL2.
    unsafe { asm!("mrs {0}, vbar_el1", "mrs {1}, sctlr_el1", out(reg) vbar, out(reg) sctlr, options(nomem, nostack)) };
    let target = El1Target { vbar, spsr: SPSR_EL2.get(), pc: ELR_EL2.get(), sctlr };
    let entry = entry(&target);
    // SAFETY: EL1 registers and the guest's own return state: nothing of EL2's changes.
    unsafe {
        asm!("msr elr_el1, {0}", "msr spsr_el1, {1}", "msr esr_el1, {2}",
            in(reg) entry.elr, in(reg) entry.spsr, in(reg) entry.esr, options(nomem, nostack));
        if let Some(far) = entry.far {
            asm!("msr far_el1, {0}", in(reg) far, options(nomem, nostack));
        }
    }
    ELR_EL2.set(entry.pc);
    // Whatever `entry` says: the guest goes on at EL1.
    SPSR_EL2.set(entry.pstate & !PSTATE_MODE | PSTATE_EL1H);
}

/// After [`inject`]: where the guest was (ELR_EL1).
pub fn interrupted_at() -> u64 {
    ELR_EL1.get()
}

// The ID space `op0=3, op1=0, CRn=0`, CRm from 1: eight functions for each CRm, one for each op2, of two instructions
// each.
global_asm!(
    r#"
.section .text.id_registers, "ax"
.balign 4
id_registers:
.irp crm, 1, 2, 3, 4, 5, 6, 7
.irp op2, 0, 1, 2, 3, 4, 5, 6, 7
    mrs     x0, s3_0_c0_c\crm\()_\op2
    ret
.endr
.endr
"#
);

/// Reads a register of the ID space `op0=3, op1=0, CRn=0`, by CRm (1 to 7) and op2 (0 to 7); what is not in it reads as
/// zero.
pub fn id_register(crm: u8, op2: u8) -> u64 {
    if !(1..=7).contains(&crm) || op2 > 7 {
        return 0;
    }
    let index = u64::from(crm - 1) * 8 + u64::from(op2);
    let value: u64;
    // SAFETY: calls the function for the register, which changes X0 alone; `index` is that of one. The ID space is
    // readable at EL2; unallocated encodings in it read as zero.
    unsafe {
        asm!("adrp {0}, id_registers", "add {0}, {0}, :lo12:id_registers", "add {0}, {0}, {1}, lsl #3", "blr {0}",
            out(reg) _, in(reg) index, lateout("x0") value, out("x30") _, options(nomem, nostack));
    }
    value
}

/// Takes a pending SError at EL2 and returns its syndrome.
#[inline(always)]
pub(crate) fn take_system_error() -> Option<u64> {
    // ISR_EL1.A.
    const SYSTEM_ERROR: u64 = 1 << 8;
    let pending: u64;
    // SAFETY: barriers and a read. The DSB completes what was written so far, so that an SError it causes is pending.
    unsafe { asm!("dsb sy", "isb", "mrs {0}, isr_el1", out(reg) pending, options(nostack)) };
    if pending & SYSTEM_ERROR == 0 {
        return None;
    }
    // SAFETY: called after a virtual CPU was saved, and where an SError ends everything: no guest's registers are live.
    let syndrome = unsafe { absorb_system_error() };
    // An SError's exception class is 0x2f, so its syndrome is not 0.
    (syndrome != 0).then_some(syndrome)
}

/// Ends everything if an SError is pending, which is then no guest's: it is the firmware's or Bulkhead's own.
fn refuse_system_error() {
    if let Some(syndrome) = take_system_error() {
        panic!("SError that no guest caused, syndrome {syndrome:#x}");
    }
}

/// Waits for an interrupt to become pending, while no virtual CPU is loaded. Interrupts stay masked at EL2: the caller
/// acknowledges it.
///
/// # Panics
/// If an SError is pending: it would end every wait at once, and there is no guest to blame.
pub fn wait_for_interrupt() {
    refuse_system_error();
    // SAFETY: a hint; a pending interrupt ends it even while masked (Arm ARM D1.6.2).
    unsafe { asm!("dsb sy", "wfi", options(nostack)) };
}
