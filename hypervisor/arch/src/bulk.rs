//! Bytes in bulk: copying, clearing, and what caches hold of them.
//!
//! What this module leaves out: whose bytes they are ([`crate::memory`]).

use core::arch::asm;
use memory::table::PAGE_SIZE;

/// Copies `length` bytes from `source` to `target`, which others may read and write at the same time, guests among
/// them. Assembly, because to Rust a race is undefined, and because a copy is much of what a request costs: from 256
/// bytes on it moves 128 a round through the FP registers, which hold the loaded guest's values and get them back.
/// (Their upper parts, of SVE, no guest has.) Unaligned accesses to Normal memory are allowed (SCTLR_EL2.A is clear)
/// and no access is wider than a guest's own. If the ranges overlap, what arrives is unspecified.
///
/// # Safety
/// Both ranges must be RAM that EL2 maps; no Rust reference to guest memory exists, and a buffer of EL2's own is
/// borrowed by the caller for the time of the call.
// Once in the image: a call costs next to nothing beside what is copied.
#[inline(never)]
pub(crate) unsafe fn copy(source: *const u8, target: *mut u8, length: usize) {
    // SAFETY: touches the two ranges and the stack below SP, which it leaves as it was; CPTR_EL2.TFP is clear, so FP
    // instructions do not trap at EL2, and q0 to q7 are as they were.
    unsafe {
        asm!(
            ".arch_extension fp", ".arch_extension simd",
            "cmp {n}, #256",
            "b.lo 3f",
            "stp q0, q1, [sp, #-128]!",
            "stp q2, q3, [sp, #32]",
            "stp q4, q5, [sp, #64]",
            "stp q6, q7, [sp, #96]",
            "sub {n}, {n}, #128",
            "2:",
            "ldp q2, q3, [{s}, #32]",
            "ldp q4, q5, [{s}, #64]",
            "ldp q6, q7, [{s}, #96]",
            "ldp q0, q1, [{s}], #128",
            "stp q2, q3, [{t}, #32]",
            "stp q4, q5, [{t}, #64]",
            "stp q6, q7, [{t}, #96]",
            "stp q0, q1, [{t}], #128",
            "subs {n}, {n}, #128",
            "b.hs 2b",
            "ldp q2, q3, [sp, #32]",
            "ldp q4, q5, [sp, #64]",
            "ldp q6, q7, [sp, #96]",
            "ldp q0, q1, [sp], #128",
            "add {n}, {n}, #128",
            "3:",
            "subs {n}, {n}, #64",
            "b.lo 5f",
            "4:",
            "ldp {c}, {d}, [{s}, #16]",
            "ldp {e}, {f}, [{s}, #32]",
            "ldp {g}, {h}, [{s}, #48]",
            "ldp {a}, {b}, [{s}], #64",
            "stp {c}, {d}, [{t}, #16]",
            "stp {e}, {f}, [{t}, #32]",
            "stp {g}, {h}, [{t}, #48]",
            "stp {a}, {b}, [{t}], #64",
            "subs {n}, {n}, #64",
            "b.hs 4b",
            // Less by 64 than what is left, and so the same in its lower bits: a piece for each that is set.
            "5:",
            "tbz {n}, #5, 6f",
            "ldp {c}, {d}, [{s}, #16]",
            "ldp {a}, {b}, [{s}], #32",
            "stp {c}, {d}, [{t}, #16]",
            "stp {a}, {b}, [{t}], #32",
            "6:",
            "tbz {n}, #4, 7f",
            "ldp {a}, {b}, [{s}], #16",
            "stp {a}, {b}, [{t}], #16",
            "7:",
            "tbz {n}, #3, 8f",
            "ldr {a}, [{s}], #8",
            "str {a}, [{t}], #8",
            "8:",
            "tbz {n}, #2, 9f",
            "ldr {a:w}, [{s}], #4",
            "str {a:w}, [{t}], #4",
            "9:",
            "tbz {n}, #1, 22f",
            "ldrh {a:w}, [{s}], #2",
            "strh {a:w}, [{t}], #2",
            "22:",
            "tbz {n}, #0, 23f",
            "ldrb {a:w}, [{s}]",
            "strb {a:w}, [{t}]",
            "23:",
            s = inout(reg) source => _, t = inout(reg) target => _, n = inout(reg) length => _,
            a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
            e = out(reg) _, f = out(reg) _, g = out(reg) _, h = out(reg) _
        );
    }
}

