//! The allow-list: each field that a guest may see, with the greatest value that was judged.
//!
//! Fields and values are those of each register's entry in the Arm ARM, by their names there.

use crate::exit::SystemRegister;

/// One four-bit field.
#[derive(Clone, Copy)]
pub(super) struct Field {
    /// The position of its lowest bit: a multiple of four.
    pub(super) shift: u32,
    /// What a guest sees of it.
    pub(super) rule: Rule,
}

/// How a field's value in hardware becomes the guest's.
#[derive(Clone, Copy)]
pub(super) enum Rule {
    /// An unsigned field: hardware's value, or this one if that is less.
    AtMost(u64),
    /// The same for a field in which 0xf means "not implemented" and 0 is a feature.
    SignedAtMost(u64),
    /// Whatever hardware has, a guest sees this.
    Fixed(u64),
}

const fn at_most(limit: u64, shift: u32) -> Field {
    Field { shift, rule: Rule::AtMost(limit) }
}

const fn signed_at_most(limit: u64, shift: u32) -> Field {
    Field { shift, rule: Rule::SignedAtMost(limit) }
}

const fn fixed(value: u64, shift: u32) -> Field {
    Field { shift, rule: Rule::Fixed(value) }
}

/// By CRm and op2: the fields that a guest sees of each identification register.
#[expect(clippy::indexing_slicing, reason = "the compiler makes the table, and would say so")]
static FIELDS: [[&[Field]; 8]; 8] = {
    let mut fields: [[&[Field]; 8]; 8] = [[&[]; 8]; 8];
    let mut index: u8 = 0;
    while index < 64 {
        let (crm, op2) = (index / 8, index % 8);
        fields[crm as usize][op2 as usize] = listed(SystemRegister::new(3, 0, 0, crm, op2));
        index += 1;
    }
    fields
};

/// The fields of `register`, an identification register, that a guest sees.
pub(super) fn of(register: SystemRegister) -> &'static [Field] {
    let fields = FIELDS.get(usize::from(register.crm)).and_then(|fields| fields.get(usize::from(register.op2)));
    fields.copied().unwrap_or(&[])
}

const fn listed(register: SystemRegister) -> &'static [Field] {
    match register {
        SystemRegister::ID_AA64PFR0_EL1 => PFR0,
        SystemRegister::ID_AA64PFR1_EL1 => PFR1,
        SystemRegister::ID_AA64DFR0_EL1 => DFR0,
        SystemRegister::ID_AA64ISAR0_EL1 => ISAR0,
        SystemRegister::ID_AA64ISAR1_EL1 => ISAR1,
        SystemRegister::ID_AA64ISAR2_EL1 => ISAR2,
        SystemRegister::ID_AA64MMFR0_EL1 => MMFR0,
        SystemRegister::ID_AA64MMFR1_EL1 => MMFR1,
        SystemRegister::ID_AA64MMFR2_EL1 => MMFR2,
        SystemRegister::ID_PFR0_EL1 => AARCH32_PFR0,
        SystemRegister::ID_PFR1_EL1 => AARCH32_PFR1,
        SystemRegister::ID_PFR2_EL1 => AARCH32_PFR2,
        SystemRegister::ID_DFR0_EL1 => AARCH32_DFR0,
        SystemRegister::ID_MMFR4_EL1 => AARCH32_MMFR4,
        SystemRegister::ID_MMFR5_EL1 => AARCH32_MMFR5,
        // Instruction sets, memory model and FP of AArch32, complete since Armv8.0 but for instructions that EL0 may
        // execute on its own: nothing in them needs EL2.
        SystemRegister::ID_MMFR0_EL1
        | SystemRegister::ID_MMFR1_EL1
        | SystemRegister::ID_MMFR2_EL1
        | SystemRegister::ID_MMFR3_EL1
        | SystemRegister::ID_ISAR0_EL1
        | SystemRegister::ID_ISAR1_EL1
        | SystemRegister::ID_ISAR2_EL1
        | SystemRegister::ID_ISAR3_EL1
        | SystemRegister::ID_ISAR4_EL1
        | SystemRegister::ID_ISAR5_EL1
        | SystemRegister::ID_ISAR6_EL1
        | SystemRegister::MVFR0_EL1
        | SystemRegister::MVFR1_EL1
        | SystemRegister::MVFR2_EL1 => AARCH32_WHOLE,
        _ => &[],
    }
}

