//! What a guest may expect of PSCI (Arm DEN0022) and of the SMC calling convention (Arm DEN0028).
//!
//! Natively QEMU is the firmware and knows HVC only; what it lacks or does otherwise is tested under Bulkhead alone.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use rt::machine::Conduit;
use rt::psci::{self, Affinity, Error, function};
use rt::{cpu, gic, interrupts, machine, println, smccc, timer};
use testkit::{Outcome, ensure, report};

rt::entry!(main);

const ROUNDS: usize = 50;
const SOON_MICROSECONDS: u64 = 2_000_000;
static ARRIVALS: AtomicUsize = AtomicUsize::new(0);
static ARRIVED_AS: AtomicU64 = AtomicU64::new(0);

fn main() -> ! {
    report::test("PSCI is version 1.0 or later", version);
    report::test("the functions that exist say so, and others do not", features);
    report::test("migration is not required", || {
        let kind = psci::call(function::MIGRATE_INFO_TYPE, [0; 3]);
        ensure!(kind == Ok(2) || kind == Err(Error::NotSupported), "MIGRATE_INFO_TYPE answered {kind:?}");
        Ok(())
    });
    report::test("a CPU that is on cannot be turned on", || {
        expect_error(psci::cpu_on(cpu::affinity(), cpu::entry_address(), 0), Error::AlreadyOn)
    });
    report::test("a CPU that does not exist cannot be turned on", || {
        for target in [0xff, 0xff00, 0x80_0000_0000, cpu::CPUS_MAX as u64] {
            expect_error(psci::cpu_on(target, cpu::entry_address(), 0), Error::InvalidParameters)?;
        }
        Ok(())
    });
    report::test("this CPU is on, and one that does not exist is neither on nor off", affinities);
    report::test("a standby suspend ends with the timer's interrupt", suspend);
    report::test("a suspend with reserved bits, or a level that does not exist, is refused", || {
        for bit in 17..32 {
            let answer = psci::call(function::CPU_SUSPEND, [1 << bit, cpu::entry_address(), 0]);
            ensure!(answer == Err(Error::InvalidParameters), "with bit {bit} it answered {answer:?}");
        }
        Ok(())
    });
    others();
    conventions();
    report::finish()
}

fn expect_error(answer: Result<(), Error>, expected: Error) -> Outcome {
    ensure!(answer == Err(expected), "the answer was {answer:?}, not {expected:?}");
    Ok(())
}

fn version() -> Outcome {
    let version = psci::call(function::VERSION, [0; 3])?;
    println!("PSCI version {}.{}", version >> 16, version & 0xffff);
    ensure!(version >= 0x1_0000, "it is {version:#x}");
    Ok(())
}

fn features() -> Outcome {
    use function::{AFFINITY_INFO, CPU_OFF, CPU_ON, CPU_SUSPEND, FEATURES, SYSTEM_OFF, SYSTEM_RESET, VERSION};
    for function in [VERSION, CPU_SUSPEND, CPU_OFF, CPU_ON, AFFINITY_INFO, SYSTEM_OFF, SYSTEM_RESET, FEATURES] {
        let answer = psci::call(FEATURES, [function, 0, 0]);
        ensure!(answer.is_ok(), "PSCI_FEATURES of {function:#x} answered {answer:?}");
    }
    for function in [0x8400_ffff, 0xc400_00ff, 0xffff_ffff, 0] {
        let answer = psci::call(FEATURES, [function, 0, 0]);
        ensure!(answer == Err(Error::NotSupported), "PSCI_FEATURES of {function:#x} answered {answer:?}");
    }
    Ok(())
}

fn affinities() -> Outcome {
    let state = psci::affinity_info(cpu::affinity())?;
    ensure!(state == Affinity::On, "this CPU is {state:?}");
    let absent = psci::affinity_info(0xff00);
    ensure!(absent == Err(Error::InvalidParameters), "a CPU that does not exist is {absent:?}");
    Ok(())
}

fn suspend() -> Outcome {
    gic::init();
    gic::init_cpu();
    gic::enable(timer::VIRTUAL_TIMER);
    for _ in 0..10 {
        let deadline = timer::now() + timer::ticks(2000);
        timer::arm(deadline);
        // Power state 0: standby, keeps everything (DEN0022 5.4.2). It may end early, so it is a loop as in any kernel.
        while timer::now() < deadline {
            psci::call(function::CPU_SUSPEND, [0, cpu::entry_address(), 0])?;
        }
        let came = testkit::acknowledge_within(SOON_MICROSECONDS);
        timer::disarm();
        ensure!(came == Some(timer::VIRTUAL_TIMER), "{came:?} came, not the timer");
        gic::end(timer::VIRTUAL_TIMER);
    }
    Ok(())
}

