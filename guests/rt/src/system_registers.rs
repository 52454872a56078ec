//! System registers that a hypervisor traps or hides, each with a read and a write that may fault.
//!
//! The names are the Arm ARM's; most are encoded by number, because an assembler knows a register's name only with its
//! feature turned on.

use crate::probe::{Abort, probe};

/// The feature that a register belongs to; the ID registers say whether a guest has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Self-hosted debug, which Armv8-A always has.
    Debug,
    /// The performance monitors (ID_AA64DFR0_EL1.PMUVer).
    PerformanceMonitors,
    /// The statistical profiler (ID_AA64DFR0_EL1.PMSVer).
    StatisticalProfiling,
    /// The trace unit's system registers (ID_AA64DFR0_EL1.TraceVer).
    Trace,
    /// The trace buffer (ID_AA64DFR0_EL1.TraceBuffer).
    TraceBuffer,
    /// Limited ordering regions (ID_AA64MMFR1_EL1.LO).
    OrderingRegions,
    /// SVE (ID_AA64PFR0_EL1.SVE).
    ScalableVectors,
    /// SME (ID_AA64PFR1_EL1.SME).
    ScalableMatrix,
    /// Pointer authentication (ID_AA64ISAR1_EL1 and ID_AA64ISAR2_EL1).
    PointerAuthentication,
    /// Memory tagging (ID_AA64PFR1_EL1.MTE of 2 and above).
    MemoryTagging,
    /// Error records (ID_AA64PFR0_EL1.RAS).
    ErrorRecords,
    /// Activity monitors (ID_AA64PFR0_EL1.AMU).
    ActivityMonitors,
    /// Memory partitioning (ID_AA64PFR0_EL1.MPAM).
    MemoryPartitioning,
    /// Left to the implementation (ACTLR_EL1 and the S3_x_C11 and S3_x_C15 spaces).
    Implementation,
    /// The GIC's CPU interface.
    InterruptController,
    /// Registers of EL2 and EL3, always undefined at EL1.
    HigherLevels,
}

/// One system register.
pub struct SystemRegister {
    /// The Arm ARM's name.
    pub name: &'static str,
    /// What it belongs to.
    pub feature: Feature,
    /// Reads it.
    pub read: fn() -> Result<u64, Abort>,
    /// Writes it.
    pub write: fn(u64) -> Result<(), Abort>,
}

macro_rules! registers {
    ($($feature:ident $name:ident = $code:literal;)*) => {
        /// The registers that a hostile guest tries.
        pub static PROBED: &[SystemRegister] = &[$(SystemRegister {
            name: stringify!($name),
            feature: Feature::$feature,
            read: || {
                let value: u64;
                probe!(concat!("mrs {value}, ", $code); value = out(reg) value)?;
                Ok(value)
            },
            write: |value| probe!(concat!("msr ", $code, ", {value}"); value = in(reg) value),
        },)*];
    };
}

