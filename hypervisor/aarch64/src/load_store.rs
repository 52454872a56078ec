//! Loads and stores, decoded from the instruction: for accesses to devices whose syndrome does not say what they
//! transfer (ESR_EL2.ISS.ISV is 0).
//!
//! The instruction comes out of the guest's memory, after it has faulted: it is a claim, since another virtual CPU may
//! have written there in between. [`LoadStore::explains`] holds it against the fault.
//!
//! Decoded are LDR and STR of every size with an immediate or a register as offset, pre- and post-indexed too, LDUR,
//! LDTR and their stores, and LDP, LDPSW, LDNP, STP and STNP, all of general-purpose registers. Left out, and so
//! refused, is everything whose effect is more than its loads and stores (exclusives, atomics, DC ZVA), registers of FP
//! and Advanced SIMD, which are wider than any device register, and what the manual calls CONSTRAINED UNPREDICTABLE.

use crate::exit::MmioAccess;
use vdev::{Access, Width};

/// A load or store of one or two general-purpose registers (Arm ARM C4.1.94, "Loads and Stores"), with the addresses
/// that it computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadStore {
    /// The direction.
    pub direction: Access,
    /// What is done with the first register, which is the one at the lower address.
    pub transfer: MmioAccess,
    /// The second register of a pair, with which the same is done.
    pub second: Option<u8>,
    /// The virtual address of the first byte.
    pub start: u64,
    /// The register with the address, 0 to 31; 31 is SP.
    pub base: u8,
    /// What write-back leaves in it, if it does.
    pub base_after: Option<u64>,
}

/// The general-purpose registers, and SP, at the instruction.
#[derive(Clone, Copy, Debug)]
pub struct Registers<'a> {
    /// X0 to X30.
    pub x: &'a [u64; 31],
    /// SP of the exception level.
    pub sp: u64,
}

/// The bits `low..low + count` of an instruction.
fn field(instruction: u32, low: u32, count: u32) -> u32 {
    // Every `low` is less than 32, and every `count` less than 12.
    instruction >> low & !(u32::MAX << count)
}

/// The same as a register's number.
fn register(instruction: u32, low: u32) -> u8 {
    field(instruction, low, 5) as u8
}

/// The same as a signed number.
fn signed(instruction: u32, low: u32, count: u32) -> u64 {
    let unused = 32_u32.saturating_sub(count);
    ((field(instruction, low, count) << unused) as i32 >> unused) as u64
}

/// 1, 2, 4 or 8 bytes, by their logarithm.
fn width(logarithm: u32) -> Width {
    match logarithm {
        0 => Width::Byte,
        1 => Width::HalfWord,
        2 => Width::Word,
        _ => Width::DoubleWord,
    }
}

/// Bits 11:10 of a load or store with an immediate that is not scaled, and bits 24:23 of one of a pair.
const POST_INDEX: u32 = 1;
const PRE_INDEX: u32 = 3;

impl LoadStore {
    /// The load or store whose encoding is `instruction`, if it is one of those above.
    #[must_use]
    pub fn decode(instruction: u32, registers: &Registers<'_>) -> Option<Self> {
        // Bits 29:25, of which bit 26, V, is clear: no register of FP or Advanced SIMD.
        match field(instruction, 25, 5) {
            0b1_0100 => Self::decode_pair(instruction, registers),
            0b1_1100 => Self::decode_single(instruction, registers),
            _ => None,
        }
    }

    /// Load/store register pair: opc, bits 31:30; the form, bits 24:23; L, bit 22; imm7; Rt2; Rn; Rt.
    fn decode_pair(instruction: u32, registers: &Registers<'_>) -> Option<Self> {
        let is_load = field(instruction, 22, 1) != 0;
        let form = field(instruction, 23, 2);
        let (logarithm, sign_extend) = match field(instruction, 30, 2) {
            0 => (2, false),
            // LDPSW; there is none with a non-temporal hint. The store is STGP, which stores a tag.
            1 if is_load && form != 0 => (2, true),
            2 => (3, false),
            _ => return None,
        };
        let (first, second) = (register(instruction, 0), register(instruction, 10));
        if is_load && first == second {
            return None;
        }
        Self {
            direction: if is_load { Access::Read } else { Access::Write },
            transfer: MmioAccess {
                width: width(logarithm),
                transfer: first,
                sign_extend,
                to_64_bits: sign_extend || logarithm == 3,
            },
            second: Some(second),
            start: 0,
            base: 0,
            base_after: None,
        }
        .at(instruction, registers, signed(instruction, 15, 7) << logarithm, form)
    }