/// Hidden: EL2, EL3, RAS, SVE, SEL2, MPAM, AMU, RME.
const PFR0: &[Field] = &[
    at_most(2, 0),         // EL0: AArch32 as well.
    at_most(1, 4),         // EL1: AArch64 only, because HCR_EL2.RW is set.
    signed_at_most(1, 16), // FP, with half precision.
    signed_at_most(1, 20), // AdvSIMD, with half precision.
    at_most(1, 24),        // GIC: system registers of GICv3; zero where the board has none.
    at_most(1, 48),        // DIT.
    at_most(3, 56),        // CSV2, with SCXTNUM_ELx.
    at_most(1, 60),        // CSV3.
];

/// Hidden: MTE, RAS_frac, MPAM_frac, SME, RNDR_trap, NMI, MTE_frac, GCS, THE, MTEX, DF2, PFAR.
const PFR1: &[Field] = &[
    at_most(1, 0),  // BT: PSTATE.BTYPE, and bits of stage 1 and SCTLR_EL1.
    at_most(2, 4),  // SSBS, with MSR and MRS.
    at_most(2, 32), // CSV2_frac, with SCXTNUM_ELx.
];

/// Hidden: trace, PMU, SPE, TRBE, BRBE.
const DFR0: &[Field] = &[
    at_most(6, 0),   // DebugVer: Armv8.0.
    at_most(15, 12), // BRPs: breakpoints.
    at_most(15, 20), // WRPs: watchpoints.
    at_most(15, 28), // CTX_CMPs: breakpoints that can compare CONTEXTIDR_EL1.
    fixed(0xf, 36),  // DoubleLock: OSDLR_EL1 does nothing, so that no guest can lock a debugger out.
];

/// Hidden: TME.
const ISAR0: &[Field] = &[
    at_most(2, 4),  // AES.
    at_most(1, 8),  // SHA1.
    at_most(2, 12), // SHA2.
    at_most(1, 16), // CRC32.
    at_most(3, 20), // Atomic.
    at_most(1, 28), // RDM.
    at_most(1, 32), // SHA3.
    at_most(1, 36), // SM3.
    at_most(1, 40), // SM4.
    at_most(1, 44), // DP.
    at_most(1, 48), // FHM.
    at_most(2, 52), // TS: flag manipulation.
    at_most(2, 56), // TLB: outer shareable and range invalidation.
    at_most(1, 60), // RNDR.
];

/// Hidden: APA, API, GPA, GPI (the keys are not switched), XS, LS64 (HCRX_EL2).
const ISAR1: &[Field] = &[
    at_most(2, 0),  // DPB.
    at_most(1, 12), // JSCVT.
    at_most(1, 16), // FCMA.
    at_most(2, 20), // LRCPC.
    at_most(1, 32), // FRINTTS.
    at_most(1, 36), // SB.
    at_most(2, 40), // SPECRES: instructions that concern a guest's own contexts.
    at_most(1, 44), // BF16.
    at_most(1, 48), // DGH.
    at_most(1, 52), // I8MM.
];

/// Hidden: WFxT (its deadline would not reach the scheduler), RPRES, GPA3, APA3, PAC_frac, MOPS (HCRX_EL2), SYSREG_128.
const ISAR2: &[Field] = &[
    at_most(1, 20), // BC.
    at_most(1, 28), // CLRBHB.
    at_most(1, 48), // RPRFM.
    at_most(1, 52), // CSSC.
];

