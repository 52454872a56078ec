//! Turning CPUs on and off while others do the same, with their interrupts in disorder. What PSCI answers in peace is
//! tested by `psci`.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use rt::gic::{self, Target, Trigger};
use rt::psci::{self, Affinity, Error};
use rt::{cpu, interrupts, machine, timer};
use testkit::{Outcome, ensure, report};

const SOON_MICROSECONDS: u64 = 3_000_000;
const ROUNDS: u64 = 50;
/// Two SPIs that no device has.
const EDGE: u32 = 70;
const HELD: u32 = 71;
static STARTED: AtomicU64 = AtomicU64::new(0);
static WON: AtomicU64 = AtomicU64::new(0);
static WRONG: AtomicU64 = AtomicU64::new(0);
static OVER: AtomicBool = AtomicBool::new(false);

pub(crate) fn run() {
    report::test("a CPU turned on from the same core, and from others, starts", each_starts);
    if machine().under_bulkhead {
        report::test("of all who turn one CPU on at once, one wins, and it starts once", race);
    } else {
        report::skip("turning one CPU on from all others at once", "QEMU's own PSCI answers before the CPU is on");
    }
    report::test("a timer that was due when its CPU was turned off is not when it is on again", timer_is_forgotten);
    report::test("an interrupt that was pending for a CPU that turned itself off is not lost", pending_is_kept);
    report::test("a CPU that turns itself off in its handler leaves the machine in order", off_in_handler);
}

fn is_off(index: usize) -> bool {
    psci::affinity_info(machine().cpus[index]) == Ok(Affinity::Off)
}

fn wait_until_off(index: usize) -> Outcome {
    ensure!(timer::wait_until(SOON_MICROSECONDS, || is_off(index)), "CPU {index} did not turn itself off");
    Ok(())
}

fn each_starts() -> Outcome {
    for index in 1..cpu::count() {
        let before = STARTED.load(Ordering::Acquire);
        cpu::start(index, |_| {
            STARTED.fetch_add(1, Ordering::AcqRel);
        })?;
        // Without a call or a wait: the hypervisor has no other reason to look.
        let came = timer::wait_until(SOON_MICROSECONDS, || STARTED.load(Ordering::Acquire) > before);
        ensure!(came, "CPU {index} did not start");
        wait_until_off(index)?;
    }
    Ok(())
}

/// The last CPU is what the others turn on, as fast as it turns itself off.
fn race() -> Outcome {
    let last = cpu::count() - 1;
    STARTED.store(0, Ordering::Release);
    for index in 1..last {
        cpu::start(index, |_| {
            while !OVER.load(Ordering::Acquire) {
                contend();
            }
        })?;
    }
    let until = timer::now() + timer::ticks(SOON_MICROSECONDS);
    while WON.load(Ordering::Acquire) < ROUNDS && timer::now() < until {
        contend();
    }
    OVER.store(true, Ordering::Release);
    (1..=last).try_for_each(wait_until_off)?;
    let (won, started) = (WON.load(Ordering::Acquire), STARTED.load(Ordering::Acquire));
    ensure!(won >= ROUNDS, "only {won} of {ROUNDS} rounds came to an end");
    ensure!(won == started, "{won} calls succeeded, and the CPU started {started} times");
    ensure!(WRONG.load(Ordering::Acquire) == 0, "a call was answered with neither of the three answers that are right");
    Ok(())
}

fn contend() {
    let answer = cpu::start(cpu::count() - 1, |_| {
        STARTED.fetch_add(1, Ordering::AcqRel);
    });
    match answer {
        Ok(()) => WON.fetch_add(1, Ordering::AcqRel),
        Err(Error::AlreadyOn | Error::OnPending) => 0,
        Err(_) => WRONG.fetch_add(1, Ordering::AcqRel),
    };
}

fn timer_is_forgotten() -> Outcome {
    gic::init();
    cpu::start(1, |_| {
        gic::init_cpu();
        gic::disable(timer::VIRTUAL_TIMER);
        timer::arm(timer::now());
        timer::spin(1000);
    })?;
    wait_until_off(1)?;
    STARTED.store(0, Ordering::Release);
    cpu::start(1, |_| {
        let pending = gic::is_pending(timer::VIRTUAL_TIMER) && !timer::condition_met();
        STARTED.store(if pending { 2 } else { 1 }, Ordering::Release);
    })?;
    wait_until_off(1)?;
    ensure!(STARTED.load(Ordering::Acquire) == 1, "GICR_ISPENDR0 shows it pending, although the timer is off");
    Ok(())
}

/// CPU 1 holds an interrupt back by its priority mask, and turns itself off; then it is for CPU 0.
fn pending_is_kept() -> Outcome {
    gic::init();
    gic::init_cpu();
    gic::set_trigger(EDGE, Trigger::Edge);
    gic::route(EDGE, 1);
    gic::enable(EDGE);
    cpu::start(1, |_| {
        gic::init_cpu();
        gic::set_mask(0);
        gic::set_pending(EDGE);
        timer::spin(1000);
    })?;
    wait_until_off(1)?;
    gic::route(EDGE, 0);
    let came = testkit::acknowledge_within(SOON_MICROSECONDS / 10);
    ensure!(came == Some(EDGE), "{came:?} came, not interrupt {EDGE}");
    gic::end(EDGE);
    Ok(())
}

fn off_in_handler() -> Outcome {
    gic::init();
    gic::init_cpu();
    gic::set_trigger(HELD, Trigger::Edge);
    gic::route(HELD, 1);
    gic::enable(HELD);
    for _ in 0..20 {
        cpu::start(1, |_| {
            gic::init_cpu();
            gic::clear_active(HELD);
            (0..16).for_each(gic::enable);
            gic::set_pending(HELD);
            // Acknowledged, and never ended.
            let _ = testkit::acknowledge_within(SOON_MICROSECONDS);
            gic::send_sgi(3, Target::Cpu(1));
        })?;
        wait_until_off(1)?;
    }
    gic::clear_active(HELD);
    gic::route(HELD, 0);
    gic::set_pending(HELD);
    let came = testkit::acknowledge_within(SOON_MICROSECONDS / 10);
    ensure!(came == Some(HELD), "{came:?} came, not interrupt {HELD}");
    gic::end(HELD);
    interrupts::mask();
    Ok(())
}
