//! A virtual CPU that is not on its core: what wakes it, and what it finds when it is back.

use super::machine::*;
use crate::{IntId, Kicks};

const TIMER: u32 = 27;

/// Takes virtual CPU 0 off its core. Returns the PPIs whose physical interrupt was active.
fn unload(machine: &mut Machine) -> u32 {
    let (interface, core) = &mut machine.cpus[0];
    let (held, kicks) = interface.unload(&machine.vgic, 0, core);
    assert_eq!(kicks, Kicks::NONE);
    held
}

/// Brings it back. Returns the PPIs whose physical interrupt is to be active again.
fn load(machine: &mut Machine) -> u32 {
    let (interface, core) = &mut machine.cpus[0];
    let held = interface.load(&machine.vgic, 0, core);
    machine.kick(Kicks::one(0));
    held
}

/// Whether it has a reason to run, if it waits for an interrupt.
fn is_woken(machine: &Machine) -> bool {
    let (interface, core) = &machine.cpus[0];
    machine.vgic.has_deliverable(0) || interface.has_pending(&machine.vgic, 0, core)
}

#[test]
fn whatever_can_be_delivered_wakes_a_waiting_virtual_cpu_and_nothing_else_does() {
    for intid in if cfg!(miri) { &[TIMER, 40][..] } else { &[2, TIMER, 40, 70] } {
        let intid = *intid;
        // Before anything has happened, and after an interrupt that has ended.
        for before in [None, Some(3), Some(50)] {
            let mut machine = Machine::ready(2, 4);
            if let Some(before) = before {
                machine.edge(before);
                assert_eq!(machine.acknowledge(0), before);
                machine.end(0, before);
            }
            assert_eq!(unload(&mut machine), 0);
            assert!(!is_woken(&machine), "{intid} after {before:?}");
            let late = machine.vgic.inject(IntId::new(intid), 0);
            machine.kick(late);
            assert!(is_woken(&machine), "{intid} after {before:?}");
            assert_eq!(load(&mut machine), 0);
            assert_eq!(machine.drain(0), [intid]);
        }
    }
}

#[test]
fn an_interrupt_that_was_never_read_is_still_there_after_an_absence() {
    for intid in [2, 40] {
        let mut machine = Machine::ready(1, 4);
        machine.edge(intid);
        unload(&mut machine);
        assert!(is_woken(&machine));
        load(&mut machine);
        assert_eq!(machine.drain(0), [intid]);
    }
}

#[test]
fn an_interrupt_that_found_no_list_register_wakes_a_virtual_cpu_that_waits_in_two_handlers() {
    let mut machine = Machine::ready(1, 2);
    for (intid, priority) in [(40, 0x80), (41, 0x40)] {
        machine.set_priority(intid, priority);
        machine.edge(intid);
        assert_eq!(machine.acknowledge(0), intid);
    }
    machine.set_priority(70, 0xf0);
    machine.edge(70);
    unload(&mut machine);
    assert!(is_woken(&machine), "it is pending, and WFI does not ask for its priority");
    load(&mut machine);
    machine.end(0, 41);
    machine.end(0, 40);
    assert_eq!(machine.drain(0), [70]);
}

#[test]
fn a_timer_interrupt_that_has_ended_leaves_nothing_to_make_active_again() {
    let mut machine = Machine::ready(1, 4);
    machine.vgic.link(IntId::new(TIMER), TIMER);
    let (interface, core) = &mut machine.cpus[0];
    core.active_ppis.insert(TIMER);
    let kicks = interface.deliver_linked(&machine.vgic, 0, IntId::new(TIMER), core);
    machine.kick(kicks);
    let holds_physical = |machine: &Machine| {
        let (interface, core) = &machine.cpus[0];
        interface.holds_physical(&machine.vgic, 0, core)
    };
    assert!(holds_physical(&machine));
    assert_eq!(machine.acknowledge(0), TIMER);
    assert!(holds_physical(&machine));
    machine.cpus[0].1.end(TIMER);
    assert!(!holds_physical(&machine));
    assert_eq!(unload(&mut machine), 0);
    assert_eq!(load(&mut machine), 0);
    // One that the guest has masked waits in no list register.
    machine.gicr_write(0, 0, SGI_BASE + ICENABLER, 1 << TIMER);
    let (interface, core) = &mut machine.cpus[0];
    core.active_ppis.insert(TIMER);
    let kicks = interface.deliver_linked(&machine.vgic, 0, IntId::new(TIMER), core);
    machine.kick(kicks);
    assert!(holds_physical(&machine));
    assert_eq!(machine.drain(0), []);
}
