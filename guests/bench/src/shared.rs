//! Two CPUs that share one core: from one that stops to wait, to the other one's handler.

use crate::clock::{self, ROUNDS};
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use rt::gic::{self, Target};
use rt::{cpu, interrupts, timer};

const SGI: u32 = 3;

/// Rounds that still have to be played; the CPUs take turns.
static REMAINING: AtomicU64 = AtomicU64::new(0);
static READY: AtomicUsize = AtomicUsize::new(0);
static LEFT_AT: AtomicU64 = AtomicU64::new(0);
static TOTAL: AtomicU64 = AtomicU64::new(0);
/// One more than the CPU whose turn it is, or zero.
static TURN: AtomicUsize = AtomicUsize::new(0);

pub fn run() {
    if cpu::count() < 2 {
        return clock::absent("vcpu-switch", "there is one CPU");
    }
    interrupts::set_handler(take);
    gic::enable(SGI);
    if cpu::start(1, |_| second()).is_err() {
        return clock::absent("vcpu-switch", "the second CPU does not start");
    }
    while READY.load(Ordering::Acquire) == 0 {
        timer::sleep(1000);
    }
    // The second CPU reaches its WFI while this one sleeps.
    timer::sleep(20_000);
    REMAINING.store(ROUNDS + 1, Ordering::Release);
    let start = timer::now();
    TURN.store(1, Ordering::Release);
    play(0);
    let total = timer::now() - start;
    clock::print("vcpu-switch", ROUNDS, clock::nanoseconds(TOTAL.load(Ordering::Acquire)), 0);
    clock::print("vcpu-round", ROUNDS, clock::nanoseconds(total), 0);
}

fn second() {
    gic::init_cpu();
    gic::enable(SGI);
    READY.store(1, Ordering::Release);
    play(1);
}

fn take(index: usize, _id: u32) {
    let now = timer::now();
    let left = LEFT_AT.swap(0, Ordering::AcqRel);
    if left != 0 {
        TOTAL.fetch_add(now - left, Ordering::AcqRel);
    }
    TURN.store(index + 1, Ordering::Release);
}

/// In its turn a CPU makes the other one runnable first, and then waits: what is timed is its WFI, the switch, and the
/// other's way into its handler.
fn play(index: usize) {
    loop {
        while TURN.load(Ordering::Acquire) != index + 1 {
            interrupts::wait();
            interrupts::unmask();
            interrupts::mask();
        }
        TURN.store(0, Ordering::Release);
        let remaining = REMAINING.load(Ordering::Acquire);
        if remaining == 0 {
            return;
        }
        REMAINING.store(remaining - 1, Ordering::Release);
        gic::send_sgi(SGI, Target::Cpu(1 - index));
        if remaining == 1 {
            return;
        }
        clock::shift_phase(remaining);
        LEFT_AT.store(timer::now(), Ordering::Release);
    }
}
