//! Delivery on one CPU: pending, enabled, masked, active, edge and level.

use crate::{SPIS, eventually, expect, expect_and_end, expect_quiet, spi, test};
use rt::gic::{self, EndMode, Target, Trigger};
use rt::{cpu, machine, uart};
use testkit::{Outcome, ensure, report};

pub(crate) fn run() {
    test("every SGI reaches its own sender", sgis_to_self);
    test("every SGI can be made pending by register", sgis_by_register);
    test("an edge SPI comes once for each time it is made pending", edge);
    test("an edge that comes while the interrupt is active is kept", edge_while_active);
    test("two edges before the acknowledgement are one interrupt", edges_collapse);
    test("a disabled interrupt stays pending until it is enabled", disabled);
    test("a pending interrupt that is cleared does not come", cleared);
    test("disabling withdraws an interrupt that was about to come", withdrawn);
    test("the distributor's group enable holds everything back", group);
    test("an active interrupt does not come again until it is inactive", active);
    test("the priority mask lets only more urgent interrupts through", mask);
    test("the highest pending interrupt is seen without being taken", highest_pending);
    test("of two interrupts the more urgent comes first", order_of_two);
    test("a priority changed while pending decides the order", changed_priority);
    test("with two-step ends, the priority drops first and the interrupt stays active", two_steps);
    test("with two-step ends, interrupts are deactivated in any order", two_steps_out_of_order);
    test("every SPI comes when made pending", all_spis);
    match machine().uart_interrupt {
        Some(id) => {
            test("a level interrupt comes again while its line is high", || level_again(id));
            test("a level interrupt does not come when its line fell first", || level_withdrawn(id));
            test("a high line cannot be cleared by register", || level_not_cleared(id));
        }
        None => report::skip("level lines", "the guest has no UART"),
    }
}

fn sgis_to_self() -> Outcome {
    for id in 0..16 {
        gic::enable(id);
        gic::send_sgi(id, Target::Cpu(cpu::index()));
        expect_and_end(id)?;
    }
    expect_quiet()
}

fn sgis_by_register() -> Outcome {
    for id in 0..16 {
        gic::enable(id);
        gic::set_pending(id);
        expect_and_end(id)?;
    }
    expect_quiet()
}

fn edge() -> Outcome {
    let id = spi(0);
    gic::set_trigger(id, Trigger::Edge);
    gic::enable(id);
    for _ in 0..10 {
        gic::set_pending(id);
        ensure!(gic::is_pending(id), "GICD_ISPENDR does not show it");
        expect(id)?;
        ensure!(gic::is_active(id), "GICD_ISACTIVER does not show it after the acknowledgement");
        ensure!(!gic::is_pending(id), "it is still pending after the acknowledgement");
        gic::end(id);
        ensure!(!gic::is_active(id), "it is still active after its end");
    }
    expect_quiet()
}

fn edge_while_active() -> Outcome {
    let id = spi(0);
    gic::set_trigger(id, Trigger::Edge);
    gic::enable(id);
    gic::set_pending(id);
    expect(id)?;
    gic::set_pending(id);
    ensure!(gic::is_pending(id) && gic::is_active(id), "it is not both pending and active");
    expect_quiet()?;
    gic::end(id);
    expect_and_end(id)?;
    expect_quiet()
}

fn edges_collapse() -> Outcome {
    let id = spi(0);
    gic::set_trigger(id, Trigger::Edge);
    gic::enable(id);
    gic::set_pending(id);
    gic::set_pending(id);
    expect_and_end(id)?;
    expect_quiet()
}

fn disabled() -> Outcome {
    for id in [5, spi(0)] {
        gic::set_pending(id);
        expect_quiet()?;
        ensure!(gic::is_pending(id), "{id} lost its pending state");
        gic::enable(id);
        expect_and_end(id)?;
    }
    Ok(())
}

fn cleared() -> Outcome {
    for id in [5, spi(0)] {
        gic::enable(id);
        gic::set_pending(id);
        gic::clear_pending(id);
        ensure!(!gic::is_pending(id), "{id} is still pending");
        expect_quiet()?;
        gic::set_pending(id);
        expect_and_end(id)?;
    }
    Ok(())
}

fn withdrawn() -> Outcome {
    let id = spi(0);
    gic::enable(id);
    gic::set_pending(id);
    gic::disable(id);
    expect_quiet()?;
    ensure!(gic::is_pending(id), "it lost its pending state");
    gic::enable(id);
    expect_and_end(id)
}

fn group() -> Outcome {
    let id = spi(0);
    gic::enable(id);
    gic::set_distributor(false);
    gic::set_pending(id);
    expect_quiet()?;
    gic::set_distributor(true);
    expect_and_end(id)
}

fn active() -> Outcome {
    let id = spi(0);
    gic::enable(id);
    gic::set_active(id);
    ensure!(gic::is_active(id), "GICD_ISACTIVER did not make it active");
    gic::set_pending(id);
    expect_quiet()?;
    gic::clear_active(id);
    ensure!(!gic::is_active(id), "GICD_ICACTIVER did not make it inactive");
    expect_and_end(id)
}

fn mask() -> Outcome {
    let id = spi(0);
    gic::enable(id);
    gic::set_priority(id, 0x80);
    gic::set_mask(0x80);
    gic::set_pending(id);
    expect_quiet()?;
    gic::set_mask(0x88);
    expect_and_end(id)?;
    gic::set_mask(0);
    gic::set_pending(id);
    expect_quiet()?;
    gic::set_mask(0xff);
    expect_and_end(id)
}

