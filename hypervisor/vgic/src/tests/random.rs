//! A guest and its devices do anything in any order; no interrupt is lost, and none comes that nobody raised.

use std::collections::BTreeSet;

use super::core::SPURIOUS;
use super::machine::*;
use crate::{IntId, Kicks, ListState};

const VCPUS: usize = 3;
const TIMER: u32 = 27;
/// Level-sensitive SPIs, edge-triggered ones, and a linked one.
const LEVEL: core::ops::Range<u32> = 33..41;
const EDGE: core::ops::Range<u32> = 62..74;
const LINKED: u32 = 80;
const PHYSICAL: u32 = 200;

pub struct Random(pub u64);

impl Random {
    /// xorshift64 (Marsaglia).
    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) % u64::from(limit)) as u32
    }
}

/// What must be true of the interrupts, kept apart from the vGIC.
struct World {
    machine: Machine,
    random: Random,
    high: BTreeSet<u32>,
    /// Edges, timers and SGIs that have been raised and not acknowledged: (virtual CPU for private ones, INTID).
    raised: BTreeSet<(usize, u32)>,
    active: BTreeSet<(usize, u32)>,
    is_physical_active: bool,
    is_loaded: [bool; VCPUS],
}

/// An SPI is one interrupt for all; an SGI or PPI one for each.
fn key(vcpu: usize, intid: u32) -> (usize, u32) {
    (if intid < 32 { vcpu } else { 0 }, intid)
}

impl World {
    fn new(seed: u64, list_registers: usize) -> Self {
        let mut machine = Machine::ready(VCPUS, list_registers);
        machine.vgic.link(IntId::new(TIMER), TIMER);
        machine.vgic.link(IntId::new(LINKED), PHYSICAL);
        for intid in EDGE {
            machine.make_edge(intid);
        }
        Self {
            machine,
            random: Random(seed),
            high: BTreeSet::new(),
            raised: BTreeSet::new(),
            active: BTreeSet::new(),
            is_physical_active: false,
            is_loaded: [true; VCPUS],
        }
    }

    fn step(&mut self) {
        let vcpu = self.random.below(VCPUS as u32) as usize;
        match self.random.below(20) {
            0..=2 => {
                let intid = EDGE.start + self.random.below(EDGE.len() as u32);
                self.raised.insert(key(0, intid));
                self.machine.edge(intid);
            }
            3 | 4 => {
                let intid = LEVEL.start + self.random.below(LEVEL.len() as u32);
                let level = self.high.insert(intid) || !self.high.remove(&intid);
                self.machine.line(intid, level);
            }
            5 | 6 => {
                let (number, targets) = (self.random.below(16), self.random.below(1 << VCPUS));
                for target in (0..VCPUS).filter(|target| targets & 1 << target != 0) {
                    self.raised.insert((target, number));
                }
                self.machine.sgi(vcpu, u64::from(number) << 24 | u64::from(targets));
            }
            7 => self.fire_timer(vcpu),
            8 => self.fire_device(vcpu),
            9..=11 => self.acknowledge(vcpu),
            12 | 13 => self.end(vcpu),
            14 => {
                let intid = 32 + self.random.below(64);
                let target = self.random.below(VCPUS as u32 + 1);
                self.machine.route(intid, u64::from(target));
            }
            15 => {
                let (word, bits) = (1 + u64::from(self.random.below(2)), self.random.below(u32::MAX));
                self.machine.gicd_write(vcpu, ICENABLER + 4 * word, bits);
            }
            16 => {
                let word = 1 + u64::from(self.random.below(2));
                self.machine.gicd_write(vcpu, ISENABLER + 4 * word, u32::MAX);
            }
            17 => {
                let (intid, priority) = (32 + self.random.below(64), self.random.below(256));
                self.machine.set_priority(intid, priority as u8);
            }
            18 => self.change_residence(vcpu),
            _ => self.clear_pending(vcpu),
        }
        self.check();
    }

    fn fire_timer(&mut self, vcpu: usize) {
        let (interface, core) = &mut self.machine.cpus[vcpu];
        if self.is_loaded[vcpu] && core.active_ppis.insert(TIMER) {
            let kicks = interface.deliver_linked(&self.machine.vgic, vcpu, IntId::new(TIMER), core);
            self.raised.insert((vcpu, TIMER));
            self.machine.kick(kicks);
        }
    }

    /// The device's interrupt comes to the core of `vcpu`, be it loaded there or not.
    fn fire_device(&mut self, vcpu: usize) {
        if self.is_physical_active {
            return;
        }
        self.is_physical_active = true;
        self.raised.insert(key(0, LINKED));
        if !self.is_loaded[vcpu] {
            return self.machine.edge(LINKED);
        }
        let (interface, core) = &mut self.machine.cpus[vcpu];
        let kicks = interface.deliver_linked_shared(&self.machine.vgic, vcpu, IntId::new(LINKED), core);
        self.machine.kick(kicks);
    }

