//! RAM that somebody else writes too: a hypervisor at EL2, or a device.
//!
//! No reference to such memory ever exists. It is loaded, stored and copied by instructions that the compiler cannot
//! see through, so whatever the other side does meanwhile gives strange bytes and never a strange program.

use crate::memory;
use core::arch::asm;

/// A piece of RAM that is shared with somebody outside this program. Copies of it name the same memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shared {
    start: u64,
    size: u64,
}

impl Shared {
    /// Claims `size` bytes from `start`, for good; `None` where that is not RAM, is in use by this program or by the
    /// loader, or was claimed or lent before. Empty memory is refused too.
    #[must_use]
    pub fn claim(start: u64, size: u64) -> Option<Self> {
        memory::claim(start, size).then_some(Self { start, size })
    }

    /// The address, which is also the physical one.
    #[must_use]
    pub const fn address(&self) -> u64 {
        self.start
    }

    /// The size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// `size` bytes from `offset`; `None` where that is not all within this piece.
    #[inline(always)]
    #[must_use]
    pub const fn piece(&self, offset: u64, size: u64) -> Option<Self> {
        if offset <= self.size && size <= self.size - offset {
            return Some(Self { start: self.start + offset, size });
        }
        None
    }

    /// The address of an aligned word of `N` bytes at `offset`, if there is one.
    #[inline(always)]
    const fn word<const N: u64>(&self, offset: u64) -> Option<u64> {
        match self.piece(offset, N) {
            Some(piece) if piece.start.is_multiple_of(N) => Some(piece.start),
            _ => None,
        }
    }

    /// Loads 32 bits at `offset`, with acquire; zero where there is no aligned word.
    #[inline(always)]
    #[must_use]
    pub fn load(&self, offset: u64) -> u32 {
        let Some(address) = self.word::<4>(offset) else { return 0 };
        let value: u32;
        // SAFETY: an aligned word of claimed RAM, of which nothing of Rust's knows.
        unsafe { asm!("ldar {0:w}, [{1}]", out(reg) value, in(reg) address, options(nostack, preserves_flags)) };
        value
    }

    /// Stores 32 bits at `offset`, with release; nothing happens where there is no aligned word.
    #[inline(always)]
    pub fn store(&self, offset: u64, value: u32) {
        let Some(address) = self.word::<4>(offset) else { return };
        // SAFETY: as `load`; no reference covers claimed RAM, so no object of Rust's changes.
        unsafe { asm!("stlr {0:w}, [{1}]", in(reg) value, in(reg) address, options(nostack, preserves_flags)) };
    }

    /// Loads four words of 64 bits at `offset`; zeroes where there are none, or not aligned.
    #[inline(always)]
    #[must_use]
    pub fn load_words(&self, offset: u64) -> [u64; 4] {
        let Some(address) = self.word::<32>(offset) else { return [0; 4] };
        let [a, b, c, d]: [u64; 4];
        // SAFETY: as `load`.
        unsafe {
            asm!(
                "ldp {a}, {b}, [{address}]", "ldp {c}, {d}, [{address}, #16]",
                a = out(reg) a, b = out(reg) b, c = out(reg) c, d = out(reg) d, address = in(reg) address,
                options(nostack, preserves_flags),
            );
        }
        [a, b, c, d]
    }

    /// Loads eight words of 64 bits at `offset`, in pairs; zeroes where there are none, or not aligned.
    #[inline(always)]
    #[must_use]
    pub fn load_line(&self, offset: u64) -> [[u64; 2]; 4] {
        let Some(address) = self.word::<64>(offset) else { return [[0; 2]; 4] };
        let [a, b, c, d, e, f, g, h]: [u64; 8];
        // SAFETY: as `load`.
        unsafe {
            asm!(
                "ldp {a}, {b}, [{address}]", "ldp {c}, {d}, [{address}, #16]",
                "ldp {e}, {f}, [{address}, #32]", "ldp {g}, {h}, [{address}, #48]",
                a = out(reg) a, b = out(reg) b, c = out(reg) c, d = out(reg) d,
                e = out(reg) e, f = out(reg) f, g = out(reg) g, h = out(reg) h, address = in(reg) address,
                options(nostack, preserves_flags),
            );
        }
        [[a, b], [c, d], [e, f], [g, h]]
    }

