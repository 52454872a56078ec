//! Random accesses to all device registers, from all CPUs at once.

use core::sync::atomic::{AtomicUsize, Ordering};
use rt::machine::Region;
use rt::probe::{self, Width};
use rt::{cpu, gic, machine, timer, uart};
use testkit::random::Random;
use testkit::{Outcome, ensure, report};

const MINUTE_MICROSECONDS: u64 = 60_000_000;
static FINISHED: AtomicUsize = AtomicUsize::new(0);
static STRANGE: AtomicUsize = AtomicUsize::new(0);

pub(crate) fn run() {
    let others = cpu::start_others(storm);
    storm(0);
    let all = timer::wait_until(MINUTE_MICROSECONDS, || FINISHED.load(Ordering::Acquire) == cpu::count());
    gic::init();
    gic::init_cpu();
    uart::init();
    report::test("random accesses to all devices from all CPUs come to an end", || {
        others?;
        ensure!(all, "{} of {} CPUs came to the end", FINISHED.load(Ordering::Acquire), cpu::count());
        let strange = STRANGE.load(Ordering::Acquire);
        ensure!(strange == 0, "{strange} accesses met neither success nor an abort");
        Ok(())
    });
    report::test("the UART still works after the storm", uart_works);
}

fn uart_works() -> Outcome {
    let flags = uart::read(uart::offset::FR);
    ensure!(flags & uart::FLAG_TX_FULL == 0, "UARTFR is {flags:#x}");
    Ok(())
}

fn storm(index: usize) {
    let mut random = Random::new(machine().number("seed", 1) + index as u64);
    let windows = [Some(machine().distributor), Some(machine().redistributors), machine().uart];
    for _ in 0..machine().number("storm", 20_000) {
        let choice = random.below(windows.len() as u64) as usize;
        if let Some(window) = windows[choice] {
            access(window, choice, &mut random);
        }
    }
    FINISHED.fetch_add(1, Ordering::AcqRel);
}

fn access(window: Region, choice: usize, random: &mut Random) {
    // Half of the accesses go to the first 4 KiB, where most registers are; redistributors beyond the last CPU's too.
    let span = if random.below(2) == 0 { 0x1000 } else { window.size.min(0x10_0000) };
    let width = Width::ALL[random.below(4) as usize];
    let aligned = random.below(8) != 0;
    let offset = random.below(span) & if aligned { !(width.bytes() - 1) } else { u64::MAX };
    let address = window.start + offset;
    let value = random.word();
    let outcome = if random.below(2) == 0 || spared(choice, offset) {
        probe::read(address, width).map(|_| ())
    } else {
        probe::write(address, width, value)
    };
    if let Err(abort) = outcome
        && !abort.is_abort()
    {
        STRANGE.fetch_add(1, Ordering::AcqRel);
    }
}

/// Registers that are read only: UARTDR, so that the console stays readable, and on a bare board the redistributors'
/// RD frames, whose LPI tables would make the GIC itself write to memory.
fn spared(choice: usize, offset: u64) -> bool {
    let console = choice == 2 && offset < 8;
    let tables = choice == 1 && offset & gic::offset::SGI_FRAME == 0 && !machine().under_bulkhead;
    console || tables
}
