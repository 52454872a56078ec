//! The interrupt of an assigned device, taken on the core of a virtual CPU of its owner's.

use super::core::SPURIOUS;
use super::machine::*;
use crate::{IntId, Kicks};

const DEVICE: u32 = 40;
const PHYSICAL: u32 = 77;
const TIMER: u32 = 27;

fn owner(vcpus: usize) -> Machine {
    let machine = Machine::ready(vcpus, 4);
    machine.vgic.link(IntId::new(TIMER), TIMER);
    machine.vgic.link(IntId::new(DEVICE), PHYSICAL);
    machine
}

/// The physical interrupt arrives on the core of `vcpu`. Gives who had to be told beside.
fn fire(machine: &mut Machine, vcpu: usize) -> Kicks {
    let (interface, core) = &mut machine.cpus[vcpu];
    let kicks = interface.deliver_linked_shared(&machine.vgic, vcpu, IntId::new(DEVICE), core);
    machine.kick(kicks);
    kicks
}

fn fire_timer(machine: &mut Machine, vcpu: usize) {
    let (interface, core) = &mut machine.cpus[vcpu];
    core.active_ppis.insert(TIMER);
    let kicks = interface.deliver_linked(&machine.vgic, vcpu, IntId::new(TIMER), core);
    machine.kick(kicks);
}

/// The guest takes one interrupt and ends it, without an exit.
#[track_caller]
fn take(machine: &mut Machine, vcpu: usize, intid: u32) {
    assert_eq!(machine.acknowledge(vcpu), intid);
    machine.cpus[vcpu].1.end(intid);
    assert!(!machine.core(vcpu).maintenance(), "its end is not heard of");
}

#[test]
fn it_comes_again_and_again_and_its_end_needs_no_exit() {
    let mut machine = owner(1);
    for round in 1..4 {
        assert!(fire(&mut machine, 0).is_empty());
        assert_eq!(machine.core(0).register_of(DEVICE).unwrap().physical(), Some(PHYSICAL));
        take(&mut machine, 0, DEVICE);
        assert_eq!(machine.core(0).deactivated.len(), round);
    }
}

#[test]
fn it_and_the_timer_take_turns() {
    let mut machine = owner(1);
    for _ in 0..3 {
        let _nobody_else = fire(&mut machine, 0);
        take(&mut machine, 0, DEVICE);
        fire_timer(&mut machine, 0);
        take(&mut machine, 0, TIMER);
        assert!(machine.core(0).active_ppis.is_empty());
    }
    // At the same time.
    fire_timer(&mut machine, 0);
    let _nobody_else = fire(&mut machine, 0);
    let mut seen = machine.drain(0);
    seen.sort_unstable();
    assert_eq!(seen, [TIMER, DEVICE]);
    assert!(machine.core(0).active_ppis.is_empty());
    assert_eq!(machine.core(0).deactivated.iter().filter(|physical| **physical == PHYSICAL).count(), 4);
}

#[test]
fn it_goes_where_the_guest_has_routed_it() {
    let mut machine = owner(2);
    let _nobody_else = fire(&mut machine, 0);
    take(&mut machine, 0, DEVICE);
    machine.route(DEVICE, 1);
    // To the old core, once more.
    assert!(fire(&mut machine, 0).contains(1));
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    take(&mut machine, 1, DEVICE);
    // To the new one.
    assert!(fire(&mut machine, 1).is_empty());
    take(&mut machine, 1, DEVICE);
    assert_eq!(machine.vgic.target(IntId::new(DEVICE)), Some(1));
    machine.route(DEVICE, 9);
    assert_eq!(machine.vgic.target(IntId::new(DEVICE)), None);
    // Nobody's: it waits.
    assert!(fire(&mut machine, 1).is_empty());
    assert_eq!([machine.acknowledge(0), machine.acknowledge(1)], [SPURIOUS, SPURIOUS]);
    machine.route(DEVICE, 0);
    take(&mut machine, 0, DEVICE);
}

#[test]
fn one_that_is_routed_elsewhere_before_it_is_taken_moves() {
    let mut machine = owner(2);
    let _nobody_else = fire(&mut machine, 0);
    machine.route(DEVICE, 1);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    take(&mut machine, 1, DEVICE);
    assert_eq!(machine.core(1).deactivated, [PHYSICAL]);
    assert!(machine.core(0).deactivated.is_empty());
}

#[test]
fn a_masked_one_waits_and_is_still_linked() {
    let mut machine = owner(1);
    machine.gicd_write(0, ICENABLER + 4, 1 << 8);
    let _nobody_else = fire(&mut machine, 0);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    machine.gicd_write(0, ISENABLER + 4, 1 << 8);
    take(&mut machine, 0, DEVICE);
    assert_eq!(machine.core(0).deactivated, [PHYSICAL]);
}

#[test]
fn one_that_is_cleared_before_it_is_taken_is_let_go_of() {
    let mut machine = owner(2);
    let _nobody_else = fire(&mut machine, 0);
    machine.gicd_write(1, ICPENDR + 4, 1 << 8);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    assert_eq!(machine.core(0).deactivated, [PHYSICAL]);
    let _nobody_else = fire(&mut machine, 0);
    take(&mut machine, 0, DEVICE);
}

#[test]
fn only_a_store_to_a_route_names_an_interrupt() {
    use crate::Vgic;
    assert_eq!(Vgic::routed_at(IROUTER + 8 * 40), Some(40));
    assert_eq!(Vgic::routed_at(IROUTER + 8 * 40 + 4), Some(40));
    assert_eq!(Vgic::routed_at(ICFGR), None);
    assert_eq!(Vgic::routed_at(0x8000), None);
}

#[test]
fn another_virtual_cpu_that_clears_it_before_its_flush_lets_go_of_the_physical_one() {
    let mut machine = owner(2);
    let _nobody_else = fire(&mut machine, 0);
    take(&mut machine, 0, DEVICE);
    // It has come again, and its core has yet to flush: it is in flight still, and latched.
    let flushes = machine.vgic.inject(IntId::new(DEVICE), 0);
    let kicks = machine.vgic.distributor_write(ICPENDR + 4, vdev::Width::Word, 1 << (DEVICE - 32));
    machine.kick(flushes | kicks.expect("the store is taken"));
    assert_eq!(machine.core(0).deactivated, [PHYSICAL, PHYSICAL]);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    let _nobody_else = fire(&mut machine, 0);
    take(&mut machine, 0, DEVICE);
}
