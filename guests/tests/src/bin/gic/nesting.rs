//! Many interrupts at once: more pending than there are list registers, and deep preemption.

use crate::{SPIS, eventually, expect, expect_and_end, expect_quiet, spi, test};
use core::sync::atomic::{AtomicU32, Ordering};
use rt::gic::{self, Trigger};
use rt::{Outcome, ensure, interrupts, timer};

const DEPTH: u32 = 6;
static TAKEN: [AtomicU32; SPIS as usize] = [const { AtomicU32::new(0) }; SPIS as usize];
static DEEPEST: AtomicU32 = AtomicU32::new(0);
static DEPTH_NOW: AtomicU32 = AtomicU32::new(0);

pub(crate) fn run() {
    test("twelve interrupts at once come in the order of their priority", twelve_in_order);
    test("twenty interrupts of one priority come once each", twenty_once);
    test("an urgent interrupt passes a full queue", urgent_passes);
    test("six interrupts preempt one another and end in reverse order", six_deep);
    test("a less urgent interrupt waits for all that are active", waits_for_active);
    test("six handlers preempt one another by exceptions", six_handlers);
    test("a storm of edges loses none of the other interrupts", storm);
}

fn twelve_in_order() -> Outcome {
    gic::set_mask(0);
    // The n-th of them has rank 5n modulo 12, so neither INTID nor time of arrival is the order.
    for number in 0..12 {
        let rank = number * 5 % 12;
        gic::set_priority(spi(number), (rank * 8 + 0x40) as u8);
        gic::enable(spi(number));
        gic::set_pending(spi(number));
    }
    gic::set_mask(0xff);
    for rank in 0..12 {
        let number = (0..12).find(|number| number * 5 % 12 == rank).unwrap_or(0);
        expect_and_end(spi(number))?;
    }
    expect_quiet()
}

fn twenty_once() -> Outcome {
    let mut left: u32 = (1 << SPIS) - 1;
    for number in 0..SPIS {
        gic::enable(spi(number));
        gic::set_pending(spi(number));
    }
    for _ in 0..SPIS {
        let Some(id) = gic::acknowledge_within(crate::SOON_MICROSECONDS) else {
            ensure!(false, "{} interrupts never came", left.count_ones());
            break;
        };
        let bit = id.checked_sub(spi(0)).and_then(|number| 1_u32.checked_shl(number)).unwrap_or(0);
        ensure!(left & bit != 0, "{id} came, and was not due");
        left &= !bit;
        gic::end(id);
    }
    expect_quiet()
}

fn urgent_passes() -> Outcome {
    gic::set_mask(0);
    for number in 0..12 {
        gic::set_priority(spi(number), 0xc0);
        gic::enable(spi(number));
        gic::set_pending(spi(number));
    }
    let urgent = spi(12);
    gic::set_priority(urgent, 0x10);
    gic::enable(urgent);
    gic::set_pending(urgent);
    gic::set_mask(0xff);
    expect_and_end(urgent)?;
    for _ in 0..12 {
        let id = gic::acknowledge_within(crate::SOON_MICROSECONDS);
        ensure!(id.is_some(), "one of the queue never came");
        gic::end(id.unwrap_or(0));
    }
    expect_quiet()
}

/// The n-th of the nest, each more urgent than the one before.
fn prepare_nest() {
    for number in 0..DEPTH {
        gic::set_trigger(spi(number), Trigger::Edge);
        gic::set_priority(spi(number), nest_priority(number));
        gic::enable(spi(number));
    }
}

fn nest_priority(number: u32) -> u8 {
    (0xc0 - number * 0x20) as u8
}

