//! Which processor features a guest sees in the identification registers that HCR_EL2.TID3 traps.
//!
//! The principle: **a field is shown if its feature needs nothing from EL2, or if all of its state is switched with the
//! virtual CPU** (general-purpose registers, FP and Advanced SIMD, the EL1 system registers of Armv8.0). A feature that
//! EL2 must enable, whose registers are not switched, or that reaches another exception level is hidden. A field shows
//! at most the value that this principle was judged for; what later extensions add is hidden until somebody judges it.
//! So the table lists what is allowed, and everything else reads as zero: unknown fields, and unallocated registers
//! (which the architecture makes read as zero too).
//!
//! What this module leaves out: the registers that TID3 does not trap (MIDR_EL1, MPIDR_EL1, CTR_EL0 and the cache
//! identification), and making the hidden instructions undefined (`arch` sets the traps).

mod fields;

use crate::exit::SystemRegister;
use fields::{Field, Rule};

/// What a guest reads from `register`, an identification register whose value in hardware is `hardware`.
///
/// `hardware` is ignored for a register that is hidden whole, so that 0 will do where `arch` does not know a register's
/// name.
#[must_use]
pub fn shown(register: SystemRegister, hardware: u64) -> u64 {
    fields::of(register).iter().fold(0, |shown, field| shown | field.show(hardware))
}

impl Field {
    /// The field, in its place, as a guest sees it.
    fn show(self, hardware: u64) -> u64 {
        let found = hardware >> self.shift & 0xf;
        let value = match self.rule {
            Rule::AtMost(limit) => found.min(limit),
            // Arm ARM, "Principles of the ID scheme for fields in ID registers": in a signed field 0xf means "not
            // implemented", and is less than zero.
            Rule::SignedAtMost(limit) if found < 8 => found.min(limit),
            Rule::SignedAtMost(_) => 0xf,
            Rule::Fixed(value) => value,
        };
        // Shifts in the table are at most 60.
        value << self.shift
    }
}

#[cfg(test)]
mod tests {
    use super::shown;
    use crate::exit::SystemRegister;

    /// What a guest reads from `register`, if it is an identification register.
    fn visible(register: SystemRegister, hardware: u64) -> Option<u64> {
        register.is_identification().then(|| shown(register, hardware))
    }

    /// A processor that has everything, in every field that counts upwards.
    fn greedy(register: SystemRegister) -> u64 {
        visible(register, 0x7777_7777_7777_7777).unwrap()
    }

    fn field(value: u64, shift: u32) -> u64 {
        value >> shift & 0xf
    }

    #[test]
    fn guest_on_qemu_max_sees_neither_sve_nor_ras_nor_el2_nor_pointer_authentication() {
        // ID_AA64PFR0_EL1 of `-cpu max`: EL0..EL3, GIC, RAS, SVE, MPAM off, AMU, DIT, CSV2, CSV3.
        let value = visible(SystemRegister::ID_AA64PFR0_EL1, 0x1301_1011_2111_2222).unwrap();
        for hidden in [8, 12, 28, 32, 36, 40, 44, 52] {
            assert_eq!(field(value, hidden), 0, "bits {hidden}");
        }
        assert_eq!(field(value, 0), 2, "EL0 runs AArch32 as well");
        assert_eq!(field(value, 4), 1, "EL1 is AArch64 only: HCR_EL2.RW");
        assert_eq!(field(value, 24), 1, "the GIC has system registers");
        // ID_AA64ISAR1_EL1: APA, API, GPA, GPI at 4, 8, 24, 28; LS64 at 60.
        let value = greedy(SystemRegister::ID_AA64ISAR1_EL1);
        for hidden in [4, 8, 24, 28, 60] {
            assert_eq!(field(value, hidden), 0, "bits {hidden}");
        }
        assert_eq!(field(value, 20), 2, "LRCPC stays");
        // ID_AA64ISAR2_EL1: WFxT, GPA3, APA3, MOPS, PAC_frac.
        let value = greedy(SystemRegister::ID_AA64ISAR2_EL1);
        for hidden in [0, 8, 12, 16, 24] {
            assert_eq!(field(value, hidden), 0, "bits {hidden}");
        }
    }

    #[test]
    fn memory_tagging_sme_and_nmi_are_hidden_and_branch_targets_are_not() {
        let value = greedy(SystemRegister::ID_AA64PFR1_EL1);
        assert_eq!(field(value, 0), 1, "BT");
        assert_eq!(field(value, 4), 2, "SSBS");
        assert_eq!(field(value, 32), 2, "CSV2_frac");
        assert_eq!(value & !0xf_0000_00ff, 0);
    }

    #[test]
    fn what_hardware_says_of_speculation_is_shown() {
        // CSV2 and CSV3 of ID_AA64PFR0_EL1, CSV2_frac, SPECRES.
        for value in 0..=3_u64 {
            let shown = visible(SystemRegister::ID_AA64PFR0_EL1, value << 56 | (value & 1) << 60).unwrap();
            assert_eq!((field(shown, 56), field(shown, 60)), (value, value & 1));
            let least = value.min(2);
            assert_eq!(visible(SystemRegister::ID_AA64PFR1_EL1, value << 32), Some(least << 32));
            assert_eq!(visible(SystemRegister::ID_AA64ISAR1_EL1, value << 40), Some(least << 40));
        }
    }

    #[test]
    fn fp_and_advanced_simd_that_are_missing_stay_missing() {
        assert_eq!(visible(SystemRegister::ID_AA64PFR0_EL1, 0x00ff_0011), Some(0x00ff_0011));
        assert_eq!(visible(SystemRegister::ID_AA64PFR0_EL1, 0x0011_0011), Some(0x0011_0011));
    }

