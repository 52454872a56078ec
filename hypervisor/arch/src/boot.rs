//! From the boot loader to Rust: the arm64 `Image` header, the primary core's first instructions, and the secondaries'.
//!
//! Leaves out everything that Rust can do: the board, the tables, the interrupt controller.

use crate::controls;
use crate::per_core::PER_CORE;
use core::arch::global_asm;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

/// The most cores that Bulkhead runs on.
pub const CORES_MAX: usize = device_tree::CORES_MAX;
/// The size of one core's EL2 stack, in bytes, without the guard page below it.
pub const STACK_SIZE: usize = 32 * 1024;
/// The unmapped page below each stack, in bytes.
pub const STACK_GUARD_SIZE: usize = 4096;

/// Where there is a PL011 on QEMU's `virt`, the one board so far. Before a device tree has said where the UART is, and
/// where none can, a sentence goes there.
pub(crate) const KNOWN_UART: u64 = vdev::guest_map::PL011_BASE;

const STACK_STRIDE: usize = STACK_SIZE + STACK_GUARD_SIZE;

#[repr(C, align(4096))]
struct Stacks([[u8; STACK_STRIDE]; CORES_MAX]);

/// The cores' stacks; only the assembly below and the stage-1 tables refer to them.
#[unsafe(link_section = ".noinit.stacks")]
static mut STACKS: Stacks = Stacks([[0; STACK_STRIDE]; CORES_MAX]);

/// The address of the first byte of `core`'s guard page; its stack lies above.
pub(crate) fn stack_guard(core: usize) -> usize {
    let stacks = &raw const STACKS;
    stacks as usize + core * STACK_STRIDE
}

/// The first address above `core`'s stack.
pub(crate) fn stack_top(core: usize) -> usize {
    stack_guard(core) + STACK_STRIDE
}

/// How many cores the board has: the stacks of others are RAM like any.
static CORES: AtomicUsize = AtomicUsize::new(1);

/// Notes how many cores the board has, before anything is made of its RAM.
pub(crate) fn set_cores(cores: usize) {
    CORES.store(cores.clamp(1, CORES_MAX), Ordering::Relaxed);
}

/// The numbers of the cores that have stacks.
pub(crate) fn cores() -> Range<usize> {
    0..CORES.load(Ordering::Relaxed)
}

/// The stack that `address` lies on, if it lies on one: its addresses without the guard page.
pub(crate) fn stack_around(address: u64) -> Option<Range<u64>> {
    cores()
        .map(|core| (stack_guard(core) + STACK_GUARD_SIZE) as u64..stack_top(core) as u64)
        .find(|stack| stack.contains(&address))
}

/// What a secondary core finds in `x0` when PSCI CPU_ON starts it.
#[repr(C)]
pub(crate) struct SecondaryStart {
    pub(crate) stack_top: u64,
    pub(crate) core: u64,
    pub(crate) mair: u64,
    pub(crate) tcr: u64,
    pub(crate) ttbr0: u64,
    pub(crate) sctlr: u64,
    pub(crate) per_core: u64,
}

