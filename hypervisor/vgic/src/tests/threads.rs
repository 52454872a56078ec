//! Real concurrency: several cores, a device and a guest that moves and masks its interrupt, with no lock between them.

use std::sync::Barrier;
use std::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};
use std::thread;

use vdev::Width;

use super::core::{Core, SPURIOUS};
use super::machine::{CTLR, ICENABLER, IPRIORITYR, IROUTER, ISENABLER, SGI_BASE};
use crate::{CpuInterface, IntId, Kicks, Vgic};

/// Under Miri each thread that looks for work takes as long as those that have some.
const VCPUS: usize = if cfg!(miri) { 2 } else { 3 };
/// All virtual CPUs but the first, as the targets of an SGI.
const OTHERS: u64 = (1 << VCPUS) - 2;
const DEVICE: u32 = 40;
const EVENTS: u32 = if cfg!(miri) { 2 } else { 3000 };
/// How often an interrupt is moved and masked during an event, at most: each time CPUs look at their list registers.
const MOVES: u64 = if cfg!(miri) { 6 } else { u64::MAX };

struct Board {
    vgic: Vgic,
    kicked: [AtomicBool; VCPUS],
    handled: AtomicU32,
    answered: AtomicU32,
    done: AtomicBool,
}

impl Board {
    fn kick(&self, kicks: Kicks) {
        for vcpu in kicks.iter() {
            self.kicked[vcpu].store(true, Release);
        }
    }

    fn gicd_write(&self, offset: u64, width: Width, value: u64) {
        self.kick(self.vgic.distributor_write(offset, width, value).expect("the store is taken"));
    }

    /// One core: flushes when kicked, handles what comes.
    fn run(&self, vcpu: usize) {
        let mut interface = CpuInterface::new();
        let mut core = Core::new(2);
        while !self.done.load(Relaxed) {
            if self.kicked[vcpu].swap(false, Acquire) || core.maintenance() {
                self.kick(interface.flush(&self.vgic, vcpu, &mut core));
            }
            match core.acknowledge() {
                SPURIOUS => {}
                DEVICE => {
                    core.end(DEVICE);
                    self.handled.fetch_add(1, SeqCst);
                }
                intid => {
                    core.end(intid);
                    self.answered.fetch_add(1, SeqCst);
                }
            }
            thread::yield_now();
        }
    }

    fn wait_for(&self, counter: &AtomicU32, value: u32) {
        for _ in 0..2_000_000u32 {
            if counter.load(SeqCst) == value {
                return;
            }
            thread::yield_now();
        }
        self.done.store(true, Relaxed);
        panic!("an interrupt was lost: {} of {value} arrived", counter.load(SeqCst));
    }
}

#[test]
fn every_event_arrives_once_while_its_interrupt_is_moved_and_masked() {
    let board = Board {
        vgic: Vgic::new(VCPUS, 32),
        kicked: [const { AtomicBool::new(false) }; VCPUS],
        handled: AtomicU32::new(0),
        answered: AtomicU32::new(0),
        done: AtomicBool::new(false),
    };
    board.gicd_write(CTLR, Width::Word, 2);
    board.gicd_write(ISENABLER + 4, Width::Word, 0xffff_ffff);
    for vcpu in 0..VCPUS {
        let _nothing_pending = board.vgic.redistributor_write(vcpu, SGI_BASE + ISENABLER, Width::Word, 0xffff);
    }
    thread::scope(|scope| {
        for vcpu in 0..VCPUS {
            let board = &board;
            scope.spawn(move || board.run(vcpu));
        }
        scope.spawn(|| {
            let mut round = 0;
            while !board.done.load(Relaxed) {
                let under_way = u64::from(board.handled.load(SeqCst)) + 1;
                if round < MOVES.saturating_mul(under_way) {
                    board.gicd_write(ICENABLER + 4, Width::Word, 1 << 8);
                    board.gicd_write(IROUTER + 8 * u64::from(DEVICE), Width::DoubleWord, round % VCPUS as u64);
                    board.gicd_write(ISENABLER + 4, Width::Word, 1 << 8);
                    round += 1;
                }
                thread::yield_now();
            }
        });
        for event in 1..=EVENTS {
            board.kick(board.vgic.inject(IntId::new(DEVICE), 0));
            board.kick(board.vgic.send_sgi(0, u64::from(event % 16) << 24 | OTHERS));
            board.wait_for(&board.handled, event);
            board.wait_for(&board.answered, OTHERS.count_ones() * event);
        }
        board.done.store(true, Relaxed);
    });
    assert_eq!(board.handled.load(SeqCst), EVENTS, "no event came twice");
}

