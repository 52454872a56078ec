//! Loses its translation tables: every instruction from then on, the exception vectors included, faults on a table walk
//! outside of memory. Only the hypervisor can end it, and nobody else may notice.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use rt::{interrupts, machine, mmu, println};

rt::entry!(main);

fn main() -> ! {
    interrupts::mask();
    let behind_memory = machine().memory.last().map_or(0, rt::machine::Region::end);
    println!("losing my translation tables");
    mmu::lose_tables(behind_memory)
}
