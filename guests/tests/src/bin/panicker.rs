//! Panics, and then stays as a crashed kernel does, so that the hypervisor and the neighbours live with a dead guest.
//!
//! Parameter: `after=off` turns the guest off after the panic.
#![no_std]
#![no_main]
#![forbid(unsafe_code)]

use rt::machine;

rt::entry!(main);

fn main() -> ! {
    if machine().parameter("after") != Some("off") {
        rt::stay_after_panic();
    }
    panic!("on purpose")
}
