//! The functions that compiled code calls by itself, for what it copies, fills and compares: their names and contracts
//! are C's.
//!
//! `compiler_builtins` has them too, made for any core: 8 bytes a round where both sides are aligned, 22 instructions
//! for 8 bytes where they are not, and a comparison by the byte. At EL2 an interrupt waits for as long. Here a round
//! has more, and need not be aligned: Normal memory allows that (SCTLR_EL2.A is clear). Before the MMU is on all memory
//! is Device memory, which does not (Arm ARM B2.7.2), so what is not aligned goes by the byte then.
//!
//! What this module leaves out: memory that guests write to ([`crate::bulk`]).

use core::arch::global_asm;

global_asm!(
    r#"
// Goes to \bytes if x0 or \other is no multiple of 8, and the MMU is off (SCTLR_EL2.M). Changes x4.
.macro check_alignment other, bytes
    orr     x4, x0, \other
    tst     x4, #7
    b.eq    99f
    mrs     x4, sctlr_el2
    tbz     x4, #0, \bytes
99:
.endm

// x0: target, x1: source, x2: length. Gives the target.
.section .text.memcpy, "ax"
.balign 4
.global memcpy
memcpy:
    mov     x3, x0
    check_alignment x1, 7f
    subs    x2, x2, #32
    b.lo    2f
1:  ldp     x6, x7, [x1, #16]
    ldp     x4, x5, [x1], #32
    stp     x6, x7, [x3, #16]
    stp     x4, x5, [x3], #32
    subs    x2, x2, #32
    b.hs    1b
    // Less by 32 than what is left, and so the same in its lower bits: a piece for each that is set.
2:  tbz     x2, #4, 8f
    ldp     x4, x5, [x1], #16
    stp     x4, x5, [x3], #16
8:  tbz     x2, #3, 3f
    ldr     x4, [x1], #8
    str     x4, [x3], #8
3:  tbz     x2, #2, 4f
    ldr     w4, [x1], #4
    str     w4, [x3], #4
4:  tbz     x2, #1, 5f
    ldrh    w4, [x1], #2
    strh    w4, [x3], #2
5:  tbz     x2, #0, 6f
    ldrb    w4, [x1]
    strb    w4, [x3]
6:  ret
7:  cbz     x2, 6b
    ldrb    w4, [x1], #1
    strb    w4, [x3], #1
    sub     x2, x2, #1
    b       7b

// x0: target, w1: the byte, x2: length. Gives the target.
.section .text.memset, "ax"
.balign 4
.global memset
memset:
    mov     x3, x0
    and     w1, w1, #0xff
    orr     w1, w1, w1, lsl #8
    orr     w1, w1, w1, lsl #16
    orr     x1, x1, x1, lsl #32
    check_alignment x0, 7f
    subs    x2, x2, #64
    b.lo    2f
1:  stp     x1, x1, [x3, #16]
    stp     x1, x1, [x3, #32]
    stp     x1, x1, [x3, #48]
    stp     x1, x1, [x3], #64
    subs    x2, x2, #64
    b.hs    1b
2:  tbz     x2, #5, 8f
    stp     x1, x1, [x3, #16]
    stp     x1, x1, [x3], #32
8:  tbz     x2, #4, 9f
    stp     x1, x1, [x3], #16
9:  tbz     x2, #3, 3f
    str     x1, [x3], #8
3:  tbz     x2, #2, 4f
    str     w1, [x3], #4
4:  tbz     x2, #1, 5f
    strh    w1, [x3], #2
5:  tbz     x2, #0, 6f
    strb    w1, [x3]
6:  ret
7:  cbz     x2, 6b
    strb    w1, [x3], #1
    sub     x2, x2, #1
    b       7b

// x0 and x1: what is compared, x2: length. Gives less than, equal to or more than zero, as the first byte that differs
// is less or more: in big-endian words that is the most significant one.
.section .text.memcmp, "ax"
.balign 4
.global memcmp
memcmp:
    check_alignment x1, 3f
    subs    x2, x2, #8
    b.lo    2f
1:  ldr     x3, [x0], #8
    ldr     x4, [x1], #8
    cmp     x3, x4
    b.ne    5f
    subs    x2, x2, #8
    b.hs    1b
2:  add     x2, x2, #8
3:  cbz     x2, 4f
    ldrb    w3, [x0], #1
    ldrb    w4, [x1], #1
    sub     x2, x2, #1
    cmp     w3, w4
    b.eq    3b
    b       6f
4:  mov     w0, wzr
    ret
5:  rev     x3, x3
    rev     x4, x4
    cmp     x3, x4
6:  mov     w0, #1
    csinv   w0, w0, wzr, hi
    ret
"#
);
