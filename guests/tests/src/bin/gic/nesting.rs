//! Many interrupts at once: more pending than there are list registers, and deep preemption.

use crate::{SPIS, eventually, expect, expect_and_end, expect_quiet, spi, test};
use core::sync::atomic::{AtomicU32, Ordering};
use rt::gic::{self, EndMode, Trigger};
use rt::{interrupts, timer};
use testkit::{Outcome, ensure};

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
    test("with two-step ends, six interrupts at once are taken though all stay active", six_active);
    test("an interrupt between two nested ones comes when the inner ones have ended", between_nested);
    test("whatever runs, nests and ends, interrupts come in the order of their priorities", || {
        random_order(EndMode::DropAndDeactivate)
    });
    test("the same with two-step ends, deactivated in any order", || random_order(EndMode::DropOnly));
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
        let Some(id) = testkit::acknowledge_within(crate::SOON_MICROSECONDS) else {
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
        let id = testkit::acknowledge_within(crate::SOON_MICROSECONDS);
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

/// Nothing that the guest does after the start makes a hypervisor look by itself.
fn six_active() -> Outcome {
    gic::set_end_mode(EndMode::DropOnly);
    gic::set_mask(0);
    for number in 0..DEPTH {
        gic::set_trigger(spi(number), Trigger::Edge);
        gic::enable(spi(number));
        gic::set_pending(spi(number));
    }
    gic::set_mask(0xff);
    let mut left: u32 = (1 << DEPTH) - 1;
    for _ in 0..DEPTH {
        let got = testkit::acknowledge_within(crate::SOON_MICROSECONDS);
        let number = got.and_then(|id| id.checked_sub(spi(0))).filter(|number| *number < DEPTH);
        ensure!(number.is_some(), "{got:?} came with {} due", left.count_ones());
        left &= !(1 << number.unwrap_or(0));
        gic::end(got.unwrap_or(0));
    }
    ensure!(left == 0, "some came twice, and {left:#x} did not come");
    for number in [3, 0, 5, 1, 4, 2] {
        gic::deactivate(spi(number));
        ensure!(!gic::is_active(spi(number)), "{} is active after its deactivation", spi(number));
    }
    expect_quiet()
}

fn between_nested() -> Outcome {
    prepare_nest();
    for number in 0..4 {
        gic::set_pending(spi(number));
        expect(spi(number))?;
    }
    let middle = spi(DEPTH);
    gic::set_trigger(middle, Trigger::Edge);
    // Better than the second one, and not than the third.
    gic::set_priority(middle, nest_priority(2) + 0x10);
    gic::enable(middle);
    gic::set_pending(middle);
    for number in [3, 2] {
        expect_quiet()?;
        gic::end(spi(number));
    }
    expect_and_end(middle)?;
    gic::end(spi(1));
    gic::end(spi(0));
    expect_quiet()
}

/// What the specification says of the interrupts that [`random_order`] plays with (IHI0069 4.8).
#[derive(Clone, Copy)]
struct Expected {
    priority: u8,
    pending: bool,
    active: bool,
}

/// Raises, acknowledges and ends interrupts at random, and keeps a record of what is due. Which of several of one
/// priority comes first is the implementation's to choose.
fn random_order(mode: EndMode) -> Outcome {
    const COUNT: usize = 16;
    const STEPS: u32 = 600;
    gic::set_end_mode(mode);
    let mut state = [Expected { priority: 0, pending: false, active: false }; COUNT];
    let mut running = [0_usize; COUNT];
    let mut depth: usize = 0;
    let mut random = 0x2545_f491_u32;
    let mut below = |limit: u32| {
        // xorshift32 (Marsaglia).
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        (random >> 8) % limit
    };
    for (number, expected) in (0..).zip(&mut state) {
        expected.priority = (below(16) * 8 + 0x40) as u8;
        gic::set_trigger(spi(number), Trigger::Edge);
        gic::set_priority(spi(number), expected.priority);
        gic::enable(spi(number));
    }
    for step in 0..STEPS {
        match below(8) {
            0 | 1 => {
                for _ in 0..1 + below(4) {
                    let number = below(COUNT as u32);
                    state[number as usize].pending = true;
                    gic::set_pending(spi(number));
                }
            }
            2..=4 => {
                let waiting = state.iter().filter(|it| it.pending && !it.active).map(|it| it.priority).min();
                let limit = depth.checked_sub(1).map_or(0xff, |top| state[running[top]].priority);
                let due = waiting.filter(|priority| *priority < limit);
                let got = if due.is_some() {
                    testkit::acknowledge_within(crate::SOON_MICROSECONDS)
                } else {
                    gic::acknowledge()
                };
                let number = got.and_then(|id| id.checked_sub(spi(0))).map(|number| number as usize);
                let came = number.and_then(|number| state.get(number)).map(|it| it.priority);
                ensure!(came == due, "step {step}: priority {due:x?} was due, and {got:?} of {came:x?} came");
                if let Some(number) = number {
                    ensure!(state[number].pending && !state[number].active, "step {step}: {got:?} was not pending");
                    (state[number].pending, state[number].active) = (false, true);
                    running[depth] = number;
                    depth += 1;
                }
            }
            5 | 6 if depth > 0 => {
                depth -= 1;
                gic::end(spi(running[depth] as u32));
                state[running[depth]].active = mode == EndMode::DropOnly;
            }
            _ if mode == EndMode::DropOnly => {
                let number = below(COUNT as u32) as usize;
                if state[number].active && !running[..depth].contains(&number) {
                    gic::deactivate(spi(number as u32));
                    state[number].active = false;
                }
            }
            _ => {}
        }
    }
    for number in running[..depth].iter().rev() {
        gic::end(spi(*number as u32));
    }
    if mode == EndMode::DropOnly {
        (0..COUNT as u32)
            .filter(|number| state[*number as usize].active)
            .for_each(|number| gic::deactivate(spi(number)));
    }
    for number in 0..COUNT as u32 {
        gic::clear_pending(spi(number));
    }
    expect_quiet()
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
