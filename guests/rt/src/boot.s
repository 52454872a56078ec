// Start-up code of a bare-metal guest. Position-independent: linked at 0, run from wherever the loader put it.

.section .head, "ax"
// The arm64 Image header (Linux Documentation/arch/arm64/booting.rst).
    b       primary_entry
    .long   0
    .quad   0                       // text_offset: at the start of a 2 MiB block
    .quad   image_size
    .quad   0b1010                  // little-endian, 4 KiB pages, anywhere in memory
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0

primary_entry:
    msr     daifset, #0xf
    mov     x19, x0
    bl      drop_to_el1
    bl      enable_mmu

    adrp    x0, bss_start
    add     x0, x0, :lo12:bss_start
    adrp    x1, bss_end
    add     x1, x1, :lo12:bss_end
1:  cmp     x0, x1
    b.hs    2f
    stp     xzr, xzr, [x0], #16
    b       1b

    // Every entry is R_AARCH64_RELATIVE (1027): *(base + offset) = base + addend.
2:  adrp    x2, image_start
    add     x2, x2, :lo12:image_start
    adrp    x0, relocations_start
    add     x0, x0, :lo12:relocations_start
    adrp    x1, relocations_end
    add     x1, x1, :lo12:relocations_end
3:  cmp     x0, x1
    b.hs    4f
    ldp     x3, x4, [x0], #16
    ldr     x5, [x0], #8
    cmp     w4, #1027
    b.ne    3b
    add     x5, x5, x2
    str     x5, [x2, x3]
    b       3b

4:  mov     x0, xzr
    bl      prepare_cpu
    mov     x0, x19
    mov     x29, xzr
    mov     x30, xzr
    b       {start_primary}

// What PSCI CPU_ON is given as its entry point; x0 = the CPU's index.
.global secondary_entry
secondary_entry:
    msr     daifset, #0xf
    mov     x19, x0
    bl      drop_to_el1
    bl      enable_mmu
    mov     x0, x19
    bl      prepare_cpu
    mov     x0, x19
    mov     x29, xzr
    mov     x30, xzr
    b       {start_secondary}

// x0 = CPU index: sets the stack, the CPU's block and the vectors.
prepare_cpu:
    add     x1, x0, #1
    ldr     x2, ={STACK_BYTES}
    adrp    x3, {stacks}
    add     x3, x3, :lo12:{stacks}
    madd    x1, x1, x2, x3
    mov     sp, x1
    mov     x2, #{BLOCK_BYTES}
    adrp    x3, {blocks}
    add     x3, x3, :lo12:{blocks}
    madd    x1, x0, x2, x3
    msr     tpidr_el1, x1
    adrp    x1, exception_vectors
    add     x1, x1, :lo12:exception_vectors
    msr     vbar_el1, x1
    mov     x1, #(0b11 << 20)       // CPACR_EL1.FPEN: copies go through the FP registers
    msr     cpacr_el1, x1
    isb
    ret

// On a board without a hypervisor the image may be entered at EL2; leave it with nothing trapped.
drop_to_el1:
    msr     spsel, #1
    mrs     x0, CurrentEL
    cmp     x0, #0b1000
    b.ne    1f
    mov     x0, #(1 << 31)          // HCR_EL2.RW: EL1 is AArch64
    msr     hcr_el2, x0
    mov     x0, #0b11               // CNTHCTL_EL2: EL1 owns the physical counter and timer
    msr     cnthctl_el2, x0
    msr     cntvoff_el2, xzr
    mrs     x0, midr_el1
    msr     vpidr_el2, x0
    mrs     x0, mpidr_el1
    msr     vmpidr_el2, x0
    mov     x0, #0x33ff             // CPTR_EL2: RES1 bits, no traps
    msr     cptr_el2, x0
    msr     hstr_el2, xzr
    mov     x0, #0b1111             // ICC_SRE_EL2: system registers, also for EL1
    msr     S3_4_C12_C9_5, x0
    isb
    msr     S3_4_C12_C11_0, xzr     // ICH_HCR_EL2
    ldr     x0, ={SCTLR_RESET}
    msr     sctlr_el1, x0
    mov     x0, #0x3c5              // EL1h, DAIF masked
    msr     spsr_el2, x0
    msr     elr_el2, x30
    eret
1:  ret

// Turns on the MMU with the constant boot tables.
enable_mmu:
    ldr     x0, ={MAIR}
    msr     mair_el1, x0
    ldr     x0, ={TCR}
    mrs     x1, id_aa64mmfr0_el1    // TCR_EL1.IPS takes the encoding of PARange, up to 48 bits
    and     x1, x1, #0xf
    mov     x2, #5
    cmp     x1, x2
    csel    x1, x1, x2, lo
    orr     x0, x0, x1, lsl #32
    msr     tcr_el1, x0
    adrp    x0, boot_table
    msr     ttbr0_el1, x0
    msr     ttbr1_el1, xzr
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    ldr     x0, ={SCTLR}
    msr     sctlr_el1, x0
    isb
    ret
.ltorg

// The boot map: 1 GiB blocks of identity, the first one Device memory, the next 31 normal memory. Entries are not
// global and belong to address space 0; the final tables run as address space 1, so the two never meet in a TLB.
.section .rodata.boot_table, "a"
.balign 4096
boot_table:
    .quad   (0x0 << 30) | (3 << 53) | (1 << 11) | (1 << 10) | (0 << 2) | 1
    .set    block, 1
.rept 31
    .quad   (block << 30) | (1 << 11) | (1 << 10) | (3 << 8) | (1 << 2) | 1
    .set    block, block + 1
.endr
    .fill   480, 8, 0
