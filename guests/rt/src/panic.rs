//! A guest's panic: one line, then the end of the guest.

use crate::{console, interrupts, psci};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

static STAY: AtomicBool = AtomicBool::new(false);

/// Makes a later panic leave the guest standing, as a crashed kernel does, instead of turning it off.
pub fn stay_after_panic() {
    STAY.store(true, Ordering::Relaxed);
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(place) => console::force_line(format_args!("GUEST PANIC: {} ({place})", info.message())),
        None => console::force_line(format_args!("GUEST PANIC: {}", info.message())),
    }
    if !STAY.load(Ordering::Relaxed) {
        psci::system_off();
    }
    interrupts::park()
}
