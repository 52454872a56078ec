//! Accesses that no driver makes: without a syndrome, misaligned, of the wrong width, to instructions, on table walks.

use crate::test_under_bulkhead;
use rt::machine::Region;
use rt::probe::{self, OddAccess, Width};
use rt::{Abort, gic, machine, mmu, uart};
use testkit::{Outcome, ensure, report};

pub(crate) fn run() {
    report::test("odd accesses to device pages come to an end", odd_accesses);
    test_under_bulkhead("an exclusive access to a device is refused with an external abort", exclusives);
    test_under_bulkhead("a pair or write-back is answered or refused as plain accesses are", pairs);
    test_under_bulkhead("cache maintenance on pages without memory does no harm", cache_maintenance);
    test_under_bulkhead("instructions cannot be fetched from where there is no memory", fetches);
    report::test("misaligned and wide accesses to devices come to an end", widths);
    test_under_bulkhead("virtio slots without a device read as such, and ignore stores", vacant_slots);
    test_under_bulkhead("flash reads as erased, and takes no store", erased_flash);
    test_under_bulkhead("an access across the end of a device window is refused", across_the_end);
    report::test("a table walk outside of memory is an external abort on the walk", walk_into_hole);
    test_under_bulkhead("a table walk through a device is an external abort", walk_into_device);
    report::test("cleaning caches by set and way does no harm", || Ok(probe::clean_by_set_and_way()?));
    restore();
}

/// A device register at a multiple of 64 whose neighbours bear any access.
fn targets() -> impl Iterator<Item = u64> {
    let machine = machine();
    // GICD_IGROUPR, GICR_IGROUPR0 of this CPU, UARTMIS.
    let distributor = machine.distributor.start + gic::offset::IGROUPR;
    let redistributor = gic::redistributor(0).map(|frame| frame + gic::offset::SGI_FRAME + gic::offset::IGROUPR);
    let uart = machine.uart.map(|window| window.start + uart::offset::MIS);
    [distributor].into_iter().chain(redistributor).chain(uart)
}

/// Where QEMU's virt board has its 32 virtio slots, and how far apart they are.
const SLOTS: [u64; 2] = [0x0a00_0000, 0x200];
/// Where it has the flash for variables, and how much of it.
const FLASH: [u64; 2] = [0x0400_0000, 0x0400_0000];

/// Each slot says who it is and that there is nobody (VIRTIO 1.2, 4.2.2: DeviceID), as software expects that goes
/// through all of them.
fn vacant_slots() -> Outcome {
    let [start, stride] = SLOTS;
    let pages = (start..start + 32 * 4096).step_by(4096);
    for slot in (0..32).map(|slot| start + slot * stride).chain(pages) {
        for round in 0..2 {
            for (offset, expected) in [(0, u32::from_le_bytes(*b"virt")), (4, 2), (8, 0), (0x70, 0), (0x1fc, 0)] {
                let found = probe::try_read32(slot + offset)?;
                ensure!(found == expected, "slot {slot:#x}, round {round}: {offset:#x} reads {found:#x}");
            }
            // DeviceID, Status and QueueNotify.
            for offset in [0x8, 0x70, 0x50] {
                probe::try_write32(slot + offset, 1)?;
            }
        }
    }
    Ok(())
}

fn erased_flash() -> Outcome {
    let [start, size] = FLASH;
    for address in (start..start + size).step_by(0x3_fffc).chain([start + size - 4]) {
        let found = probe::try_read32(address)?;
        ensure!(found == u32::MAX, "flash reads {found:#x} at {address:#x}");
    }
    let stored = probe::try_write32(start + 0x1000, 0);
    ensure!(stored.is_err_and(|abort| abort.is_external()), "a store to flash ended with {stored:?}");
    Ok(())
}

/// Addresses that hold nothing at all: outside of this guest's memory and of its devices. A bare board has its PCIe
/// windows at some of them.
fn holes() -> impl Iterator<Item = u64> {
    let machine = machine();
    let behind_memory = machine.memory.last().map(Region::end);
    let low = [0x3000_0000, 0x3f00_0000].into_iter().filter(|_| machine.under_bulkhead);
    behind_memory
        .into_iter()
        .chain(low)
        .filter(|&address| machine.window_at(address, 4096).is_none() && machine.memory_at(address, 4096).is_none())
}

fn restore() {
    gic::init();
    gic::init_cpu();
    uart::init();
}

fn acceptable(outcome: Result<(), Abort>) -> bool {
    match outcome {
        Ok(()) => true,
        Err(abort) => abort.is_external() || abort.is_alignment() || abort.is_undefined() || abort.is_abort(),
    }
}

fn odd_accesses() -> Outcome {
    for address in targets() {
        for access in OddAccess::ALL {
            if access == OddAccess::Execute {
                // Device pages are execute-never at stage 1; the alias is tried in `fetches`.
                continue;
            }
            let outcome = probe::odd(access, address);
            ensure!(acceptable(outcome.result), "{access:?} at {address:#x}: {:?}", outcome.result);
            if outcome.result.is_err() {
                ensure!(outcome.write_back == 0, "{access:?} at {address:#x} faulted and moved its base register");
            }
        }
    }
    restore();
    Ok(())
}

