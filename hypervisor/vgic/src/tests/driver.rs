//! What Linux's GICv3 driver does, in its order, and what it must see.

use vdev::Width;

use super::core::SPURIOUS;
use super::machine::*;
use crate::{IntId, Kicks, ListState, Vgic};

const GICR_TYPER: u64 = 0x8;
const GICR_WAKER: u64 = 0x14;
const PIDR2: u64 = 0xffe8;

/// ICC_SGI1R_EL1 for SGI `number` to the virtual CPUs of the target list `targets`.
fn sgi_to(number: u64, targets: u64) -> u64 {
    number << 24 | targets
}

#[test]
fn linux_initialises_the_distributor() {
    let mut machine = Machine::new(2, 4);
    assert_eq!(machine.gicd_read(0, PIDR2) & 0xf0, 0x30);
    let lines = 32 * ((machine.gicd_read(0, 0x4) & 31) + 1);
    assert_eq!(lines, 96);
    assert_eq!(machine.gicd_read(0, 0x4) >> 19 & 31, 9);
    machine.gicd_write(0, CTLR, 0);
    for first in (32..u64::from(lines)).step_by(32) {
        machine.gicd_write(0, IGROUPR + first / 8, 0xffff_ffff);
    }
    for first in (32..u64::from(lines)).step_by(16) {
        machine.gicd_write(0, ICFGR + first / 4, 0);
    }
    for first in (32..u64::from(lines)).step_by(4) {
        machine.gicd_write(0, IPRIORITYR + first, 0xa0a0_a0a0);
    }
    for first in (32..u64::from(lines)).step_by(32) {
        machine.gicd_write(0, ICACTIVER + first / 8, 0xffff_ffff);
        machine.gicd_write(0, ICENABLER + first / 8, 0xffff_ffff);
    }
    machine.gicd_write(0, CTLR, 1 << 4 | 1 << 1 | 1);
    // ARE and DS are fixed; no write is ever pending (RWP, bit 31).
    assert_eq!(machine.gicd_read(0, CTLR), 0b101_0011);
    for intid in 32..lines {
        machine.route(intid, 0);
    }
    assert_eq!(machine.gicd_read(0, IPRIORITYR + 32), 0xa0a0_a0a0);
    assert_eq!(machine.gicd_read(1, ISENABLER + 4), 0);
}

#[test]
fn linux_finds_its_redistributor_by_affinity() {
    let mut machine = Machine::new(2, 4);
    for vcpu in 0..2 {
        let typer = machine.vgic.redistributor_read(vcpu, GICR_TYPER, Width::DoubleWord).unwrap();
        assert_eq!(typer >> 32, vcpu as u64, "the affinity");
        assert_eq!(typer >> 4 & 1 != 0, vcpu == 1, "the last one says so");
        assert_eq!(typer & 0b1, 0, "no LPIs");
        assert_eq!(u64::from(machine.gicr_read(vcpu, vcpu, GICR_TYPER)), typer & 0xffff_ffff);
        assert_eq!(u64::from(machine.gicr_read(vcpu, vcpu, GICR_TYPER + 4)), typer >> 32);
        assert_eq!(machine.gicr_read(vcpu, vcpu, PIDR2) & 0xf0, 0x30);
    }
    assert_eq!(machine.vgic.redistributor_read(2, GICR_TYPER, Width::DoubleWord), None);
}

#[test]
fn linux_wakes_its_redistributor() {
    let mut machine = Machine::new(1, 4);
    let asleep = machine.gicr_read(0, 0, GICR_WAKER);
    assert_eq!(asleep, 0b110);
    machine.gicr_write(0, 0, GICR_WAKER, asleep & !0b10);
    assert_eq!(machine.gicr_read(0, 0, GICR_WAKER), 0);
    machine.gicr_write(0, 0, GICR_WAKER, 0b10);
    assert_eq!(machine.gicr_read(0, 0, GICR_WAKER), 0b110);
}