registers! {
    Debug MDSCR_EL1 = "S2_0_C0_C2_2";
    Debug DBGBVR0_EL1 = "S2_0_C0_C0_4";
    Debug DBGBCR0_EL1 = "S2_0_C0_C0_5";
    Debug DBGWVR0_EL1 = "S2_0_C0_C0_6";
    Debug DBGWCR0_EL1 = "S2_0_C0_C0_7";
    Debug MDCCINT_EL1 = "S2_0_C0_C2_0";
    Debug OSLAR_EL1 = "S2_0_C1_C0_4";
    Debug OSLSR_EL1 = "S2_0_C1_C1_4";
    Debug OSDLR_EL1 = "S2_0_C1_C3_4";
    Debug DBGPRCR_EL1 = "S2_0_C1_C4_4";
    Debug DBGCLAIMSET_EL1 = "S2_0_C7_C8_6";
    Debug MDRAR_EL1 = "S2_0_C1_C0_0";
    Debug MDCCSR_EL0 = "S2_3_C0_C1_0";
    PerformanceMonitors PMCR_EL0 = "S3_3_C9_C12_0";
    PerformanceMonitors PMCNTENSET_EL0 = "S3_3_C9_C12_1";
    PerformanceMonitors PMOVSCLR_EL0 = "S3_3_C9_C12_3";
    PerformanceMonitors PMSELR_EL0 = "S3_3_C9_C12_5";
    PerformanceMonitors PMCEID0_EL0 = "S3_3_C9_C12_6";
    PerformanceMonitors PMCCNTR_EL0 = "S3_3_C9_C13_0";
    PerformanceMonitors PMXEVTYPER_EL0 = "S3_3_C9_C13_1";
    PerformanceMonitors PMUSERENR_EL0 = "S3_3_C9_C14_0";
    PerformanceMonitors PMINTENSET_EL1 = "S3_0_C9_C14_1";
    PerformanceMonitors PMEVCNTR0_EL0 = "S3_3_C14_C8_0";
    PerformanceMonitors PMCCFILTR_EL0 = "S3_3_C14_C15_7";
    StatisticalProfiling PMSCR_EL1 = "S3_0_C9_C9_0";
    StatisticalProfiling PMBLIMITR_EL1 = "S3_0_C9_C10_0";
    StatisticalProfiling PMBPTR_EL1 = "S3_0_C9_C10_1";
    Trace TRCPRGCTLR = "S2_1_C0_C1_0";
    Trace TRCOSLSR = "S2_1_C1_C1_4";
    Trace TRFCR_EL1 = "S3_0_C1_C2_1";
    TraceBuffer TRBLIMITR_EL1 = "S3_0_C9_C11_0";
    TraceBuffer TRBPTR_EL1 = "S3_0_C9_C11_1";
    OrderingRegions LORC_EL1 = "S3_0_C10_C4_3";
    OrderingRegions LORSA_EL1 = "S3_0_C10_C4_0";
    OrderingRegions LORID_EL1 = "S3_0_C10_C4_7";
    ScalableVectors ZCR_EL1 = "S3_0_C1_C2_0";
    ScalableMatrix SMCR_EL1 = "S3_0_C1_C2_6";
    ScalableMatrix SVCR = "S3_3_C4_C2_2";
    ScalableMatrix TPIDR2_EL0 = "S3_3_C13_C0_5";
    PointerAuthentication APIAKeyLo_EL1 = "S3_0_C2_C1_0";
    PointerAuthentication APIBKeyHi_EL1 = "S3_0_C2_C1_3";
    PointerAuthentication APDAKeyLo_EL1 = "S3_0_C2_C2_0";
    PointerAuthentication APGAKeyHi_EL1 = "S3_0_C2_C3_1";
    MemoryTagging RGSR_EL1 = "S3_0_C1_C0_5";
    MemoryTagging GCR_EL1 = "S3_0_C1_C0_6";
    MemoryTagging TFSR_EL1 = "S3_0_C5_C6_0";
    MemoryTagging TFSRE0_EL1 = "S3_0_C5_C6_1";
    ErrorRecords ERRIDR_EL1 = "S3_0_C5_C3_0";
    ErrorRecords ERRSELR_EL1 = "S3_0_C5_C3_1";
    ErrorRecords ERXCTLR_EL1 = "S3_0_C5_C4_1";
    ErrorRecords ERXSTATUS_EL1 = "S3_0_C5_C4_2";
    ActivityMonitors AMCR_EL0 = "S3_3_C13_C2_0";
    ActivityMonitors AMUSERENR_EL0 = "S3_3_C13_C2_3";
    ActivityMonitors AMEVCNTR00_EL0 = "S3_3_C13_C4_0";
    MemoryPartitioning MPAM1_EL1 = "S3_0_C10_C5_0";
    MemoryPartitioning MPAM0_EL1 = "S3_0_C10_C5_1";
    MemoryPartitioning MPAMIDR_EL1 = "S3_0_C10_C4_4";
    Implementation ACTLR_EL1 = "S3_0_C1_C0_1";
    Implementation S3_0_C11_C0_0 = "S3_0_C11_C0_0";
    Implementation S3_1_C11_C0_2 = "S3_1_C11_C0_2";
    Implementation S3_0_C15_C0_0 = "S3_0_C15_C0_0";
    Implementation S3_1_C15_C2_0 = "S3_1_C15_C2_0";
    Implementation S3_1_C15_C2_1 = "S3_1_C15_C2_1";
    Implementation S3_3_C15_C0_0 = "S3_3_C15_C0_0";
    InterruptController ICC_SRE_EL1 = "S3_0_C12_C12_5";
    InterruptController ICC_CTLR_EL1 = "S3_0_C12_C12_4";
    InterruptController ICC_IAR0_EL1 = "S3_0_C12_C8_0";
    InterruptController ICC_IGRPEN0_EL1 = "S3_0_C12_C12_6";
    InterruptController ICC_BPR0_EL1 = "S3_0_C12_C8_3";
    InterruptController ICC_AP0R0_EL1 = "S3_0_C12_C8_4";
    InterruptController ICC_AP1R0_EL1 = "S3_0_C12_C9_0";
    InterruptController ICC_SGI0R_EL1 = "S3_0_C12_C11_7";
    InterruptController ICC_ASGI1R_EL1 = "S3_0_C12_C11_6";
    HigherLevels HCR_EL2 = "S3_4_C1_C1_0";
    HigherLevels VTTBR_EL2 = "S3_4_C2_C1_0";
    HigherLevels CNTVOFF_EL2 = "S3_4_C14_C0_3";
    HigherLevels CNTHCTL_EL2 = "S3_4_C14_C1_0";
    HigherLevels ICH_HCR_EL2 = "S3_4_C12_C11_0";
    HigherLevels ICH_LR0_EL2 = "S3_4_C12_C12_0";
    HigherLevels SP_EL1 = "S3_4_C4_C1_0";
    HigherLevels VPIDR_EL2 = "S3_4_C0_C0_0";
    HigherLevels SCR_EL3 = "S3_6_C1_C1_0";
    HigherLevels SCTLR_EL12 = "S3_5_C1_C0_0";
}

