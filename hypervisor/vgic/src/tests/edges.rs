//! Edge-triggered SPIs, as para-virtual devices and doorbells raise them: one at a time, most of the time.

use super::core::SPURIOUS;
use super::machine::*;

const DISK: u32 = 41;
const CARD: u32 = 42;
/// In another word of 32.
const DOORBELL: u32 = 80;

fn machine(vcpus: usize) -> Machine {
    let mut machine = Machine::ready(vcpus, 4);
    for intid in [DISK, CARD, DOORBELL] {
        machine.make_edge(intid);
    }
    machine
}

/// The guest takes one interrupt and ends it, without an exit.
#[track_caller]
fn take(machine: &mut Machine, vcpu: usize, intid: u32) {
    assert_eq!(machine.acknowledge(vcpu), intid);
    machine.cpus[vcpu].1.end(intid);
    assert!(!machine.core(vcpu).maintenance(), "its end is not heard of");
}

#[test]
fn one_comes_again_and_again_and_its_end_needs_no_exit() {
    let mut machine = machine(1);
    for _ in 0..4 {
        machine.line(DISK, true);
        machine.line(DISK, false);
        take(&mut machine, 0, DISK);
        assert_eq!(machine.acknowledge(0), SPURIOUS);
    }
}

#[test]
fn several_and_private_ones_take_turns() {
    let mut machine = machine(1);
    for _ in 0..3 {
        for intid in [DISK, CARD, DOORBELL, DISK] {
            machine.edge(intid);
            take(&mut machine, 0, intid);
            machine.sgi(0, 3 << 24 | 1);
            take(&mut machine, 0, 3);
            machine.edge(intid);
            machine.edge(CARD);
            machine.sgi(0, 3 << 24 | 1);
            let mut seen = machine.drain(0);
            seen.sort_unstable();
            let mut expected = std::vec![3, intid, CARD];
            expected.sort_unstable();
            expected.dedup();
            assert_eq!(seen, expected);
        }
    }
}

#[test]
fn one_that_comes_while_it_is_active_is_taken_after_its_end() {
    let mut machine = machine(1);
    for _ in 0..3 {
        machine.edge(DISK);
        assert_eq!(machine.acknowledge(0), DISK);
        machine.edge(DISK);
        assert_eq!(machine.acknowledge(0), SPURIOUS);
        machine.end(0, DISK);
        take(&mut machine, 0, DISK);
        assert_eq!(machine.acknowledge(0), SPURIOUS);
    }
}

#[test]
fn a_masked_one_waits_also_after_others_of_its_kind() {
    let mut machine = machine(1);
    machine.edge(DISK);
    take(&mut machine, 0, DISK);
    machine.gicd_write(0, ICENABLER + 4, 1 << (DISK - 32));
    machine.edge(DISK);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    assert_eq!(machine.gicd_read(0, ISPENDR + 4), 1 << (DISK - 32));
    machine.gicd_write(0, ISENABLER + 4, 1 << (DISK - 32));
    take(&mut machine, 0, DISK);
    // The whole group, likewise.
    machine.gicd_write(0, CTLR, 0);
    machine.edge(DISK);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    machine.gicd_write(0, CTLR, 0b10);
    take(&mut machine, 0, DISK);
}

#[test]
fn one_that_the_guest_has_looked_at_is_seen_as_it_is() {
    let mut machine = machine(1);
    machine.edge(DISK);
    assert_eq!(machine.acknowledge(0), DISK);
    assert_eq!(machine.gicd_read(0, ISACTIVER + 4), 1 << (DISK - 32));
    machine.cpus[0].1.end(DISK);
    machine.edge(DISK);
    assert_eq!(machine.gicd_read(0, ISPENDR + 4), 1 << (DISK - 32));
    assert_eq!(machine.gicd_read(0, ISACTIVER + 4), 0);
    machine.gicd_write(0, ICPENDR + 4, 1 << (DISK - 32));
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    machine.edge(DISK);
    take(&mut machine, 0, DISK);
}

#[test]
fn one_that_is_routed_elsewhere_goes_there_the_next_time() {
    let mut machine = machine(2);
    machine.edge(DISK);
    take(&mut machine, 0, DISK);
    machine.route(DISK, 1);
    machine.edge(DISK);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    take(&mut machine, 1, DISK);
    machine.route(DISK, 0);
    machine.edge(DISK);
    take(&mut machine, 0, DISK);
}

#[test]
fn a_line_that_falls_takes_no_edge_back() {
    let mut machine = machine(1);
    machine.line(DISK, true);
    machine.line(DISK, false);
    take(&mut machine, 0, DISK);
    // While it is in the list register, too.
    machine.line(DISK, true);
    assert_eq!(machine.acknowledge(0), DISK);
    machine.line(DISK, false);
    machine.line(DISK, true);
    machine.end(0, DISK);
    take(&mut machine, 0, DISK);
}

#[test]
fn one_that_becomes_level_sensitive_follows_its_line_from_then_on() {
    let mut machine = machine(1);
    machine.line(DISK, true);
    take(&mut machine, 0, DISK);
    let offset = ICFGR + 4 * u64::from(DISK / 16);
    machine.gicd_write(0, offset, 0);
    assert_eq!(machine.acknowledge(0), DISK);
    machine.line(DISK, false);
    machine.end(0, DISK);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
}
