//! PSCI calls to the firmware (Arm DEN0022), and QEMU's panic device.

use crate::board::{Board, Conduit, Pcie, Range};
use crate::boot::{self, CORES_MAX, SecondaryStart};
use crate::bulk::clean_and_invalidate;
use crate::mmu::HypMap;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use smccc::psci;
use smccc::{Hvc, Smc};

/// The conduit, for those who have no board at hand: 0 before it is known, 1 SMC, 2 HVC.
static CONDUIT: AtomicU8 = AtomicU8::new(0);

/// The address of QEMU's panic device's event register, if there is one.
static PANIC_DEVICE: AtomicU64 = AtomicU64::new(0);

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
    crate::cpu::park()
}

/// The PCI identity of QEMU's pvpanic-pci (QEMU `docs/specs/pvpanic.rst`).
const PVPANIC_ID: u32 = 0x0011_1b36;
/// Its event register's bit for a guest (here: the hypervisor) that has panicked.
const PVPANIC_PANICKED: u8 = 1;
/// Where [`find_panic_device`] puts its registers: at the start of the window for memory BARs.
pub(crate) fn panic_device_registers(pcie: &Pcie) -> Range {
    Range { start: pcie.window.start, size: 1 }
}

/// Looks for QEMU's panic device on PCIe bus 0 and gives it an address, so that a panic can end QEMU with a failing
/// status. A board without it is none the worse.
///
/// Called with the MMU off; after that only [`panic_device_registers`] need to be mapped.
pub(crate) fn find_panic_device(board: &Board) {
    let Some(pcie) = board.pcie else { return };
    let Range { start: window, .. } = panic_device_registers(&pcie);
    for device in 0..32u64 {
        let function = pcie.configuration.start + (device << 15);
        // SAFETY: configuration space of bus 0; with the MMU off all memory is device memory; reads of absent functions
        // give all ones.
        if unsafe { (function as *const u32).read_volatile() } != PVPANIC_ID {
            continue;
        }
        // SAFETY: this function's own registers (PCI 3.0 6.2): BAR 0, then memory space enable in the command register.
        unsafe {
            ((function + 0x10) as *mut u32).write_volatile(window as u32);
            ((function + 0x04) as *mut u16).write_volatile(1 << 1);
        }
        PANIC_DEVICE.store(window, Ordering::Release);
        return;
    }
}

/// Tells QEMU that Bulkhead has panicked. Returns if there is no QEMU to tell.
pub(crate) fn report_panic() {
    let address = PANIC_DEVICE.load(Ordering::Acquire);
    if address != 0 {
        // SAFETY: `find_panic_device` put the device's event register there.
        unsafe { (address as *mut u8).write_volatile(PVPANIC_PANICKED) };
    }
}