macro_rules! identification {
    ($($(#[$documentation:meta])* $name:ident = $code:literal;)*) => {
        $(
            $(#[$documentation])*
            ///
            /// # Errors
            /// The exception, if the read met one; it must not.
            pub fn $name() -> Result<u64, Abort> {
                let value: u64;
                probe!(concat!("mrs {value}, ", $code); value = out(reg) value)?;
                Ok(value)
            }
        )*
    };
}

identification! {
    /// ID_AA64PFR0_EL1.
    id_aa64pfr0 = "S3_0_C0_C4_0";
    /// ID_AA64PFR1_EL1.
    id_aa64pfr1 = "S3_0_C0_C4_1";
    /// ID_AA64ZFR0_EL1.
    id_aa64zfr0 = "S3_0_C0_C4_4";
    /// ID_AA64SMFR0_EL1.
    id_aa64smfr0 = "S3_0_C0_C4_5";
    /// ID_AA64DFR0_EL1.
    id_aa64dfr0 = "S3_0_C0_C5_0";
    /// ID_AA64ISAR0_EL1.
    id_aa64isar0 = "S3_0_C0_C6_0";
    /// ID_AA64ISAR1_EL1.
    id_aa64isar1 = "S3_0_C0_C6_1";
    /// ID_AA64ISAR2_EL1.
    id_aa64isar2 = "S3_0_C0_C6_2";
    /// ID_AA64MMFR0_EL1.
    id_aa64mmfr0 = "S3_0_C0_C7_0";
    /// ID_AA64MMFR1_EL1.
    id_aa64mmfr1 = "S3_0_C0_C7_1";
    /// ID_AA64MMFR2_EL1.
    id_aa64mmfr2 = "S3_0_C0_C7_2";
    /// An unallocated place in the ID space, which reads as zero (Arm ARM D17.1.3).
    id_unallocated = "S3_0_C0_C7_7";
}