const TIMER: u32 = 27;

/// The timer interrupt of a virtual CPU goes past the latch; another one masks and unmasks it meanwhile.
#[test]
fn a_timer_that_another_cpu_masks_comes_once_and_only_while_it_is_not_masked() {
    let vgic = Vgic::new(2, 32);
    vgic.link(IntId::new(TIMER), TIMER);
    let (kicked, done) = (AtomicBool::new(false), AtomicBool::new(false));
    // Odd while the timer is masked, and everybody concerned knows.
    let generation = AtomicU32::new(0);
    let write = |offset, value| {
        let kicks = vgic.redistributor_write(0, SGI_BASE + offset, Width::Word, value).expect("the store is taken");
        if kicks.contains(0) {
            kicked.store(true, Release);
        }
    };
    let _nothing_pending = vgic.distributor_write(CTLR, Width::Word, 2);
    write(ISENABLER, 1 << TIMER);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                write(ICENABLER, 1 << TIMER);
                generation.fetch_add(1, SeqCst);
                thread::yield_now();
                generation.fetch_add(1, SeqCst);
                write(ISENABLER, 1 << TIMER);
                thread::yield_now();
            }
        });
        let _ended = SetAtEnd(&done);
        let mut interface = CpuInterface::new();
        let mut core = Core::new(4);
        for event in 0..EVENTS {
            assert!(core.active_ppis.insert(TIMER), "it was deactivated when it ended");
            let _nobody_else = interface.deliver_linked(&vgic, 0, IntId::new(TIMER), &mut core);
            for round in 0.. {
                assert!(round < 2_000_000, "timer {event} was lost");
                let before = generation.load(SeqCst);
                if kicked.swap(false, Acquire) {
                    let _nobody_else = interface.flush(&vgic, 0, &mut core);
                }
                let intid = core.acknowledge();
                if intid == TIMER {
                    let is_masked = before & 1 == 1 && generation.load(SeqCst) == before;
                    assert!(!is_masked, "it came while it was masked");
                    core.end(TIMER);
                    break;
                }
                thread::yield_now();
            }
        }
    });
}

#[test]
fn of_two_cpus_that_write_one_priority_or_route_at_once_one_has_its_way() {
    let vgic = Vgic::new(VCPUS, 32);
    for _ in 0..if cfg!(miri) { 2 } else { 1000 } {
        let start = Barrier::new(VCPUS);
        thread::scope(|scope| {
            for vcpu in 0..VCPUS as u64 {
                let (vgic, start) = (&vgic, &start);
                scope.spawn(move || {
                    start.wait();
                    for round in 0..3 {
                        let priorities = u64::from(0x1111_1111_u32 * (vcpu as u32 * 5 + round));
                        let _none_is_pending = vgic.distributor_write(IPRIORITYR + 40, Width::Word, priorities);
                        let router = (vcpu + u64::from(round)) % (VCPUS as u64 + 1);
                        let _nor_is_this = vgic.distributor_write(IROUTER + 8 * 40, Width::DoubleWord, router);
                    }
                });
            }
        });
        let word = vgic.word(0, 1).expect("it has 32 SPIs");
        let target = vgic.target(IntId::new(40));
        for vcpu in 0..VCPUS {
            assert_eq!(word.routed_to(vcpu) & 1 << 8 != 0, target == Some(vcpu));
        }
        for other in [0, 0x30, 0x80, 0xf8] {
            let _none_is_pending = vgic.distributor_write(IPRIORITYR + 36, Width::Byte, other);
            for bit in 8..12 {
                let best = word.bank.best_of(1 << 4 | 1 << bit);
                let priority = word.bank.priority(bit);
                let expected =
                    u32::from(u64::from(priority) <= other) << bit | u32::from(other <= priority.into()) << 4;
                assert_eq!(best, expected, "{priority:#x} and {other:#x}");
            }
        }
    }
}

/// Ends the other thread, also when an assertion fails.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}
