//! The steps of the boot story that need more than a line. All of this is boot code: nobody runs it after the last core
//! has entered its run loop.

use crate::machine::Machine;
use crate::run;
use arch::board::Board;
use arch::mmu::HypMap;
use arch::{cpu, firmware};
use core::fmt::Display;

/// Ends the boot with a sentence for the person at the console. What was built so far stays as it is: nobody goes on.
macro_rules! refuse {
    ($($sentence:tt)*) => { arch::epitaph::refuse_to_boot(format_args!($($sentence)*)) };
}
pub(crate) use refuse;

/// Takes a step's result, or ends the boot with its sentence.
pub fn step<T, E: Display>(result: Result<T, E>) -> T {
    match result {
        Ok(value) => value,
        Err(reason) => refuse!("{reason}"),
    }
}

/// Starts every core that the system uses but this one.
pub fn start_cores(board: &Board, map: &HypMap, machine: &'static Machine) {
    for (core, affinity) in board.cores.iter().enumerate().take(machine.cores).skip(1) {
        if let Err(error) = firmware::start_core(core, *affinity, map) {
            // Arm DEN0022 5.2.2 lists them.
            let error = i64::from(error).unsigned_abs();
            refuse!("the firmware does not start core {core}: PSCI error -{error}");
        }
    }
}

/// Sets this core up for guests and runs them.
pub fn enter_run_loop(machine: &'static Machine, core: usize) -> ! {
    if let Err(affinity) = machine.gic.configure_core(core) {
        refuse!("core {core} (affinity {affinity:#x}) has no GIC redistributor");
    }
    cpu::configure();
    if core == 0 {
        machine.gic.enable_spi(machine.uart_interrupt, 0);
    }
    run::run(machine, core)
}
