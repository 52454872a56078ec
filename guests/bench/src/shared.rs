//! CPUs that share one core: from one that stops to wait, to another one's handler; and a timer beside a neighbour that
//! computes.

use crate::clock::{self, ROUNDS};
use crate::interrupts as timers;
use core::hint::black_box;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use rt::gic::{self, Target};
use rt::{cpu, interrupts, timer};

const SGI: u32 = 3;
/// Enough for another CPU to come to its WFI.
const PAUSE_MICROSECONDS: u64 = 20;

/// What the others do: nothing yet, answer SGIs, compute, or nothing any more.
static ORDERS: AtomicUsize = AtomicUsize::new(0);
const ANSWER: usize = 1;
const COMPUTE: usize = 2;
const LEAVE: usize = 3;

/// How many of the others have started.
static READY: AtomicUsize = AtomicUsize::new(0);
/// The SGIs that each of them has taken.
static ASKED: [AtomicU64; cpu::CPUS_MAX] = [const { AtomicU64::new(0) }; cpu::CPUS_MAX];
/// Those that the first has, which are answers.
static ANSWERED: AtomicU64 = AtomicU64::new(0);
static LEFT_AT: AtomicU64 = AtomicU64::new(0);
static TOTAL: AtomicU64 = AtomicU64::new(0);
/// The answers that `TOTAL` is the sum of.
static TIMED: AtomicU64 = AtomicU64::new(0);

pub fn run() {
    let count = cpu::count();
    if count < 2 {
        clock::absent("timer-shared", "there is one CPU");
        return clock::absent("vcpu-switch", "there is one CPU");
    }
    interrupts::set_handler(take);
    gic::enable(SGI);
    if cpu::start_others(answer).is_err() {
        return clock::absent("vcpu-switch", "another CPU does not start");
    }
    while READY.load(Ordering::Acquire) < count - 1 {
        timer::sleep(1000);
    }
    // The others reach their WFI while this one sleeps.
    timer::sleep(20_000);
    ORDERS.store(ANSWER, Ordering::Release);
    // Another CPU sleeps by the time that it is asked, so that it preempts the first, which can go on then.
    let mut asked = 0;
    (0..ROUNDS).for_each(|round| {
        timer::sleep(PAUSE_MICROSECONDS);
        ask(round, &mut asked);
    });
    let start = timer::now();
    (ROUNDS..2 * ROUNDS).for_each(|round| ask(round, &mut asked));
    let total = timer::now() - start;
    // There and back.
    clock::print(round_name(count), 2 * ROUNDS, clock::nanoseconds(total), 0);
    if count == 2 {
        let timed = TIMED.load(Ordering::Acquire);
        clock::print("vcpu-switch", timed, clock::nanoseconds(TOTAL.load(Ordering::Acquire)), 0);
        ORDERS.store(COMPUTE, Ordering::Release);
        gic::send_sgi(SGI, Target::Cpu(1));
        timers::beside_neighbour("timer-shared");
    }
    ORDERS.store(LEAVE, Ordering::Release);
    (1..count).for_each(|other| gic::send_sgi(SGI, Target::Cpu(other)));
    timer::sleep(20_000);
}

const fn round_name(cpus: usize) -> &'static str {
    match cpus {
        2 => "vcpu-round",
        4 => "vcpu-round-four",
        8 => "vcpu-round-eight",
        _ => "vcpu-round-of-others",
    }
}

fn take(index: usize, _id: u32) {
    let now = timer::now();
    if index == 0 {
        // Zero where this one has preempted the other one before it came to its WFI.
        let left = LEFT_AT.swap(0, Ordering::AcqRel);
        if left != 0 {
            TOTAL.fetch_add(now - left, Ordering::AcqRel);
            TIMED.fetch_add(1, Ordering::AcqRel);
        }
        ANSWERED.fetch_add(1, Ordering::AcqRel);
    } else {
        LEFT_AT.store(0, Ordering::Release);
        ASKED[index].fetch_add(1, Ordering::AcqRel);
    }
}

/// Wakes the CPU after the one that was `asked` last, and goes on when it has answered: at once where a CPU that wakes
/// up preempts the one that runs, and else after a wait of its own.
fn ask(round: u64, asked: &mut usize) {
    *asked = if *asked + 1 < cpu::count() { *asked + 1 } else { 1 };
    interrupts::unmask();
    gic::send_sgi(SGI, Target::Cpu(*asked));
    interrupts::mask();
    while ANSWERED.load(Ordering::Acquire) == round {
        wait();
    }
}

/// Another CPU: it answers each SGI with one, and then waits. What is timed is its WFI, the switch, and the first one's
/// way into its handler.
fn answer(index: usize) {
    gic::init_cpu();
    gic::enable(SGI);
    READY.fetch_add(1, Ordering::AcqRel);
    let mut answered = 0;
    let mut state = 1_u64;
    loop {
        match ORDERS.load(Ordering::Acquire) {
            LEAVE => return,
            COMPUTE => state = black_box(state.rotate_left(7) ^ 0x9e37_79b9_7f4a_7c15),
            _ if ASKED[index].load(Ordering::Acquire) == answered => wait(),
            _ => {
                answered += 1;
                gic::send_sgi(SGI, Target::Cpu(0));
                clock::shift_phase(answered);
                LEFT_AT.store(timer::now(), Ordering::Release);
                wait();
            }
        }
    }
}

/// Waits for an interrupt and takes it; it ends the wait also if it comes between the look before and the WFI.
fn wait() {
    interrupts::wait();
    interrupts::unmask();
    interrupts::mask();
}
