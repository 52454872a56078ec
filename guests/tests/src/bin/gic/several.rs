//! Interrupts between CPUs: SGIs, routes, and state changed from afar.

use crate::{eventually, spi};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use rt::gic::{self, Target, Trigger};
use rt::{cpu, interrupts, machine, timer};
use testkit::{Outcome, ensure, report};

/// What the other CPUs do; `main` sets it, and each confirms in `CONFIRMED`.
const TAKE: usize = 1;
const HOLD: usize = 2;
const QUIT: usize = 3;

const INTIDS: usize = 64;
/// Reserved for telling the others that their orders changed.
const DOORBELL: u32 = 15;
static ORDERS: AtomicUsize = AtomicUsize::new(TAKE);
static CONFIRMED: [AtomicUsize; cpu::CPUS_MAX] = [const { AtomicUsize::new(0) }; cpu::CPUS_MAX];
static SEEN: [[AtomicU32; INTIDS]; cpu::CPUS_MAX] = [const { [const { AtomicU32::new(0) }; INTIDS] }; cpu::CPUS_MAX];

pub(crate) fn run() {
    if cpu::count() < 2 {
        report::skip("interrupts between CPUs", "the guest has one CPU");
        return;
    }
    gic::init();
    gic::init_cpu();
    interrupts::set_handler(record);
    let started = cpu::start_others(other_cpu);
    report::test("the other CPUs start", || {
        started?;
        order(TAKE)
    });
    remote_test("every SGI reaches another CPU", sgis);
    remote_test("an SGI to all others reaches each of them and not its sender", sgi_to_others);
    remote_test("a hundred SGIs in turn are a hundred interrupts", sgis_in_turn);
    remote_test("an SGI to CPUs that do not exist harms nobody", sgi_to_nobody);
    remote_test("an SPI goes where its route says", route);
    remote_test("a route changed while pending is followed", rerouted);
    remote_test("disabling from afar withdraws an interrupt", disabled_from_afar);
    remote_test("clearing from afar withdraws an interrupt", cleared_from_afar);
    remote_test("a redistributor serves another CPU's accesses", private_from_afar);
    let ended = order(QUIT);
    report::test("the other CPUs come to their end", || ended);
}

/// Like `test`, but leaves the other CPUs' private interrupts as they set them.
fn remote_test(name: &str, body: impl FnOnce() -> Outcome) {
    let confirmed = order(TAKE);
    gic::init();
    gic::init_cpu();
    interrupts::set_handler(record);
    report::test(name, || {
        confirmed?;
        body()
    });
    gic::init();
}

fn record(index: usize, id: u32) {
    if let Some(seen) = SEEN[index].get(id as usize) {
        seen.fetch_add(1, Ordering::Relaxed);
    }
}

fn seen(index: usize, id: u32) -> u32 {
    SEEN[index][id as usize].load(Ordering::Relaxed)
}

fn other_cpu(index: usize) {
    gic::init_cpu();
    (0..16).for_each(gic::enable);
    loop {
        let orders = ORDERS.load(Ordering::Acquire);
        gic::set_mask(if orders == HOLD { 0 } else { 0xff });
        CONFIRMED[index].store(orders, Ordering::Release);
        while ORDERS.load(Ordering::Acquire) == orders {
            match orders {
                // Masked, so that an interrupt between the look and the wait ends the wait.
                TAKE => interrupts::wait(),
                HOLD => timer::spin(10),
                _ => return,
            }
            interrupts::unmask();
            interrupts::mask();
        }
    }
}

/// Gives the other CPUs new orders, and waits until all follow them.
fn order(orders: usize) -> Outcome {
    ORDERS.store(orders, Ordering::Release);
    gic::send_sgi(DOORBELL, Target::Others);
    eventually("the other CPUs follow their orders", || {
        (1..cpu::count()).all(|index| CONFIRMED[index].load(Ordering::Acquire) == orders)
    })
}

fn sgis() -> Outcome {
    for target in 1..cpu::count() {
        for id in 0..16 {
            let before = seen(target, id);
            gic::send_sgi(id, Target::Cpu(target));
            let came = timer::wait_until(crate::SOON_MICROSECONDS, || seen(target, id) > before);
            ensure!(came, "SGI {id} did not reach CPU {target}");
        }
    }
    Ok(())
}

fn sgi_to_others() -> Outcome {
    gic::enable(1);
    let before: u32 = (1..cpu::count()).map(|index| seen(index, 1)).sum();
    gic::send_sgi(1, Target::Others);
    let due = before + cpu::count() as u32 - 1;
    eventually("each other CPU has the SGI", || (1..cpu::count()).map(|index| seen(index, 1)).sum::<u32>() == due)?;
    crate::expect_quiet()
}