fn others() {
    if cpu::count() < 2 {
        report::skip("turning other CPUs on and off", "the guest has one CPU");
        return;
    }
    if machine().under_bulkhead {
        report::test("a CPU cannot be started outside of memory", outside_of_memory);
        report::test("no start that was refused has turned the CPU on", || expect_affinity(1, Affinity::Off));
    } else {
        report::skip("a CPU cannot be started outside of memory", "QEMU does not check the address");
    }
    report::test("fifty rounds of CPU_ON and CPU_OFF", rounds);
    report::test("a CPU starts with its context, masked, and knows who it is", || {
        let as_whom = ARRIVED_AS.load(Ordering::Acquire);
        let expected = machine().cpus[1];
        ensure!(as_whom == expected, "CPU 1 found affinity {as_whom:#x}, not {expected:#x}");
        Ok(())
    });
    report::test("a CPU that is turning on cannot be turned on again", twice);
    report::test("all CPUs run at once", all_at_once);
}

fn outside_of_memory() -> Outcome {
    let target = machine().cpus[1];
    let end = machine().memory.last().map_or(0, rt::machine::Region::end);
    for entry in [0, machine().distributor.start, end, 0xffff_ffff_0000_0000] {
        let answer = psci::cpu_on(target, entry, 0);
        ensure!(answer == Err(Error::InvalidAddress), "CPU_ON at {entry:#x} answered {answer:?}");
    }
    Ok(())
}

fn expect_affinity(index: usize, expected: Affinity) -> Outcome {
    let state = psci::affinity_info(machine().cpus[index])?;
    ensure!(state == expected, "CPU {index} is {state:?}, not {expected:?}");
    Ok(())
}

fn wait_until_off(index: usize) -> Outcome {
    let off = || psci::affinity_info(machine().cpus[index]) == Ok(Affinity::Off);
    ensure!(timer::wait_until(SOON_MICROSECONDS, off), "CPU {index} did not turn off");
    Ok(())
}

/// What a started CPU does: it says that it is here, and turns off by returning.
fn arrive(_: usize) {
    ARRIVED_AS.store(cpu::affinity(), Ordering::Release);
    ARRIVALS.fetch_add(1, Ordering::AcqRel);
}

fn arrivals() -> usize {
    ARRIVALS.load(Ordering::Acquire)
}

fn rounds() -> Outcome {
    for round in 1..=ROUNDS {
        let before = arrivals();
        cpu::start(1, arrive)?;
        ensure!(timer::wait_until(SOON_MICROSECONDS, || arrivals() > before), "CPU 1 did not come in round {round}");
        wait_until_off(1)?;
        ensure!(arrivals() == before + 1, "CPU 1 came {} times in round {round}", arrivals() - before);
    }
    Ok(())
}

fn twice() -> Outcome {
    // It runs until it is let go, and not for some time: this CPU may be the one that waits meanwhile.
    static MAY_END: AtomicBool = AtomicBool::new(false);
    let hold = |_: usize| {
        ARRIVALS.fetch_add(1, Ordering::AcqRel);
        timer::wait_until(SOON_MICROSECONDS, || MAY_END.load(Ordering::Acquire));
    };
    let before = arrivals();
    MAY_END.store(false, Ordering::Release);
    cpu::start(1, hold)?;
    let again = cpu::start(1, hold);
    ensure!(matches!(again, Err(Error::OnPending | Error::AlreadyOn)), "the second CPU_ON answered {again:?}");
    ensure!(timer::wait_until(SOON_MICROSECONDS, || arrivals() > before), "CPU 1 did not come");
    let running = cpu::start(1, hold);
    MAY_END.store(true, Ordering::Release);
    ensure!(running == Err(Error::AlreadyOn), "CPU_ON of a running CPU answered {running:?}");
    wait_until_off(1)?;
    ensure!(arrivals() == before + 1, "CPU 1 came {} times", arrivals() - before);
    Ok(())
}

fn all_at_once() -> Outcome {
    // Each waits for all, so this ends only if all run at once.
    let before = arrivals();
    let all = before + cpu::count() - 1;
    for index in 1..cpu::count() {
        cpu::start(index, |_| {
            ARRIVALS.fetch_add(1, Ordering::AcqRel);
            timer::spin(5000);
        })?;
    }
    ensure!(timer::wait_until(SOON_MICROSECONDS, || arrivals() == all), "only {} came", arrivals() - before);
    (1..cpu::count()).try_for_each(wait_until_off)
}