#[test]
fn linux_sets_up_its_private_interrupts() {
    let mut machine = Machine::new(2, 4);
    machine.gicr_write(1, 1, SGI_BASE + IGROUPR, 0xffff_ffff);
    machine.gicr_write(1, 1, SGI_BASE + ICACTIVER, 0xffff_ffff);
    machine.gicr_write(1, 1, SGI_BASE + ICENABLER, 0xffff_0000);
    machine.gicr_write(1, 1, SGI_BASE + ISENABLER, 0x0000_ffff);
    machine.gicr_write(1, 1, SGI_BASE + ICFGR + 4, 0);
    assert_eq!(machine.gicr_read(1, 1, SGI_BASE + ICFGR), 0xaaaa_aaaa, "SGIs are edges");
    machine.gicr_write(1, 1, SGI_BASE + ICFGR, 0);
    assert_eq!(machine.gicr_read(1, 1, SGI_BASE + ICFGR), 0xaaaa_aaaa, "whatever is written");
    assert_eq!(machine.gicr_read(1, 1, SGI_BASE + ISENABLER), 0x0000_ffff);
    assert_eq!(machine.gicr_read(0, 0, SGI_BASE + ISENABLER), 0, "private to each virtual CPU");
    assert_eq!(machine.gicd_read(1, ISENABLER), 0, "and not in the distributor");
}

#[test]
fn an_ipi_reaches_its_target_alone() {
    let mut machine = Machine::ready(3, 4);
    machine.sgi(0, sgi_to(5, 0b100));
    assert_eq!(machine.drain(0), []);
    assert_eq!(machine.drain(1), []);
    assert_eq!(machine.drain(2), [5]);
    assert_eq!(machine.drain(2), []);
}

#[test]
fn an_ipi_to_all_leaves_out_its_sender() {
    let mut machine = Machine::ready(3, 4);
    machine.sgi(1, 3 << 24 | 1 << 40);
    assert_eq!(machine.drain(0), [3]);
    assert_eq!(machine.drain(1), []);
    assert_eq!(machine.drain(2), [3]);
}

#[test]
fn an_ipi_to_oneself_arrives() {
    let mut machine = Machine::ready(1, 4);
    machine.sgi(0, sgi_to(0, 1));
    assert_eq!(machine.drain(0), [0]);
}

#[test]
fn ipis_to_nobody_are_ignored() {
    let vgic = Vgic::new(2, 32);
    for value in [0, 0xfffc, 1 | 1 << 16, 1 | 1 << 32, 1 | 1 << 44, 1 | 1 << 48] {
        assert!(vgic.send_sgi(0, value).is_empty(), "{value:#x}");
    }
}

#[test]
fn every_ipi_that_the_target_has_acknowledged_can_be_sent_again() {
    let mut machine = Machine::ready(2, 4);
    machine.sgi(0, sgi_to(1, 0b10));
    machine.sgi(0, sgi_to(1, 0b10));
    assert_eq!(machine.acknowledge(1), 1);
    machine.sgi(0, sgi_to(1, 0b10));
    assert_eq!(machine.core(1).register_of(1).unwrap().state(), ListState::PendingActive);
    assert_eq!(machine.acknowledge(1), SPURIOUS, "it is active");
    machine.end(1, 1);
    assert_eq!(machine.drain(1), [1]);
}

#[test]
fn a_group_0_sgi_is_not_sent_through_the_group_1_register() {
    let mut machine = Machine::ready(2, 4);
    machine.gicr_write(1, 1, SGI_BASE + IGROUPR, !(1 << 4));
    machine.sgi(0, sgi_to(4, 0b10));
    assert_eq!(machine.drain(1), []);
}

#[test]
fn a_uart_interrupts_until_its_fifo_is_read() {
    let mut machine = Machine::ready(1, 4);
    machine.line(33, true);
    for _ in 0..3 {
        assert_eq!(machine.acknowledge(0), 33);
        machine.end(0, 33);
    }
    assert_eq!(machine.acknowledge(0), 33);
    machine.line(33, false);
    machine.end(0, 33);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    assert_eq!(machine.core(0).listed(), []);
}

#[test]
fn a_line_that_drops_before_the_end_asks_for_no_look_at_the_end() {
    let mut machine = Machine::ready(1, 4);
    let asks = |machine: &Machine| machine.core(0).registers.iter().any(|value| value.notifies_eoi());
    for _ in 0..2 {
        machine.line(33, true);
        assert_eq!(machine.acknowledge(0), 33);
        assert!(asks(&machine));
        machine.line(33, false);
        assert!(!asks(&machine));
        machine.end(0, 33);
        assert_eq!(machine.acknowledge(0), SPURIOUS);
    }
    // One that rises again before the end comes again.
    machine.line(33, true);
    assert_eq!(machine.acknowledge(0), 33);
    machine.line(33, false);
    machine.line(33, true);
    assert!(asks(&machine));
    machine.end(0, 33);
    assert_eq!(machine.acknowledge(0), 33);
    // And so does one that rose while it was masked, once it is not.
    machine.line(33, false);
    machine.gicd_write(0, 0x184, 1 << 1);
    machine.line(33, true);
    machine.end(0, 33);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    machine.gicd_write(0, 0x104, 1 << 1);
    assert_eq!(machine.acknowledge(0), 33);
}

