//! Random operations from all CPUs at once, which a seed replays as far as the CPUs' interleaving lets it: device
//! registers, SGIs, interrupts acknowledged and ended in any order, CPUs turned on and off, calls, waits, timers,
//! system registers, and a console that is written to without regard for lines.
//!
//! CPU 0 never waits and is never turned off; at the end it must find everything in working order.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use rt::gic::{self, EndMode, Target, offset};
use rt::machine::Conduit;
use rt::probe::{self, OddAccess, Width};
use rt::psci::{self, Affinity, function};
use rt::system_registers::{Feature, PROBED};
use rt::{cpu, interrupts, machine, memory, println, smccc, timer, uart};
use testkit::random::Random;
use testkit::{Outcome, ensure, report};

const AREA_WORDS: usize = 1 << 17;
const SOON_MICROSECONDS: u64 = 3_000_000;
/// The SGI that says that it is over.
const DOORBELL: u32 = 1;
static OVER: AtomicBool = AtomicBool::new(false);
static OPERATIONS: AtomicU64 = AtomicU64::new(0);
static STARTS: AtomicU64 = AtomicU64::new(0);
static ALIVE: AtomicU64 = AtomicU64::new(0);
/// Operations that met an exception that no guest can earn.
static STRANGE: AtomicU64 = AtomicU64::new(0);

pub(crate) fn run() {
    let mut random = Random::from_parameter();
    let area = memory::take(AREA_WORDS);
    let area = area.map(|area| {
        let mut pattern = Random::new(7);
        area.fill_with(|| pattern.word());
        &*area
    });
    gic::init();
    gic::init_cpu();
    let end = crate::end();
    while timer::now() < end {
        operate(&mut random);
        if random.below(64) == 0 {
            start_one(&mut random);
        }
    }
    let stopped = stop_others();
    println!("operations={} starts={}", OPERATIONS.load(Ordering::Acquire), STARTS.load(Ordering::Acquire));
    report::test("random operations from all CPUs come to an end", || {
        stopped?;
        let strange = STRANGE.load(Ordering::Acquire);
        ensure!(strange == 0, "{strange} operations met an exception that they cannot have earned");
        ensure!(OPERATIONS.load(Ordering::Acquire) > 1000, "hardly any were made");
        Ok(())
    });
    report::test("the guest's memory is as it was", || {
        let mut pattern = Random::new(7);
        let changed = area.map(|area| area.iter().filter(|&&word| word != pattern.word()).count());
        ensure!(changed == Some(0), "{changed:?} words changed");
        Ok(())
    });
    report::test("all CPUs still start, and get interrupts", alive);
}

/// One random operation; it may be one of many accesses.
fn operate(random: &mut Random) {
    OPERATIONS.fetch_add(1, Ordering::Relaxed);
    match random.below(14) {
        0 => anywhere(random),
        1..=4 => interrupt_registers(random),
        5 => gic::send_raw_sgi(random.word()),
        6 => gic::send_sgi(random.below(16) as u32, target(random)),
        7 => acknowledge_or_end(random),
        8 => call(random),
        9 => odd_access(random),
        10 => timers(random),
        11 => system_registers(random),
        12 => console(random),
        _ => controls(random),
    }
}

fn judge(outcome: Result<(), rt::Abort>) {
    // Class 0: undefined. 0x18, 0x19, 0x1d: system register, SVE and SME traps of the guest's own making.
    let earned = |abort: rt::Abort| abort.is_abort() || matches!(abort.class(), 0 | 0x18 | 0x19 | 0x1d);
    if outcome.is_err_and(|abort| !earned(abort)) {
        STRANGE.fetch_add(1, Ordering::Relaxed);
    }
}

fn target(random: &mut Random) -> Target {
    if random.below(4) == 0 { Target::Others } else { Target::Cpu(random.below(cpu::count() as u64) as usize) }
}

/// Any offset of any device, of any width; UARTDR apart, so that the console stays readable.
fn anywhere(random: &mut Random) {
    let windows = [Some(machine().distributor), Some(machine().redistributors), machine().uart];
    let Some(window) = windows[random.below(3) as usize] else { return };
    let width = Width::ALL[random.below(4) as usize];
    let place = random.below(window.size.min(0x10_0000)) & !(width.bytes() - 1);
    if machine().uart == Some(window) && place < 8 {
        return;
    }
    let address = window.start + place;
    judge(match random.below(2) {
        0 => probe::read(address, width).map(|_| ()),
        _ => probe::write(address, width, random.word()),
    });
}