    /// Load/store register: size, bits 31:30; opc, bits 23:22; Rn; Rt. Bit 24 tells the form with a scaled immediate
    /// from the others, and of these bit 21 and bits 11:10 say which it is.
    fn decode_single(instruction: u32, registers: &Registers<'_>) -> Option<Self> {
        let logarithm = field(instruction, 30, 2);
        let (sign_extend, to_64_bits) = match (field(instruction, 22, 2), logarithm) {
            (0 | 1, _) => (false, logarithm == 3),
            (2, 0..=2) => (true, true),
            (3, 0 | 1) => (true, false),
            // PRFM, and what is not allocated.
            _ => return None,
        };
        let form = field(instruction, 10, 2);
        let (offset, form) = if field(instruction, 24, 1) != 0 {
            (u64::from(field(instruction, 10, 12)) << logarithm, 0)
        } else if field(instruction, 21, 1) == 0 {
            // LDUR and LDTR have no form of their own: the privilege matters to stage 1 alone, which has let them
            // through.
            (signed(instruction, 12, 9), form)
        } else if form == 2 {
            let index = registers.x.get(usize::from(register(instruction, 16))).copied().unwrap_or(0);
            let extended = match field(instruction, 13, 3) {
                0b010 => index & 0xffff_ffff,
                0b110 => index as i32 as u64,
                0b011 | 0b111 => index,
                _ => return None,
            };
            (extended << if field(instruction, 12, 1) != 0 { logarithm } else { 0 }, 0)
        } else {
            // Atomics, and LDRA, which authenticates a pointer.
            return None;
        };
        Self {
            direction: if field(instruction, 22, 2) == 0 { Access::Write } else { Access::Read },
            transfer: MmioAccess {
                width: width(logarithm),
                transfer: register(instruction, 0),
                sign_extend,
                to_64_bits,
            },
            second: None,
            start: 0,
            base: 0,
            base_after: None,
        }
        .at(instruction, registers, offset, form)
    }

    /// The same at its address. Nothing if it writes back to a register that it transfers, which is CONSTRAINED
    /// UNPREDICTABLE.
    fn at(self, instruction: u32, registers: &Registers<'_>, offset: u64, form: u32) -> Option<Self> {
        let base = register(instruction, 5);
        let before = registers.x.get(usize::from(base)).copied().unwrap_or(registers.sp);
        let sum = before.wrapping_add(offset);
        let start = if form == POST_INDEX { before } else { sum };
        let base_after = matches!(form, POST_INDEX | PRE_INDEX).then_some(sum);
        let is_transferred = self.transfer.transfer == base || self.second == Some(base);
        // Number 31 is SP as a base, and XZR as what is transferred.
        if base_after.is_some() && is_transferred && base != 31 {
            return None;
        }
        Some(Self { start, base, base_after, ..self })
    }

    /// How many registers are transferred: 1 or 2.
    #[must_use]
    pub const fn registers(&self) -> usize {
        if self.second.is_some() { 2 } else { 1 }
    }

    /// How many bytes are transferred: 1 to 16.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.transfer.width.bytes() << u32::from(self.second.is_some())
    }

    /// Whether the fault of an access in direction `direction`, at the virtual address `far`, is what comes of this
    /// instruction: the address is among the bytes that it accesses, which are all on one page.
    #[must_use]
    pub fn explains(&self, direction: Access, far: u64) -> bool {
        let stays_in_page = (self.start & 0xfff).saturating_add(self.bytes()) <= 0x1000;
        self.direction == direction && far.wrapping_sub(self.start) < self.bytes() && stays_in_page
    }
}

#[cfg(test)]
mod tests;
