//! Waits that must be waits: what can never come wakes nobody, and leaves the core to the neighbours.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use rt::psci::{self, Affinity, function};
use rt::{cpu, gic, interrupts, machine, println, timer};
use testkit::{Outcome, ensure, report};

static OVER: AtomicBool = AtomicBool::new(false);
static WAKES: AtomicU64 = AtomicU64::new(0);
/// A wait may end early now and then (Arm ARM D1.6.2), but not as a rule.
const WAKES_MAX: u64 = 100;

pub(crate) fn run() {
    report::test("a CPU whose timer is off sleeps", || sleep(|_| sleeper(timer::disarm)));
    report::test("a CPU whose timer is due but masked sleeps", || sleep(|_| sleeper(|| timer::arm_masked(0))));
    report::test("a CPU whose timer is due at the end of time sleeps", || sleep(|_| sleeper(|| timer::arm(u64::MAX))));
    report::test("a CPU whose timer's interrupt is disabled sleeps", || {
        sleep(|_| {
            sleeper(|| {
                gic::disable(timer::VIRTUAL_TIMER);
                timer::arm(0);
            });
        })
    });
    report::test("a CPU that suspends itself sleeps until the end of time", || {
        sleep(|_| {
            gic::init_cpu();
            [1, timer::VIRTUAL_TIMER].into_iter().for_each(gic::enable);
            timer::arm(u64::MAX);
            count_wakes(|| {
                let _ = psci::call(function::CPU_SUSPEND, [0; 3]);
            });
        })
    });
}

fn sleep(main: fn(usize)) -> Outcome {
    gic::init();
    OVER.store(false, Ordering::Release);
    WAKES.store(0, Ordering::Release);
    cpu::start(1, main)?;
    timer::spin(machine().number("milliseconds", 500) * 1000);
    OVER.store(true, Ordering::Release);
    gic::send_sgi(1, gic::Target::Cpu(1));
    let off = || psci::affinity_info(machine().cpus[1]) == Ok(Affinity::Off);
    ensure!(timer::wait_until(2_000_000, off), "CPU 1 did not wake");
    let wakes = WAKES.load(Ordering::Acquire);
    println!("wakes={wakes}");
    ensure!((1..=WAKES_MAX).contains(&wakes), "it woke {wakes} times");
    Ok(())
}

fn sleeper(arm: fn()) {
    gic::init_cpu();
    [1, timer::VIRTUAL_TIMER].into_iter().for_each(gic::enable);
    arm();
    count_wakes(interrupts::wait);
    timer::disarm();
}

fn count_wakes(wait: fn()) {
    while !OVER.load(Ordering::Acquire) {
        wait();
        WAKES.fetch_add(1, Ordering::AcqRel);
    }
}