#[test]
fn a_line_that_drops_before_the_acknowledge_interrupts_nobody() {
    let mut machine = Machine::ready(1, 4);
    machine.line(33, true);
    machine.line(33, false);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    machine.line(33, true);
    assert_eq!(machine.acknowledge(0), 33);
}

#[test]
fn an_edge_interrupts_once_even_if_the_line_stays_high() {
    let mut machine = Machine::ready(1, 4);
    machine.make_edge(40);
    machine.line(40, true);
    assert_eq!(machine.drain(0), [40]);
    machine.line(40, false);
    assert_eq!(machine.drain(0), []);
    machine.line(40, true);
    assert_eq!(machine.drain(0), [40]);
}

#[test]
fn interrupts_arrive_in_the_order_of_their_priorities() {
    let mut machine = Machine::ready(1, 4);
    for (intid, priority) in [(40, 0xc0), (41, 0x20), (42, 0x80)] {
        machine.set_priority(intid, priority);
        machine.edge(intid);
    }
    assert_eq!(machine.drain(0), [41, 42, 40]);
}

#[test]
fn a_higher_priority_preempts() {
    let mut machine = Machine::ready(1, 4);
    machine.set_priority(41, 0x20);
    machine.edge(40);
    assert_eq!(machine.acknowledge(0), 40);
    machine.edge(42);
    assert_eq!(machine.acknowledge(0), SPURIOUS, "equal priority waits");
    machine.edge(41);
    assert_eq!(machine.acknowledge(0), 41);
    machine.end(0, 41);
    machine.end(0, 40);
    assert_eq!(machine.drain(0), [42]);
}

#[test]
fn only_five_bits_of_priority_exist() {
    let mut machine = Machine::new(1, 4);
    machine.set_priority(40, 0xff);
    assert_eq!(machine.gicd_read(0, IPRIORITYR + 40), 0xf8);
    assert_eq!(machine.vgic.distributor_read(IPRIORITYR + 40, Width::Byte), Some(0xf8));
}

#[test]
fn a_priority_changed_while_pending_counts() {
    let mut machine = Machine::ready(1, 4);
    machine.edge(40);
    machine.edge(41);
    machine.set_priority(41, 0x10);
    assert_eq!(machine.drain(0), [41, 40]);
}

#[test]
fn a_masked_interrupt_stays_pending_until_it_is_unmasked() {
    let mut machine = Machine::ready(1, 4);
    machine.edge(40);
    machine.gicd_write(0, ICENABLER + 4, 1 << 8);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    assert_eq!(machine.gicd_read(0, ISPENDR + 4), 1 << 8);
    machine.gicd_write(0, ISENABLER + 4, 1 << 8);
    assert_eq!(machine.drain(0), [40]);
    assert_eq!(machine.gicd_read(0, ISPENDR + 4), 0);
}

#[test]
fn linux_masks_and_unmasks_a_threaded_level_interrupt() {
    let mut machine = Machine::ready(1, 4);
    machine.line(33, true);
    assert_eq!(machine.acknowledge(0), 33);
    machine.gicd_write(0, ICENABLER + 4, 1 << 1);
    machine.end(0, 33);
    assert_eq!(machine.acknowledge(0), SPURIOUS, "the line is high, but it is masked");
    machine.gicd_write(0, ISENABLER + 4, 1 << 1);
    assert_eq!(machine.acknowledge(0), 33);
    machine.line(33, false);
    machine.end(0, 33);
    assert_eq!(machine.drain(0), []);
}

#[test]
fn nothing_is_forwarded_while_the_distributor_is_off() {
    let mut machine = Machine::ready(2, 4);
    machine.gicd_write(0, CTLR, 0);
    machine.edge(40);
    machine.sgi(0, sgi_to(2, 0b10));
    assert_eq!(machine.drain(0), []);
    assert!(!machine.vgic.has_deliverable(0));
    machine.gicd_write(0, CTLR, 2);
    assert_eq!(machine.drain(0), [40]);
    assert_eq!(machine.drain(1), [2]);
    machine.edge(40);
    machine.gicd_write(0, CTLR, 0);
    assert_eq!(machine.drain(0), [], "what was in a list register is taken back");
}

