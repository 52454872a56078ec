//! Interrupts linked to physical ones: the virtual timer, an assigned device.

use super::core::SPURIOUS;
use super::machine::*;
use crate::{CpuInterface, IntId, Kicks};

const TIMER: u32 = 27;

/// A machine whose virtual timer is linked, and SPI INTID 40 to the physical 77.
fn linked_machine(vcpus: usize, list_registers: usize) -> Machine {
    let machine = Machine::ready(vcpus, list_registers);
    machine.vgic.link(IntId::new(TIMER), TIMER);
    machine.vgic.link(IntId::new(40), 77);
    machine
}

/// The physical timer interrupt of `vcpu`'s core arrives and is acknowledged.
fn fire_timer(machine: &mut Machine, vcpu: usize) {
    let (interface, core) = &mut machine.cpus[vcpu];
    assert!(core.active_ppis.insert(TIMER), "an active interrupt does not fire");
    let kicks = interface.deliver_linked(&machine.vgic, vcpu, IntId::new(TIMER), core);
    machine.kick(kicks);
}

#[test]
fn the_guests_end_of_the_timer_interrupt_needs_no_exit() {
    let mut machine = linked_machine(1, 4);
    for _ in 0..3 {
        fire_timer(&mut machine, 0);
        assert_eq!(machine.core(0).register_of(TIMER).unwrap().physical(), Some(TIMER));
        assert_eq!(machine.acknowledge(0), TIMER);
        machine.cpus[0].1.end(TIMER);
        assert!(!machine.core(0).maintenance());
        assert!(machine.core(0).active_ppis.is_empty());
    }
}

#[test]
fn a_physical_interrupt_is_held_until_its_guest_ends_it() {
    let mut machine = linked_machine(1, 4);
    machine.gicd_write(0, CTLR, 0);
    assert_eq!(machine.vgic.held_interrupts(), 0);
    // Its group is off, so it waits.
    fire_timer(&mut machine, 0);
    assert_eq!(machine.vgic.held_interrupts(), 1);
    (0..machine.vgic.reset_steps()).for_each(|step| machine.vgic.reset_step(step));
    assert_eq!(machine.vgic.held_interrupts(), 0);
}

#[test]
fn the_timer_interrupt_arrives_whatever_else_there_is() {
    for other in if cfg!(miri) { 40..41 } else { 40..51 }.chain([2]) {
        for steps in 0..4 {
            let mut machine = linked_machine(1, 4);
            machine.vgic.link(IntId::new(30), 30);
            machine.edge(other);
            // Untouched, acknowledged, ended, or ended and seen to be so.
            if steps > 0 {
                assert_eq!(machine.acknowledge(0), other);
            }
            if steps > 1 {
                machine.end(0, other);
            }
            if steps > 2 {
                machine.kick(Kicks::one(0));
            }
            fire_timer(&mut machine, 0);
            if steps == 1 {
                machine.end(0, other);
            }
            let mut seen = machine.drain(0);
            seen.sort_unstable();
            assert_eq!(seen, if steps == 0 { std::vec![other.min(TIMER), other.max(TIMER)] } else { std::vec![TIMER] });
            assert!(machine.core(0).active_ppis.is_empty());
        }
    }
}

#[test]
fn a_timer_in_a_group_that_is_off_waits_for_it() {
    let mut machine = linked_machine(1, 4);
    machine.gicd_write(0, CTLR, 0);
    fire_timer(&mut machine, 0);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    assert!(machine.core(0).active_ppis.contains(&TIMER));
    machine.gicd_write(0, CTLR, 0b10);
    assert_eq!(machine.drain(0), [TIMER]);
}

#[test]
fn a_second_timer_takes_the_place_of_one_that_has_ended() {
    let mut machine = linked_machine(1, 4);
    machine.vgic.link(IntId::new(30), 30);
    fire_timer(&mut machine, 0);
    assert_eq!(machine.acknowledge(0), TIMER);
    machine.cpus[0].1.end(TIMER);
    let (interface, core) = &mut machine.cpus[0];
    core.active_ppis.insert(30);
    let kicks = interface.deliver_linked(&machine.vgic, 0, IntId::new(30), core);
    machine.kick(kicks);
    let (interface, core) = &mut machine.cpus[0];
    assert_eq!(interface.unload(&machine.vgic, 0, core).0, 1 << 30, "the first one is over");
}

