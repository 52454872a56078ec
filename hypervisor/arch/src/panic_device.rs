//! QEMU's panic device, by which a panic of Bulkhead's ends QEMU with a failing status.

use crate::board::{Board, Pcie, Range};
use core::sync::atomic::{AtomicU64, Ordering};

/// The address of QEMU's panic device's event register, if there is one.
static PANIC_DEVICE: AtomicU64 = AtomicU64::new(0);

/// The PCI identity of QEMU's pvpanic-pci (QEMU `docs/specs/pvpanic.rst`).
const PVPANIC_ID: u32 = 0x0011_1b36;

/// Its event register's bit for a guest (here: the hypervisor) that has panicked.
const PVPANIC_PANICKED: u8 = 1;

/// Where [`find`] puts its registers: at the start of the window for memory BARs.
pub(crate) fn registers(pcie: &Pcie) -> Range {
    Range { start: pcie.window.start, size: 1 }
}

/// Looks for QEMU's panic device on PCIe bus 0 and gives it an address, so that a panic can end QEMU with a failing
/// status. A board without it is none the worse.
///
/// Called with the MMU off; after that only [`registers`] need to be mapped.
pub(crate) fn find(board: &Board) {
    let Some(pcie) = board.pcie else { return };
    let Range { start: window, .. } = registers(&pcie);
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
pub(crate) fn report() {
    let address = PANIC_DEVICE.load(Ordering::Acquire);
    if address != 0 {
        // SAFETY: `find` put the device's event register there.
        unsafe { (address as *mut u8).write_volatile(PVPANIC_PANICKED) };
    }
}
