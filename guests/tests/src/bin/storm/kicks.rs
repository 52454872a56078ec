//! CPU 0 changes the interrupts of CPU 1, which sleeps on a core that a neighbour computes on: it wakes that CPU, and
//! takes the reason back before it can run for it. Each change may make the hypervisor interrupt that core, at the
//! neighbour's cost.

use core::sync::atomic::{AtomicBool, Ordering};
use rt::probe::{self, Width};
use rt::{cpu, gic, interrupts, println, timer};
use testkit::{Outcome, ensure, report};

static OVER: AtomicBool = AtomicBool::new(false);
/// Pending all the time, and enabled for moments.
const FLEETING: u32 = 5;

pub(crate) fn run() {
    report::test("changing a sleeping CPU's interrupts without end comes to an end", storm);
}

fn storm() -> Outcome {
    gic::init();
    cpu::start(1, |_| {
        gic::init_cpu();
        gic::enable(1);
        while !OVER.load(Ordering::Acquire) {
            interrupts::wait();
        }
    })?;
    let Some(frame) = gic::redistributor(1) else {
        ensure!(false, "CPU 1 has no redistributor");
        return Ok(());
    };
    let registers = frame + gic::offset::SGI_FRAME;
    // CPU 1 comes to sleep, and the neighbour learns how fast it is undisturbed.
    timer::spin(200_000);
    probe::write(registers + gic::offset::ISPENDR, Width::Word, 1 << FLEETING)?;
    let end = crate::end();
    let mut rounds = 0_u64;
    while timer::now() < end {
        for _ in 0..100 {
            probe::write(registers + gic::offset::IPRIORITYR + u64::from(FLEETING), Width::Byte, rounds & 0xf8)?;
            probe::write(registers + gic::offset::ISENABLER, Width::Word, 1 << FLEETING)?;
            probe::write(registers + gic::offset::ICENABLER, Width::Word, 1 << FLEETING)?;
            rounds += 1;
        }
    }
    println!("rounds={rounds}");
    OVER.store(true, Ordering::Release);
    gic::send_sgi(1, gic::Target::Cpu(1));
    let gone =
        timer::wait_until(2_000_000, || rt::psci::affinity_info(rt::machine().cpus[1]) == Ok(rt::psci::Affinity::Off));
    ensure!(gone, "CPU 1 did not wake");
    Ok(())
}