/// An external abort at that page, and an address register that has not moved.
fn refused(access: OddAccess, address: u64) -> Outcome {
    let outcome = probe::odd(access, address);
    match outcome.result {
        Err(abort) if abort.is_external() => {
            ensure!(
                abort.address & !0xfff == address & !0xfff,
                "{access:?} at {address:#x}: FAR is {:#x}",
                abort.address
            );
            ensure!(outcome.write_back == 0, "{access:?} at {address:#x} moved its base register");
        }
        other => ensure!(false, "{access:?} at {address:#x} ended with {other:?}"),
    }
    Ok(())
}

fn exclusives() -> Outcome {
    for address in targets().chain(holes()) {
        for access in OddAccess::ALL.into_iter().filter(|access| access.is_exclusive()) {
            refused(access, address)?;
            // Through the normal-memory alias stage 1 raises nothing of its own, so every access reaches stage 2.
            if address < mmu::ALIAS_BYTES {
                refused(access, mmu::ALIAS_BASE + address)?;
            }
        }
    }
    Ok(())
}

fn pairs() -> Outcome {
    for address in targets().chain(holes()) {
        for access in OddAccess::ALL {
            let Some(plain) = access.plain(address) else { continue };
            let is_hole = machine().window_at(address, 4096).is_none();
            ensure!(plain.is_err() == is_hole, "plain accesses at {address:#x} ended with {plain:?}");
            let alias = (address < mmu::ALIAS_BYTES).then_some(mmu::ALIAS_BASE + address);
            for address in [Some(address), alias].into_iter().flatten() {
                match plain {
                    Err(_) => refused(access, address)?,
                    Ok(write_back) => {
                        let outcome = probe::odd(access, address);
                        ensure!(outcome.result.is_ok(), "{access:?} at {address:#x}: {:?}", outcome.result);
                        let moved = outcome.write_back;
                        ensure!(moved == write_back, "{access:?} at {address:#x} moved its base by {moved}");
                    }
                }
            }
        }
    }
    restore();
    Ok(())
}

fn cache_maintenance() -> Outcome {
    for address in targets().chain(holes()).filter(|&address| address < mmu::ALIAS_BYTES) {
        for access in [
            OddAccess::ZeroBlock,
            OddAccess::CleanLine,
            OddAccess::InvalidateLine,
            OddAccess::CleanAndInvalidateLine,
            OddAccess::InvalidateInstructions,
            OddAccess::Prefetch,
            OddAccess::Translate,
            OddAccess::AtomicAdd,
            OddAccess::CompareAndSwap,
            OddAccess::Misaligned,
        ] {
            let outcome = probe::odd(access, mmu::ALIAS_BASE + address).result;
            ensure!(acceptable(outcome), "{access:?} at {address:#x} ended with {outcome:?}");
        }
    }
    Ok(())
}

fn fetches() -> Outcome {
    for address in targets().chain(holes()).filter(|&address| address < mmu::ALIAS_BYTES) {
        let outcome = probe::odd(OddAccess::Execute, mmu::ALIAS_BASE + address).result;
        let Err(abort) = outcome else {
            ensure!(false, "code ran at {address:#x}");
            continue;
        };
        ensure!(abort.class() == 0x21 && abort.is_external(), "the fetch at {address:#x} ended with {abort}");
        let through_device = probe::odd(OddAccess::Execute, address).result;
        ensure!(through_device.is_err(), "code ran at {address:#x}, which is execute-never");
    }
    Ok(())
}

fn widths() -> Outcome {
    for address in targets() {
        for displacement in 0..8 {
            for width in Width::ALL {
                let read = probe::read(address + displacement, width).map(|_| ());
                ensure!(acceptable(read), "{width:?} read at {:#x}: {read:?}", address + displacement);
                let write = probe::write(address + displacement, width, 0);
                ensure!(acceptable(write), "{width:?} write at {:#x}: {write:?}", address + displacement);
            }
        }
    }
    restore();
    Ok(())
}

fn across_the_end() -> Outcome {
    // The UART's page is the last of its window, and nothing is behind it.
    let Some(window) = machine().uart else { return Ok(()) };
    let read = probe::read(window.end() - 2, Width::Word);
    ensure!(read.is_err(), "a word across the end of the window reads {read:?}");
    let behind = probe::read(window.end(), Width::Word);
    ensure!(behind.is_err_and(|abort| abort.is_external()), "the word behind the window reads {behind:?}");
    Ok(())
}

fn walk_at(root: u64) -> Result<u64, Abort> {
    let address = mmu::open_top_half(root);
    let outcome = probe::read(address, Width::Word);
    mmu::close_top_half();
    outcome
}

fn walk_into_hole() -> Outcome {
    for hole in holes() {
        let outcome = walk_at(hole);
        let on_walk = |abort: Abort| abort.is_external_on_walk() || abort.is_external();
        ensure!(outcome.is_err_and(on_walk), "a walk at {hole:#x} ended with {outcome:?}");
    }
    Ok(())
}

fn walk_into_device() -> Outcome {
    for address in targets() {
        let outcome = walk_at(address & !0xfff);
        let on_walk = |abort: Abort| abort.is_external_on_walk() || abort.is_external();
        ensure!(outcome.is_err_and(on_walk), "a walk at {address:#x} ended with {outcome:?}");
    }
    Ok(())
}
