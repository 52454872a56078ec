//! A guest's panic: one line, then the end of the guest.

use crate::{console, interrupts, psci, timer};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

static STAY_SECONDS: AtomicU64 = AtomicU64::new(0);
static RESTARTS: AtomicBool = AtomicBool::new(false);

/// Makes a later panic leave the guest standing for `seconds`, as a crashed kernel does, before it is turned off.
pub fn stay_after_panic(seconds: u64) {
    STAY_SECONDS.store(seconds, Ordering::Relaxed);
}

/// Makes a later panic restart the guest rather than turn it off, for one that others depend on.
pub fn restart_after_panic() {
    RESTARTS.store(true, Ordering::Relaxed);
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(place) => console::force_line(format_args!("GUEST PANIC: {} ({place})", info.message())),
        None => console::force_line(format_args!("GUEST PANIC: {}", info.message())),
    }
    timer::spin(STAY_SECONDS.load(Ordering::Relaxed).saturating_mul(1_000_000));
    if RESTARTS.load(Ordering::Relaxed) {
        psci::system_reset();
    }
    psci::system_off();
    interrupts::park()
}
