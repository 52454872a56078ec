//! System registers that `aarch64-cpu` does not carry, as tock registers named as the Arm ARM names them.

macro_rules! system_registers {
    ($($(#[$documentation:meta])* $name:ident, $assembly:literal;)*) => {
        $(
            $(#[$documentation])*
            pub(crate) const $name: generated::$name = generated::$name;
        )*

        mod generated {
            use core::arch::asm;
            use tock_registers::interfaces::{Readable, Writeable};
            $(
                #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
                pub(crate) struct $name;

                impl Readable for $name {
                    type T = u64;
                    type R = ();

                    #[inline(always)]
                    fn get(&self) -> u64 {
                        let value;
                        // SAFETY: EL2 may read this register, and its value is data to the compiler. Not `nomem`: the
                        // interrupt registers order memory accesses, so the compiler must not move them across.
                        unsafe { asm!(concat!("mrs {0}, ", $assembly), out(reg) value, options(nostack)) }
                        value
                    }
                }

                impl Writeable for $name {
                    type T = u64;
                    type R = ();

                    #[inline(always)]
                    fn set(&self, value: u64) {
                        // SAFETY: EL2 may write this register; it configures interrupts, traps or EL1, not EL2's
                        // memory.
                        unsafe { asm!(concat!("msr ", $assembly, ", {0}"), in(reg) value, options(nostack)) }
                    }
                }
            )*
        }
    };
}

system_registers! {
    /// Acknowledge (read only).
    ICC_IAR1_EL1, "s3_0_c12_c12_0";
    /// Priority drop (write only).
    ICC_EOIR1_EL1, "s3_0_c12_c12_1";
    /// Deactivate (write only).
    ICC_DIR_EL1, "s3_0_c12_c11_1";
    /// Generate SGIs (write only).
    ICC_SGI1R_EL1, "s3_0_c12_c11_5";
    /// Priority mask.
    ICC_PMR_EL1, "s3_0_c4_c6_0";
    /// Binary point.
    ICC_BPR1_EL1, "s3_0_c12_c12_3";
    /// CPU interface control.
    ICC_CTLR_EL1, "s3_0_c12_c12_4";
    /// Group 1 enable.
    ICC_IGRPEN1_EL1, "s3_0_c12_c12_7";
    /// System-register interface enable of EL1.
    ICC_SRE_EL1, "s3_0_c12_c12_5";
    /// System-register interface enable of EL2, and of EL1's access to its own.
    ICC_SRE_EL2, "s3_4_c12_c9_5";
    /// List registers whose interrupt has ended with a notice asked for (read only).
    ICH_EISR_EL2, "s3_4_c12_c11_3";
    /// Empty list registers (read only).
    ICH_ELRSR_EL2, "s3_4_c12_c11_5";
    /// Virtual machine control.
    ICH_VMCR_EL2, "s3_4_c12_c11_7";
    /// Hypervisor control of the virtual CPU interface.
    ICH_HCR_EL2, "s3_4_c12_c11_0";
    /// What the virtual CPU interface has (read only).
    ICH_VTR_EL2, "s3_4_c12_c11_1";
    /// Active priorities, group 0.
    ICH_AP0R0_EL2, "s3_4_c12_c8_0";
    /// Active priorities, group 1.
    ICH_AP1R0_EL2, "s3_4_c12_c9_0";
    /// EL2 physical timer control.
    CNTHP_CTL_EL2, "s3_4_c14_c2_1";
    /// EL2 physical timer deadline.
    CNTHP_CVAL_EL2, "s3_4_c14_c2_2";
    /// FP, SVE and trace traps.
    CPTR_EL2, "s3_4_c1_c1_2";
    /// AArch32 EL1 traps.
    HSTR_EL2, "s3_4_c1_c1_3";
    /// What EL1 reads as MIDR_EL1.
    VPIDR_EL2, "s3_4_c0_c0_0";
    /// What EL1 reads as MPIDR_EL1.
    VMPIDR_EL2, "s3_4_c0_c0_5";
    /// OS lock access (write only).
    OSLAR_EL1, "s2_0_c1_c0_4";
    /// OS double lock.
    OSDLR_EL1, "s2_0_c1_c3_4";
    /// Monitor debug control.
    MDSCR_EL1, "s2_0_c0_c2_2";
    /// The number of EL0's software context.
    SCXTNUM_EL0, "s3_3_c13_c0_7";
    /// The number of EL1's software context.
    SCXTNUM_EL1, "s3_0_c13_c0_7";
    /// PMU control.
    PMCR_EL0, "s3_3_c9_c12_0";
    /// Instruction set attributes 0 (read only).
    ID_AA64ISAR0_EL1, "s3_0_c0_c6_0";
    /// Debug features (read only).
    ID_AA64DFR0_EL1, "s3_0_c0_c5_0";
    /// Memory model features 0 (read only).
    ID_AA64MMFR0_EL1, "s3_0_c0_c7_0";
    /// Memory model features 1 (read only).
    ID_AA64MMFR1_EL1, "s3_0_c0_c7_1";
    /// Processor features 0 (read only).
    ID_AA64PFR0_EL1, "s3_0_c0_c4_0";
    /// Processor features 1 (read only).
    ID_AA64PFR1_EL1, "s3_0_c0_c4_1";
}