#[test]
fn a_masked_timer_is_kept_and_still_linked_when_it_is_unmasked() {
    let mut machine = linked_machine(1, 4);
    machine.gicr_write(0, 0, SGI_BASE + ICENABLER, 1 << TIMER);
    fire_timer(&mut machine, 0);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    assert!(machine.core(0).active_ppis.contains(&TIMER));
    machine.gicr_write(0, 0, SGI_BASE + ISENABLER, 1 << TIMER);
    assert_eq!(machine.acknowledge(0), TIMER);
    machine.end(0, TIMER);
    assert!(machine.core(0).active_ppis.is_empty());
}

#[test]
fn a_timer_is_forwarded_while_it_is_enabled() {
    let mut machine = linked_machine(2, 4);
    assert!(machine.vgic.is_forwarded(1, IntId::new(TIMER)));
    machine.gicr_write(1, 1, SGI_BASE + ICENABLER, 1 << TIMER);
    assert!(!machine.vgic.is_forwarded(1, IntId::new(TIMER)));
    assert!(machine.vgic.is_forwarded(0, IntId::new(TIMER)));
    machine.gicd_write(0, CTLR, 0);
    assert!(!machine.vgic.is_forwarded(0, IntId::new(TIMER)));
}

#[test]
fn a_masked_timer_that_is_turned_off_can_be_taken_back() {
    let mut machine = linked_machine(1, 4);
    machine.gicr_write(0, 0, SGI_BASE + ICENABLER, 1 << TIMER);
    fire_timer(&mut machine, 0);
    let (interface, core) = &mut machine.cpus[0];
    assert!(!interface.withdraw_linked(&machine.vgic, 0, IntId::new(TIMER), core));
    assert!(machine.core(0).active_ppis.is_empty());
    machine.gicr_write(0, 0, SGI_BASE + ISENABLER, 1 << TIMER);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    fire_timer(&mut machine, 0);
    assert_eq!(machine.drain(0), [TIMER]);
}

#[test]
fn a_listed_timer_that_is_turned_off_before_it_is_acknowledged_can_be_taken_back() {
    let mut machine = linked_machine(1, 4);
    fire_timer(&mut machine, 0);
    let (interface, core) = &mut machine.cpus[0];
    assert!(interface.withdraw_linked(&machine.vgic, 0, IntId::new(TIMER), core));
    machine.kick(Kicks::one(0));
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    assert!(machine.core(0).active_ppis.is_empty());
    // One that is active stays so.
    fire_timer(&mut machine, 0);
    assert_eq!(machine.acknowledge(0), TIMER);
    let (interface, core) = &mut machine.cpus[0];
    interface.withdraw_linked(&machine.vgic, 0, IntId::new(TIMER), core);
    machine.kick(Kicks::one(0));
    assert_eq!(machine.gicr_read(0, 0, SGI_BASE + ISACTIVER), 1 << TIMER);
    machine.end(0, TIMER);
    assert!(machine.core(0).active_ppis.is_empty());
    fire_timer(&mut machine, 0);
    assert_eq!(machine.drain(0), [TIMER]);
}

#[test]
fn a_line_that_is_high_is_pending_whatever_the_state_of_its_interrupt() {
    let machine = linked_machine(2, 4);
    for offset in [SGI_BASE + ISPENDR, SGI_BASE + ICPENDR] {
        assert_eq!(machine.vgic.pending_by_line(1, offset, u32::MAX), 1 << TIMER, "what is not linked has no line");
        assert_eq!(machine.vgic.pending_by_line(1, offset, 0), 0);
        assert_eq!(machine.vgic.pending_by_line(2, offset, u32::MAX), 0);
    }
    for offset in [ISPENDR, SGI_BASE + ISACTIVER, SGI_BASE + ISPENDR + 4, SGI_BASE + ICACTIVER] {
        assert_eq!(machine.vgic.pending_by_line(0, offset, u32::MAX), 0, "{offset:#x}");
    }
    let _nothing_pending = machine.vgic.redistributor_write(0, SGI_BASE + ICFGR + 4, vdev::Width::Word, 2 << 22);
    assert_eq!(machine.vgic.pending_by_line(0, SGI_BASE + ISPENDR, u32::MAX), 0, "an edge is no level");
}

