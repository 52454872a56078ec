//! What EL2's control registers hold, field by field: these lines carry the isolation.
//!
//! Fields have the names of the Arm ARM; those that `aarch64-cpu` lacks are defined here. This module leaves out when
//! the registers are written (`cpu`, `mmu`, `boot`).

use crate::registers::ID_AA64MMFR0_EL1;
use aarch64_cpu::registers::{HCR_EL2, MDCR_EL2, SCTLR_EL2, TCR_EL2, VTCR_EL2};
use memory::table::INPUT_BITS;
use tock_registers::interfaces::Readable;
use tock_registers::register_bitfields;

register_bitfields! {u64,
    /// With HCR_EL2.E2H clear.
    pub(crate) CPTR_EL2 [
        /// Trap the activity monitors.
        TAM OFFSET(30) NUMBITS(1) [],
        /// Trap the trace registers.
        TTA OFFSET(20) NUMBITS(1) [],
        /// RES1.
        RES1_13 OFFSET(13) NUMBITS(1) [],
        /// Trap SME.
        TSM OFFSET(12) NUMBITS(1) [],
        /// RES1.
        RES1_9 OFFSET(9) NUMBITS(1) [],
        /// Trap SVE.
        TZ OFFSET(8) NUMBITS(1) [],
        /// RES1.
        RES1_7_0 OFFSET(0) NUMBITS(8) []
    ],
    /// What is RES1 in TCR_EL2 with HCR_EL2.E2H clear.
    TCR_EL2_RES1 [
        B31 OFFSET(31) NUMBITS(1) [],
        B23 OFFSET(23) NUMBITS(1) []
    ],
    /// What is RES1 in SCTLR_EL2 with HCR_EL2.E2H clear, or where an extension is missing whose absence it states.
    SCTLR_EL2_RES1 [
        B29_28 OFFSET(28) NUMBITS(2) [],
        B23_22 OFFSET(22) NUMBITS(2) [],
        B18 OFFSET(18) NUMBITS(1) [],
        B16 OFFSET(16) NUMBITS(1) [],
        B11 OFFSET(11) NUMBITS(1) [],
        B5_4 OFFSET(4) NUMBITS(2) []
    ],
    /// Fields of SCTLR_EL1 that are RES1 where an extension is missing.
    SCTLR_EL1 [
        /// Load and store multiple may be interrupted anywhere (AArch32).
        LSMAOE OFFSET(29) NUMBITS(1) [],
        /// Load and store multiple are not trapped (AArch32).
        NTLSMD OFFSET(28) NUMBITS(1) [],
        /// PSTATE.PAN stays as it is.
        SPAN OFFSET(23) NUMBITS(1) [],
        /// Exception entry synchronizes.
        EIS OFFSET(22) NUMBITS(1) [],
        /// Trap SCXTNUM_EL0.
        TSCXT OFFSET(20) NUMBITS(1) [],
        /// Exception return synchronizes.
        EOS OFFSET(11) NUMBITS(1) []
    ]
}

/// The value in which these fields of one bit, or of ones alone, are set.
macro_rules! set {
    ($register:ident: $($field:ident)|+) => { $($register::$field::SET.value)|+ };
}

/// HCR_EL2 from the first instruction on: EL1 is AArch64. E2H and TGE are clear.
pub(crate) const HCR_BOOT: u64 = set!(HCR_EL2: RW);

/// HCR_EL2 for every guest (Arm ARM D19.2.48). VM (stage 2); SWIO (set/way invalidation also cleans); PTW (no table
/// walks on device memory); FMO, IMO, AMO (physical interrupts come here, virtual ones go there); TSC, TID3, TIDCP,
/// TACR, TLOR, TERR (traps of SMC, ID registers, implementation-defined registers, ACTLR, LORegions, RAS); RW (EL1 is
/// AArch64). Clear, and so trapped or UNDEFINED: pointer authentication, memory tagging, activity monitors, SCXTNUM,
/// nesting.
pub(crate) const HCR_GUEST: u64 =
    set!(HCR_EL2: VM | SWIO | PTW | FMO | IMO | AMO | TID3 | TSC | TIDCP | TACR | RW | TLOR | TERR);

