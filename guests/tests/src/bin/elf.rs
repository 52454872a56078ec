//! A guest that is given as an ELF file: it is where the file says, and its device tree is at the start of RAM, where
//! QEMU's `virt` board has it for everything but Linux ("Hardware configuration information for bare-metal
//! programming").
//!
//! The parameter `at=` is the address of the first 2 MiB in which it must be.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use rt::probe::{self, Width};
use rt::{cpu, machine};
use testkit::{ensure, report};

rt::entry!(main);

/// The first word of a device tree, big endian (Devicetree Specification, 5.2).
const MAGIC: u32 = 0xd00d_feed;
const BLOCK_BYTES: u64 = 2 << 20;

fn main() -> ! {
    report::test("the program is where its ELF file says", || {
        let (found, wanted) = (cpu::entry_address(), machine().number("at", 0));
        ensure!(found - found % BLOCK_BYTES == wanted, "it has code at {found:#x}, and should be at {wanted:#x}");
        Ok(())
    });
    report::test("the device tree is at the start of RAM", || {
        let start = machine().memory.first().map(|memory| memory.start);
        let word = start.map(|start| probe::read(start, Width::Word)).transpose()?;
        ensure!(word == Some(MAGIC.swap_bytes().into()), "at {start:x?} there is {word:x?}");
        Ok(())
    });
    report::finish()
}