#[test]
fn the_pending_state_can_be_set_and_cleared_by_software() {
    let mut machine = Machine::ready(1, 4);
    machine.gicd_write(0, ISPENDR + 4, 1 << 8);
    assert_eq!(machine.gicd_read(0, ISPENDR + 4), 1 << 8, "though it is in a list register");
    machine.gicd_write(0, ICPENDR + 4, 1 << 8);
    assert_eq!(machine.gicd_read(0, ICPENDR + 4), 0);
    assert_eq!(machine.drain(0), []);
    // Of a level-sensitive interrupt only the software's part is cleared.
    machine.line(33, true);
    machine.gicd_write(0, ICPENDR + 4, 1 << 1);
    assert_eq!(machine.gicd_read(0, ISPENDR + 4), 1 << 1);
    assert_eq!(machine.acknowledge(0), 33);
}

#[test]
fn a_level_interrupt_set_pending_by_software_survives_a_line_that_drops() {
    let mut machine = Machine::ready(1, 4);
    machine.gicd_write(0, ISPENDR + 4, 1 << 1);
    machine.line(33, true);
    machine.line(33, false);
    assert_eq!(machine.drain(0), [33]);
    assert_eq!(machine.drain(0), []);
}

#[test]
fn the_active_state_is_seen_and_can_be_taken_away() {
    let mut machine = Machine::ready(1, 4);
    machine.edge(40);
    assert_eq!(machine.acknowledge(0), 40);
    assert_eq!(machine.gicd_read(0, ISACTIVER + 4), 1 << 8);
    assert_eq!(machine.gicd_read(0, ISPENDR + 4), 0);
    machine.gicd_write(0, ICACTIVER + 4, 1 << 8);
    assert_eq!(machine.gicd_read(0, ISACTIVER + 4), 0);
    assert_eq!(machine.core(0).listed(), []);
}

#[test]
fn an_interrupt_made_active_by_software_waits_until_it_is_not() {
    let mut machine = Machine::ready(1, 4);
    machine.gicd_write(0, ISACTIVER + 4, 1 << 8);
    machine.edge(40);
    assert_eq!(machine.drain(0), []);
    assert_eq!(machine.gicd_read(0, ISACTIVER + 4), 1 << 8);
    machine.gicd_write(0, ICACTIVER + 4, 1 << 8);
    assert_eq!(machine.drain(0), [40]);
    machine.gicr_write(0, 0, SGI_BASE + ISACTIVER, 1 << 2);
    machine.sgi(0, sgi_to(2, 1));
    assert_eq!(machine.drain(0), []);
    machine.gicr_write(0, 0, SGI_BASE + ICACTIVER, 1 << 2);
    assert_eq!(machine.drain(0), [2]);
}

#[test]
fn a_pending_interrupt_in_a_list_register_can_be_made_active() {
    let mut machine = Machine::ready(1, 4);
    machine.edge(40);
    machine.gicd_write(0, ISACTIVER + 4, 1 << 8);
    assert_eq!(machine.core(0).register_of(40).unwrap().state(), ListState::PendingActive);
    machine.gicd_write(0, ICACTIVER + 4, 1 << 8);
    assert_eq!(machine.drain(0), [40]);
}

#[test]
fn a_restarted_machine_has_no_interrupts_left() {
    let mut machine = Machine::ready(2, 4);
    machine.line(33, true);
    machine.edge(40);
    machine.sgi(0, sgi_to(1, 0b11));
    machine.acknowledge(0);
    for vcpu in 0..2 {
        let (interface, core) = &mut machine.cpus[vcpu];
        interface.reset(&machine.vgic, vcpu, core);
        core.running.clear();
    }
    machine.restart();
    for vcpu in 0..2 {
        assert_eq!(machine.core(vcpu).listed(), []);
        assert!(machine.flush(vcpu).is_empty());
        assert_eq!(machine.gicr_read(vcpu, vcpu, SGI_BASE + ISENABLER), 0);
        assert_eq!(machine.gicr_read(vcpu, vcpu, SGI_BASE + ISACTIVER), 0);
        assert!(!machine.vgic.has_deliverable(vcpu));
    }
    for offset in [ISENABLER, ISPENDR, ISACTIVER] {
        assert_eq!(machine.gicd_read(0, offset + 4), 0);
    }
    assert_eq!(machine.gicd_read(0, CTLR), 1 << 4 | 1 << 6);
}

