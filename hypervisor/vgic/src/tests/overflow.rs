//! More interrupts than list registers.

use std::vec::Vec;

use super::core::SPURIOUS;
use super::machine::*;
use crate::{IntId, Kicks};

#[test]
fn twelve_interrupts_pass_through_four_list_registers() {
    let mut machine = Machine::ready(1, 4);
    for intid in 40..52 {
        machine.edge(intid);
    }
    assert_eq!(machine.core(0).listed().len(), 4);
    assert!(machine.core(0).asks_when_none_pends);
    let mut seen = machine.drain(0);
    seen.sort_unstable();
    assert_eq!(seen, (40..52).collect::<Vec<_>>());
    assert!(!machine.core(0).asks_when_none_pends, "nothing is left to wait for");
}

#[test]
fn the_best_of_many_interrupts_are_in_the_list_registers() {
    let mut machine = Machine::ready(1, 2);
    for intid in 40..52 {
        machine.set_priority(intid, (0xf8 - 8 * (intid - 40)) as u8);
        machine.edge(intid);
    }
    assert_eq!(machine.drain(0), (40..52).rev().collect::<Vec<_>>());
}

#[test]
fn a_flush_that_a_physical_interrupt_waits_for_lists_the_best_and_leaves_the_rest() {
    let mut machine = Machine::ready(1, 4);
    for intid in 40..52 {
        machine.set_priority(intid, (0xf8 - 8 * (intid - 40)) as u8);
    }
    machine.cpus[0].1.is_interrupt_pending = true;
    machine.gicd_write(0, ISPENDR + 4, 0xfff << 8);
    assert_eq!(machine.core(0).listed(), [51]);
    assert!(machine.core(0).asks_when_none_pends);
    // What is in list registers already, and worse than what waits, is no reason to stop.
    machine.cpus[0].1.is_interrupt_pending = false;
    machine.set_priority(64, 0xf0);
    machine.edge(64);
    assert_eq!(machine.core(0).listed(), [51, 50, 49, 48]);
    machine.gicd_write(0, ICPENDR + 4, 0x3ff << 8);
    assert_eq!(machine.core(0).listed(), [51, 50, 64]);
    machine.cpus[0].1.is_interrupt_pending = true;
    machine.gicd_write(0, ISPENDR + 4, 0x3fc << 8);
    assert_eq!(machine.drain(0), [51, 50, 49, 48, 47, 46, 45, 44, 43, 42, 64]);
}

#[test]
fn level_interrupts_overflow_without_being_lost() {
    let mut machine = Machine::ready(1, 2);
    for intid in 40..48 {
        machine.line(intid, true);
    }
    let mut seen = Vec::new();
    for _ in 40..48 {
        let intid = machine.acknowledge(0);
        machine.line(intid, false);
        machine.end(0, intid);
        seen.push(intid);
    }
    seen.sort_unstable();
    assert_eq!(seen, (40..48).collect::<Vec<_>>());
    assert_eq!(machine.acknowledge(0), SPURIOUS);
}

#[test]
fn a_better_interrupt_displaces_a_pending_one() {
    let mut machine = Machine::ready(1, 2);
    machine.edge(40);
    machine.edge(41);
    machine.set_priority(50, 0x10);
    machine.edge(50);
    assert_eq!(machine.acknowledge(0), 50);
    machine.end(0, 50);
    let mut seen = machine.drain(0);
    seen.sort_unstable();
    assert_eq!(seen, [40, 41]);
}

#[test]
fn a_displaced_level_interrupt_whose_line_drops_is_gone() {
    let mut machine = Machine::ready(1, 2);
    machine.set_priority(33, 0xf0);
    machine.line(33, true);
    machine.edge(40);
    machine.edge(41);
    assert!(!machine.core(0).listed().contains(&33));
    machine.line(33, false);
    assert_eq!(machine.drain(0).len(), 2);
    assert_eq!(machine.drain(0), []);
}

/// Nests `depth` interrupts (INTIDs 40 and up, each of higher priority), and gives them innermost first.
fn nest(machine: &mut Machine, depth: u32) -> Vec<u32> {
    let mut running = Vec::new();
    for number in 0..depth {
        let intid = 40 + number;
        machine.set_priority(intid, (0xf0 - 8 * number) as u8);
        machine.edge(intid);
        assert_eq!(machine.acknowledge(0), intid, "it preempts");
        running.insert(0, intid);
    }
    running
}

#[test]
fn nested_interrupts_deeper_than_the_list_registers_all_end() {
    for list_registers in if cfg!(miri) { 2..3 } else { 2..5 } {
        let mut machine = Machine::ready(1, list_registers);
        let running = nest(&mut machine, 10);
        assert_eq!(machine.gicd_read(0, ISACTIVER + 4), 0x3ff << 8, "all of them are active");
        for intid in running {
            machine.end(0, intid);
        }
        assert_eq!(machine.gicd_read(0, ISACTIVER + 4), 0);
        for intid in 40..50 {
            machine.edge(intid);
        }
        assert_eq!(machine.drain(0).len(), 10);
    }
}

#[test]
fn an_interrupt_that_would_not_preempt_waits_until_all_have_ended() {
    let mut machine = Machine::ready(1, 2);
    let running = nest(&mut machine, 2);
    machine.set_priority(60, 0xf8);
    machine.edge(60);
    for intid in running {
        assert_eq!(machine.acknowledge(0), SPURIOUS);
        machine.end(0, intid);
    }
    assert_eq!(machine.drain(0), [60]);
}