/// HCR_EL2: trap WFI.
pub(crate) const HCR_TRAP_WFI: u64 = set!(HCR_EL2: TWI);

/// HCR_EL2: SCXTNUM_EL0 and SCXTNUM_EL1 are the guest's.
pub(crate) const HCR_SOFTWARE_CONTEXT: u64 = set!(HCR_EL2: EnSCXT);

/// CPTR_EL2 for every guest: traps of SVE, SME, trace and activity monitors. TFP is clear: FP and SIMD stay with the
/// guest.
pub(crate) const CPTR_GUEST: u64 = set!(CPTR_EL2: RES1_7_0 | TZ | RES1_9 | TSM | RES1_13 | TTA | TAM);

/// MDCR_EL2 for every guest: traps of the PMU (TPMCR, TPM), the debug registers (TDA, TDOSA, TDRA), profiling (TPMS)
/// and trace filters (TTRF). TDE is clear: debug exceptions are EL1's.
pub(crate) const MDCR_GUEST: u64 = set!(MDCR_EL2: TPMCR | TPM | TDA | TDOSA | TDRA | TPMS | TTRF);

/// SCTLR_EL2 with MMU and caches on, an aligned stack, and writable memory that is never executable (Arm ARM
/// D19.2.119).
pub(crate) const SCTLR: u64 =
    set!(SCTLR_EL2_RES1: B29_28 | B23_22 | B18 | B16 | B11 | B5_4) | set!(SCTLR_EL2: M | C | SA | I | WXN);

/// SCTLR_EL1 as it is reset: MMU, caches and alignment checks off.
pub(crate) const SCTLR_EL1_RESET: u64 = set!(SCTLR_EL1: LSMAOE | NTLSMD | SPAN | EIS | TSCXT | EOS);

/// TCR_EL2 without PS (Arm ARM D19.2.138): 4 KiB granule, tables in write-back, inner shareable memory.
const TCR: u64 = set!(TCR_EL2_RES1: B31 | B23)
    | TCR_EL2::TG0::KiB_4.value
    | TCR_EL2::SH0::Inner.value
    | TCR_EL2::ORGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable.value
    | TCR_EL2::IRGN0::WriteBack_ReadAlloc_WriteAlloc_Cacheable.value
    | TCR_EL2::T0SZ.val(64 - INPUT_BITS as u64).value;

/// VTCR_EL2 without PS: as TCR_EL2; one level-1 root, and VMIDs of 8 bits, which every core has.
const VTCR: u64 = VTCR_EL2::RES1::SET.value
    | VTCR_EL2::VS::Bits8.value
    | VTCR_EL2::TG0::Granule4KB.value
    | VTCR_EL2::SH0::Inner.value
    | VTCR_EL2::ORGN0::NormalWBRAWA.value
    | VTCR_EL2::IRGN0::NormalWBRAWA.value
    | VTCR_EL2::SL0::Granule4KBLevel1.value
    | VTCR_EL2::T0SZ.val(64 - INPUT_BITS as u64).value;

/// TCR_EL2 on this core.
pub(crate) fn tcr() -> u64 {
    TCR | TCR_EL2::PS.val(physical_size()).value
}

/// VTCR_EL2 on this core. The output size must not exceed the core's; a level-1 start allows no more than 40 bits of
/// input.
pub(crate) fn vtcr() -> u64 {
    VTCR | VTCR_EL2::PS.val(physical_size()).value
}

/// ID_AA64MMFR0_EL1.PARange, which has the codes of PS, capped to what a 4 KiB granule's tables can say without LPA2:
/// 48 bits.
fn physical_size() -> u64 {
    const BITS_48: u64 = TCR_EL2::PS::Bits_48.value >> TCR_EL2::PS.shift;
    (ID_AA64MMFR0_EL1.get() & 0xf).min(BITS_48)
}