/// A register that changes interrupts, of the distributor or of any CPU's redistributor.
fn interrupt_registers(random: &mut Random) {
    const BITMAPS: [u64; 9] = [
        offset::IGROUPR,
        offset::ISENABLER,
        offset::ISENABLER,
        offset::ICENABLER,
        offset::ISPENDR,
        offset::ISPENDR,
        offset::ICPENDR,
        offset::ISACTIVER,
        offset::ICACTIVER,
    ];
    let index = random.below(cpu::count() as u64) as usize;
    let is_private = random.below(2) == 0;
    let (base, word) = match gic::redistributor(index).filter(|_| is_private) {
        Some(frame) => (frame + offset::SGI_FRAME, 0),
        None => (machine().distributor.start, 1 + random.below(3)),
    };
    // Few bits and all bits alike.
    let value = random.word() & random.word() | if random.below(8) == 0 { u64::MAX } else { 0 };
    let (place, width) = match random.below(16) {
        0 => (offset::ICFGR + word * 8, Width::Word),
        1 | 2 => (offset::IPRIORITYR + word * 32 + random.below(32), Width::Byte),
        3..=5 if !is_private => (offset::IROUTER + (word * 32 + random.below(32)) * 8, Width::DoubleWord),
        6 if !is_private => (0, Width::Word),
        _ => (BITMAPS[random.below(BITMAPS.len() as u64) as usize] + word * 4, Width::Word),
    };
    // Routes to CPUs that exist, to those that do not, and to any.
    let value = if width == Width::DoubleWord && random.below(2) == 0 { value & 3 } else { value };
    if random.below(8) == 0 {
        judge(probe::read(base + place, width).map(|_| ()));
    } else {
        judge(probe::write(base + place, width, value));
    }
}

fn acknowledge_or_end(random: &mut Random) {
    let acknowledged = if random.below(2) == 0 { gic::acknowledge() } else { None };
    let id = acknowledged.unwrap_or(random.below(300) as u32);
    match random.below(3) {
        0 => gic::end(id),
        1 => gic::deactivate(id),
        // It stays active.
        _ => {}
    }
}

fn controls(random: &mut Random) {
    match random.below(5) {
        0 => gic::set_mask(random.word() as u8),
        1 => gic::set_end_mode(EndMode::DropOnly),
        2 => gic::set_end_mode(EndMode::DropAndDeactivate),
        3 => gic::set_distributor(random.below(4) != 0),
        _ => gic::init_cpu(),
    }
}

/// Any call but those that end the caller or the machine, and CPU_ON of anything at an address that is not memory.
fn call(random: &mut Random) {
    let conduit = if random.below(2) == 0 { Conduit::Hvc } else { Conduit::Smc };
    let arguments = [random.word(), random.word(), random.word()];
    let number = match random.below(4) {
        0 => random.word(),
        1 => 0x8400_0000 | random.below(0x80),
        2 => 0xc400_0000 | random.below(0x80),
        _ => 0x8600_ff00 | random.below(8),
    } & 0xffff_ffff;
    // CPU_SUSPEND could wait for ever on CPU 0; the other CPUs do it in `work`. CPU_OFF, SYSTEM_OFF, SYSTEM_RESET, and
    // SYSTEM_RESET2; CPU_ON below.
    if matches!(number & 0xbfff_ffff, 0x8400_0001 | 0x8400_0002 | 0x8400_0003 | 0x8400_0008 | 0x8400_0009 | 0x8400_0012)
    {
        let nowhere = machine().memory.last().map_or(0, rt::machine::Region::end);
        let target = if random.below(2) == 0 { random.below(16) } else { random.word() };
        judge(smccc::call(conduit, function::CPU_ON, [target, nowhere, 0]).map(|_| ()));
        return;
    }
    judge(smccc::call(conduit, number, arguments).map(|_| ()));
}

fn odd_access(random: &mut Random) {
    let access = OddAccess::ALL[random.below(OddAccess::ALL.len() as u64) as usize];
    let windows = [machine().distributor, machine().redistributors];
    let window = windows[random.below(2) as usize];
    let address = window.start + (random.below(window.size.min(0x4_0000)) & !63);
    judge(probe::odd(access, address).result);
}

fn timers(random: &mut Random) {
    let soon = timer::ticks(random.below(300));
    match random.below(6) {
        0 => timer::arm(timer::now() + soon),
        1 => timer::arm_physical(timer::physical_now() + soon),
        2 => timer::arm(random.word()),
        3 => timer::arm_masked(random.word()),
        4 => timer::disarm(),
        _ => timer::disarm_physical(),
    }
}

fn system_registers(random: &mut Random) {
    let register = &PROBED[random.below(PROBED.len() as u64) as usize];
    judge((register.read)().map(|_| ()));
    if register.feature != Feature::InterruptController {
        judge((register.write)(random.word()));
    }
}

