//! The EL2 binary.
//!
//! [`primary`] is the boot story, one line a step; [`run`] is the life of a core after it.
#![no_std]
#![no_main]
#![deny(unsafe_code)]

extern crate alloc;

mod assigned;
mod boot;
mod call_page;
mod command;
mod console;
mod construct;
mod debug_registers;
mod device_time;
mod ending;
mod entropy;
mod fast;
mod guest_cpu;
mod hypercall;
mod interrupt;
mod lifecycle;
mod load_store;
mod machine;
mod mmio;
mod preparation;
mod routing;
mod run;
mod scheduler;
mod supervision;
mod switch;
mod system_register;
mod verdict;
mod virtio;
mod vm;

use arch::boot::DeviceTree;
use arch::epitaph;
use arch::mmu::HypMap;

arch::entry!(primary, secondary);

/// From the first Rust instruction of the primary core to its run loop.
fn primary(device_tree: DeviceTree) -> ! {
    let hardware = boot::step(arch::take_hardware(device_tree));
    let mut map = boot::step(HypMap::new(&hardware.board));
    map.enable();
    epitaph::describe_with(machine::describe_core);
    let arch::Hardware { board, uart, gic } = hardware;
    console::install(uart, board.console_in_lines, board.console_columns);
    log::info!("Bulkhead {} on {} cores", env!("CARGO_PKG_VERSION"), board.cores.len());
    gic.configure_distributor();
    let machine = construct::build(&board, gic, &mut map);
    boot::start_cores(&board, &map, machine);
    machine.keep_map(map);
    boot::enter_run_loop(machine, 0)
}

/// From the first Rust instruction of a secondary core to its run loop.
fn secondary(core: usize) -> ! {
    boot::enter_run_loop(machine::get(), core)
}