#[test]
fn masking_a_listed_timer_takes_it_back_without_letting_go() {
    let mut machine = linked_machine(1, 4);
    fire_timer(&mut machine, 0);
    machine.gicr_write(0, 0, SGI_BASE + ICENABLER, 1 << TIMER);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    assert!(machine.core(0).active_ppis.contains(&TIMER));
    machine.gicr_write(0, 0, SGI_BASE + ISENABLER, 1 << TIMER);
    assert_eq!(machine.drain(0), [TIMER]);
    assert!(machine.core(0).active_ppis.is_empty());
}

#[test]
fn clearing_the_pending_timer_lets_go_of_the_physical_one() {
    for is_masked in [false, true] {
        let mut machine = linked_machine(1, 4);
        if is_masked {
            machine.gicr_write(0, 0, SGI_BASE + ICENABLER, 1 << TIMER);
        }
        fire_timer(&mut machine, 0);
        machine.gicr_write(0, 0, SGI_BASE + ICPENDR, 1 << TIMER);
        assert!(machine.core(0).active_ppis.is_empty(), "masked: {is_masked}");
        machine.gicr_write(0, 0, SGI_BASE + ISENABLER, 1 << TIMER);
        assert_eq!(machine.drain(0), []);
        fire_timer(&mut machine, 0);
        assert_eq!(machine.drain(0), [TIMER]);
    }
}

#[test]
fn clearing_the_active_timer_lets_go_of_the_physical_one() {
    let mut machine = linked_machine(2, 4);
    fire_timer(&mut machine, 1);
    assert_eq!(machine.acknowledge(1), TIMER);
    machine.gicr_write(0, 1, SGI_BASE + ICACTIVER, 1 << TIMER);
    assert!(machine.core(1).active_ppis.is_empty());
}

#[test]
fn a_timer_set_pending_while_active_comes_again() {
    let mut machine = linked_machine(1, 4);
    fire_timer(&mut machine, 0);
    assert_eq!(machine.acknowledge(0), TIMER);
    machine.gicr_write(0, 0, SGI_BASE + ISPENDR, 1 << TIMER);
    machine.end(0, TIMER);
    // Its end has no exit: it comes with the next one.
    machine.kick(Kicks::one(0));
    assert_eq!(machine.drain(0), [TIMER]);
}

#[test]
fn a_timer_that_fires_before_its_end_is_seen_is_not_lost() {
    let mut machine = linked_machine(1, 4);
    fire_timer(&mut machine, 0);
    assert_eq!(machine.acknowledge(0), TIMER);
    machine.cpus[0].1.end(TIMER);
    fire_timer(&mut machine, 0);
    let (held, _) = {
        let (interface, core) = &mut machine.cpus[0];
        interface.unload(&machine.vgic, 0, core)
    };
    assert_eq!(held, 1 << TIMER);
}

#[test]
fn an_assigned_device_interrupts_and_is_let_go() {
    let mut machine = linked_machine(2, 4);
    machine.route(40, 1);
    machine.edge(40);
    assert_eq!(machine.core(1).register_of(40).unwrap().physical(), Some(77));
    assert_eq!(machine.drain(1), [40]);
    assert_eq!(machine.core(1).deactivated, [77]);
    machine.edge(40);
    machine.gicd_write(0, ICPENDR + 4, 1 << 8);
    assert_eq!(machine.core(1).deactivated, [77, 77]);
    machine.gicd_write(0, ICENABLER + 4, 1 << 8);
    machine.edge(40);
    machine.gicd_write(0, ICPENDR + 4, 1 << 8);
    let all: usize = machine.cpus.iter().map(|(_, core)| core.deactivated.len()).sum();
    assert_eq!(all, 3);
}