/// Hidden: BigEnd and BigEndEL0, because a trapped access by a big-endian guest would be emulated with its bytes
/// swapped; SNSMem; the stage-2 granules, of which zero means "as stage 1"; ExS; FGT; ECV.
const MMFR0: &[Field] = &[
    at_most(2, 0),         // PARange: 40 bits.
    at_most(2, 4),         // ASIDBits: 16.
    at_most(1, 20),        // TGran16, without 52-bit addresses.
    signed_at_most(0, 24), // TGran64.
    signed_at_most(0, 28), // TGran4, without 52-bit addresses.
];

/// Hidden: VMIDBits, VH, LO, XNX, TWED, HCX, CMOW.
const MMFR1: &[Field] = &[
    at_most(2, 0),  // HAFDBS: access flag and dirty state, stage 1's own.
    at_most(2, 12), // HPDS.
    at_most(3, 20), // PAN.
    at_most(1, 24), // SpecSEI.
    at_most(3, 36), // ETS.
    at_most(1, 44), // AFP: bits of FPCR.
    at_most(1, 48), // nTLBPA.
    at_most(1, 52), // TIDCP1: a bit of SCTLR_EL1.
    at_most(1, 60), // ECBHB.
];

/// Hidden: IESB (RAS), NV, FWB, EVT.
const MMFR2: &[Field] = &[
    at_most(1, 0),  // CnP.
    at_most(1, 4),  // UAO.
    at_most(1, 8),  // LSM.
    at_most(1, 16), // VARange: 52 bits, with 64 KiB pages.
    at_most(1, 20), // CCIDX: CCSIDR_EL1 is hardware's.
    at_most(1, 28), // ST.
    at_most(1, 32), // AT.
    at_most(1, 36), // IDS: how hardware reports EL0's accesses, whatever a guest is told.
    at_most(1, 48), // TTL.
    at_most(2, 52), // BBM.
    at_most(1, 60), // E0PD.
];

/// Hidden: AMU, RAS.
const AARCH32_PFR0: &[Field] = &[
    at_most(15, 0),  // State0: A32.
    at_most(15, 4),  // State1: T32.
    at_most(15, 8),  // State2: Jazelle.
    at_most(15, 12), // State3: T32EE.
    at_most(2, 16),  // CSV2.
    at_most(1, 24),  // DIT.
];

/// Hidden: Security, Virtualization, Sec_frac, Virt_frac.
const AARCH32_PFR1: &[Field] = &[
    at_most(1, 0),  // ProgMod.
    at_most(15, 8), // MProgMod.
    at_most(2, 16), // GenTimer.
    at_most(1, 28), // GIC.
];

/// Hidden: RAS_frac.
const AARCH32_PFR2: &[Field] = &[
    at_most(1, 0), // CSV3.
    at_most(1, 4), // SSBS.
];

/// Hidden: CopSDbg, CopTrc, MMapTrc, MProfDbg, PerfMon, TraceFilt.
const AARCH32_DFR0: &[Field] = &[
    at_most(6, 0), // CopDbg: Armv8.0.
];

/// Hidden: AC2, XNX, EVT.
const AARCH32_MMFR4: &[Field] = &[
    at_most(1, 0),  // SpecSEI.
    at_most(1, 12), // CnP.
    at_most(2, 16), // HPDS.
    at_most(1, 20), // LSM.
    at_most(1, 24), // CCIDX.
];

const AARCH32_MMFR5: &[Field] = &[
    at_most(3, 0), // ETS.
    at_most(1, 4), // nTLBPA.
];

/// All 32 bits, as hardware has them.
const AARCH32_WHOLE: &[Field] = &[
    at_most(15, 0),
    at_most(15, 4),
    at_most(15, 8),
    at_most(15, 12),
    at_most(15, 16),
    at_most(15, 20),
    at_most(15, 24),
    at_most(15, 28),
];
