//! The EL1 timers as interrupt sources.

use crate::{eventually, expect, expect_quiet, test};
use core::sync::atomic::{AtomicU32, Ordering};
use rt::timer::{self, PHYSICAL_TIMER, VIRTUAL_TIMER};
use rt::{gic, interrupts};
use testkit::{Outcome, ensure};

static TICKS: AtomicU32 = AtomicU32::new(0);

pub(crate) fn run() {
    test("the virtual timer comes as PPI 27, not before its time", virtual_timer);
    test("the physical timer comes as PPI 30, not before its time", physical_timer);
    test("the virtual timer comes again until it is turned off", timer_again);
    test("a masked timer meets its condition without an interrupt", masked);
    test("a disabled timer interrupt comes when it is enabled", enabled_late);
    test("a timer turned off before its acknowledgement does not come", turned_off);
    test("GICR_ISPENDR0 follows a timer's line, enabled or not, active or not", pending_follows_line);
    test("a deadline in the past comes at once", past);
    test("waiting ends with the timer, interrupts masked or not", wait);
}

fn virtual_timer() -> Outcome {
    gic::enable(VIRTUAL_TIMER);
    for microseconds in [100, 1000, 20_000] {
        let deadline = timer::now() + timer::ticks(microseconds);
        timer::arm(deadline);
        let result = expect(VIRTUAL_TIMER);
        let now = timer::now();
        timer::disarm();
        result?;
        gic::end(VIRTUAL_TIMER);
        ensure!(now >= deadline, "it came {} ticks early", deadline - now);
    }
    expect_quiet()
}

fn physical_timer() -> Outcome {
    gic::enable(PHYSICAL_TIMER);
    let deadline = timer::physical_now() + timer::ticks(1000);
    timer::arm_physical(deadline);
    let result = expect(PHYSICAL_TIMER);
    let now = timer::physical_now();
    timer::disarm_physical();
    result?;
    gic::end(PHYSICAL_TIMER);
    ensure!(now >= deadline, "it came {} ticks early", deadline - now);
    expect_quiet()
}

/// Runs `body` and turns the timer off whatever it finds.
fn with_timer(body: impl FnOnce() -> Outcome) -> Outcome {
    let result = body();
    timer::disarm();
    result
}

fn timer_again() -> Outcome {
    with_timer(|| {
        gic::enable(VIRTUAL_TIMER);
        timer::arm(timer::now());
        for _ in 0..5 {
            expect(VIRTUAL_TIMER)?;
            gic::end(VIRTUAL_TIMER);
        }
        expect(VIRTUAL_TIMER)?;
        timer::disarm();
        gic::end(VIRTUAL_TIMER);
        expect_quiet()
    })
}

fn masked() -> Outcome {
    with_timer(|| {
        gic::enable(VIRTUAL_TIMER);
        timer::arm_masked(timer::now() + timer::ticks(100));
        eventually("CNTV_CTL_EL0.ISTATUS is set", timer::condition_met)?;
        expect_quiet()?;
        timer::arm(timer::now());
        expect(VIRTUAL_TIMER)?;
        timer::disarm();
        gic::end(VIRTUAL_TIMER);
        Ok(())
    })
}

fn enabled_late() -> Outcome {
    with_timer(|| {
        timer::arm(timer::now());
        expect_quiet()?;
        ensure!(gic::is_pending(VIRTUAL_TIMER), "GICR_ISPENDR0 does not show it");
        gic::enable(VIRTUAL_TIMER);
        expect(VIRTUAL_TIMER)?;
        timer::disarm();
        gic::end(VIRTUAL_TIMER);
        expect_quiet()
    })
}

fn turned_off() -> Outcome {
    with_timer(|| {
        timer::arm(timer::now());
        timer::spin(100);
        timer::disarm();
        gic::enable(VIRTUAL_TIMER);
        expect_quiet()
    })
}

fn pending_follows_line() -> Outcome {
    let is = |pending: bool, when: &str| {
        let reads = gic::is_pending(VIRTUAL_TIMER);
        ensure!(reads == pending, "it reads {} {when}", if reads { "pending" } else { "not pending" });
        Ok(())
    };
    with_timer(|| {
        for enabled in [false, true] {
            if enabled {
                gic::enable(VIRTUAL_TIMER);
            }
            is(false, "before the timer is armed")?;
            timer::arm(timer::now());
            is(true, "at once when the deadline is past")?;
            timer::arm_masked(timer::now());
            is(false, "with IMASK")?;
            timer::arm(timer::now());
            is(true, "without IMASK")?;
            timer::arm(u64::MAX);
            is(false, "with a deadline that is put off")?;
            timer::arm(0);
            is(true, "when it is due again")?;
            timer::disarm();
            is(false, "when the timer is off")?;
        }
        expect_quiet()?;
        timer::arm(timer::now());
        expect(VIRTUAL_TIMER)?;
        is(true, "while it is active and its line is high")?;
        ensure!(gic::is_active(VIRTUAL_TIMER), "it is not active after the acknowledgement");
        timer::disarm();
        is(false, "while it is active and its line is low")?;
        gic::end(VIRTUAL_TIMER);
        expect_quiet()
    })
}

fn past() -> Outcome {
    with_timer(|| {
        gic::enable(VIRTUAL_TIMER);
        timer::arm(0);
        expect(VIRTUAL_TIMER)?;
        timer::disarm();
        gic::end(VIRTUAL_TIMER);
        Ok(())
    })
}

fn wait() -> Outcome {
    with_timer(|| {
        TICKS.store(0, Ordering::Relaxed);
        interrupts::set_handler(|_, _| {
            TICKS.fetch_add(1, Ordering::Relaxed);
            timer::disarm();
        });
        gic::enable(VIRTUAL_TIMER);
        for round in 1..=20 {
            let deadline = timer::now() + timer::ticks(500);
            timer::arm(deadline);
            while timer::now() < deadline {
                interrupts::wait();
            }
            // The interrupt is pending now; it is taken as soon as it is let in.
            interrupts::unmask();
            let taken = timer::wait_until(crate::SOON_MICROSECONDS, || TICKS.load(Ordering::Relaxed) == round);
            interrupts::mask();
            ensure!(taken, "tick {round} was not taken");
        }
        Ok(())
    })
}
