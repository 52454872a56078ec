//! Panics, and then stays as a crashed kernel does, so that the hypervisor and the neighbours live with a dead guest.
//!
//! Parameter: `seconds=` (0), how long it stays before it is turned off.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use rt::machine;

rt::entry!(main);

fn main() -> ! {
    rt::stay_after_panic(machine().number("seconds", 0));
    panic!("on purpose")
}
