//! Resets itself soon after each start, while its other CPUs write to memory and its interrupt controller is in
//! disorder. Nothing of that may be left at the next start, and the neighbours on its cores keep their share.
//!
//! Parameters: `until=` (5), in seconds since the board started, since nothing of the guest survives a reset; `look=0`
//! to reset itself at once, and do nothing else.

use core::sync::atomic::{AtomicUsize, Ordering};
use rt::gic::{self, Target, Trigger, offset};
use rt::probe::{self, Width};
use rt::{cpu, machine, memory, println, psci, timer};
use testkit::random::Random;
use testkit::{Outcome, ensure, report};

const STAIN: u64 = 0x5ec2_e75e_c2e7_5ec2;
const STAIN_WORDS: usize = 1 << 17;
/// How many interrupts are active at once: more than any GIC has list registers.
const NESTED: u32 = 20;
const FIRST_SPI: u32 = 64;
static WRITING: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn run() {
    println!("reset round");
    if machine().number("look", 1) == 0 {
        if timer::physical_now() < machine().number("until", 5) * timer::frequency() {
            psci::system_reset();
        }
        report::test("resets without end come to an end", || Ok(()));
        return;
    }
    report::test("memory is zeroed at each start", || {
        let (nonzero, looked) = memory::first_nonzero();
        ensure!(nonzero.is_none(), "the word at {:#x} is not zero", nonzero.unwrap_or(0));
        ensure!(looked > 0, "there is no memory beyond the image");
        Ok(())
    });
    report::test("the interrupt controller is as after power-on at each start", clean_controller);
    report::test("no timer runs at a start, and no interrupt waits", quiet);
    if timer::physical_now() >= machine().number("until", 5) * timer::frequency() {
        return;
    }
    report::test("the reset comes", || {
        let others = cpu::count() - 1;
        cpu::start_others(disorderly)?;
        disorder();
        timer::wait_until(100_000, || WRITING.load(Ordering::Acquire) == others);
        // No seed would do: each start is to end otherwise.
        let mut random = Random::new(timer::physical_now());
        timer::spin(random.below(3000));
        if random.below(2) == 0 {
            // The others reset too, at the same moment or a little later.
            WRITING.store(usize::MAX / 2, Ordering::Release);
            timer::spin(random.below(20));
        }
        psci::system_reset();
        ensure!(false, "SYSTEM_RESET returned");
        Ok(())
    });
}

/// Writes to memory until the machine stops, or until told to stop it.
fn disorderly(_: usize) {
    disorder();
    let Some(area) = memory::take(STAIN_WORDS) else { return };
    WRITING.fetch_add(1, Ordering::AcqRel);
    loop {
        area.fill(core::hint::black_box(STAIN));
        if WRITING.load(Ordering::Acquire) > usize::MAX / 4 {
            psci::system_reset();
        }
    }
}

/// Brings this CPU's interrupts into a state that a start must not find: pending, active in and beyond the list
/// registers, timers armed and due.
fn disorder() {
    let index = cpu::index();
    if index == 0 {
        gic::init();
    }
    gic::init_cpu();
    for nested in 0..NESTED {
        let id = FIRST_SPI + nested + NESTED * (index as u32 & 3);
        gic::route(id, index);
        gic::set_trigger(id, if nested % 2 == 0 { Trigger::Edge } else { Trigger::Level });
        // Each more urgent than the one before.
        gic::set_priority(id, ((31 - nested) << 3) as u8);
        gic::enable(id);
        gic::set_pending(id);
        let _ = testkit::acknowledge_within(100);
    }
    timer::arm(timer::now());
    timer::arm_physical(timer::physical_now());
    for id in [1, 2, timer::VIRTUAL_TIMER, timer::PHYSICAL_TIMER] {
        gic::enable(id);
    }
    gic::send_sgi(1, Target::Cpu(index));
    gic::send_sgi(2, Target::Others);
    gic::set_active(FIRST_SPI + NESTED * 4);
}

/// Registers that are zero at power-on, in the distributor for SPIs and in each redistributor.
const ZERO: [u64; 6] =
    [offset::ISENABLER, offset::ISPENDR, offset::ISACTIVER, offset::ICENABLER, offset::ICPENDR, offset::ICACTIVER];

fn clean_controller() -> Outcome {
    let distributor = machine().distributor.start;
    let control = probe::read(distributor, Width::Word)?;
    ensure!(control & 0b11 == 0, "GICD_CTLR is {control:#x}");
    let words = u64::from(gic::interrupt_count() / 32);
    for register in ZERO {
        for word in 1..words {
            all_zero(distributor + register + word * 4)?;
        }
        for index in 0..cpu::count() {
            let frame = gic::redistributor(index).unwrap_or(distributor);
            all_zero(frame + offset::SGI_FRAME + register)?;
        }
    }
    for id in 32..u64::from(gic::interrupt_count()) {
        let router = probe::read(distributor + offset::IROUTER + id * 8, Width::DoubleWord)?;
        ensure!(router == 0, "GICD_IROUTER{id} is {router:#x}");
    }
    Ok(())
}

fn all_zero(address: u64) -> Outcome {
    let value = probe::read(address, Width::Word)?;
    ensure!(value == 0, "the register at {address:#x} is {value:#x}");
    Ok(())
}

fn quiet() -> Outcome {
    ensure!(!timer::condition_met(), "the virtual timer's condition is met");
    gic::init();
    gic::init_cpu();
    for id in 0..32 {
        gic::enable(id);
    }
    let came = testkit::acknowledge_within(200);
    for id in 0..32 {
        gic::disable(id);
    }
    ensure!(came.is_none(), "{came:?} came");
    ensure!(gic::running_priority() == 0xff, "the running priority is {:#x}", gic::running_priority());
    Ok(())
}