#[test]
fn an_interrupt_that_the_machine_does_not_have_is_ignored() {
    let mut machine = Machine::ready(1, 4);
    for intid in [96, 287, 288, 1023, u32::MAX] {
        assert!(machine.vgic.inject(IntId::new(intid), 0).is_empty());
        assert!(machine.vgic.set_line(IntId::new(intid), 0, true).is_empty());
        machine.vgic.link(IntId::new(intid), intid);
    }
    assert!(machine.vgic.inject(IntId::new(27), 1).is_empty());
    assert_eq!(machine.drain(0), []);
}

#[test]
fn one_interrupt_costs_one_list_register_write() {
    let mut machine = Machine::ready(2, 4);
    for round in 0..3 {
        machine.sgi(0, sgi_to(round, 0b10));
        assert_eq!(machine.core(1).writes, round as usize + 1);
        assert_eq!(u64::from(machine.acknowledge(1)), round);
        machine.end(1, round as u32);
    }
}

#[test]
fn what_was_seen_of_an_ipi_ends_with_it() {
    let mut machine = Machine::ready(1, 4);
    machine.sgi(0, sgi_to(2, 1));
    assert_eq!(machine.acknowledge(0), 2);
    assert_eq!(machine.gicr_read(0, 0, SGI_BASE + ISACTIVER), 1 << 2);
    machine.end(0, 2);
    machine.sgi(0, sgi_to(3, 1));
    assert_eq!(machine.gicr_read(0, 0, SGI_BASE + ISACTIVER), 0);
    assert_eq!(machine.gicr_read(0, 0, SGI_BASE + ISPENDR), 1 << 3);
}

#[test]
fn a_list_register_keeps_nothing_of_its_last_interrupt() {
    let mut machine = Machine::ready(1, 4);
    machine.sgi(0, sgi_to(2, 1));
    machine.sgi(0, sgi_to(3, 1));
    assert_eq!(machine.drain(0).len(), 2);
    machine.sgi(0, sgi_to(4, 1));
    machine.line(33, true);
    machine.line(33, false);
    assert_eq!(machine.drain(0), [4]);
}

#[test]
fn a_level_sensitive_private_interrupt_comes_for_as_long_as_its_line_is_high() {
    let mut machine = Machine::ready(2, 4);
    let kicks = machine.vgic.set_line(IntId::new(30), 1, true);
    machine.kick(kicks);
    for _ in 0..2 {
        assert_eq!(machine.acknowledge(1), 30);
        machine.end(1, 30);
    }
    let kicks = machine.vgic.set_line(IntId::new(30), 1, false);
    machine.kick(kicks);
    assert_eq!(machine.drain(1), []);
    machine.gicr_write(1, 1, SGI_BASE + ISPENDR, 1 << 30);
    assert_eq!(machine.drain(1), [30]);
}

#[test]
fn a_target_that_stands_alone_gets_what_the_whole_register_says() {
    for value in [
        sgi_to(5, 0),
        sgi_to(5, 1),
        sgi_to(5, 0b10),
        sgi_to(5, 0b100),
        sgi_to(5, 0b11),
        sgi_to(5, 0x100),
        5 << 24 | 1 << 40,
    ]
    .into_iter()
    .chain([16, 32, 44, 48].map(|field| sgi_to(5, 1) | 1 << field))
    {
        let Some(target) = Vgic::sole_target(value) else { continue };
        // Virtual CPU 2 does not exist.
        let (short, whole) = (Machine::ready(2, 4), Machine::ready(2, 4));
        let told = if short.vgic.send_sgi_to(target, value) { Kicks::one(target) } else { Kicks::NONE };
        assert_eq!(told, whole.vgic.send_sgi(0, value), "{value:#x}");
        assert_eq!(target < 2, told == Kicks::one(target), "{value:#x}");
    }
    assert_eq!(Vgic::sole_target(sgi_to(5, 0b100)), Some(2));
    for several_or_elsewhere in
        [sgi_to(5, 0), sgi_to(5, 0b11), sgi_to(5, 0x101), sgi_to(5, 1) | 1 << 40, sgi_to(5, 1) | 1 << 16]
    {
        assert_eq!(Vgic::sole_target(several_or_elsewhere), None, "{several_or_elsewhere:#x}");
    }
}
