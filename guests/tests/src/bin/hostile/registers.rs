//! System registers: what the ID registers hide must be refused, and what they show must work or do nothing.

use crate::test_under_bulkhead;
use rt::Abort;
use rt::system_registers::{self as id, Feature, PROBED};
use testkit::{Outcome, ensure, report};

pub(crate) fn run() {
    report::test("every ID register can be read", || identification()?.pass());
    report::test("unallocated ID registers read as zero", || {
        let value = id::id_unallocated()?;
        ensure!(value == 0, "one reads {value:#x}");
        Ok(())
    });
    report::test("trapped system registers are undefined or harmless", harmless);
    report::test("registers of EL2 and EL3 are undefined", higher_levels);
    test_under_bulkhead("registers of features that the ID registers hide are undefined", hidden);
    test_under_bulkhead("the ID registers show nothing that is not virtualised", nothing_unvirtualised);
    test_under_bulkhead("the GIC's system registers cannot be turned off", system_register_enable);
}

struct Identification {
    pfr0: u64,
    pfr1: u64,
    dfr0: u64,
    isar1: u64,
    isar2: u64,
    mmfr0: u64,
    mmfr1: u64,
}

impl Identification {
    /// For a test that only wants to know that all could be read.
    fn pass(self) -> Outcome {
        // ID_AA64PFR0_EL1.EL1 is never zero.
        ensure!(field(self.pfr0, 4) != 0, "ID_AA64PFR0_EL1 says that there is no EL1");
        Ok(())
    }

    fn has(&self, feature: Feature) -> bool {
        match feature {
            Feature::Debug | Feature::Implementation | Feature::InterruptController => true,
            Feature::PerformanceMonitors => !matches!(field(self.dfr0, 8), 0 | 0xf),
            Feature::StatisticalProfiling => field(self.dfr0, 32) != 0,
            Feature::Trace => field(self.dfr0, 4) != 0,
            Feature::TraceBuffer => field(self.dfr0, 44) != 0,
            Feature::OrderingRegions => field(self.mmfr1, 16) != 0,
            Feature::ScalableVectors => field(self.pfr0, 32) != 0,
            Feature::ScalableMatrix => field(self.pfr1, 24) != 0,
            Feature::PointerAuthentication => {
                [4, 8, 24, 28].into_iter().any(|shift| field(self.isar1, shift) != 0)
                    || [8, 12].into_iter().any(|shift| field(self.isar2, shift) != 0)
            }
            Feature::MemoryTagging => field(self.pfr1, 8) >= 2,
            Feature::ErrorRecords => field(self.pfr0, 28) != 0,
            Feature::ActivityMonitors => field(self.pfr0, 44) != 0,
            Feature::MemoryPartitioning => field(self.pfr0, 40) != 0 || field(self.pfr1, 16) != 0,
            Feature::HigherLevels => false,
        }
    }
}

fn field(register: u64, shift: u32) -> u64 {
    register >> shift & 0xf
}

fn identification() -> Result<Identification, Abort> {
    id::id_aa64zfr0()?;
    id::id_aa64smfr0()?;
    id::id_aa64isar0()?;
    id::id_aa64mmfr2()?;
    Ok(Identification {
        pfr0: id::id_aa64pfr0()?,
        pfr1: id::id_aa64pfr1()?,
        dfr0: id::id_aa64dfr0()?,
        isar1: id::id_aa64isar1()?,
        isar2: id::id_aa64isar2()?,
        mmfr0: id::id_aa64mmfr0()?,
        mmfr1: id::id_aa64mmfr1()?,
    })
}

/// Class 0, or a trap to EL1 of the guest's own making (an SVE or SME register that CPACR_EL1 has not enabled).
fn refused(abort: Abort) -> bool {
    matches!(abort.class(), 0 | 0x18 | 0x19 | 0x1d)
}

fn harmless() -> Outcome {
    for register in PROBED {
        let value = match (register.read)() {
            Ok(value) => value,
            Err(abort) if refused(abort) => 0,
            Err(abort) => {
                ensure!(false, "reading {} met {abort}", register.name);
                0
            }
        };
        if let Err(abort) = (register.write)(value) {
            ensure!(refused(abort), "writing {} met {abort}", register.name);
        }
    }
    Ok(())
}

fn higher_levels() -> Outcome {
    for register in PROBED.iter().filter(|register| register.feature == Feature::HigherLevels) {
        let read = (register.read)().err();
        ensure!(read.is_some_and(|abort| abort.is_undefined()), "reading {} gave {read:?}", register.name);
        let write = (register.write)(0).err();
        ensure!(write.is_some_and(|abort| abort.is_undefined()), "writing {} gave {write:?}", register.name);
    }
    Ok(())
}

fn hidden() -> Outcome {
    let identification = identification()?;
    for register in PROBED.iter().filter(|register| !identification.has(register.feature)) {
        let read = (register.read)();
        ensure!(read.is_err_and(refused), "{:?} is hidden, and {} reads {read:?}", register.feature, register.name);
    }
    Ok(())
}

fn nothing_unvirtualised() -> Outcome {
    let identification = identification()?;
    for feature in [
        Feature::PerformanceMonitors,
        Feature::StatisticalProfiling,
        Feature::Trace,
        Feature::TraceBuffer,
        Feature::OrderingRegions,
        Feature::ScalableVectors,
        Feature::ScalableMatrix,
        Feature::MemoryTagging,
        Feature::ErrorRecords,
        Feature::ActivityMonitors,
        Feature::MemoryPartitioning,
    ] {
        ensure!(!identification.has(feature), "{feature:?} is shown");
    }
    ensure!(field(identification.pfr0, 8) == 0, "ID_AA64PFR0_EL1 shows EL2");
    ensure!(field(identification.pfr0, 24) == 1, "ID_AA64PFR0_EL1.GIC is {}", field(identification.pfr0, 24));
    ensure!(field(identification.mmfr1, 8) == 0, "ID_AA64MMFR1_EL1 shows VHE");
    ensure!(field(identification.mmfr0, 0) <= 2, "PARange is {}: more than 40 bits", field(identification.mmfr0, 0));
    Ok(())
}

fn system_register_enable() -> Outcome {
    let Some(register) = PROBED.iter().find(|register| register.name == "ICC_SRE_EL1") else {
        ensure!(false, "ICC_SRE_EL1 is not in the list");
        return Ok(());
    };
    // Refused or ignored; what counts is the value afterwards.
    let _ = (register.write)(0);
    let value = (register.read)()?;
    ensure!(value & 1 == 1, "ICC_SRE_EL1 is {value:#x}");
    Ok(())
}
