//! Two CPUs, each with a core of its own: an SGI from one to the other.

use crate::clock::{self, ROUNDS};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use rt::gic::{self, Target};
use rt::{cpu, interrupts, timer};

const SGI: u32 = 2;
/// How often the sender lets the receiver run before it gives up, and between two rounds.
const PATIENCE: u32 = 100_000;
const REST: u32 = 64;

/// What the receiver does until the interrupt comes.
static ORDERS: AtomicUsize = AtomicUsize::new(RUN);
const RUN: usize = 0;
const WAIT: usize = 1;
const LEAVE: usize = 2;

static READY: AtomicUsize = AtomicUsize::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);
static TAKEN_AT: AtomicU64 = AtomicU64::new(0);

pub fn run() {
    if cpu::count() < 2 {
        clock::absent("ipi-running", "there is one CPU");
        return clock::absent("ipi-waiting", "there is one CPU");
    }
    interrupts::set_handler(take);
    if cpu::start(1, receiver).is_err() || !until(|| READY.load(Ordering::Acquire) == 1) {
        return clock::absent("ipi-running", "the second CPU does not start");
    }
    send("ipi-running", RUN);
    send("ipi-waiting", WAIT);
    ORDERS.store(LEAVE, Ordering::Release);
    gic::send_sgi(SGI, Target::Cpu(1));
    until(|| READY.load(Ordering::Acquire) == 0);
    rest();
}

fn take(_cpu: usize, id: u32) {
    if id == SGI {
        TAKEN_AT.store(timer::now(), Ordering::Relaxed);
        TAKEN.fetch_add(1, Ordering::Release);
    }
}

fn receiver(_index: usize) {
    gic::init_cpu();
    gic::enable(SGI);
    READY.store(1, Ordering::Release);
    loop {
        match ORDERS.load(Ordering::Acquire) {
            RUN => cpu::relax(),
            WAIT => interrupts::wait(),
            _ => break,
        }
        interrupts::unmask();
        interrupts::mask();
    }
    READY.store(0, Ordering::Release);
}

/// From just before the sender's write to the receiver's handler, which runs once the interrupt is acknowledged. On an
/// emulator that runs one core at a time this is what both cores execute together.
fn send(name: &str, orders: usize) {
    ORDERS.store(orders, Ordering::Release);
    // The receiver follows its orders after the next interrupt.
    gic::send_sgi(SGI, Target::Cpu(1));
    rest();
    let mut total = 0;
    for round in 0..ROUNDS {
        let before = TAKEN.load(Ordering::Acquire);
        clock::shift_phase(round);
        let start = timer::now();
        gic::send_sgi(SGI, Target::Cpu(1));
        if !until(|| TAKEN.load(Ordering::Acquire) != before) {
            return clock::absent(name, "an SGI to the other CPU does not come");
        }
        total += TAKEN_AT.load(Ordering::Relaxed) - start;
        rest();
    }
    clock::print(name, ROUNDS, clock::nanoseconds(total), 0);
}

/// Waits until `condition` holds, and lets the other CPU run meanwhile; says whether it came to hold.
fn until(mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..PATIENCE {
        if condition() {
            return true;
        }
        cpu::relax();
    }
    false
}

/// Lets the receiver return to what it does between interrupts.
fn rest() {
    for _ in 0..REST {
        cpu::relax();
    }
}
