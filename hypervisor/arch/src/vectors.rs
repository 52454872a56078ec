//! EL2's exception vectors and the two ends of running a guest: entering it and leaving it.
//!
//! Two tiers (see `ARCHITECTURE.md`): an exit saves the caller-saved registers and calls a *fast handler*, a plain
//! function. If that answers, the registers are loaded again and ERET follows. If not, the callee-saved registers are
//! saved too and [`enter`] returns to the run loop. HVC, WFI and interrupts need no more than the caller-saved
//! registers; every other trap may name any register of the guest, so it saves them all before it calls.
//!
//! While a guest runs, EL2's stack holds, from `sp` up: 16 bytes of scratch, the context's address, padding, and the
//! callee-saved registers of [`enter`]'s caller.

use crate::context::registers::Context;
use crate::per_core::EMERGENCY_STACK_SIZE;
use core::arch::global_asm;
use core::mem::offset_of;

global_asm!(
    r#"
.macro save_caller_saved
    stp     x0, x1, [sp]
    ldr     x0, [sp, #16]
    stp     x2, x3, [x0, #16]
    stp     x4, x5, [x0, #32]
    stp     x6, x7, [x0, #48]
    stp     x8, x9, [x0, #64]
    stp     x10, x11, [x0, #80]
    stp     x12, x13, [x0, #96]
    stp     x14, x15, [x0, #112]
    stp     x16, x17, [x0, #128]
    ldp     x2, x3, [sp]
    stp     x18, x19, [x0, #144]
    stp     x29, x30, [x0, #232]
    stp     x2, x3, [x0]
.endm

.macro save_callee_saved
    stp     x20, x21, [x0, #160]
    stp     x22, x23, [x0, #176]
    stp     x24, x25, [x0, #192]
    stp     x26, x27, [x0, #208]
    str     x28, [x0, #224]
.endm

.macro load_callee_saved
    ldp     x20, x21, [x0, #160]
    ldp     x22, x23, [x0, #176]
    ldp     x24, x25, [x0, #192]
    ldp     x26, x27, [x0, #208]
    ldr     x28, [x0, #224]
.endm

// ERET is followed by barriers that are never executed: they keep a core from speculating past it.
.macro load_caller_saved_and_return
    ldp     x29, x30, [x0, #232]
    ldp     x18, x19, [x0, #144]
    ldp     x16, x17, [x0, #128]
    ldp     x14, x15, [x0, #112]
    ldp     x12, x13, [x0, #96]
    ldp     x10, x11, [x0, #80]
    ldp     x8, x9, [x0, #64]
    ldp     x6, x7, [x0, #48]
    ldp     x4, x5, [x0, #32]
    ldp     x2, x3, [x0, #16]
    ldp     x0, x1, [x0]
    eret
    dsb     nsh
    isb
.endm

.section .text.vectors, "ax"

// A vector has room for 32 instructions, and most of what they lead to is in that room: the common ways without a
// branch where they fit, the others wherever there was room left. `.org` refuses to go back: a vector too long does not
// assemble.
.macro vector offset
    .org    el2_vectors + \offset
.endm

// EL2's own exceptions are bugs: they end in an epitaph. Its own stack may be what is broken, so they run on another,
// the core's emergency stack. SP_EL0 is the scratch register: a guest's value in it is lost.
.macro own name, number
\name:
    msr     sp_el0, x0
    mrs     x0, tpidr_el2
    add     x0, x0, #{emergency_stack_size}
    stp     x1, x2, [x0, #-264]
    mov     x1, #\number
    b       own_common
.endm

.balign 2048
.global el2_vectors
el2_vectors:

// From EL2 with SP_EL0, which it does not use.
vector 0x000
    b       own_sync

exit_trap:
    cmp     x2, #0x01
    b.eq    exit_wait
    save_callee_saved
    ldr     x2, [x0, #{trap}]
    blr     x2
    cbnz    x0, trap_unlike_most
    ldr     x0, [sp, #16]
    load_callee_saved
    load_caller_saved_and_return

vector 0x080
    b       own_irq

.global enter_guest
enter_guest:
    stp     x29, x30, [sp, #-96]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    sub     sp, sp, #32
    str     x0, [sp, #16]
    ldp     x1, x2, [x0, #{elr}]
    msr     elr_el2, x1
    msr     spsr_el2, x2
    load_callee_saved
    load_caller_saved_and_return

vector 0x100
    b       own_fiq

// Verdict::ResumeUnchanged: the handler kept the callee-saved registers, so they still hold the guest's values.
trap_unlike_most:
    tbnz    x0, #0, leave_trap
return_to_guest:
    ldr     x0, [sp, #16]
    load_caller_saved_and_return

vector 0x180
    b       own_serror

// A WFI or WFE names no register.
exit_wait:
    ldr     x2, [x0, #{wait}]
    blr     x2
    tbz     x0, #0, return_to_guest
// Handlers keep the callee-saved registers, as AAPCS64 asks, so they still hold the guest's values at `leave`. A trap
// has saved them before its handler, which may have changed the copies.
leave:
    ldr     x0, [sp, #16]
    save_callee_saved
leave_saved:
    mrs     x1, elr_el2
    mrs     x2, spsr_el2
    stp     x1, x2, [x0, #{elr}]
    add     sp, sp, #32
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     x29, x30, [sp], #96
    ret
leave_trap:
    ldr     x0, [sp, #16]
    b       leave_saved

// From EL2.
vector 0x200
    own     own_sync, 0

// The DSB completes what was written so far, so that an SError it causes is pending. ISR_EL1.A is bit 8. An SError that
// is pending and unmasked is taken at the ISB (Arm ARM D1.3.5); `exception::own_exception` goes on at
// `system_error_taken`.
.global absorb_system_error
.global system_error_expected
.global system_error_taken
absorb_system_error:
    dsb     sy
    isb
    mov     x0, xzr
    mrs     x1, isr_el1
    tbz     x1, #8, 2f
    msr     daifclr, #4
system_error_expected:
    isb
system_error_taken:
    msr     daifset, #4
2:  ret

vector 0x280
    own     own_irq, 1
vector 0x300
    own     own_fiq, 2
vector 0x380
    own     own_serror, 3

// From a guest in AArch64. An interrupt's way fits, and a hypercall's up to the guest's registers.
vector 0x400
exit_sync:
    save_caller_saved
    mrs     x1, esr_el2
    lsr     x2, x1, #26
    cmp     x2, #0x16
    b.ne    exit_trap
    ldr     x2, [x0, #{hypercall}]
    blr     x2
    tbz     x0, #0, return_to_guest
    b       leave

vector 0x480
exit_interrupt:
    save_caller_saved
    ldr     x2, [x0, #{interrupt}]
    blr     x2
    tbnz    x0, #0, leave
    ldr     x0, [sp, #16]
    load_caller_saved_and_return

vector 0x500
    b       exit_interrupt

own_common:
    mov     x2, sp
    sub     sp, x0, #272
    mrs     x0, sp_el0
    str     x0, [sp]
    str     x2, [sp, #248]
    stp     x3, x4, [sp, #24]
    stp     x5, x6, [sp, #40]
    stp     x7, x8, [sp, #56]
    stp     x9, x10, [sp, #72]
    stp     x11, x12, [sp, #88]
    stp     x13, x14, [sp, #104]
    stp     x15, x16, [sp, #120]
    stp     x17, x18, [sp, #136]
    stp     x19, x20, [sp, #152]
    stp     x21, x22, [sp, #168]
    stp     x23, x24, [sp, #184]
    stp     x25, x26, [sp, #200]
    stp     x27, x28, [sp, #216]
    stp     x29, x30, [sp, #232]
    mov     x0, sp
    bl      {own_exception}
    // It returns for the one that is asked for, in `absorb_system_error`.
    ldr     x30, [sp, #240]
    ldr     x1, [sp, #248]
    mov     sp, x1
    eret
    dsb     nsh
    isb

vector 0x580
exit_system_error:
    save_caller_saved
    mrs     x1, esr_el2
    ldr     x2, [x0, #{system_error}]
    blr     x2
    tbz     x0, #0, return_to_guest
    b       leave

// From a guest in AArch32: an application below a kernel in AArch64.
vector 0x600
    b       exit_sync
vector 0x680
    b       exit_interrupt
vector 0x700
    b       exit_interrupt
vector 0x780
    b       exit_system_error
"#,
    hypercall = const offset_of!(Context, hypercall),
    trap = const offset_of!(Context, trap),
    wait = const offset_of!(Context, wait),
    interrupt = const offset_of!(Context, interrupt),
    system_error = const offset_of!(Context, system_error),
    elr = const offset_of!(Context, elr),
    emergency_stack_size = const EMERGENCY_STACK_SIZE,
    own_exception = sym crate::exception::own_exception,
);

unsafe extern "C" {
    /// Runs the guest of `context` on this core until a fast handler asks to leave.
    ///
    /// # Safety
    /// `context` must be valid for reads and writes and belong to the caller alone; EL1 state, stage 2 and list
    /// registers on this core must be that guest's.
    pub(crate) fn enter_guest(context: *mut Context);
}

const _: () = assert!(offset_of!(Context, x) == 0, "the assembly counts on it");
const _: () = assert!(offset_of!(Context, elr) == 248, "ELR and SPSR follow the 31 general registers");
const _: () = assert!(offset_of!(Context, spsr) == 256, "ELR and SPSR follow the 31 general registers");