fn sgis_in_turn() -> Outcome {
    let first = seen(1, 2);
    for round in 1..=100 {
        gic::send_sgi(2, Target::Cpu(1));
        let came = timer::wait_until(crate::SOON_MICROSECONDS, || seen(1, 2) == first + round);
        ensure!(came, "after SGI {round} the count was {}", seen(1, 2) - first);
    }
    Ok(())
}

fn sgi_to_nobody() -> Outcome {
    gic::enable(3);
    let before: u32 = (0..cpu::count()).map(|index| seen(index, 3)).sum();
    let id = 3 << 24;
    // Targets that no CPU has: Aff1 of 0xff, Aff0 of 15 alone, Aff3 of 0x80, none at all.
    for value in [0xff << 16 | id | 1, id | 1 << 15, 0x80 << 48 | id | 1, id] {
        gic::send_raw_sgi(value);
    }
    crate::expect_quiet()?;
    timer::spin(1000);
    let after: u32 = (0..cpu::count()).map(|index| seen(index, 3)).sum();
    ensure!(after == before, "{} CPUs got it", after - before);
    Ok(())
}

fn route() -> Outcome {
    for target in 1..cpu::count() {
        let id = spi(target as u32);
        gic::route(id, target);
        gic::enable(id);
        let before = seen(target, id);
        for round in 1..=10 {
            gic::set_pending(id);
            let came = timer::wait_until(crate::SOON_MICROSECONDS, || seen(target, id) == before + round);
            ensure!(came, "SPI {id} did not reach CPU {target} the {round}. time");
        }
        crate::expect_quiet()?;
    }
    Ok(())
}

fn rerouted() -> Outcome {
    let id = spi(0);
    gic::set_trigger(id, Trigger::Edge);
    gic::set_mask(0);
    gic::enable(id);
    gic::set_pending(id);
    let before = seen(1, id);
    gic::route(id, 1);
    eventually("the CPU that the route names has the interrupt", || seen(1, id) == before + 1)?;
    gic::set_mask(0xff);
    crate::expect_quiet()?;
    ensure!(seen(1, id) == before + 1, "it came {} times", seen(1, id) - before);
    Ok(())
}

/// Makes an SPI pending for CPU 1, which holds its interrupts, and gives its INTID and count.
fn held_interrupt() -> Result<(u32, u32), report::Failure> {
    let id = spi(4);
    order(HOLD)?;
    gic::set_trigger(id, Trigger::Edge);
    gic::route(id, 1);
    gic::enable(id);
    gic::set_pending(id);
    timer::spin(1000);
    Ok((id, seen(1, id)))
}

fn disabled_from_afar() -> Outcome {
    let (id, before) = held_interrupt()?;
    gic::disable(id);
    // A hypervisor may take the other CPU's next exit to act.
    timer::spin(10_000);
    order(TAKE)?;
    timer::spin(1000);
    ensure!(seen(1, id) == before, "it came although it was disabled");
    ensure!(gic::is_pending(id), "it lost its pending state");
    gic::enable(id);
    eventually("it comes once it is enabled", || seen(1, id) == before + 1)
}

fn cleared_from_afar() -> Outcome {
    let (id, before) = held_interrupt()?;
    gic::clear_pending(id);
    eventually("GICD_ISPENDR shows that it is cleared", || !gic::is_pending(id))?;
    timer::spin(10_000);
    order(TAKE)?;
    timer::spin(1000);
    ensure!(seen(1, id) == before, "it came although it was cleared");
    gic::set_pending(id);
    eventually("it comes once it is made pending", || seen(1, id) == before + 1)
}

fn private_from_afar() -> Outcome {
    let Some(frame) = gic::redistributor(1) else {
        ensure!(false, "CPU 1 has no redistributor");
        return Ok(());
    };
    let registers = frame + gic::offset::SGI_FRAME;
    let enabled = rt::probe::try_read32(registers + gic::offset::ISENABLER)?;
    ensure!(enabled & 0xffff == 0xffff, "CPU 1 has enabled its SGIs, and GICR_ISENABLER0 reads {enabled:#x}");
    let before = seen(1, 6);
    rt::probe::try_write32(registers + gic::offset::ISPENDR, 1 << 6)?;
    eventually("an SGI made pending in CPU 1's redistributor comes there", || seen(1, 6) == before + 1)?;
    ensure!(machine().cpus.len() == cpu::count(), "the device tree has more CPUs than the runtime");
    Ok(())
}
