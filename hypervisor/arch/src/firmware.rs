//! PSCI calls to the firmware (Arm DEN0022).

use crate::board::{Board, Conduit};
use crate::boot::{self, CORES_MAX, SecondaryStart};
use crate::bulk::clean_and_invalidate;
use crate::mmu::HypMap;
use crate::wait;
use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use smccc::psci;
use smccc::{Hvc, Smc};

/// The conduit, for those who have no board at hand: 0 before it is known, 1 SMC, 2 HVC.
static CONDUIT: AtomicU8 = AtomicU8::new(0);

struct StartRecord(core::cell::UnsafeCell<SecondaryStart>);

// SAFETY: each record is written once, before its core is started, and read by that core's first instructions.
unsafe impl Sync for StartRecord {}

static STARTS: [StartRecord; CORES_MAX] = [const {
    StartRecord(core::cell::UnsafeCell::new(SecondaryStart {
        stack_top: 0,
        core: 0,
        mair: 0,
        tcr: 0,
        ttbr0: 0,
        sctlr: 0,
        per_core: 0,
    }))
}; CORES_MAX];

/// The cores that [`start_core`] has been called for.
static STARTED: [AtomicBool; CORES_MAX] = [const { AtomicBool::new(false) }; CORES_MAX];

/// Notes how to call this board's firmware.
pub(crate) fn configure(board: &Board) {
    CONDUIT.store(if board.conduit == Conduit::Smc { 1 } else { 2 }, Ordering::Release);
}

/// Starts core `core`, whose affinity is `affinity`, in `map`. Each number is one core's: its stack cannot be shared.
///
/// # Errors
/// PSCI's error; [`psci::Error::AlreadyOn`] also if `core` was started before, or is the primary core.
///
/// # Panics
/// If `core` is not below [`CORES_MAX`].
pub fn start_core(core: usize, affinity: u64, map: &HypMap) -> Result<(), psci::Error> {
    if core == 0 || STARTED[core].swap(true, Ordering::Relaxed) {
        return Err(psci::Error::AlreadyOn);
    }
    let record = STARTS[core].0.get();
    // SAFETY: this is the one call for `core`, so nobody reads or writes its record yet.
    unsafe { record.write(map.settings_for(core)) };
    // The core reads it with its MMU off.
    clean_and_invalidate(record as u64, size_of::<SecondaryStart>() as u64);
    let (entry, context) = (boot::secondary_entry(), record as u64);
    if CONDUIT.load(Ordering::Acquire) == 2 {
        psci::cpu_on::<Hvc>(affinity, entry, context)
    } else {
        psci::cpu_on::<Smc>(affinity, entry, context)
    }
}

/// Powers the board off.
pub fn power_off() -> ! {
    // Both return only if the firmware refuses.
    let _ = if CONDUIT.load(Ordering::Acquire) == 2 { psci::system_off::<Hvc>() } else { psci::system_off::<Smc>() };
    wait::park()
}
