//! System registers by their encoding, and the trapped access to one.

use core::fmt;
use vdev::Access;

/// A system register or system instruction, named by its encoding (Arm ARM C5.1, "The System instruction class encoding
/// space").
///
/// Prints as assemblers take it: `S3_0_C12_C11_5`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemRegister {
    /// Op0, 0 to 3.
    pub op0: u8,
    /// Op1, 0 to 7.
    pub op1: u8,
    /// CRn, 0 to 15.
    pub crn: u8,
    /// CRm, 0 to 15.
    pub crm: u8,
    /// Op2, 0 to 7.
    pub op2: u8,
}

impl SystemRegister {
    /// The register that `esr` stores (0 to 31), if it is a trapped write of this register: for the one or two that the
    /// exit path looks for before it decodes anything.
    #[inline(always)]
    #[must_use]
    pub const fn stored_by(self, esr: u64) -> Option<u8> {
        const RT: u32 = 0x1f << 5;
        // EC 0x18, IL, then the fields as ISS has them, direction 0. ISS2, above, has nothing to say here.
        let syndrome = 0x18 << 26
            | 1 << 25
            | (self.op0 as u32) << 20
            | (self.op2 as u32) << 17
            | (self.op1 as u32) << 14
            | (self.crn as u32) << 10
            | (self.crm as u32) << 1;
        if esr as u32 & !RT == syndrome { Some((esr >> 5 & 0x1f) as u8) } else { None }
    }

    /// Names the register `S<op0>_<op1>_C<crn>_C<crm>_<op2>`.
    #[must_use]
    pub const fn new(op0: u8, op1: u8, crn: u8, crm: u8, op2: u8) -> Self {
        Self { op0, op1, crn, crm, op2 }
    }

    /// Whether this is one of the identification registers that HCR_EL2.TID3 traps: op0 3, op1 0, CRn 0, CRm 1 to 7.
    #[inline]
    #[must_use]
    pub const fn is_identification(self) -> bool {
        self.op0 == 3 && self.op1 == 0 && self.crn == 0 && self.crm >= 1 && self.crm <= 7
    }
}

impl fmt::Display for SystemRegister {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "S{}_{}_C{}_C{}_{}", self.op0, self.op1, self.crn, self.crm, self.op2)
    }
}

/// A trapped MSR, MRS or system instruction (Arm ARM, ESR_EL2, "ISS encoding for an exception from MSR, MRS, or System
/// instruction execution in AArch64 state").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SystemRegisterAccess {
    /// The register.
    pub register: SystemRegister,
    /// MRS is a read, MSR a write.
    pub access: Access,
    /// The general-purpose register, 0 to 31; 31 is XZR.
    pub transfer: u8,
}

impl SystemRegisterAccess {
    #[inline]
    pub(super) fn decode(iss: u32) -> Self {
        let field = |shift: u32, mask: u32| (iss >> shift & mask) as u8;
        Self {
            register: SystemRegister {
                op0: field(20, 3),
                op1: field(14, 7),
                crn: field(10, 0xf),
                crm: field(1, 0xf),
                op2: field(17, 7),
            },
            access: if iss & 1 != 0 { Access::Read } else { Access::Write },
            transfer: field(5, 0x1f),
        }
    }
}

