//! Just enough of an A64 assembler (Arm ARM C6.2) for machine code that a CPU can be started at.

/// A system register or instruction by its encoding: op0, op1, CRn, CRm, op2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Encoding(pub(crate) u32, pub(crate) u32, pub(crate) u32, pub(crate) u32, pub(crate) u32);

impl Encoding {
    const fn bits(self) -> u32 {
        let Self(op0, op1, crn, crm, op2) = self;
        op0 << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5
    }

    /// The n-th of system instructions (op0 1), debug registers (2) and system registers (3).
    pub(crate) const fn nth(number: u32) -> Self {
        Self(1 + (number >> 14 & 3), number >> 11 & 7, number >> 7 & 15, number >> 3 & 15, number & 7)
    }

    /// How many [`Encoding::nth`] knows.
    pub(crate) const COUNT: u32 = 3 << 14;
}

pub(crate) const NOP: u32 = 0xd503_201f;
pub(crate) const ISB: u32 = 0xd503_3fdf;
pub(crate) const DSB: u32 = 0xd503_3f9f;
pub(crate) const ERET: u32 = 0xd69f_03e0;

/// `MRS Xto, register`.
pub(crate) const fn mrs(to: u32, register: Encoding) -> u32 {
    0xd520_0000 | register.bits() | to
}

/// `MSR register, Xfrom`.
pub(crate) const fn msr(register: Encoding, from: u32) -> u32 {
    0xd500_0000 | register.bits() | from
}

/// `MOV Xto, Xfrom`.
pub(crate) const fn mov(to: u32, from: u32) -> u32 {
    0xaa00_03e0 | from << 16 | to
}

/// `MOVZ Xto, #value, LSL #(16 × quarter)`.
pub(crate) const fn movz(to: u32, value: u32, quarter: u32) -> u32 {
    0xd280_0000 | quarter << 21 | value << 5 | to
}

/// `MOVK Xto, #value, LSL #(16 × quarter)`.
pub(crate) const fn movk(to: u32, value: u32, quarter: u32) -> u32 {
    0xf280_0000 | quarter << 21 | value << 5 | to
}

/// `ADD Xto, Xfrom, #pages, LSL #12`.
pub(crate) const fn add_pages(to: u32, from: u32, pages: u32) -> u32 {
    0x9140_0000 | pages << 10 | from << 5 | to
}

/// `ADD Xto, Xfrom, #bytes`.
pub(crate) const fn add(to: u32, from: u32, bytes: u32) -> u32 {
    0x9100_0000 | bytes << 10 | from << 5 | to
}

/// `ADD Xto, Xone, Xother`.
pub(crate) const fn add_register(to: u32, one: u32, other: u32) -> u32 {
    0x8b00_0000 | other << 16 | one << 5 | to
}

/// `STR Xfrom, [Xbase]`.
pub(crate) const fn store(from: u32, base: u32) -> u32 {
    0xf900_0000 | base << 5 | from
}

/// `STR Xfrom, [Xbase], #8`.
pub(crate) const fn store_next(from: u32, base: u32) -> u32 {
    0xf800_8400 | base << 5 | from
}

/// `LDR Qto, [Xbase], #16`.
pub(crate) const fn load_vector_next(to: u32, base: u32) -> u32 {
    0x3cc1_0400 | base << 5 | to
}

/// `STR Qfrom, [Xbase], #16`.
pub(crate) const fn store_vector_next(from: u32, base: u32) -> u32 {
    0x3c81_0400 | base << 5 | from
}

/// `B` from byte offset `from` to byte offset `to`.
pub(crate) const fn branch(from: usize, to: usize) -> u32 {
    0x1400_0000 | ((to as i64 - from as i64) / 4) as u32 & 0x03ff_ffff
}