// Linux `Documentation/arch/arm64/booting.rst`: the 64-byte header; flags 0xa = little-endian, 4 KiB pages, anywhere in
// memory. On entry the MMU and data cache are off and the image is clean to the point of coherency.
//
// HCR_EL2 comes first: E2H and TGE clear, or the other EL2 registers have VHE's format; RW set.
//
// What this core writes before its caches are on, from the image's data to its own stack, is cleaned and invalidated
// first, so that no stale cache line covers it then. CTR_EL0.DminLine is the log2 of the smallest line in words. The
// lines go four at a time; up to three more at the end lie in the next core's stack, where there is nothing yet.
//
// Relocation: the image is linked at 0, so `_start`'s run-time address is the displacement, and every entry of
// .rela.dyn is R_AARCH64_RELATIVE (1027): *(base + offset) = base + addend.
global_asm!(
    r#"
.section .head.text, "ax"
.global _start
_start:
    b       primary_entry
    .long   0
    .quad   0
    .quad   __image_size
    .quad   0xa
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"
    .long   0

primary_entry:
    msr     daifset, #0xf
    mrs     x1, CurrentEL
    cmp     x1, #(2 << 2)
    b.ne    not_el2
    mov     x19, x0
    mov     x1, #{hcr_rw}
    msr     hcr_el2, x1
    isb

    mrs     x1, ctr_el0
    ubfx    x1, x1, #16, #4
    mov     x3, #4
    lsl     x3, x3, x1
    adrp    x1, __text_end
    adrp    x2, {stacks}
    add     x2, x2, :lo12:{stacks}
    add     x2, x2, #{stack_stride}
    msr     spsel, #1
    mov     sp, x2
0:  dc      civac, x1
    add     x4, x1, x3
    dc      civac, x4
    add     x4, x4, x3
    dc      civac, x4
    add     x4, x4, x3
    dc      civac, x4
    add     x1, x4, x3
    cmp     x1, x2
    b.lo    0b
    dsb     sy

    adrp    x1, __bss_start
    add     x1, x1, :lo12:__bss_start
    adrp    x2, __bss_end
    add     x2, x2, :lo12:__bss_end
1:  stp     xzr, xzr, [x1], #16
    stp     xzr, xzr, [x1], #16
    stp     xzr, xzr, [x1], #16
    stp     xzr, xzr, [x1], #16
    cmp     x1, x2
    b.lo    1b

    adrp    x0, _start
    adrp    x1, __rela_start
    add     x1, x1, :lo12:__rela_start
    adrp    x2, __rela_end
    add     x2, x2, :lo12:__rela_end
2:  cmp     x1, x2
    b.hs    3f
    ldp     x3, x4, [x1], #16
    ldr     x5, [x1], #8
    cmp     w4, #1027
    b.ne    2b
    add     x5, x5, x0
    str     x5, [x0, x3]
    b       2b
3:
    adrp    x1, {per_core}
    add     x1, x1, :lo12:{per_core}
    msr     tpidr_el2, x1
    adrp    x1, el2_vectors
    add     x1, x1, :lo12:el2_vectors
    msr     vbar_el2, x1
    isb
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x19
    bl      {primary}
stopped:
    wfe
    b       stopped

// Entered at another exception level: a sentence on the known UART, which needs no memory but the image's own. `x1` is
// CurrentEL; the digit of EL1 or EL3 completes the sentence. FR.TXFF (bit 5) is looked at a bounded number of times.
// EL3 is that of a board's reset, from which all cores may come at once: the first of them speaks.
not_el2:
    lsr     x1, x1, #2
    cmp     x1, #3
    b.ne    0f
    mrs     x2, mpidr_el1
    ubfx    x3, x2, #32, #8
    and     x2, x2, #0xffffff
    orr     x2, x2, x3
    cbnz    x2, stopped
0:  add     w1, w1, #'0'
    adr     x2, el2_sentence
    mov     x3, #{uart}
1:  ldrb    w4, [x2], #1
    cbz     w4, stopped
    cmp     w4, #'%'
    csel    w4, w1, w4, eq
    mov     w5, #0x10000
2:  ldr     w6, [x3, #0x18]
    tbz     w6, #5, 3f
    subs    w5, w5, #1
    b.ne    2b
3:  str     w4, [x3]
    b       1b
el2_sentence:
    .ascii  "\r\nBULKHEAD STOPS: it was started at EL%, but a hypervisor needs EL2; start QEMU with "
    .asciz  "-M virt,virtualization=on,gic-version=3, or have the boot loader enter it at EL2\r\n"
    .balign 4

.global secondary_entry
secondary_entry:
    msr     daifset, #0xf
    mov     x1, #{hcr_rw}
    msr     hcr_el2, x1
    isb
    msr     spsel, #1
    ldp     x1, x20, [x0]
    mov     sp, x1
    ldr     x1, [x0, #48]
    msr     tpidr_el2, x1
    adrp    x1, el2_vectors
    add     x1, x1, :lo12:el2_vectors
    msr     vbar_el2, x1
    ldp     x1, x2, [x0, #16]
    ldp     x3, x4, [x0, #32]
    msr     mair_el2, x1
    msr     tcr_el2, x2
    msr     ttbr0_el2, x3
    isb
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el2, x4
    isb
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x20
    bl      {secondary}
    b       stopped
"#,
    hcr_rw = const controls::HCR_BOOT,
    uart = const KNOWN_UART,
    stacks = sym STACKS,
    stack_stride = const STACK_STRIDE,
    per_core = sym PER_CORE,
    primary = sym primary,
    secondary = sym secondary,
);

/// The address that the boot loader passed. There is one, made by the primary core's first instructions, so that
/// whoever has it can trust it.
pub struct DeviceTree(pub(crate) usize);

unsafe extern "Rust" {
    // SAFETY: both are defined by `entry!`, which checks their types.
    safe fn __bulkhead_primary(device_tree: DeviceTree) -> !;
    safe fn __bulkhead_secondary(core: usize) -> !;
}

extern "C" fn primary(device_tree: usize) -> ! {
    __bulkhead_primary(DeviceTree(device_tree))
}

extern "C" fn secondary(core: usize) -> ! {
    __bulkhead_secondary(core)
}

/// Names the binary's entry points: `$primary: fn(DeviceTree) -> !` gets the device tree's address with the MMU off,
/// `$secondary: fn(usize) -> !` runs on each further core with the MMU on and gets the core's number.
#[macro_export]
macro_rules! entry {
    ($primary:path, $secondary:path) => {
        #[allow(unsafe_code, missing_docs)]
        #[unsafe(no_mangle)]
        pub extern "Rust" fn __bulkhead_primary(device_tree: $crate::boot::DeviceTree) -> ! {
            let function: fn($crate::boot::DeviceTree) -> ! = $primary;
            function(device_tree)
        }
        #[allow(unsafe_code, missing_docs)]
        #[unsafe(no_mangle)]
        pub extern "Rust" fn __bulkhead_secondary(core: usize) -> ! {
            let function: fn(usize) -> ! = $secondary;
            function(core)
        }
    };
}

/// A range of the image, as the linker laid it out and the boot loader placed it.
#[derive(Clone, Copy, Debug)]
pub struct ImageRange {
    /// First physical (and, at EL2, virtual) address.
    pub start: u64,
    /// First address behind the range.
    pub end: u64,
}

macro_rules! linker_symbol {
    ($name:ident) => {{
        unsafe extern "C" {
            static $name: u8;
        }
        (&raw const $name) as u64
    }};
}

/// The first address of the image.
pub(crate) fn start() -> u64 {
    linker_symbol!(__image_start)
}

/// The whole image, with BSS, tables, and the stacks of the cores that there are, which are its end.
pub(crate) fn image() -> ImageRange {
    ImageRange { start: start(), end: stack_guard(cores().end) as u64 }
}

/// Code that runs before every core is in its run loop, and never after.
pub(crate) fn boot_code() -> ImageRange {
    ImageRange { start: linker_symbol!(__image_start), end: linker_symbol!(__init_end) }
}

/// Code, that of the boot included.
pub fn text() -> ImageRange {
    ImageRange { start: linker_symbol!(__image_start), end: linker_symbol!(__text_end) }
}

/// Constants, relocation tables, and the constants that relocation has written.
pub fn rodata() -> ImageRange {
    ImageRange { start: linker_symbol!(__text_end), end: linker_symbol!(__rodata_end) }
}

/// Data, BSS and EL2's tables.
pub(crate) fn data() -> ImageRange {
    ImageRange { start: linker_symbol!(__rodata_end), end: linker_symbol!(__stacks_start) }
}

/// Where PSCI CPU_ON sends a secondary core.
pub(crate) fn secondary_entry() -> u64 {
    linker_symbol!(secondary_entry)
}
