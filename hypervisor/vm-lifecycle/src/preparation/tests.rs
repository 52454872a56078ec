//! Cores that prepare VMs side by side, in any order of their steps.

use super::Part;
use std::vec;
use std::vec::Vec;

const CORES: usize = 3;
/// Steps after which nothing can be under way any more.
const STEPS: u32 = if cfg!(miri) { 600 } else { 3000 };
const SEEDS: u64 = if cfg!(miri) { 20 } else { 400 };

struct Vm {
    /// The cores of its virtual CPUs; the first leads.
    cores: Vec<usize>,
    /// When it has stopped, and is to be prepared.
    stops_at: u32,
    /// Until when devices may write to its memory.
    granted_until: u32,
    is_open: bool,
    /// Pieces of RAM that nobody has taken, and that are not clear.
    left: u32,
    unclear: u32,
    has_begun: bool,
}

#[derive(Clone, Default)]
struct Core {
    preparing: Option<usize>,
    is_summoned: bool,
    retries_at: Option<u32>,
    /// It is at a piece.
    has_piece: bool,
}

struct Board {
    vms: Vec<Vm>,
    cores: Vec<Core>,
    now: u32,
}

impl Board {
    fn is_preparing(&self, vm: &Vm) -> bool {
        vm.stops_at <= self.now && !vm.has_begun
    }

    fn part(&self, core: usize, index: usize) -> Option<Part> {
        let vm = &self.vms[index];
        let leads = vm.cores[0] == core;
        let helps = vm.cores.contains(&core) && vm.is_open && vm.left > 0;
        match (self.is_preparing(vm), leads) {
            (true, true) => Some(Part::Leads { waits: vm.granted_until > self.now }),
            (true, false) if helps => Some(Part::Helps),
            _ => None,
        }
    }

    fn find(&self, core: usize) -> Option<usize> {
        let mut best: Option<(usize, Part)> = None;
        for index in 0..self.vms.len() {
            let Some(part) = self.part(core, index) else { continue };
            if best.is_none_or(|(_, other)| part.comes_before(other)) {
                best = Some((index, part));
            }
        }
        best.map(|(index, _)| index)
    }

    /// Core `number` has cleared its piece.
    fn end_piece(&mut self, number: usize) {
        self.cores[number].has_piece = false;
        if let Some(vm) = self.cores[number].preparing.map(|index| &mut self.vms[index]) {
            vm.unclear -= 1;
            let leader = vm.cores[0];
            self.cores[leader].is_summoned |= vm.unclear == 0 && leader != number;
        }
    }

    /// One step of core `number`, as `bulkhead` takes them.
    fn step(&mut self, number: usize) {
        if self.cores[number].has_piece {
            return self.end_piece(number);
        }
        let core = &mut self.cores[number];
        if std::mem::take(&mut core.is_summoned) || core.retries_at.is_some_and(|time| time <= self.now) {
            core.retries_at = None;
            self.cores[number].preparing = self.find(number);
        }
        let Some(index) = self.cores[number].preparing else { return };
        let leads = self.vms[index].cores[0] == number;
        let vm = &mut self.vms[index];
        if leads && !vm.is_open {
            if vm.granted_until > self.now {
                self.cores[number].preparing = None;
                self.cores[number].retries_at = Some(self.now + 10);
                return;
            }
            vm.is_open = true;
            for helper in vm.cores.clone() {
                self.cores[helper].is_summoned |= helper != number;
            }
            return;
        }
        if vm.left > 0 {
            vm.left -= 1;
            self.cores[number].has_piece = true;
            return;
        }
        if leads && vm.unclear == 0 {
            vm.has_begun = true;
            // Its virtual CPU 0 is turned on.
            self.cores[number].is_summoned = true;
        }
        // Nothing is left to do here.
        self.cores[number].preparing = None;
        let part = if leads { Part::Leads { waits: false } } else { Part::Helps };
        let leads_another = self.vms.iter().any(|vm| vm.cores[0] == number && self.is_preparing(vm));
        self.cores[number].is_summoned |= part.has_kept_waiting(leads_another);
    }
}

#[test]
fn every_vm_begins_whoever_leads_and_helps_and_in_whatever_order() {
    let mut helped_while_another_waited = 0;
    for seed in 0..SEEDS {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = |below: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % below
        };
        let mut vms = Vec::new();
        for _ in 0..3 {
            let first = draw(CORES as u64) as usize;
            let stops_at = draw(30) as u32;
            let pieces = 1 + draw(20) as u32;
            vms.push(Vm {
                cores: vec![first, (first + 1 + draw(2) as usize) % CORES],
                stops_at,
                granted_until: stops_at + draw(2) as u32 * draw(60) as u32,
                is_open: false,
                left: pieces,
                unclear: pieces,
                has_begun: false,
            });
        }
        let mut board = Board { vms, cores: vec![Core::default(); CORES], now: 0 };
        for now in 0..STEPS {
            board.now = now;
            for vm in &board.vms {
                // Whoever parks last tells the leader.
                board.cores[vm.cores[0]].is_summoned |= vm.stops_at == now;
            }
            let number = draw(CORES as u64) as usize;
            board.step(number);
            let helps = board.cores[number].preparing.is_some_and(|index| board.vms[index].cores[0] != number);
            let waits = |index| board.part(number, index) == Some(Part::Leads { waits: true });
            helped_while_another_waited += u32::from(helps && (0..3).any(waits));
        }
        assert!(board.vms.iter().all(|vm| vm.has_begun), "seed {seed}: one never begins");
    }
    assert!(helped_while_another_waited > 0);
}

#[test]
fn no_vm_waits_for_one_that_waits_or_that_the_core_only_helps() {
    let (ready, waiting) = (Part::Leads { waits: false }, Part::Leads { waits: true });
    assert!(ready.comes_before(Part::Helps) && ready.comes_before(waiting) && Part::Helps.comes_before(waiting));
    assert!(!ready.comes_before(ready) && !Part::Helps.comes_before(ready) && !Part::Helps.comes_before(Part::Helps));
    assert!(!waiting.comes_before(ready) && !waiting.comes_before(Part::Helps));
}
