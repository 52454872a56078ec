//! A guest with list registers sees the interrupts that it would see on the bare board, which has no such limit: at
//! every moment the board's interrupt controller, as an oracle has it, signals an interrupt of the same priority.

use std::vec::Vec;

use super::core::SPURIOUS;
use super::machine::*;
use super::random::Random;

/// SGIs, and SPIs of two words.
const INTIDS: [u32; 20] = [0, 1, 2, 3, 56, 57, 58, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 69, 70, 71];

/// What the guest's ends of interrupts do (ICC_CTLR_EL1.EOImode).
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    DropAndDeactivate,
    DropOnly,
}

#[derive(Clone, Copy, Default)]
struct Interrupt {
    priority: u8,
    enabled: bool,
    pending: bool,
    active: bool,
}

/// The bare board: a state for each interrupt, and the priorities that run.
struct Board {
    interrupts: [Interrupt; INTIDS.len()],
    running: Vec<(u8, usize)>,
}

impl Board {
    /// The priority of the interrupt that is signalled (IHI0069, "Interrupt prioritization"): the best of those that
    /// are pending, enabled and not active, if it is better than what runs.
    fn signalled(&self) -> Option<u8> {
        let limit = self.running.last().map_or(0x100, |(priority, _)| u16::from(*priority));
        let waiting = self.interrupts.iter().filter(|it| it.pending && it.enabled && !it.active);
        waiting.map(|it| it.priority).min().filter(|priority| u16::from(*priority) < limit)
    }
}

struct Pair {
    machine: Machine,
    board: Board,
    random: Random,
    mode: Mode,
    levels: u32,
}

impl Pair {
    fn new(seed: u64, list_registers: usize, mode: Mode, levels: u32) -> Self {
        let mut pair = Self {
            machine: Machine::ready(1, list_registers),
            board: Board { interrupts: [Interrupt::default(); INTIDS.len()], running: Vec::new() },
            random: Random(seed),
            mode,
            levels,
        };
        for (index, intid) in INTIDS.into_iter().enumerate() {
            pair.board.interrupts[index].enabled = true;
            pair.change_priority(index);
            if intid >= 32 && index % 3 != 0 {
                pair.machine.make_edge(intid);
            }
        }
        pair
    }

    fn any(&mut self) -> usize {
        self.random.below(INTIDS.len() as u32) as usize
    }

    fn change_priority(&mut self, index: usize) {
        let priority = (self.random.below(self.levels) * (32 / self.levels) * 8) as u8;
        self.board.interrupts[index].priority = priority;
        match INTIDS[index] {
            intid @ 32.. => self.machine.set_priority(intid, priority),
            intid => {
                let offset = SGI_BASE + IPRIORITYR + u64::from(intid & !3);
                let shift = 8 * (intid % 4);
                let others = self.machine.gicr_read(0, 0, offset) & !(0xff << shift);
                self.machine.gicr_write(0, 0, offset, others | u32::from(priority) << shift);
            }
        }
    }

    fn write_bit(&mut self, register: u64, index: usize) {
        match INTIDS[index] {
            intid @ 32.. => self.machine.gicd_write(0, register + 4 * u64::from(intid / 32), 1 << (intid % 32)),
            intid => self.machine.gicr_write(0, 0, SGI_BASE + register, 1 << intid),
        }
    }

    fn raise(&mut self, index: usize) {
        self.board.interrupts[index].pending = true;
        self.write_bit(ISPENDR, index);
    }

    fn acknowledge(&mut self) {
        let due = self.board.signalled();
        let intid = self.machine.acknowledge(0);
        let Some(priority) = due else { return assert_eq!(intid, SPURIOUS) };
        let index = INTIDS.iter().position(|it| *it == intid).expect("an interrupt is due");
        let interrupt = &mut self.board.interrupts[index];
        assert!(interrupt.pending && !interrupt.active, "{intid} came");
        assert_eq!(interrupt.priority, priority, "{intid} came out of its turn");
        (interrupt.pending, interrupt.active) = (false, true);
        self.board.running.push((priority, index));
    }

    fn end(&mut self) {
        let Some((_, index)) = self.board.running.pop() else { return };
        match self.mode {
            Mode::DropAndDeactivate => {
                self.board.interrupts[index].active = false;
                self.machine.end(0, INTIDS[index]);
            }
            Mode::DropOnly => self.machine.drop_priority(0),
        }
    }

    /// The guest deactivates an interrupt whose priority it has dropped: in any order.
    fn deactivate(&mut self) {
        let from = self.any();
        let is_done = |index: &usize| {
            self.board.interrupts[*index].active && self.board.running.iter().all(|(_, running)| running != index)
        };
        let Some(index) = (from..INTIDS.len()).chain(0..from).find(is_done) else { return };
        self.board.interrupts[index].active = false;
        if self.random.below(4) == 0 {
            self.write_bit(ICACTIVER, index);
        } else {
            self.machine.deactivate(0, INTIDS[index]);
        }
    }