fn highest_pending() -> Outcome {
    let id = spi(0);
    gic::enable(id);
    gic::set_pending(id);
    eventually("ICC_HPPIR1_EL1 shows the interrupt", || gic::highest_pending() == Some(id))?;
    ensure!(gic::is_pending(id) && !gic::is_active(id), "looking at it took it");
    expect_and_end(id)?;
    ensure!(gic::highest_pending().is_none(), "ICC_HPPIR1_EL1 still shows {:?}", gic::highest_pending());
    Ok(())
}

fn order_of_two() -> Outcome {
    for (first, second) in [(spi(0), spi(1)), (spi(1), spi(0)), (3, spi(0)), (spi(0), 3)] {
        gic::set_priority(first, 0x40);
        gic::set_priority(second, 0x80);
        gic::set_pending(second);
        gic::set_pending(first);
        // Both pending before either is enabled, and taken only after both are.
        gic::set_mask(0);
        gic::enable(second);
        gic::enable(first);
        gic::set_mask(0xff);
        expect_and_end(first)?;
        expect_and_end(second)?;
    }
    Ok(())
}

fn changed_priority() -> Outcome {
    let (first, second) = (spi(0), spi(1));
    gic::set_mask(0);
    gic::set_priority(first, 0x80);
    gic::set_priority(second, 0x40);
    gic::enable(first);
    gic::enable(second);
    gic::set_pending(first);
    gic::set_pending(second);
    gic::set_priority(first, 0x20);
    gic::set_mask(0xff);
    // IHI0069 4.8 lets a change wait until the interrupt is pending anew; both orders are right, losing one is not.
    let got = testkit::acknowledge_within(crate::SOON_MICROSECONDS);
    ensure!(got == Some(first) || got == Some(second), "{got:?} came");
    let other = if got == Some(first) { second } else { first };
    gic::end(got.unwrap_or(0));
    expect_and_end(other)?;
    ensure!(gic::priority(first) == 0x20, "the priority reads {:#x}", gic::priority(first));
    expect_quiet()
}

fn two_steps() -> Outcome {
    let (id, other) = (spi(0), spi(1));
    gic::set_end_mode(EndMode::DropOnly);
    gic::set_trigger(id, Trigger::Edge);
    gic::set_priority(other, 0xc0);
    gic::enable(id);
    gic::enable(other);
    gic::set_pending(id);
    expect(id)?;
    let running = gic::running_priority();
    ensure!(running == gic::DEFAULT_PRIORITY, "the running priority is {running:#x}");
    gic::end(id);
    ensure!(gic::running_priority() == 0xff, "the priority did not drop");
    ensure!(gic::is_active(id), "dropping the priority deactivated it");
    gic::set_pending(id);
    expect_quiet()?;
    gic::set_pending(other);
    expect(other)?;
    gic::end(other);
    gic::deactivate(other);
    gic::deactivate(id);
    expect(id)?;
    gic::end(id);
    gic::deactivate(id);
    ensure!(!gic::is_active(id), "it is active after its deactivation");
    expect_quiet()
}

fn two_steps_out_of_order() -> Outcome {
    gic::set_end_mode(EndMode::DropOnly);
    // More of them than a small implementation has list registers.
    for number in 0..6 {
        let id = spi(number);
        gic::enable(id);
        gic::set_pending(id);
        expect(id)?;
        gic::end(id);
    }
    for number in [3, 0, 5, 1, 4, 2] {
        let id = spi(number);
        ensure!(gic::is_active(id), "{id} is not active before its deactivation");
        gic::deactivate(id);
        eventually("a deactivated interrupt is inactive", || !gic::is_active(id))?;
        gic::set_pending(id);
        expect(id)?;
        gic::end(id);
        gic::deactivate(id);
    }
    expect_quiet()
}

fn all_spis() -> Outcome {
    for number in 0..SPIS {
        let id = spi(number);
        gic::enable(id);
        gic::set_pending(id);
        expect_and_end(id)?;
    }
    let last = gic::interrupt_count() - 1;
    gic::enable(last);
    gic::set_pending(last);
    expect_and_end(last)
}

/// Raises the UART's line by its transmit interrupt; what it costs is an empty line on the console.
fn raise_line(id: u32) {
    uart::write(uart::offset::ICR, uart::INTERRUPT_ALL);
    gic::set_trigger(id, Trigger::Level);
    gic::enable(id);
    uart::write(uart::offset::IMSC, uart::INTERRUPT_TX);
    uart::put(b'\n');
}

fn drop_line() {
    uart::write(uart::offset::IMSC, 0);
    uart::write(uart::offset::ICR, uart::INTERRUPT_ALL);
}

fn with_line(id: u32, body: impl FnOnce() -> Outcome) -> Outcome {
    raise_line(id);
    let result = body();
    drop_line();
    result
}

fn level_again(id: u32) -> Outcome {
    with_line(id, || {
        for _ in 0..5 {
            expect(id)?;
            gic::end(id);
        }
        expect(id)?;
        drop_line();
        gic::end(id);
        expect_quiet()?;
        ensure!(!gic::is_pending(id), "it is pending with its line low");
        Ok(())
    })
}

fn level_withdrawn(id: u32) -> Outcome {
    with_line(id, || {
        eventually("a high line makes its interrupt pending", || gic::is_pending(id))?;
        drop_line();
        expect_quiet()?;
        ensure!(!gic::is_pending(id), "it is pending with its line low");
        Ok(())
    })
}

fn level_not_cleared(id: u32) -> Outcome {
    with_line(id, || {
        eventually("a high line makes its interrupt pending", || gic::is_pending(id))?;
        gic::clear_pending(id);
        ensure!(gic::is_pending(id), "GICD_ICPENDR cleared it");
        expect(id)?;
        drop_line();
        gic::end(id);
        expect_quiet()
    })
}