    /// Stores two words of 64 bits at `offset`; `false`, and nothing happens, where there are none, or not aligned.
    #[inline(always)]
    pub fn store_pair(&self, offset: u64, words: [u64; 2]) -> bool {
        let Some(address) = self.word::<16>(offset) else { return false };
        let [a, b] = words;
        // SAFETY: as `store`.
        unsafe {
            asm!(
                "stp {a}, {b}, [{address}]",
                a = in(reg) a, b = in(reg) b, address = in(reg) address, options(nostack, preserves_flags),
            );
        }
        true
    }

    /// The sum of the 32-bit words at byte 8 of every 16, as virtio's descriptors have their lengths there.
    #[must_use]
    pub fn sum_of_lengths(&self) -> u64 {
        let mut sum = 0;
        // SAFETY: as `load`: the last word that is loaded lies within this piece.
        unsafe {
            asm!(
                "add {end}, {at}, {size}",
                "cbz {size}, 3f",
                "2: ldr {length:w}, [{at}, #8]",
                "add {at}, {at}, #16",
                "add {sum}, {sum}, {length}",
                "cmp {at}, {end}",
                "b.lo 2b",
                "3:",
                at = inout(reg) self.start => _, size = in(reg) self.size & !15, end = out(reg) _, length = out(reg) _,
                sum = inout(reg) sum, options(nostack),
            );
        }
        sum
    }

    /// Stores four words of 64 bits at `offset`; nothing happens where there are none, or not aligned.
    #[inline(always)]
    pub fn store_words(&self, offset: u64, words: [u64; 4]) {
        let Some(address) = self.word::<32>(offset) else { return };
        let [a, b, c, d] = words;
        // SAFETY: as `store`.
        unsafe {
            asm!(
                "stp {a}, {b}, [{address}]", "stp {c}, {d}, [{address}, #16]",
                a = in(reg) a, b = in(reg) b, c = in(reg) c, d = in(reg) d, address = in(reg) address,
                options(nostack, preserves_flags),
            );
        }
    }

    /// Copies to `destination` as many bytes as both have; says how many.
    pub fn copy_to(&self, destination: &Self) -> u64 {
        let bytes = self.size.min(destination.size);
        // SAFETY: both are claimed RAM.
        unsafe { copy(destination.start, self.start, bytes) };
        bytes
    }

    /// Copies into `bytes` as many as both have; says how many.
    pub fn read(&self, bytes: &mut [u8]) -> usize {
        let length = self.size.min(bytes.len() as u64);
        // SAFETY: the source is claimed RAM; the destination is borrowed and has `length` bytes.
        unsafe { copy(bytes.as_mut_ptr() as u64, self.start, length) };
        length as usize
    }

    /// Copies from `bytes` as many as both have; says how many.
    pub fn write(&self, bytes: &[u8]) -> usize {
        let length = self.size.min(bytes.len() as u64);
        // SAFETY: the destination is claimed RAM; the source is borrowed and has `length` bytes.
        unsafe { copy(self.start, bytes.as_ptr() as u64, length) };
        length as usize
    }

    /// The memory as a slice for a driver that wants one.
    ///
    /// # Safety
    /// The slice must only be asked for its address and its length: its bytes change under it.
    #[cfg(feature = "virtio")]
    pub(crate) const unsafe fn as_slice<'a>(&self) -> &'a mut [u8] {
        // SAFETY: RAM that was claimed for good; the caller reads and writes nothing through the slice.
        unsafe { core::slice::from_raw_parts_mut(self.start as *mut u8, self.size as usize) }
    }

