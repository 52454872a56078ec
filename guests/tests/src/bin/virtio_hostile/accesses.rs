//! Accesses to the device's page that no driver makes.

use crate::attack::Field;
use rt::probe::instruction::{self, Level};
use rt::probe::{self, OddAccess, Width};
use rt::{Abort, mmu};
use testkit::{Outcome, ensure, report};

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
    report::test("17: pairs and write-back do to a device's registers what plain stores do", || {
        field.each_raw(|target| stores_without_syndrome(target.device.base))
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

/// The two halves of a queue's address, and what DeviceFeatures shows, by every way to store them.
fn stores_without_syndrome(base: u64) -> Outcome {
    const DEVICE_FEATURES: u64 = 0x10;
    const DEVICE_FEATURES_SEL: u64 = 0x14;
    let features = |select| -> Result<u64, Abort> {
        probe::write(base + DEVICE_FEATURES_SEL, Width::Word, select)?;
        probe::read(base + DEVICE_FEATURES, Width::Word)
    };
    let shown = [features(0)?, features(1)?];
    ensure!(shown[0] != shown[1], "both halves of DeviceFeatures are {:#x}", shown[0]);
    for (word, name, place, first, second, moved) in [
        (0xb800_8401, "str w1, [x0], #8", DEVICE_FEATURES_SEL, 1, 0, 8),
        (0xb81f_8c01, "str w1, [x0, #-8]!", DEVICE_FEATURES_SEL + 8, 0, 1, 0_u64.wrapping_sub(8)),
        // The first of the two is a register that ignores what is stored.
        (0x2900_0801, "stp w1, w2, [x0]", DEVICE_FEATURES, 0, 1, 0),
        (0x2881_0801, "stp w1, w2, [x0], #8", DEVICE_FEATURES, 1, 0, 8),
    ] {
        let mut registers = [base + place, first, second, 0];
        instruction::execute(Level::El1, word, &mut registers)?;
        ensure!(registers[0] == (base + place).wrapping_add(moved), "{name} left {:#x}", registers[0]);
        let selected = if name.starts_with("stp") { second } else { first };
        let found = probe::read(base + DEVICE_FEATURES, Width::Word)?;
        ensure!(found == shown[selected as usize], "{name}: DeviceFeatures is {found:#x}");
    }
    Ok(())
}

/// Whether an access needs the right to write, and cannot be made of plain stores.
fn is_store(access: OddAccess) -> bool {
    matches!(
        access,
        OddAccess::StoreExclusive | OddAccess::AtomicAdd | OddAccess::CompareAndSwap | OddAccess::ZeroBlock
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
            if let Some(plain) = access.plain(base + offset) {
                let result = outcome.result.map(|()| outcome.write_back);
                ensure!(result.ok() == plain.ok(), "{access:?} at {offset:#x}: {result:?}, and plainly {plain:?}");
            }
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