/// Bytes without a line end, escape sequences, and the neighbour's prefix.
fn console(random: &mut Random) {
    // From one CPU alone: the pieces of two could add up to a line of this guest's own.
    if cpu::index() != 0 || random.below(8) != 0 {
        return;
    }
    const SCRIBBLES: [&[u8]; 6] = [
        b"\r[victim] FAIL forged",
        b"\x1b[2J\x1b[H",
        b"\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08[victim] FAIL forged",
        b"\xff\xfe\x9b\x90",
        b"\x1b]0;title\x07\x0e\x0f\x05",
        b"\n",
    ];
    for byte in SCRIBBLES[random.below(SCRIBBLES.len() as u64) as usize] {
        uart::put(*byte);
    }
}

/// Turns on a CPU, be it on already, this one, or one that does not exist.
fn start_one(random: &mut Random) {
    let index = random.below(cpu::count() as u64 + 2) as usize;
    if index != 0 && cpu::start(index, work).is_ok() {
        STARTS.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the others do: random operations and waits, until their number is up, and then they turn themselves off.
fn work(index: usize) {
    let seed = machine().number("seed", 1) << 32 | STARTS.load(Ordering::Relaxed) << 8;
    let mut random = Random::new(seed + index as u64);
    for _ in 0..random.below(2000) {
        if OVER.load(Ordering::Acquire) {
            return;
        }
        match random.below(32) {
            0 => wait(&mut random),
            1 => start_one(&mut random),
            _ => operate(&mut random),
        }
    }
}

/// WFI, a suspend, or a moment with interrupts let in. The machine's interrupts are in disorder, so that only CPU 0 may
/// end it.
fn wait(random: &mut Random) {
    gic::init_cpu();
    [DOORBELL, timer::VIRTUAL_TIMER].into_iter().for_each(gic::enable);
    timer::arm(timer::now() + timer::ticks(random.below(300)));
    if OVER.load(Ordering::Acquire) {
        return;
    }
    match random.below(3) {
        0 => interrupts::wait(),
        1 => {
            let _ = psci::call(function::CPU_SUSPEND, [random.word(), random.word(), random.word()]);
        }
        _ => {
            timer::disarm();
            timer::disarm_physical();
            interrupts::unmask();
            timer::spin(20);
            interrupts::mask();
        }
    }
}

/// Puts the interrupts in order and wakes the others until all have turned themselves off.
fn stop_others() -> Outcome {
    OVER.store(true, Ordering::Release);
    let off = |index: usize| psci::affinity_info(machine().cpus[index]) == Ok(Affinity::Off);
    let stopped = timer::wait_until(SOON_MICROSECONDS, || {
        gic::init();
        gic::init_cpu();
        for index in 1..cpu::count() {
            if let Some(frame) = gic::redistributor(index) {
                let registers = frame + offset::SGI_FRAME;
                for (place, value) in
                    [(offset::ICACTIVER, u32::MAX), (offset::IGROUPR, u32::MAX), (offset::ISENABLER, 2)]
                {
                    judge(probe::try_write32(registers + place, value));
                }
            }
        }
        gic::send_sgi(DOORBELL, Target::Others);
        timer::spin(1000);
        (1..cpu::count()).all(off)
    });
    timer::disarm();
    timer::disarm_physical();
    uart::init();
    println!("");
    ensure!(stopped, "CPU {:?} did not turn itself off", (1..cpu::count()).find(|&index| !off(index)));
    Ok(())
}

/// Every CPU starts, gets its timer's interrupt and the doorbell, and turns itself off.
fn alive() -> Outcome {
    gic::init();
    gic::init_cpu();
    cpu::start_others(|index| {
        gic::init_cpu();
        gic::enable(timer::VIRTUAL_TIMER);
        timer::arm(timer::now() + timer::ticks(100));
        let came = testkit::acknowledge_within(SOON_MICROSECONDS);
        timer::disarm();
        if came == Some(timer::VIRTUAL_TIMER) {
            gic::end(timer::VIRTUAL_TIMER);
            gic::enable(DOORBELL);
            ALIVE.fetch_or(1 << (8 + index), Ordering::AcqRel);
            if testkit::acknowledge_within(SOON_MICROSECONDS) == Some(DOORBELL) {
                gic::end(DOORBELL);
                ALIVE.fetch_or(1 << index, Ordering::AcqRel);
            }
        }
    })?;
    let others = (1_u64 << cpu::count()) - 2;
    let ready = timer::wait_until(SOON_MICROSECONDS, || ALIVE.load(Ordering::Acquire) >> 8 == others);
    ensure!(ready, "the CPUs with a timer are {:#x}, not {others:#x}", ALIVE.load(Ordering::Acquire) >> 8);
    gic::send_sgi(DOORBELL, Target::Others);
    let heard = timer::wait_until(SOON_MICROSECONDS, || ALIVE.load(Ordering::Acquire) & 0xff == others);
    ensure!(heard, "the CPUs with a doorbell are {:#x}, not {others:#x}", ALIVE.load(Ordering::Acquire) & 0xff);
    Ok(())
}