fn conventions() {
    interrupts::mask();
    report::test("an HVC with an unknown number is answered NOT_SUPPORTED", || unknown_is_refused(Conduit::Hvc));
    report::test("an HVC keeps the registers that it does not answer in", || preserved(Conduit::Hvc));
    if machine().under_bulkhead {
        report::test("SMCCC is version 1.1 or later", smccc_version);
        report::test("an SMC is answered like an HVC", smc_like_hvc);
        report::test("an SMC with an unknown number is answered NOT_SUPPORTED", || unknown_is_refused(Conduit::Smc));
        report::test("a call of every owner that is not for this guest is answered NOT_SUPPORTED", foreign_calls);
        report::test("an SMC keeps the registers that it does not answer in", || preserved(Conduit::Smc));
        report::test("a call with a non-zero immediate does no harm", immediates);
        report::test("TRNG never gives the same numbers twice", random_numbers);
    } else {
        report::skip("SMC and SMCCC discovery", "without a hypervisor there is nobody to answer");
    }
}

fn unknown_is_refused(conduit: Conduit) -> Outcome {
    for function in [0x8400_00ff, 0xc400_00ff, 0x8300_0000, 0xc200_1234, 0xbf00_ffff, 0xffff_ffff] {
        let [answer, ..] = smccc::call(conduit, function, [1, 2, 3])?;
        ensure!(answer as u32 == u32::MAX, "{function:#x} was answered {answer:#x}");
    }
    Ok(())
}

/// Calls of every owning entity of the convention that has none for guests, and Bulkhead's calls of backend VMs.
fn foreign_calls() -> Outcome {
    let owners =
        [1, 2, 3, 5, 7, 50].into_iter().flat_map(|owner| [0x8000_0000, 0xc000_0000].map(|width| width | owner << 24));
    let backends = abi::io::FUNCTION_ATTACH..=abi::io::FUNCTION_COMPLETE;
    for function in owners.chain(backends.map(u64::from)) {
        for conduit in [Conduit::Hvc, Conduit::Smc] {
            let [answer, ..] = smccc::call(conduit, function, [0; 3])?;
            ensure!(answer == smccc::NOT_SUPPORTED, "{function:#x} was answered {answer:#x}");
        }
    }
    Ok(())
}

fn preserved(conduit: Conduit) -> Outcome {
    for function in [function::VERSION, 0xc400_00ff] {
        ensure!(smccc::preserves_registers(conduit, function)?, "{function:#x} changed one of x4 to x17");
    }
    Ok(())
}

fn smccc_version() -> Outcome {
    let [version, ..] = smccc::firmware(smccc::VERSION, [0; 3])?;
    ensure!(version as u32 as i32 >= 0x1_0001, "it is {version:#x}");
    let [itself, ..] = smccc::firmware(smccc::ARCH_FEATURES, [smccc::VERSION, 0, 0])?;
    ensure!(itself as u32 as i32 >= 0, "SMCCC_ARCH_FEATURES of SMCCC_VERSION is {itself:#x}");
    let [unknown, ..] = smccc::firmware(smccc::ARCH_FEATURES, [0x8000_7fff, 0, 0])?;
    ensure!(unknown as u32 == u32::MAX, "SMCCC_ARCH_FEATURES of an unknown function is {unknown:#x}");
    Ok(())
}

fn smc_like_hvc() -> Outcome {
    for function in [function::VERSION, function::MIGRATE_INFO_TYPE, smccc::VERSION] {
        let [hvc, ..] = smccc::call(Conduit::Hvc, function, [0; 3])?;
        let [smc, ..] = smccc::call(Conduit::Smc, function, [0; 3])?;
        ensure!(hvc == smc, "{function:#x} is answered {hvc:#x} by HVC and {smc:#x} by SMC");
    }
    Ok(())
}

fn immediates() -> Outcome {
    // SMCCC 2.9 reserves them; an answer or an undefined instruction are both right.
    for outcome in [
        smccc::hvc::<1>(function::VERSION, [0; 3]),
        smccc::hvc::<0xffff>(function::VERSION, [0; 3]),
        smccc::smc::<1>(function::VERSION, [0; 3]),
        smccc::smc::<0xffff>(function::VERSION, [0; 3]),
    ] {
        if let Err(abort) = outcome {
            ensure!(abort.is_undefined(), "it met another exception: {abort}");
        }
    }
    Ok(())
}

fn random_numbers() -> Outcome {
    const TRNG_RND64: u64 = 0xc400_0053;
    const NO_ENTROPY: u64 = -3_i64 as u64;
    let [first, second] = [smccc::firmware(TRNG_RND64, [192, 0, 0])?, smccc::firmware(TRNG_RND64, [192, 0, 0])?];
    if first[0] == NO_ENTROPY {
        // Another CPU is off, and so cannot be in the way: there is none at all.
        ensure!(second[0] == NO_ENTROPY, "it has no entropy, and then answers {:#x}", second[0]);
        println!("TRNG has no entropy");
        return Ok(());
    }
    ensure!(first[0] == 0 && second[0] == 0, "it answers {:#x} and {:#x}", first[0], second[0]);
    ensure!(first[1..] != second[1..], "they are {:x?}", &first[1..]);
    println!("TRNG gives numbers");
    Ok(())
}