    fn acknowledge(&mut self, vcpu: usize) {
        if !self.is_loaded[vcpu] {
            return;
        }
        let intid = self.machine.acknowledge(vcpu);
        if intid == SPURIOUS {
            return;
        }
        if LEVEL.contains(&intid) {
            assert!(self.high.contains(&intid), "{intid} came, and its line is low");
        } else {
            assert!(self.raised.remove(&key(vcpu, intid)), "{intid} came, and nobody raised it");
        }
        assert!(self.active.insert(key(vcpu, intid)), "{intid} came, and was active");
    }

    fn end(&mut self, vcpu: usize) {
        let Some((_, intid)) = self.machine.core(vcpu).running.last().copied() else { return };
        if self.is_loaded[vcpu] {
            self.active.remove(&key(vcpu, intid));
            self.machine.end(vcpu, intid);
        }
    }

    /// The virtual CPU leaves its core, or comes back.
    fn change_residence(&mut self, vcpu: usize) {
        let (interface, core) = &mut self.machine.cpus[vcpu];
        if self.is_loaded[vcpu] {
            let physical = core.active_ppis.contains(&TIMER);
            let (held, kicks) = interface.unload(&self.machine.vgic, vcpu, core);
            assert_eq!(held != 0, physical, "what was physically active is named");
            assert!(core.active_ppis.is_empty() && core.listed().is_empty() && !core.maintenance());
            self.machine.kick(kicks);
        } else {
            if interface.load(&self.machine.vgic, vcpu, core) != 0 {
                core.active_ppis.insert(TIMER);
            }
            self.machine.kick(Kicks::one(vcpu));
        }
        self.is_loaded[vcpu] = !self.is_loaded[vcpu];
    }

    /// The guest clears a pending state. A virtual CPU that is not loaded would do so only when it is again.
    fn clear_pending(&mut self, vcpu: usize) {
        if self.is_loaded.contains(&false) {
            return;
        }
        let intid = [LINKED, EDGE.start, EDGE.start + 5][self.random.below(3) as usize];
        self.raised.remove(&key(0, intid));
        self.machine.gicd_write(vcpu, ICPENDR + 4 * u64::from(intid / 32), 1 << (intid % 32));
        let pending = self.machine.gicd_read(vcpu, ISPENDR + 4 * u64::from(intid / 32));
        assert_eq!(pending & 1 << (intid % 32), 0);
    }

    fn check(&mut self) {
        for (_, core) in &mut self.machine.cpus {
            if core.deactivated.drain(..).any(|physical| physical == PHYSICAL) {
                self.is_physical_active = false;
            }
        }
        let mut listed = BTreeSet::new();
        for (vcpu, (_, core)) in self.machine.cpus.iter().enumerate() {
            for intid in core.listed() {
                assert!(listed.insert(key(vcpu, intid)), "{intid} is in two list registers");
                let state = core.register_of(intid).map_or(ListState::Invalid, |value| value.state());
                assert_eq!(state.is_active(), self.active.contains(&key(vcpu, intid)), "{intid} is {state:?}");
            }
        }
        let linked = key(0, LINKED);
        let is_waiting = self.raised.contains(&linked) || self.active.contains(&linked);
        assert_eq!(self.is_physical_active, is_waiting, "the device's interrupt is active for a reason");
    }

    /// Everything is enabled, routed and loaded; the guest handles all it gets. Then nothing may be left.
    fn settle(&mut self) {
        for vcpu in 0..VCPUS {
            if !self.is_loaded[vcpu] {
                self.change_residence(vcpu);
            }
        }
        for intid in 32..96 {
            self.machine.route(intid, u64::from(intid % VCPUS as u32));
        }
        for word in 1..3 {
            self.machine.gicd_write(0, ISENABLER + 4 * word, u32::MAX);
        }
        for round in 0..400 {
            let is_quiet =
                self.machine.cpus.iter().all(|(_, core)| core.listed().is_empty() && core.running.is_empty());
            if round > 0 && is_quiet {
                break;
            }
            for vcpu in 0..VCPUS {
                while !self.machine.core(vcpu).running.is_empty() {
                    self.end(vcpu);
                }
                self.acknowledge(vcpu);
                if let Some((_, intid)) = self.machine.core(vcpu).running.last().copied()
                    && self.high.remove(&intid)
                {
                    self.machine.line(intid, false);
                }
                self.end(vcpu);
                self.check();
            }
        }
        assert!(self.raised.is_empty(), "lost: {:?}", self.raised);
        assert!(self.high.is_empty(), "lost: {:?}", self.high);
        for vcpu in 0..VCPUS {
            assert!(!self.machine.vgic.has_deliverable(vcpu));
            assert!(self.machine.core(vcpu).active_ppis.is_empty());
            assert!(!self.machine.core(vcpu).asks_when_none_pends);
        }
    }
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice() {
    let (seeds, steps) = if cfg!(miri) { (1, 30) } else { (60, 1500) };
    for seed in 1..=seeds {
        let mut world = World::new(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed), [2, 3, 4, 16][seed as usize % 4]);
        for _ in 0..3 {
            for _ in 0..steps / 3 {
                world.step();
            }
            world.settle();
        }
    }
}
