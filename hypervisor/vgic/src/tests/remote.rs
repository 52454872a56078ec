//! Interrupts that move between virtual CPUs, and registers that speak of another one's list registers.

use super::core::SPURIOUS;
use super::machine::*;
use crate::{IntId, Kicks};

#[test]
fn an_spi_goes_where_it_is_routed() {
    let mut machine = Machine::ready(2, 4);
    machine.route(40, 1);
    machine.edge(40);
    assert_eq!(machine.drain(0), []);
    assert_eq!(machine.drain(1), [40]);
    assert_eq!(machine.gicd_read(0, IROUTER + 8 * 40), 1);
    assert_eq!(machine.gicd_read(0, IROUTER + 8 * 40 + 4), 0);
}

#[test]
fn no_spi_is_for_any_one_of_several_virtual_cpus() {
    let mut machine = Machine::ready(2, 4);
    assert_ne!(machine.gicd_read(0, 4) & 1 << 25, 0, "GICD_TYPER.No1N says so");
    // Interrupt_Routing_Mode is not there: the affinity counts.
    machine.route(40, 1 << 31 | 1);
    assert_eq!(machine.gicd_read(0, IROUTER + 8 * 40), 1);
    machine.edge(40);
    assert_eq!(machine.drain(0), []);
    assert_eq!(machine.drain(1), [40]);
}

#[test]
fn an_spi_routed_to_nobody_waits() {
    let mut machine = Machine::ready(2, 4);
    for nobody in [2, 16, 1 << 8, 1 << 16] {
        machine.route(40, nobody);
        machine.edge(40);
        assert_eq!(machine.drain(0), []);
        assert_eq!(machine.drain(1), []);
        machine.route(40, 1);
        assert_eq!(machine.drain(1), [40]);
    }
}

#[test]
fn a_pending_spi_follows_its_route() {
    let mut machine = Machine::ready(2, 4);
    machine.edge(40);
    machine.route(40, 1);
    assert_eq!(machine.drain(0), []);
    assert_eq!(machine.drain(1), [40]);
    machine.line(33, true);
    machine.route(33, 1);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    assert_eq!(machine.acknowledge(1), 33);
}

#[test]
fn an_active_spi_that_is_rerouted_arrives_there_the_next_time() {
    let mut machine = Machine::ready(2, 4);
    machine.make_edge(40);
    machine.edge(40);
    assert_eq!(machine.acknowledge(0), 40);
    machine.route(40, 1);
    machine.edge(40);
    assert_eq!(machine.acknowledge(1), SPURIOUS, "it is active on the first one");
    machine.end(0, 40);
    assert_eq!(machine.drain(1), [40]);
    assert_eq!(machine.drain(0), []);
}

#[test]
fn a_level_spi_that_is_rerouted_while_active_arrives_there_at_its_end() {
    let mut machine = Machine::ready(2, 4);
    machine.line(33, true);
    assert_eq!(machine.acknowledge(0), 33);
    machine.route(33, 1);
    assert_eq!(machine.acknowledge(1), SPURIOUS);
    machine.end(0, 33);
    assert_eq!(machine.acknowledge(1), 33);
    machine.line(33, false);
    machine.end(1, 33);
    assert_eq!(machine.drain(0), []);
    assert_eq!(machine.drain(1), []);
}

#[test]
fn linux_waits_for_an_interrupt_that_runs_elsewhere() {
    let mut machine = Machine::ready(2, 4);
    machine.edge(40);
    assert_eq!(machine.acknowledge(0), 40);
    // free_irq on the other virtual CPU: mask, then poll the active state.
    machine.gicd_write(1, ICENABLER + 4, 1 << 8);
    assert_eq!(machine.gicd_read(1, ISACTIVER + 4), 1 << 8);
    assert_eq!(machine.gicd_read(1, ISACTIVER + 4), 1 << 8);
    machine.end(0, 40);
    assert_eq!(machine.gicd_read(1, ISACTIVER + 4), 0);
}

