//! Encodings as an assembler gives them, and all others by the manual's table.

use super::{LoadStore, Registers};
use crate::exit::MmioAccess;
use std::vec::Vec;
use vdev::{Access, Width};

/// What every base register holds, SP too.
const BASE: u64 = 0x0900_0100;
/// What X2 holds.
const INDEX: u64 = 0xffff_fffe_ffff_fff0;

fn decode(instruction: u32) -> Option<LoadStore> {
    let mut x = [BASE; 31];
    x[2] = INDEX;
    LoadStore::decode(instruction, &Registers { x: &x, sp: BASE })
}

/// Direction, width, registers, whether a load extends the sign, and to 64 bits; where the access is and what becomes
/// of the base, both less [`BASE`].
type Seen = (Access, Width, Vec<u8>, bool, bool, i64, Option<i64>);

/// An instruction, and what is [`Seen`] of it.
type Case = (u32, Access, Width, &'static [u8], bool, bool, i64, Option<i64>);

fn see(instruction: u32) -> Option<Seen> {
    let decoded = decode(instruction)?;
    let MmioAccess { width, transfer, sign_extend, to_64_bits } = decoded.transfer;
    let registers = [Some(transfer), decoded.second].into_iter().flatten().collect();
    let place = decoded.start.wrapping_sub(BASE) as i64;
    let base = decoded.base_after.map(|base| base.wrapping_sub(BASE) as i64);
    Some((decoded.direction, width, registers, sign_extend, to_64_bits, place, base))
}

#[test]
fn encodings_of_an_assembler_are_decoded_as_their_manual_says() {
    use Access::{Read as LOAD, Write as STORE};
    use Width::{Byte, DoubleWord, HalfWord, Word};
    let cases: [Case; 34] = [
        (0xb840_8429, LOAD, Word, &[9], false, false, 0, Some(8)), // ldr w9, [x1], #8
        (0xb81f_843f, STORE, Word, &[31], false, false, 0, Some(-8)), // str wzr, [x1], #-8
        (0xf841_0c29, LOAD, DoubleWord, &[9], false, true, 16, Some(16)), // ldr x9, [x1, #16]!
        (0xf81f_0fe9, STORE, DoubleWord, &[9], false, true, -16, Some(-16)), // str x9, [sp, #-16]!
        (0x3840_1483, LOAD, Byte, &[3], false, false, 0, Some(1)), // ldrb w3, [x4], #1
        (0x7800_2c83, STORE, HalfWord, &[3], false, false, 2, Some(2)), // strh w3, [x4, #2]!
        (0x38c0_1483, LOAD, Byte, &[3], true, false, 0, Some(1)),  // ldrsb w3, [x4], #1
        (0x3880_1483, LOAD, Byte, &[3], true, true, 0, Some(1)),   // ldrsb x3, [x4], #1
        (0x78d0_0c83, LOAD, HalfWord, &[3], true, false, -256, Some(-256)), // ldrsh w3, [x4, #-256]!
        (0x788f_f483, LOAD, HalfWord, &[3], true, true, 0, Some(255)), // ldrsh x3, [x4], #255
        (0xb880_4483, LOAD, Word, &[3], true, true, 0, Some(4)),   // ldrsw x3, [x4], #4
        (0x2940_2829, LOAD, Word, &[9, 10], false, false, 0, None), // ldp w9, w10, [x1]
        (0xa960_2829, LOAD, DoubleWord, &[9, 10], false, true, -512, None), // ldp x9, x10, [x1, #-512]
        (0x291f_a829, STORE, Word, &[9, 10], false, false, 252, None), // stp w9, w10, [x1, #252]
        (0xa881_7c3f, STORE, DoubleWord, &[31, 31], false, true, 0, Some(16)), // stp xzr, xzr, [x1], #16
        (0xa9c1_2829, LOAD, DoubleWord, &[9, 10], false, true, 16, Some(16)), // ldp x9, x10, [x1, #16]!
        (0x6941_2829, LOAD, Word, &[9, 10], true, true, 8, None),  // ldpsw x9, x10, [x1, #8]
        (0x68c1_2829, LOAD, Word, &[9, 10], true, true, 0, Some(8)), // ldpsw x9, x10, [x1], #8
        (0x2840_a829, LOAD, Word, &[9, 10], false, false, 4, None), // ldnp w9, w10, [x1, #4]
        (0xa800_a829, STORE, DoubleWord, &[9, 10], false, true, 8, None), // stnp x9, x10, [x1, #8]
        (0xb940_0429, LOAD, Word, &[9], false, false, 4, None),    // ldr w9, [x1, #4]
        (0xf97f_fc29, LOAD, DoubleWord, &[9], false, true, 32760, None), // ldr x9, [x1, #32760]
        (0x393f_fc29, STORE, Byte, &[9], false, false, 4095, None), // strb w9, [x1, #4095]
        (0xb980_0829, LOAD, Word, &[9], true, true, 8, None),      // ldrsw x9, [x1, #8]
        (0xb840_1029, LOAD, Word, &[9], false, false, 1, None),    // ldur w9, [x1, #1]
        (0xf81f_d029, STORE, DoubleWord, &[9], false, true, -3, None), // stur x9, [x1, #-3]
        (0xb840_4829, LOAD, Word, &[9], false, false, 4, None),    // ldtr w9, [x1, #4]
        (0x7800_2829, STORE, HalfWord, &[9], false, false, 2, None), // sttrh w9, [x1, #2]
        (0xb862_6829, LOAD, Word, &[9], false, false, INDEX as i64, None), // ldr w9, [x1, x2]
        (0xf862_7829, LOAD, DoubleWord, &[9], false, true, (INDEX << 3) as i64, None), // ldr x9, [x1, x2, lsl #3]
        (0xb862_4829, LOAD, Word, &[9], false, false, 0xffff_fff0, None), // ldr w9, [x1, w2, uxtw]
        (0xb822_d829, STORE, Word, &[9], false, false, -64, None), // str w9, [x1, w2, sxtw #2]
        (0x7862_f829, LOAD, HalfWord, &[9], false, false, (INDEX << 1) as i64, None), // ldrh w9, [x1, x2, sxtx #1]
        (0x38bf_6829, LOAD, Byte, &[9], true, true, 0, None),      // ldrsb x9, [x1, xzr]
    ];
    for (instruction, direction, width, registers, sign_extend, to_64_bits, place, base) in cases {
        let wanted = (direction, width, registers.to_vec(), sign_extend, to_64_bits, place, base);
        assert_eq!(see(instruction), Some(wanted), "{instruction:#x}");
    }
    assert_eq!(decode(0xf81f_0fe9).map(|decoded| decoded.base), Some(31));
}

#[test]
fn what_is_more_than_loads_and_stores_of_general_registers_is_refused() {
    for instruction in [
        0x885f_7c29, // ldxr w9, [x1]
        0x880a_7c29, // stxr w10, w9, [x1]
        0x887f_2829, // ldxp w9, w10, [x1]
        0x88df_fc29, // ldar w9, [x1]
        0x889f_fc29, // stlr w9, [x1]
        0x885f_fc29, // ldaxr w9, [x1]
        0xb8bf_c029, // ldapr w9, [x1]
        0x9940_4029, // ldapur w9, [x1, #4]
        0x9900_4029, // stlur w9, [x1, #4]
        0xb828_0029, // ldadd w8, w9, [x1]
        0xb828_8029, // swp w8, w9, [x1]
        0x88a8_7c29, // cas w8, w9, [x1]
        0x0828_7c2a, // casp w8, w9, w10, w11, [x1]
        0x1800_0009, // ldr w9, label
        0x3cc1_0420, // ldr q0, [x1], #16
        0xbd40_0020, // ldr s0, [x1]
        0xad00_0420, // stp q0, q1, [x1]
        0x6cc1_0420, // ldp d0, d1, [x1], #16
        0xac40_0420, // ldnp q0, q1, [x1]
        0x4c40_7820, // ld1 {v0.4s}, [x1]
        0x4c9f_7820, // st1 {v0.4s}, [x1], #16
        0x4d40_c820, // ld1r {v0.4s}, [x1]
        0xf980_0020, // prfm pldl1keep, [x1]
        0xf8a2_6820, // prfm pldl1keep, [x1, x2]
        0xf880_1020, // prfum pldl1keep, [x1, #1]
        0xf820_0429, // ldraa x9, [x1]
        0xd920_1421, // stg x1, [x1], #16
        0x6880_a829, // stgp x9, x10, [x1], #16
        0xd960_0029, // ldg x9, [x1]
        0xd50b_7421, // dc zva, x1
        0xd50b_7e21, // dc civac, x1
        0xd508_7801, // at s1e1r, x1
        0xd503_201f, // nop
        0x0000_0000, // udf #0
        0xd61f_0020, // br x1
        0x8580_4020, // ldr z0, [x1]
    ] {
        assert_eq!(decode(instruction), None, "{instruction:#x}");
    }
}

#[test]
fn what_the_manual_leaves_to_the_processor_is_refused() {
    for instruction in [
        0xf840_8529, // ldr x9, [x9], #8
        0xf800_8d29, // str x9, [x9, #8]!
        0x2940_2429, // ldp w9, w9, [x1]
        0x28c1_2929, // ldp w9, w10, [x9], #8
        0x2981_2949, // stp w9, w10, [x10, #8]!
        0x6940_2429, // ldpsw x9, x9, [x1]
    ] {
        assert_eq!(decode(instruction), None, "{instruction:#x}");
    }
    // The same registers where it is defined: no write-back, two stores of one register, SP as the base.
    for instruction in [0xf940_0129, 0x2900_2429, 0xf840_87ff] {
        assert!(decode(instruction).is_some(), "{instruction:#x}");
    }
}

/// The manual's table of what is decoded (Arm ARM C4.1.94): a mask and what is left under it.
const TABLE: [(u32, u32); 14] = [
    // LDP and STP of W and X, in four forms each by bits 24:23.
    (0xfe00_0000, 0x2800_0000),
    (0xfe00_0000, 0xa800_0000),
    // LDPSW, post-index, offset and pre-index.
    (0xffc0_0000, 0x68c0_0000),
    (0xffc0_0000, 0x6940_0000),
    (0xffc0_0000, 0x69c0_0000),
    // STR and LDR of each size, unscaled, unprivileged, pre- and post-index.
    (0x3fa0_0000, 0x3800_0000),
    // The same with a register, of which option has bit 1 set, and with a scaled immediate.
    (0x3fa0_4c00, 0x3820_4800),
    (0x3f80_0000, 0x3900_0000),
    // LDRSB, LDRSH to X and W.
    (0xbf20_0000, 0x3800_0000),
    (0xbf20_4c00, 0x3820_4800),
    (0xbf00_0000, 0x3900_0000),
    // LDRSW.
    (0xffe0_0000, 0xb880_0000),
    (0xffe0_4c00, 0xb8a0_4800),
    (0xffc0_0000, 0xb980_0000),
];

#[test]
fn every_encoding_is_decoded_exactly_if_the_manual_has_it() {
    // Every value of the bits that say what it is, 31:21 and 14:10, with base 1, transfer 9, and bits 20:15 as they may
    // be: an index, or an immediate.
    let step = if cfg!(miri) { 61 } else { 1 };
    for rest in [0, 0b10_0101] {
        for form in (0..1_u32 << 16).step_by(step) {
            let instruction = (form >> 5) << 21 | (form & 0x1f) << 10 | rest << 15 | 1 << 5 | 9;
            let decoded = decode(instruction);
            let is_in_table = TABLE.iter().any(|(mask, value)| instruction & mask == *value);
            let is_pair = instruction & 0x3e00_0000 == 0x2800_0000;
            let second = instruction >> 10 & 0x1f;
            let is_unpredictable = is_pair && (second == 9 && instruction & 1 << 22 != 0)
                || is_pair && second == 1 && instruction & 1 << 23 != 0;
            assert_eq!(decoded.is_some(), is_in_table && !is_unpredictable, "{instruction:#x}");
            let Some(decoded) = decoded else { continue };
            assert!(matches!(decoded.bytes(), 1 | 2 | 4 | 8 | 16), "{instruction:#x}");
            assert_eq!(decoded.second.is_some(), is_pair);
            assert_eq!((decoded.base, decoded.transfer.transfer), (1, 9));
        }
    }
}

#[test]
fn random_encodings_and_registers_are_decoded_without_harm() {
    let mut word = 1_u64;
    let mut next = || {
        // Knuth's MMIX.
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        word
    };
    for _ in 0..if cfg!(miri) { 500 } else { 200_000 } {
        let (x, sp) = (core::array::from_fn(|_| next()), next());
        let Some(decoded) = LoadStore::decode((next() >> 32) as u32, &Registers { x: &x, sp }) else { continue };
        assert!(decoded.base < 32 && decoded.transfer.transfer < 32 && decoded.second.is_none_or(|second| second < 32));
        let fits = (decoded.start & 0xfff) + decoded.bytes() <= 0x1000;
        assert_eq!(decoded.explains(decoded.direction, decoded.start), fits);
    }
}

#[test]
fn instruction_that_does_not_fit_the_fault_is_refused() {
    let load_pair = decode(0xa940_2829).unwrap(); // ldp x9, x10, [x1]
    // The fault may be at any byte of it, and only there.
    for place in 0..16 {
        assert!(load_pair.explains(Access::Read, BASE + place), "byte {place}");
    }
    for elsewhere in [BASE - 1, BASE + 16, BASE + 0x1000, BASE | 1 << 63, 0] {
        assert!(!load_pair.explains(Access::Read, elsewhere), "{elsewhere:#x}");
    }
    assert!(!load_pair.explains(Access::Write, BASE), "the fault was a store's");
    let store = decode(0xf81f_d029).unwrap(); // stur x9, [x1, #-3]
    assert!(store.explains(Access::Write, BASE - 3));
    assert!(!store.explains(Access::Read, BASE - 3) && !store.explains(Access::Write, BASE - 4));
}

#[test]
fn access_that_leaves_its_page_is_refused() {
    for (start, fits) in [(0x1ff0, true), (0x1ff1, false), (0x1ff8, false), (0x1fff, false), (0x2000, true)] {
        let load_pair = LoadStore::decode(0xa940_2829, &Registers { x: &[start; 31], sp: 0 }).unwrap();
        assert_eq!(load_pair.explains(Access::Read, start), fits, "{start:#x}");
        // Whichever half has faulted.
        assert!(fits || !load_pair.explains(Access::Read, 0x2000), "{start:#x}");
    }
    // At the end of the address space, too.
    let load_pair = LoadStore::decode(0xa940_2829, &Registers { x: &[u64::MAX - 7; 31], sp: 0 }).unwrap();
    assert!(!load_pair.explains(Access::Read, u64::MAX - 7) && !load_pair.explains(Access::Read, 0));
}