    fn step(&mut self) {
        let index = self.any();
        // A flush may be in a hurry.
        self.machine.cpus[0].1.is_interrupt_pending = self.random.below(2) == 0;
        match self.random.below(16) {
            0..=3 => self.raise(index),
            4 => {
                let count = 1 + self.random.below(16);
                for _ in 0..count {
                    let index = self.any();
                    self.raise(index);
                }
            }
            5..=9 => self.acknowledge(),
            10..=11 => self.end(),
            12..=13 if self.mode == Mode::DropOnly => self.deactivate(),
            12 | 13 => self.end(),
            14 => {
                let enabled = &mut self.board.interrupts[index].enabled;
                *enabled = !*enabled;
                let register = if *enabled { ISENABLER } else { ICENABLER };
                self.write_bit(register, index);
            }
            // What runs keeps the priority that it was acknowledged with.
            _ if !self.board.interrupts[index].active => self.change_priority(index),
            _ => {}
        }
        self.check();
    }

    fn check(&mut self) {
        assert_eq!(self.machine.core(0).signalled_priority(), self.board.signalled());
        let active = |from: u32| {
            (0..).zip(&INTIDS).filter(|(_, intid)| **intid >= from && **intid < from + 32).fold(
                0,
                |bits, (index, it)| {
                    let index: usize = index;
                    bits | u32::from(self.board.interrupts[index].active) << (it % 32)
                },
            )
        };
        let (sgis, first, second) = (active(0), active(32), active(64));
        assert_eq!(self.machine.gicr_read(0, 0, SGI_BASE + ISACTIVER), sgis);
        assert_eq!(self.machine.gicd_read(0, ISACTIVER + 4), first);
        assert_eq!(self.machine.gicd_read(0, ISACTIVER + 8), second);
    }
}

#[test]
fn interrupts_come_in_the_bare_boards_order_whatever_is_active_and_however_deep() {
    let (seeds, steps) = if cfg!(miri) { (2, 60) } else { (80, 800) };
    let mut deepest = 0;
    for seed in 1..=seeds {
        let mode = if seed % 2 == 0 { Mode::DropAndDeactivate } else { Mode::DropOnly };
        let list_registers = [2, 3, 4, 16][seed as usize / 2 % 4];
        let levels = [32, 1, 2, 8, 16][seed as usize % 5];
        let mut pair = Pair::new(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed), list_registers, mode, levels);
        for _ in 0..steps {
            pair.step();
            deepest = deepest.max(pair.board.running.len());
        }
    }
    assert!(cfg!(miri) || deepest > 4, "handlers nested {deepest} deep");
}

/// Acknowledges all of `count` interrupts of one priority, ends none, and gives them.
fn acknowledge_and_drop(machine: &mut Machine, count: u32) -> Vec<u32> {
    (0..count)
        .map(|_| {
            let intid = machine.acknowledge(0);
            machine.drop_priority(0);
            intid
        })
        .collect()
}

#[test]
fn a_guest_that_keeps_everything_active_gets_every_interrupt_without_another_exit() {
    let mut machine = Machine::ready(1, 4);
    let all: Vec<u32> = (64..70).collect();
    machine.gicd_write(0, ISPENDR + 8, 0x3f);
    // Nothing of what the guest does from here on exits by itself.
    assert_eq!(acknowledge_and_drop(&mut machine, 6), all);
    for intid in [67, 64, 69, 65, 68, 66] {
        machine.deactivate(0, intid);
    }
    assert_eq!(machine.gicd_read(0, ISACTIVER + 8), 0);
    assert!(!machine.core(0).traps_deactivation() && !machine.core(0).asks_when_none_pends);
}

#[test]
fn all_of_many_interrupts_can_be_active_at_once() {
    let mut machine = Machine::ready(1, 2);
    let last = if cfg!(miri) { 40 } else { 96 };
    let mut seen = Vec::new();
    for intid in 32..last {
        machine.edge(intid);
        seen.extend(acknowledge_and_drop(&mut machine, 1));
    }
    assert_eq!(seen, (32..last).collect::<Vec<_>>());
    for intid in seen {
        machine.deactivate(0, intid);
    }
    assert_eq!(machine.gicd_read(0, ISACTIVER + 4), 0);
    assert_eq!(machine.gicd_read(0, ISACTIVER + 8), 0);
}

#[test]
fn an_interrupt_between_two_nested_handlers_comes_as_soon_as_the_inner_ones_have_ended() {
    let mut machine = Machine::ready(1, 4);
    for (intid, priority) in [(40, 0xe0), (41, 0xc0), (42, 0x80), (43, 0x40)] {
        machine.set_priority(intid, priority);
        machine.edge(intid);
        assert_eq!(machine.acknowledge(0), intid);
    }
    machine.set_priority(50, 0xa0);
    machine.edge(50);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    machine.end(0, 43);
    assert_eq!(machine.acknowledge(0), SPURIOUS);
    machine.end(0, 42);
    assert_eq!(machine.acknowledge(0), 50);
    for intid in [50, 41, 40] {
        machine.end(0, intid);
    }
    assert_eq!(machine.gicd_read(0, ISACTIVER + 4), 0);
}