    #[test]
    fn debug_has_the_breakpoints_of_the_hardware_and_neither_counters_nor_trace() {
        let value = greedy(SystemRegister::ID_AA64DFR0_EL1);
        assert_eq!(field(value, 0), 6, "DebugVer");
        assert_eq!((field(value, 12), field(value, 20), field(value, 28)), (7, 7, 7), "BRPs, WRPs, CTX_CMPs");
        assert_eq!(field(value, 36), 0xf, "no OS double lock");
        for hidden in [4, 8, 16, 24, 32, 40, 44, 48, 52, 56, 60] {
            assert_eq!(field(value, hidden), 0, "bits {hidden}");
        }
    }

    #[test]
    fn physical_range_is_at_most_40_bits_and_at_most_what_hardware_has() {
        let range = |hardware| field(visible(SystemRegister::ID_AA64MMFR0_EL1, hardware).unwrap(), 0);
        assert_eq!(range(6), 2);
        assert_eq!(range(2), 2);
        assert_eq!(range(0), 0);
    }

    #[test]
    fn granules_that_are_missing_stay_missing_and_52_bit_forms_are_hidden() {
        // TGran4 not implemented, TGran64 not implemented, TGran16 not implemented.
        let value = visible(SystemRegister::ID_AA64MMFR0_EL1, 0xff00_0000).unwrap();
        assert_eq!((field(value, 28), field(value, 24), field(value, 20)), (0xf, 0xf, 0));
        // TGran4 and TGran16 with LPA2.
        let value = visible(SystemRegister::ID_AA64MMFR0_EL1, 0x1020_0000).unwrap();
        assert_eq!((field(value, 28), field(value, 24), field(value, 20)), (0, 0, 1));
    }

    #[test]
    fn nothing_of_virtualization_reaches_a_guest() {
        let mmfr1 = greedy(SystemRegister::ID_AA64MMFR1_EL1);
        for (shift, name) in [(8, "VH"), (16, "LO"), (28, "XNX"), (32, "TWED"), (40, "HCX")] {
            assert_eq!(field(mmfr1, shift), 0, "{name}");
        }
        let mmfr2 = greedy(SystemRegister::ID_AA64MMFR2_EL1);
        for (shift, name) in [(12, "IESB"), (24, "NV"), (40, "FWB"), (56, "EVT")] {
            assert_eq!(field(mmfr2, shift), 0, "{name}");
        }
        let mmfr0 = greedy(SystemRegister::ID_AA64MMFR0_EL1);
        assert_eq!((field(mmfr0, 56), field(mmfr0, 60)), (0, 0), "FGT and ECV");
        assert_eq!(field(greedy(SystemRegister::ID_PFR1_EL1), 12), 0, "AArch32 virtualization");
    }

    #[test]
    fn cortex_a53_loses_nothing_that_linux_uses() {
        // CRC32, SHA2, SHA1, AES; 40-bit addresses, 16-bit ASIDs, 4 and 64 KiB granules.
        assert_eq!(visible(SystemRegister::ID_AA64ISAR0_EL1, 0x0001_1120), Some(0x0001_1120));
        assert_eq!(visible(SystemRegister::ID_AA64MMFR0_EL1, 0x0000_1122), Some(0x0000_0022));
        assert_eq!(visible(SystemRegister::ID_AA64PFR0_EL1, 0x0100_2222), Some(0x0100_0012));
        assert_eq!(visible(SystemRegister::ID_AA64DFR0_EL1, 0x1030_5106), Some(0x00f0_1030_5006));
        assert_eq!(visible(SystemRegister::ID_ISAR5_EL1, 0x0001_1121), Some(0x0001_1121));
        assert_eq!(visible(SystemRegister::ID_MMFR0_EL1, 0x1020_1105), Some(0x1020_1105));
    }

    #[test]
    fn performance_monitors_are_hidden_from_aarch32_too() {
        let value = greedy(SystemRegister::ID_DFR0_EL1);
        assert_eq!((field(value, 24), field(value, 20), field(value, 12), field(value, 28)), (0, 0, 0, 0));
        assert_eq!(field(value, 0), 6);
    }

    #[test]
    fn registers_that_are_unallocated_or_hidden_whole_read_as_zero() {
        for register in [
            SystemRegister::ID_AA64ZFR0_EL1,
            SystemRegister::ID_AA64SMFR0_EL1,
            SystemRegister::ID_AA64PFR2_EL1,
            SystemRegister::ID_AA64DFR1_EL1,
            SystemRegister::ID_AA64AFR0_EL1,
            SystemRegister::ID_AA64MMFR3_EL1,
            SystemRegister::ID_AA64MMFR4_EL1,
            SystemRegister::ID_AFR0_EL1,
            SystemRegister::new(3, 0, 0, 3, 3),
            SystemRegister::new(3, 0, 0, 7, 7),
        ] {
            assert_eq!(visible(register, u64::MAX), Some(0), "{register}");
        }
    }

    #[test]
    fn other_registers_are_not_answered() {
        for register in [SystemRegister::REVIDR_EL1, SystemRegister::ICC_SRE_EL1, SystemRegister::new(3, 0, 0, 8, 0)] {
            assert_eq!(visible(register, 0), None, "{register}");
        }
    }

    #[test]
    fn no_field_of_any_register_overlaps_another() {
        for crm in 1..=7 {
            for op2 in 0..=7 {
                let register = SystemRegister::new(3, 0, 0, crm, op2);
                let mut seen = 0_u64;
                for field in super::fields::of(register) {
                    assert!(field.shift <= 60 && field.shift % 4 == 0, "{register}");
                    assert_eq!(seen & 0xf << field.shift, 0, "{register} bits {}", field.shift);
                    seen |= 0xf << field.shift;
                }
            }
        }
    }
}
