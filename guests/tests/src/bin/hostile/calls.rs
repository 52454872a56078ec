//! Calls to the hypervisor by numbers that nobody has assigned.

use crate::test_under_bulkhead;
use rt::machine::Conduit;
use rt::smccc;
use testkit::random::Random;
use testkit::{Outcome, ensure, report};

const CALLS: u32 = 2000;

pub(crate) fn run(random: &mut Random) {
    report::test("random HVC numbers are answered NOT_SUPPORTED", || random_calls(Conduit::Hvc, random));
    test_under_bulkhead("random SMC numbers are answered NOT_SUPPORTED", || random_calls(Conduit::Smc, random));
    test_under_bulkhead("calls with random arguments do no harm", || random_arguments(random));
}

/// Whether somebody may have assigned `function` (DEN0028 2.5): the services of the architecture, of PSCI and TRNG, and
/// of the hypervisor.
fn assigned(function: u64) -> bool {
    let service = function >> 24 & 0x3f;
    let fast = function >> 31 & 1 == 1;
    fast && matches!(service, 0 | 4 | 6)
}

fn random_calls(conduit: Conduit, random: &mut Random) -> Outcome {
    for _ in 0..CALLS {
        let function = random.word() & 0xffff_ffff;
        if assigned(function) {
            continue;
        }
        let arguments = [random.word(), random.word(), random.word()];
        let [answer, ..] = smccc::call(conduit, function, arguments)?;
        ensure!(answer as u32 == u32::MAX, "{conduit:?} {function:#x} was answered {answer:#x}");
    }
    Ok(())
}

/// Functions that only tell something, with arguments that no caller would pass; any answer will do.
fn random_arguments(random: &mut Random) -> Outcome {
    use rt::psci::function::{AFFINITY_INFO, CPU_ON, FEATURES, MIGRATE_INFO_TYPE, VERSION};
    // TRNG (DEN0098), and the hypervisor's own services.
    const OTHERS: [u64; 8] =
        [0x8400_0050, 0x8400_0051, 0x8400_0053, 0xc400_0053, 0x8600_ff01, 0x8600_ff03, 0xc600_0000, 0x8600_0001];
    for _ in 0..CALLS {
        let functions = [VERSION, FEATURES, AFFINITY_INFO, MIGRATE_INFO_TYPE, smccc::VERSION, smccc::ARCH_FEATURES];
        let arguments = [random.word(), random.word(), random.word()];
        let conduit = if random.below(2) == 0 { Conduit::Hvc } else { Conduit::Smc };
        for function in functions.into_iter().chain(OTHERS) {
            smccc::call(conduit, function, arguments)?;
        }
        // CPU_ON of a CPU that cannot exist: bits 31:24 of an affinity are zero.
        smccc::call(conduit, CPU_ON, [arguments[0] | 0xff00_0000, arguments[1], arguments[2]])?;
    }
    Ok(())
}
