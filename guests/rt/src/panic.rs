//! A guest's panic: one line, then the end of the guest.

use crate::{console, interrupts, psci, timer};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicU64, Ordering};

static STAY_SECONDS: AtomicU64 = AtomicU64::new(0);

/// Makes a later panic leave the guest standing for `seconds`, as a crashed kernel does, before it is turned off.
pub fn stay_after_panic(seconds: u64) {
    STAY_SECONDS.store(seconds, Ordering::Relaxed);
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(place) => console::force_line(format_args!("GUEST PANIC: {} ({place})", info.message())),
        None => console::force_line(format_args!("GUEST PANIC: {}", info.message())),
    }
    timer::spin(STAY_SECONDS.load(Ordering::Relaxed).saturating_mul(1_000_000));
    psci::system_off();
    interrupts::park()
}