macro_rules! registers {
    ($($(#[$attribute:meta])* $name:ident = $op0:literal $op1:literal $crn:literal $crm:literal $op2:literal;)*) => {
        impl SystemRegister {
            $($(#[$attribute])* #[doc = concat!("`", stringify!($name), "`.")]
            pub const $name: Self = Self::new($op0, $op1, $crn, $crm, $op2);)*
        }
    };
}

// As in each register's entry in the Arm ARM, and for ICC_* in the GICv3 specification IHI0069 12.2: op0 op1 CRn CRm
// op2.
registers! {
    // Identification, as HCR_EL2.TID3 traps it.
    ID_PFR0_EL1 = 3 0 0 1 0;
    ID_PFR1_EL1 = 3 0 0 1 1;
    ID_DFR0_EL1 = 3 0 0 1 2;
    ID_AFR0_EL1 = 3 0 0 1 3;
    ID_MMFR0_EL1 = 3 0 0 1 4;
    ID_MMFR1_EL1 = 3 0 0 1 5;
    ID_MMFR2_EL1 = 3 0 0 1 6;
    ID_MMFR3_EL1 = 3 0 0 1 7;
    ID_ISAR0_EL1 = 3 0 0 2 0;
    ID_ISAR1_EL1 = 3 0 0 2 1;
    ID_ISAR2_EL1 = 3 0 0 2 2;
    ID_ISAR3_EL1 = 3 0 0 2 3;
    ID_ISAR4_EL1 = 3 0 0 2 4;
    ID_ISAR5_EL1 = 3 0 0 2 5;
    ID_MMFR4_EL1 = 3 0 0 2 6;
    ID_ISAR6_EL1 = 3 0 0 2 7;
    MVFR0_EL1 = 3 0 0 3 0;
    MVFR1_EL1 = 3 0 0 3 1;
    MVFR2_EL1 = 3 0 0 3 2;
    ID_PFR2_EL1 = 3 0 0 3 4;
    ID_MMFR5_EL1 = 3 0 0 3 6;
    ID_AA64PFR0_EL1 = 3 0 0 4 0;
    ID_AA64PFR1_EL1 = 3 0 0 4 1;
    ID_AA64PFR2_EL1 = 3 0 0 4 2;
    ID_AA64ZFR0_EL1 = 3 0 0 4 4;
    ID_AA64SMFR0_EL1 = 3 0 0 4 5;
    ID_AA64DFR0_EL1 = 3 0 0 5 0;
    ID_AA64DFR1_EL1 = 3 0 0 5 1;
    ID_AA64AFR0_EL1 = 3 0 0 5 4;
    ID_AA64ISAR0_EL1 = 3 0 0 6 0;
    ID_AA64ISAR1_EL1 = 3 0 0 6 1;
    ID_AA64ISAR2_EL1 = 3 0 0 6 2;
    ID_AA64MMFR0_EL1 = 3 0 0 7 0;
    ID_AA64MMFR1_EL1 = 3 0 0 7 1;
    ID_AA64MMFR2_EL1 = 3 0 0 7 2;
    ID_AA64MMFR3_EL1 = 3 0 0 7 3;
    ID_AA64MMFR4_EL1 = 3 0 0 7 4;

    // Implementation control and system state.
    ACTLR_EL1 = 3 0 1 0 1;
    SCXTNUM_EL1 = 3 0 13 0 7;
    SCXTNUM_EL0 = 3 3 13 0 7;
    REVIDR_EL1 = 3 0 0 0 6;

    // The GIC's CPU interface.
    ICC_DIR_EL1 = 3 0 12 11 1;
    ICC_SGI1R_EL1 = 3 0 12 11 5;
    ICC_ASGI1R_EL1 = 3 0 12 11 6;
    ICC_SGI0R_EL1 = 3 0 12 11 7;
    ICC_SRE_EL1 = 3 0 12 12 5;

    // Debug (op0 2).
    MDCCINT_EL1 = 2 0 0 2 0;
    MDSCR_EL1 = 2 0 0 2 2;
    OSLAR_EL1 = 2 0 1 0 4;
    OSLSR_EL1 = 2 0 1 1 4;
    OSDLR_EL1 = 2 0 1 3 4;
    DBGCLAIMSET_EL1 = 2 0 7 8 6;
    MDCCSR_EL0 = 2 3 0 1 0;
}

#[cfg(test)]
mod tests {
    use super::{SystemRegister, SystemRegisterAccess};
    use std::string::ToString;
    use vdev::Access;

    #[test]
    fn stored_by_finds_writes_of_its_register_alone() {
        let esr = 0x18 << 26 | 1 << 25 | 3 << 20 | 5 << 17 | 12 << 10 | 30 << 5 | 11 << 1;
        assert_eq!(SystemRegister::ICC_SGI1R_EL1.stored_by(esr), Some(30));
        assert_eq!(SystemRegister::ICC_SGI0R_EL1.stored_by(esr), None);
        assert_eq!(SystemRegister::ICC_SGI1R_EL1.stored_by(esr | 1), None);
    }

    #[test]
    fn name_reads_as_an_assembler_takes_it() {
        assert_eq!(SystemRegister::ICC_SGI1R_EL1.to_string(), "S3_0_C12_C11_5");
    }

    #[test]
    fn identification_space_is_what_tid3_traps() {
        assert!(SystemRegister::ID_PFR0_EL1.is_identification());
        assert!(SystemRegister::ID_AA64MMFR4_EL1.is_identification());
        assert!(SystemRegister::new(3, 0, 0, 7, 7).is_identification());
        // MIDR_EL1, MPIDR_EL1 and REVIDR_EL1 have CRm 0; CCSIDR_EL1 has op1 1.
        assert!(!SystemRegister::REVIDR_EL1.is_identification());
        assert!(!SystemRegister::new(3, 1, 0, 0, 0).is_identification());
        assert!(!SystemRegister::new(3, 0, 0, 8, 0).is_identification());
    }

    #[test]
    fn every_field_of_the_syndrome_has_its_place() {
        for (shift, all, expected) in [
            (20, 3, SystemRegister::new(3, 0, 0, 0, 0)),
            (14, 7, SystemRegister::new(0, 7, 0, 0, 0)),
            (10, 15, SystemRegister::new(0, 0, 15, 0, 0)),
            (1, 15, SystemRegister::new(0, 0, 0, 15, 0)),
            (17, 7, SystemRegister::new(0, 0, 0, 0, 7)),
        ] {
            let access = SystemRegisterAccess::decode(all << shift);
            assert_eq!((access.register, access.access, access.transfer), (expected, Access::Write, 0));
        }
        let read_to_xzr = SystemRegisterAccess::decode(31 << 5 | 1);
        assert_eq!((read_to_xzr.access, read_to_xzr.transfer), (Access::Read, 31));
    }
}