    /// Fills all of it with zeroes.
    pub fn clear(&self) {
        // SAFETY: claimed RAM, of which nothing of Rust's knows; only its own `size` bytes are written.
        unsafe {
            asm!(
                "2: cmp {bytes}, #16",
                "b.lo 3f",
                "stp xzr, xzr, [{to}], #16",
                "sub {bytes}, {bytes}, #16",
                "b 2b",
                "3: cbz {bytes}, 4f",
                "strb wzr, [{to}], #1",
                "sub {bytes}, {bytes}, #1",
                "b 3b",
                "4:",
                to = inout(reg) self.start => _, bytes = inout(reg) self.size => _,
                options(nostack),
            );
        }
    }
}

/// Copies `bytes` bytes, 128 at a time through the FP registers: a copy is much of what a request costs, and the
/// compiler's own, without those registers, moves one word at a time. Nothing else uses them. Interrupts stay out
/// meanwhile, or a handler that copies too would change them.
///
/// # Safety
/// `to` must be valid for writes and `from` for reads of `bytes` bytes; they do not overlap unless they are equal.
unsafe fn copy(to: u64, from: u64, bytes: u64) {
    // SAFETY: the caller's promise; all registers used are operands, and the block clobbers memory. q0 to q7 hold
    // nothing: the compiler does not use them, and the mask keeps other copies out.
    unsafe {
        asm!(
            ".arch_extension fp", ".arch_extension simd",
            "subs {bytes}, {bytes}, #128",
            "b.lo 3f",
            "mrs {a}, daif",
            "msr daifset, #0xf",
            "2: ldp q2, q3, [{from}, #32]",
            "ldp q4, q5, [{from}, #64]",
            "ldp q6, q7, [{from}, #96]",
            "ldp q0, q1, [{from}], #128",
            "stp q2, q3, [{to}, #32]",
            "stp q4, q5, [{to}, #64]",
            "stp q6, q7, [{to}, #96]",
            "stp q0, q1, [{to}], #128",
            "subs {bytes}, {bytes}, #128",
            "b.hs 2b",
            "msr daif, {a}",
            // Less by 128 than what is left, and so the same in its lower bits: a piece for each that is set.
            "3: tbz {bytes}, #6, 4f",
            "ldp {c}, {d}, [{from}, #16]",
            "ldp {e}, {f}, [{from}, #32]",
            "ldp {g}, {h}, [{from}, #48]",
            "ldp {a}, {b}, [{from}], #64",
            "stp {c}, {d}, [{to}, #16]",
            "stp {e}, {f}, [{to}, #32]",
            "stp {g}, {h}, [{to}, #48]",
            "stp {a}, {b}, [{to}], #64",
            "4: tbz {bytes}, #5, 5f",
            "ldp {c}, {d}, [{from}, #16]",
            "ldp {a}, {b}, [{from}], #32",
            "stp {c}, {d}, [{to}, #16]",
            "stp {a}, {b}, [{to}], #32",
            "5: tbz {bytes}, #4, 6f",
            "ldp {a}, {b}, [{from}], #16",
            "stp {a}, {b}, [{to}], #16",
            "6: tbz {bytes}, #3, 7f",
            "ldr {a}, [{from}], #8",
            "str {a}, [{to}], #8",
            "7: tbz {bytes}, #2, 8f",
            "ldr {a:w}, [{from}], #4",
            "str {a:w}, [{to}], #4",
            "8: tbz {bytes}, #1, 9f",
            "ldrh {a:w}, [{from}], #2",
            "strh {a:w}, [{to}], #2",
            "9: tbz {bytes}, #0, 22f",
            "ldrb {a:w}, [{from}]",
            "strb {a:w}, [{to}]",
            "22:",
            to = inout(reg) to => _, from = inout(reg) from => _, bytes = inout(reg) bytes => _,
            a = out(reg) _, b = out(reg) _, c = out(reg) _, d = out(reg) _,
            e = out(reg) _, f = out(reg) _, g = out(reg) _, h = out(reg) _,
            options(nostack),
        );
    }
}