#[test]
fn an_interrupt_masked_elsewhere_is_withdrawn() {
    let mut machine = Machine::ready(2, 4);
    machine.edge(40);
    machine.gicd_write(1, ICENABLER + 4, 1 << 8);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    machine.gicd_write(1, ISENABLER + 4, 1 << 8);
    assert_eq!(machine.acknowledge(0), 40);
}

#[test]
fn states_are_changed_in_another_ones_list_registers() {
    let mut machine = Machine::ready(2, 4);
    machine.edge(40);
    assert_eq!(machine.gicd_read(1, ISPENDR + 4), 1 << 8);
    machine.gicd_write(1, ICPENDR + 4, 1 << 8);
    assert_eq!(machine.gicd_read(1, ISPENDR + 4), 0);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    machine.edge(40);
    assert_eq!(machine.acknowledge(0), 40);
    machine.gicd_write(1, ICACTIVER + 4, 1 << 8);
    assert_eq!(machine.gicd_read(1, ISACTIVER + 4), 0);
    assert_eq!(machine.core(0).listed(), []);
}

#[test]
fn another_ones_redistributor_can_be_used() {
    let mut machine = Machine::ready(2, 4);
    machine.gicr_write(0, 1, SGI_BASE + ISPENDR, 1 << 3);
    assert_eq!(machine.gicr_read(0, 1, SGI_BASE + ISPENDR), 1 << 3);
    assert_eq!(machine.acknowledge(1), 3);
    assert_eq!(machine.gicr_read(0, 1, SGI_BASE + ISPENDR), 0);
    assert_eq!(machine.gicr_read(0, 1, SGI_BASE + ISACTIVER), 1 << 3);
    machine.gicr_write(0, 1, SGI_BASE + ICACTIVER, 1 << 3);
    assert_eq!(machine.gicr_read(0, 1, SGI_BASE + ISACTIVER), 0);
}

#[test]
fn a_request_that_reaches_the_wrong_virtual_cpu_is_passed_on() {
    let mut machine = Machine::ready(2, 4);
    machine.edge(40);
    assert_eq!(machine.acknowledge(0), 40);
    // As if the holder had changed between the request and its announcement.
    let word = machine.vgic.word(0, 1).unwrap();
    word.bank.clear_active.fetch_or(1 << 8, std::sync::atomic::Ordering::SeqCst);
    let kicks = machine.vgic.mark(1, 1, crate::state::News::Revise);
    machine.kick(kicks);
    assert_eq!(machine.core(0).listed(), []);
}

#[test]
fn a_kick_names_only_those_concerned() {
    let mut machine = Machine::ready(3, 4);
    machine.route(40, 2);
    assert_eq!(machine.vgic.inject(IntId::new(40), 0), Kicks::one(2));
    assert_eq!(machine.vgic.inject(IntId::new(40), 0), Kicks::NONE, "it is pending already");
    assert_eq!(machine.vgic.inject(IntId::new(27), 1), Kicks::one(1));
    machine.gicd_write(0, ICENABLER + 4, 1 << 9);
    assert_eq!(machine.vgic.inject(IntId::new(41), 0), Kicks::NONE, "it is masked");
    let kicks = machine.vgic.send_sgi(0, 0b111);
    assert!(kicks.contains(0));
    assert_eq!(kicks.without(0).iter().collect::<std::vec::Vec<_>>(), [1, 2]);
}

#[test]
fn an_interrupt_without_a_list_register_follows_its_route_without_disturbing_others() {
    let mut machine = Machine::ready(2, 2);
    for intid in 40..45 {
        machine.edge(intid);
    }
    machine.remote_kicks = 0;
    machine.route(44, 1);
    assert_eq!(machine.drain(1), [44]);
    let mut seen = machine.drain(0);
    seen.sort_unstable();
    assert_eq!(seen, [40, 41, 42, 43]);
    assert_eq!(machine.remote_kicks, 0, "flushes that change nothing for others tell nobody");
}