#[test]
fn a_spilled_timer_is_let_go_at_its_end() {
    let mut machine = linked_machine(1, 2);
    machine.gicr_write(0, 0, SGI_BASE + IPRIORITYR + 24, 0xf8f8_f8f8);
    fire_timer(&mut machine, 0);
    assert_eq!(machine.acknowledge(0), TIMER);
    for (intid, priority) in [(50, 0x80), (51, 0x40)] {
        machine.set_priority(intid, priority);
        machine.edge(intid);
        assert_eq!(machine.acknowledge(0), intid);
    }
    assert!(!machine.core(0).listed().contains(&TIMER));
    let (interface, core) = &mut machine.cpus[0];
    assert_eq!(interface.unload(&machine.vgic, 0, core).0, 1 << TIMER);
    assert_eq!(interface.load(&machine.vgic, 0, core), 1 << TIMER);
    core.active_ppis.insert(TIMER);
    machine.end(0, 51);
    machine.end(0, 50);
    assert!(machine.core(0).active_ppis.contains(&TIMER));
    machine.end(0, TIMER);
    assert!(machine.core(0).active_ppis.is_empty());
}

#[test]
fn a_virtual_cpu_leaves_its_core_and_comes_back_with_its_interrupts() {
    let mut machine = linked_machine(1, 4);
    machine.line(33, true);
    assert_eq!(machine.acknowledge(0), 33);
    fire_timer(&mut machine, 0);
    machine.edge(50);
    let (interface, core) = &mut machine.cpus[0];
    let (held, kicks) = interface.unload(&machine.vgic, 0, core);
    assert_eq!((held, kicks), (1 << TIMER, Kicks::NONE));
    assert!(core.active_ppis.is_empty(), "the next virtual CPU needs the timer");
    assert_eq!(core.listed(), []);
    assert!(interface.has_pending(&machine.vgic, 0, core));
    // The line drops and a kick comes in the meantime.
    let kicks = machine.vgic.set_line(IntId::new(33), 0, false) | machine.vgic.inject(IntId::new(51), 0);
    machine.kick(kicks);
    assert_eq!(machine.core(0).listed(), [], "a kick that is late touches nothing");
    let (interface, core) = &mut machine.cpus[0];
    assert_eq!(interface.load(&machine.vgic, 0, core), 1 << TIMER);
    core.active_ppis.insert(TIMER);
    machine.kick(Kicks::one(0));
    machine.end(0, 33);
    let mut seen = machine.drain(0);
    seen.sort_unstable();
    assert_eq!(seen, [TIMER, 50, 51]);
    assert!(machine.core(0).active_ppis.is_empty());
}

#[test]
fn a_timer_cleared_by_another_while_unloaded_is_not_made_active_again() {
    let mut machine = linked_machine(2, 4);
    machine.gicr_write(1, 1, SGI_BASE + ICENABLER, 1 << TIMER);
    fire_timer(&mut machine, 1);
    let (interface, core) = &mut machine.cpus[1];
    assert_eq!(interface.unload(&machine.vgic, 1, core).0, 1 << TIMER);
    machine.gicr_write(0, 1, SGI_BASE + ICPENDR, 1 << TIMER);
    let (interface, core) = &mut machine.cpus[1];
    assert_eq!(interface.load(&machine.vgic, 1, core), 0);
}

#[test]
fn overflow_survives_a_change_of_virtual_cpu() {
    let mut machine = linked_machine(1, 2);
    for (intid, priority) in [(50, 0xc0), (51, 0x80), (52, 0x40)] {
        machine.set_priority(intid, priority);
        machine.edge(intid);
        assert_eq!(machine.acknowledge(0), intid);
    }
    machine.edge(60);
    let (interface, core) = &mut machine.cpus[0];
    assert!(interface.unload(&machine.vgic, 0, core).1.is_empty());
    assert!(!core.maintenance());
    interface.load(&machine.vgic, 0, core);
    machine.kick(Kicks::one(0));
    for intid in [52, 51, 50] {
        machine.end(0, intid);
    }
    assert_eq!(machine.drain(0), [60]);
    assert_eq!(machine.gicd_read(0, ISACTIVER + 4), 0);
}

