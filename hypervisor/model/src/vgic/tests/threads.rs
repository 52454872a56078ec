//! Real concurrency: three cores, a device and a guest that moves and masks its interrupt, with no lock between them.

use std::sync::atomic::{
    AtomicBool, AtomicU32,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};
use std::thread;

use vdev::Width;

use super::core::{Core, SPURIOUS};
use super::machine::{CTLR, ICENABLER, IROUTER, ISENABLER, SGI_BASE};
use crate::vgic::{CpuInterface, IntId, Kicks, Vgic};

const VCPUS: usize = 3;
const DEVICE: u32 = 40;
const EVENTS: u32 = if cfg!(miri) { 6 } else { 3000 };

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
        self.kick(self.vgic.distributor_write(0, offset, width, value).expect("the store is taken"));
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
            for round in 0u64.. {
                if board.done.load(Relaxed) {
                    break;
                }
                board.gicd_write(ICENABLER + 4, Width::Word, 1 << 8);
                board.gicd_write(IROUTER + 8 * u64::from(DEVICE), Width::DoubleWord, round % VCPUS as u64);
                board.gicd_write(ISENABLER + 4, Width::Word, 1 << 8);
                thread::yield_now();
            }
        });
        for event in 1..=EVENTS {
            board.kick(board.vgic.inject(IntId::new(DEVICE), 0));
            board.kick(board.vgic.send_sgi(0, u64::from(event % 16) << 24 | 0b110));
            board.wait_for(&board.handled, event);
            board.wait_for(&board.answered, 2 * event);
        }
        board.done.store(true, Relaxed);
    });
    assert_eq!(board.handled.load(SeqCst), EVENTS, "no event came twice");
}