/// Fills the page at `start` with a repetition of `word`. With the MMU off, too, which DC ZVA does not allow.
///
/// # Safety
/// The page must be RAM that EL2 can write and that has one owner, to which no other Rust reference exists.
pub(crate) unsafe fn fill_page(start: u64, word: u64) {
    // SAFETY: stores within the caller's page.
    unsafe {
        asm!(
            "2:",
            "stp {word}, {word}, [{address}]",
            "stp {word}, {word}, [{address}, #16]",
            "stp {word}, {word}, [{address}, #32]",
            "stp {word}, {word}, [{address}, #48]",
            "add {address}, {address}, #64",
            "cmp {address}, {end}",
            "b.lo 2b",
            word = in(reg) word, address = inout(reg) start => _, end = in(reg) start + PAGE_SIZE,
            options(nostack)
        );
    }
}

/// Clears `[start, start + size)`, a multiple of 4 KiB at both ends, and cleans and invalidates it to the point of
/// coherency: less than 5 instructions for 64 bytes.
///
/// # Safety
/// The range must be writable RAM, mapped as Normal memory, to which no Rust reference exists.
pub(crate) unsafe fn clear(start: u64, size: u64) {
    let zero_blocks: u64;
    // SAFETY: an ID register.
    unsafe { asm!("mrs {0}, dczid_el0", out(reg) zero_blocks, options(nomem, nostack)) };
    // DCZID_EL0 (Arm ARM D19.2.35): DZP (bit 4) forbids DC ZVA; BS is the log2 of the block in words, 2 KiB at most.
    let (block, end) = (4 << (zero_blocks & 0xf), start + size);
    if zero_blocks & (1 << 4) != 0 {
        // SAFETY: stores within the caller's range, a multiple of 256 bytes; CPTR_EL2.TFP is clear, so FP instructions
        // do not trap at EL2, and the guest's q0, on the stack meanwhile, is as it was.
        unsafe {
            asm!(
                ".arch_extension fp", ".arch_extension simd",
                "str q0, [sp, #-16]!",
                "movi v0.2d, #0",
                "2:",
                ".rept 8",
                "stp q0, q0, [{address}], #32",
                ".endr",
                "cmp {address}, {end}",
                "b.lo 2b",
                "ldr q0, [sp], #16",
                address = inout(reg) start => _, end = in(reg) end
            );
        }
    } else if block == cache_line() && block <= PAGE_SIZE / 8 {
        // The usual case, in one go.
        // SAFETY: within the caller's range, a multiple of eight such blocks.
        unsafe {
            asm!(
                "2:",
                ".rept 8",
                "dc zva, {address}",
                "dc civac, {address}",
                "add {address}, {address}, {block}",
                ".endr",
                "cmp {address}, {end}",
                "b.lo 2b",
                "dsb sy",
                address = inout(reg) start => _, end = in(reg) end, block = in(reg) block, options(nostack)
            );
        }
        return;
    } else {
        // SAFETY: within the caller's range, a multiple of two blocks of any size.
        unsafe {
            asm!(
                "2:",
                "dc zva, {address}",
                "add {address}, {address}, {block}",
                "dc zva, {address}",
                "add {address}, {address}, {block}",
                "cmp {address}, {end}",
                "b.lo 2b",
                address = inout(reg) start => _, end = in(reg) end, block = in(reg) block, options(nostack)
            );
        }
    }
    clean_and_invalidate(start, size);
}

/// The smallest line of all data caches, in bytes.
fn cache_line() -> u64 {
    let cache_type: u64;
    // SAFETY: an ID register.
    unsafe { asm!("mrs {0}, ctr_el0", out(reg) cache_type, options(nomem, nostack)) };
    // CTR_EL0.DminLine: log2 of the smallest line in words.
    4 << ((cache_type >> 16) & 0xf)
}

/// Cleans and invalidates `[start, start + size)` to the point of coherency.
#[inline(never)]
pub(crate) fn clean_and_invalidate(start: u64, size: u64) {
    let line = cache_line();
    let mut address = start & !(line - 1);
    let end = start + size;
    while end.saturating_sub(address) >= 8 * line {
        // SAFETY: maintenance that changes no data; the addresses are mapped, since they lie within the range.
        unsafe {
            asm!(
                ".rept 8",
                "dc civac, {address}",
                "add {address}, {address}, {line}",
                ".endr",
                address = inout(reg) address, line = in(reg) line, options(nostack)
            );
        }
    }
    while address < end {
        // SAFETY: maintenance that changes no data; the address is mapped.
        unsafe { asm!("dc civac, {0}", in(reg) address, options(nostack)) };
        address += line;
    }
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack)) };
}

/// Drops stale instructions of this core, before a guest's new code runs on it: the stores that made it are clean to
/// the point of coherency, and this core has seen that they are over. Executed at EL2 it is for every VMID, also where
/// instruction caches are aware of them (Arm ARM, VPIPT instruction caches).
pub fn invalidate_instruction_cache() {
    // SAFETY: maintenance that changes no data. Complete before anything that is fetched after the ISB.
    unsafe { asm!("dsb ish", "ic iallu", "dsb nsh", "isb", options(nostack)) };
}