fn six_deep() -> Outcome {
    prepare_nest();
    for number in 0..DEPTH {
        gic::set_pending(spi(number));
        expect(spi(number))?;
        let running = gic::running_priority();
        ensure!(running == nest_priority(number), "the running priority is {running:#x} at depth {number}");
    }
    expect_quiet()?;
    for number in (0..DEPTH).rev() {
        gic::end(spi(number));
        eventually("an ended interrupt is inactive", || !gic::is_active(spi(number)))?;
        for outer in 0..number {
            ensure!(gic::is_active(spi(outer)), "the end of {} deactivated {}", spi(number), spi(outer));
        }
        let running = gic::running_priority();
        let expected = number.checked_sub(1).map_or(0xff, nest_priority);
        ensure!(running == expected, "the running priority is {running:#x} after the end of depth {number}");
    }
    // Each can come again: nothing stayed active.
    for number in 0..DEPTH {
        gic::set_pending(spi(number));
        expect_and_end(spi(number))?;
    }
    expect_quiet()
}

fn waits_for_active() -> Outcome {
    prepare_nest();
    for number in 0..DEPTH {
        gic::set_pending(spi(number));
        expect(spi(number))?;
    }
    let late = spi(DEPTH);
    gic::set_priority(late, 0xd0);
    gic::enable(late);
    gic::set_pending(late);
    for number in (0..DEPTH).rev() {
        expect_quiet()?;
        gic::end(spi(number));
    }
    expect_and_end(late)?;
    expect_quiet()
}

fn six_handlers() -> Outcome {
    TAKEN.iter().for_each(|taken| taken.store(0, Ordering::Relaxed));
    DEEPEST.store(0, Ordering::Relaxed);
    interrupts::set_handler(nested_handler);
    prepare_nest();
    interrupts::unmask();
    gic::set_pending(spi(0));
    let came = timer::wait_until(crate::SOON_MICROSECONDS, || TAKEN[0].load(Ordering::Relaxed) == 1);
    interrupts::mask();
    let deepest = DEEPEST.load(Ordering::Relaxed);
    ensure!(came, "the first handler never ended; {deepest} were nested");
    ensure!(deepest == DEPTH, "only {deepest} handlers were nested");
    expect_quiet()
}

/// Starts the next more urgent interrupt from within, and waits for its handler to end.
fn nested_handler(_: usize, id: u32) {
    let number = id.wrapping_sub(spi(0));
    let Some(taken) = TAKEN.get(number as usize) else { return };
    let depth = DEPTH_NOW.fetch_add(1, Ordering::Relaxed) + 1;
    DEEPEST.fetch_max(depth, Ordering::Relaxed);
    if number + 1 < DEPTH {
        interrupts::unmask();
        gic::set_pending(spi(number + 1));
        let inner = &TAKEN[number as usize + 1];
        timer::wait_until(crate::SOON_MICROSECONDS / 4, || inner.load(Ordering::Relaxed) == 1);
        interrupts::mask();
    }
    DEPTH_NOW.fetch_sub(1, Ordering::Relaxed);
    taken.fetch_add(1, Ordering::Relaxed);
}

fn storm() -> Outcome {
    TAKEN.iter().for_each(|taken| taken.store(0, Ordering::Relaxed));
    interrupts::set_handler(|_, id| {
        if let Some(taken) = TAKEN.get(id.wrapping_sub(spi(0)) as usize) {
            taken.fetch_add(1, Ordering::Relaxed);
        }
    });
    for number in 0..SPIS {
        gic::set_trigger(spi(number), Trigger::Edge);
        gic::enable(spi(number));
    }
    interrupts::unmask();
    let mut lost = None;
    for round in 1..=50 {
        for number in 0..SPIS {
            gic::set_pending(spi(number));
        }
        let all = || TAKEN.iter().all(|taken| taken.load(Ordering::Relaxed) == round);
        if !timer::wait_until(crate::SOON_MICROSECONDS, all) {
            lost = TAKEN.iter().position(|taken| taken.load(Ordering::Relaxed) != round);
            break;
        }
    }
    interrupts::mask();
    if let Some(number) = lost {
        ensure!(false, "{} came {} times", spi(number as u32), TAKEN[number].load(Ordering::Relaxed));
    }
    Ok(())
}
