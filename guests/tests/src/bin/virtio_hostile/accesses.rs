//! Accesses to the device's page that no driver makes.

use crate::attack::Field;
use rt::probe::{self, OddAccess, Width};
use rt::{Abort, Outcome, ensure, mmu, report};

/// The page of a device.
const WINDOW: u64 = 0x1000;
/// The slots of which the page consists; the device is in the first.
const SLOT: u64 = 0x200;

pub(crate) fn run(field: &mut Field) {
    report::test("17: loads of every width give what loads of words give", || {
        field.each_raw(|target| loads(target.device.base))
    });
    report::test("17: stores of every width are taken or refused", || {
        field.each_raw(|target| stores(target.device.base))
    });
    report::test("17: accesses without a syndrome to a device's page are contained", || {
        field.each_raw(|target| odd(target.device.base))
    });
    report::test("17: a device's page cannot be written through a cacheable mapping", || {
        field.each_raw(|target| cacheable(target.device.base))
    });
}

/// Whether a refusal is one that a guest may meet: stage 2's, or stage 1's for what is not aligned.
fn is_contained(abort: Abort) -> bool {
    abort.is_external() || abort.is_alignment() || abort.is_undefined()
}

fn loads(base: u64) -> Outcome {
    for offset in (0..0x140).step_by(8) {
        let words = [probe::read(base + offset, Width::Word)?, probe::read(base + offset + 4, Width::Word)?];
        let wanted = words[0] | words[1] << 32;
        for width in [Width::Byte, Width::HalfWord, Width::DoubleWord] {
            let found = probe::read(base + offset, width)?;
            let mask = u64::MAX >> (64 - 8 * width.bytes());
            ensure!(found == wanted & mask, "{width:?} at {offset:#x} reads {found:#x}, words read {wanted:#x}");
        }
    }
    // The page is nobody else's to its end: its other slots have no device.
    let [magic, version, vendor] = [0, 4, 12].map(|offset| probe::read(base + offset, Width::Word));
    let vacant = [magic?, version?, 0, vendor?];
    for offset in (SLOT..WINDOW).step_by(4) {
        let word = probe::read(base + offset, Width::Word)?;
        let expected = vacant.get((offset % SLOT / 4) as usize).copied().unwrap_or(0);
        ensure!(word == expected, "the word at {offset:#x} is {word:#x}");
    }
    Ok(())
}

fn stores(base: u64) -> Outcome {
    for offset in (0..WINDOW).filter(|offset| *offset < 0x120 || *offset > 0xff8) {
        for width in Width::ALL {
            if let Err(abort) = probe::write(base + offset, width, 0xffff_ffff_ffff_ffff) {
                ensure!(is_contained(abort), "{width:?} at {offset:#x}: {abort}");
            }
        }
    }
    Ok(())
}

fn odd(base: u64) -> Outcome {
    for offset in [0, 0x40, 0x80, 0x100, 0xfc0] {
        for access in OddAccess::ALL {
            let outcome = probe::odd(access, base + offset);
            if access == OddAccess::Execute {
                // Stage 1 says so already.
                ensure!(
                    outcome.result.is_err_and(|abort| abort.is_abort()),
                    "a fetch at {offset:#x}: {:?}",
                    outcome.result
                );
            } else if let Err(abort) = outcome.result {
                ensure!(is_contained(abort), "{access:?} at {offset:#x}: {abort}");
                ensure!(outcome.write_back == 0, "{access:?} at {offset:#x} was refused and moved its base");
            }
        }
    }
    Ok(())
}

/// Whether an access needs the right to write, whatever it stores.
fn is_store(access: OddAccess) -> bool {
    matches!(
        access,
        OddAccess::StorePair
            | OddAccess::StorePostIndex
            | OddAccess::StoreExclusive
            | OddAccess::AtomicAdd
            | OddAccess::CompareAndSwap
            | OddAccess::ZeroBlock
    )
}

fn cacheable(base: u64) -> Outcome {
    // Through the alias the page is normal memory at stage 1, and instructions may be fetched from it.
    let alias = mmu::ALIAS_BASE + base;
    for offset in [0, 0x80, 0x100, 0xfc0] {
        for access in OddAccess::ALL {
            let outcome = probe::odd(access, alias + offset);
            let must_fail = is_store(access) || access == OddAccess::Execute;
            ensure!(!must_fail || outcome.result.is_err(), "{access:?} at {offset:#x} went through");
            if let Err(abort) = outcome.result {
                ensure!(is_contained(abort), "{access:?} at {offset:#x}: {abort}");
            }
        }
        let _ = probe::write(alias + offset, Width::Word, 0xdead_beef);
    }
    let magic = probe::read(base, Width::Word)?;
    ensure!(magic == u64::from(u32::from_le_bytes(*b"virt")), "MagicValue reads {magic:#x}");
    Ok(())
}