#[test]
fn an_edge_to_a_spilled_interrupt_is_delivered_after_its_end() {
    let mut machine = Machine::ready(1, 2);
    let running = nest(&mut machine, 3);
    machine.edge(40);
    for intid in running {
        machine.end(0, intid);
    }
    assert_eq!(machine.drain(0), [40]);
}

#[test]
fn a_spilled_interrupt_can_be_deactivated_by_software() {
    let mut machine = Machine::ready(1, 2);
    let running = nest(&mut machine, 4);
    machine.gicd_write(0, ICACTIVER + 4, 0b11 << 8);
    assert_eq!(machine.gicd_read(0, ISACTIVER + 4), 0b1100 << 8);
    // The guest drops the priorities of those two still.
    for intid in running {
        machine.end(0, intid);
    }
    assert_eq!(machine.gicd_read(0, ISACTIVER + 4), 0);
    machine.edge(40);
    assert_eq!(machine.drain(0), [40]);
}

#[test]
fn a_list_register_freed_by_a_later_word_serves_an_earlier_one_in_the_same_flush() {
    let mut machine = Machine::ready(1, 2);
    machine.edge(70);
    machine.edge(71);
    let kicks = machine.vgic.send_sgi(0, 1 | 3 << 24);
    let masked = machine.vgic.distributor_write(ICENABLER + 8, vdev::Width::Word, u64::from(u32::MAX));
    assert_eq!(masked, Some(kicks));
    let (interface, core) = &mut machine.cpus[0];
    assert!(interface.flush(&machine.vgic, 0, core).is_empty());
    assert_eq!(core.listed(), [3]);
    assert!(!core.asks_when_none_pends);
}

#[test]
fn an_interrupt_that_is_masked_asks_for_no_list_register() {
    let mut machine = Machine::ready(1, 2);
    machine.edge(70);
    let _flushed_below = machine.vgic.distributor_write(ICENABLER + 8, vdev::Width::Word, u64::from(u32::MAX));
    let (interface, core) = &mut machine.cpus[0];
    assert!(interface.flush(&machine.vgic, 0, core).is_empty());
    assert_eq!(core.listed(), []);
    assert!(!core.asks_when_none_pends);
}

#[test]
fn ends_of_before_the_overflow_do_not_count() {
    let mut machine = Machine::ready(1, 2);
    machine.edge(60);
    assert_eq!(machine.acknowledge(0), 60);
    machine.gicd_write(0, ICACTIVER + 4, 1 << 28);
    machine.end(0, 60);
    let running = nest(&mut machine, 3);
    assert_eq!(machine.gicd_read(0, ISACTIVER + 4), 0b111 << 8);
    for intid in running {
        machine.end(0, intid);
    }
    assert_eq!(machine.gicd_read(0, ISACTIVER + 4), 0);
}

#[test]
fn only_one_virtual_cpu_gets_an_interrupt_that_two_reach_for() {
    let machine = Machine::ready(2, 4);
    let groups = machine.vgic.groups();
    let _both_flush = machine.vgic.inject(IntId::new(40), 0);
    let word = machine.vgic.word(0, 1).unwrap();
    assert_eq!(word.claim(8, 1, groups), None, "it goes elsewhere");
    assert_eq!(word.claim(8, 0, groups), Some(true));
    let _again = machine.vgic.inject(IntId::new(40), 0);
    assert_eq!(word.claim(8, 0, groups), None, "it is taken");
}

#[test]
fn an_interrupt_masked_at_the_last_moment_is_not_taken() {
    let machine = Machine::ready(1, 4);
    let groups = machine.vgic.groups();
    let word = machine.vgic.word(0, 1).unwrap();
    let _flushed_never = machine.vgic.inject(IntId::new(40), 0);
    let _masked = machine.vgic.distributor_write(ICENABLER + 4, vdev::Width::Word, 1 << 8);
    assert_eq!(word.claim(8, 0, groups), None);
    let _unmasked = machine.vgic.distributor_write(ISENABLER + 4, vdev::Width::Word, 1 << 8);
    assert_eq!(word.claim(8, 0, groups), Some(true), "it is still pending");
    let _lowered = machine.vgic.set_line(IntId::new(41), 0, true) | machine.vgic.set_line(IntId::new(41), 0, false);
    assert_eq!(word.claim(9, 0, groups), None);
}

#[test]
fn an_ipi_does_not_overtake_what_waits_for_a_list_register() {
    let mut machine = Machine::ready(1, 4);
    for intid in 40..46 {
        machine.edge(intid);
    }
    for _ in 0..2 {
        let intid = machine.acknowledge(0);
        machine.end(0, intid);
    }
    // No maintenance interrupt yet: two are left in list registers, two wait.
    assert!(!machine.core(0).maintenance());
    let priority = IPRIORITYR + SGI_BASE;
    let lowest = machine.vgic.redistributor_write(0, priority, vdev::Width::Byte, 0xf8);
    machine.kick(lowest.unwrap());
    let kicks = machine.vgic.send_sgi(0, 1);
    let (interface, core) = &mut machine.cpus[0];
    assert_eq!(kicks, Kicks::one(0));
    assert!(interface.flush(&machine.vgic, 0, core).is_empty());
    assert_eq!(core.listed().iter().filter(|intid| **intid >= 40).count(), 4);
    assert_eq!(machine.drain(0).len(), 5);
}