#[test]
fn what_a_virtual_cpu_has_acknowledged_is_seen_while_it_is_away() {
    let mut machine = linked_machine(2, 4);
    machine.line(33, true);
    machine.sgi(0, 3 << 24 | 1);
    assert_eq!([machine.acknowledge(0), machine.acknowledge(0)], [33, SPURIOUS]);
    let (interface, core) = &mut machine.cpus[0];
    let _nobody_else = interface.unload(&machine.vgic, 0, core);
    assert_eq!(machine.gicd_read(1, ISACTIVER + 4), 1 << 1);
    assert_eq!(machine.gicr_read(1, 0, SGI_BASE + ISPENDR), 1 << 3);
    assert_eq!(machine.gicr_read(1, 0, SGI_BASE + ISACTIVER), 0);
    let (interface, core) = &mut machine.cpus[0];
    interface.load(&machine.vgic, 0, core);
    machine.kick(Kicks::one(0));
    machine.line(33, false);
    machine.end(0, 33);
    assert_eq!(machine.gicd_read(1, ISACTIVER + 4), 0);
    assert_eq!(machine.drain(0), [3]);
    assert_eq!(machine.gicr_read(1, 0, SGI_BASE + ISPENDR), 0);
}

#[test]
fn what_waits_for_a_virtual_cpu_that_is_turned_off_comes_when_it_is_on_again() {
    for is_loaded in [true, false] {
        let mut machine = linked_machine(2, 2);
        for intid in [40, 50, 51] {
            machine.make_edge(intid);
            machine.route(intid, 1);
            machine.edge(intid);
        }
        machine.line(33, true);
        machine.route(33, 1);
        machine.sgi(0, 3 << 24 | 0b10);
        let (interface, core) = &mut machine.cpus[1];
        if !is_loaded {
            let _nobody_else = interface.unload(&machine.vgic, 1, core);
        }
        interface.reset(&machine.vgic, 1, core);
        assert_eq!(core.listed(), []);
        assert!(!core.maintenance());
        // The device of 40 still asks; its physical interrupt is no longer active, so it comes again.
        assert_eq!(core.deactivated, [77]);
        machine.cpus[1].0 = CpuInterface::new();
        machine.kick(Kicks::one(1));
        machine.edge(40);
        let mut seen = std::vec![];
        for _ in 0..5 {
            let intid = machine.acknowledge(1);
            seen.push(intid);
            if intid == 33 {
                machine.line(33, false);
            }
            machine.end(1, intid);
        }
        seen.sort_unstable();
        assert_eq!(seen, [3, 33, 40, 50, 51], "loaded: {is_loaded}");
        assert_eq!(machine.drain(1), []);
    }
}

#[test]
fn a_restart_lets_go_of_everything() {
    let mut machine = linked_machine(1, 4);
    fire_timer(&mut machine, 0);
    machine.edge(40);
    let (interface, core) = &mut machine.cpus[0];
    interface.reset(&machine.vgic, 0, core);
    machine.restart();
    machine.kick(Kicks::one(0));
    assert!(machine.core(0).active_ppis.is_empty());
    assert!(machine.core(0).deactivated.contains(&77));
    // Masked and waiting at the time of the restart.
    let mut machine = linked_machine(1, 4);
    machine.gicd_write(0, ICENABLER + 4, 1 << 8);
    machine.edge(40);
    let (interface, core) = &mut machine.cpus[0];
    interface.reset(&machine.vgic, 0, core);
    machine.restart();
    machine.kick(Kicks::one(0));
    assert_eq!(machine.core(0).deactivated, [77]);
}

#[test]
fn links_outlast_a_restart() {
    let mut machine = linked_machine(1, 4);
    machine.restart();
    machine.gicd_write(0, CTLR, 2);
    machine.gicr_write(0, 0, SGI_BASE + ISENABLER, 1 << TIMER);
    fire_timer(&mut machine, 0);
    assert_eq!(machine.core(0).register_of(TIMER).unwrap().physical(), Some(TIMER));
}
