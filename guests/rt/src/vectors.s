// EL1 exception vectors (Arm ARM D1.3.1.5).

.section .text.vectors, "ax"
.balign 2048
.global exception_vectors
exception_vectors:
.macro unexpected_vector number
    .balign 128
    mov     x0, #\number
    b       report_unexpected
.endm
// The probe goes on at EL1, with EL1's own stack and interrupts masked.
.macro probe_elsewhere number
    .balign 128
    stp     x16, x17, [sp, #-16]!
    mrs     x16, tpidr_el1
    ldr     x17, [x16, #{RESUME}]
    cbz     x17, 1f
    mov     x17, #0x3c5
    msr     spsr_el1, x17
    b       probe_met_exception
1:  ldp     x16, x17, [sp], #16
    mov     x0, #\number
    b       report_unexpected
.endm
    // Synchronous, from EL1 with SP_EL0, where only a probe goes.
    probe_elsewhere 0
    unexpected_vector 1
    unexpected_vector 2
    unexpected_vector 3

    .balign 128
    // Synchronous, from EL1 with its own stack. While a probe runs its block says where to go on.
    stp     x16, x17, [sp, #-16]!
    mrs     x16, tpidr_el1
    ldr     x17, [x16, #{RESUME}]
    cbz     x17, 1f
probe_met_exception:
    mrs     x17, elr_el1
    str     x17, [x16, #{FAULT_PC}]
    ldr     x17, [x16, #{RESUME}]
    msr     elr_el1, x17
    str     xzr, [x16, #{RESUME}]
    mrs     x17, esr_el1
    str     x17, [x16, #{SYNDROME}]
    mrs     x17, far_el1
    str     x17, [x16, #{FAULT_ADDRESS}]
    ldp     x16, x17, [sp], #16
    eret
1:  ldp     x16, x17, [sp], #16
    mov     x0, #4
    b       report_unexpected

    .balign 128
    b       take_interrupt
    unexpected_vector 6
    unexpected_vector 7
    // Synchronous, from EL0, where only a probe goes.
    probe_elsewhere 8
    unexpected_vector 9
    unexpected_vector 10
    unexpected_vector 11
    unexpected_vector 12
    unexpected_vector 13
    unexpected_vector 14
    unexpected_vector 15
    .balign 128

// What a call may change, and what a nested interrupt would overwrite.
take_interrupt:
    sub     sp, sp, #192
    stp     x0, x1, [sp, #0]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x29, [sp, #144]
    mrs     x0, elr_el1
    stp     x30, x0, [sp, #160]
    mrs     x0, spsr_el1
    str     x0, [sp, #176]
    bl      {interrupt}
    ldr     x0, [sp, #176]
    msr     spsr_el1, x0
    ldp     x30, x0, [sp, #160]
    msr     elr_el1, x0
    ldp     x18, x29, [sp, #144]
    ldp     x16, x17, [sp, #128]
    ldp     x14, x15, [sp, #112]
    ldp     x12, x13, [sp, #96]
    ldp     x10, x11, [sp, #80]
    ldp     x8, x9, [sp, #64]
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp, #0]
    add     sp, sp, #192
    eret

report_unexpected:
    mrs     x1, esr_el1
    mrs     x2, far_el1
    mrs     x3, elr_el1
    mov     x4, x30
    msr     spsel, #1
    b       {unexpected}
