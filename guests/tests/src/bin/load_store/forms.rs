//! Every form of load and store that can be answered, on the interrupt controller and the UART.

use rt::probe::instruction::{self, Level, Registers};
use rt::probe::{self, Width};
use rt::{gic, machine, mmu, uart};
use testkit::{Outcome, ensure, report};

/// An instruction and how an assembler has it. X0, or SP, is the base; X1 and X2 are transferred; X3 is an index.
type Form = (u32, &'static str);

/// What a register of a byte, or of a word, can take.
const NARROW: [Form; 28] = [
    (0xb840_8401, "ldr w1, [x0], #8"),
    (0xb840_8c01, "ldr w1, [x0, #8]!"),
    (0xb89f_c401, "ldrsw x1, [x0], #-4"),
    (0x3840_1401, "ldrb w1, [x0], #1"),
    (0x38c0_1c01, "ldrsb w1, [x0, #1]!"),
    (0x389f_f401, "ldrsb x1, [x0], #-1"),
    (0x2940_0801, "ldp w1, w2, [x0]"),
    (0x28c1_0801, "ldp w1, w2, [x0], #8"),
    (0x29ff_0801, "ldp w1, w2, [x0, #-8]!"),
    (0x6941_0801, "ldpsw x1, x2, [x0, #8]"),
    (0x2840_8801, "ldnp w1, w2, [x0, #4]"),
    (0x2940_881f, "ldp wzr, w2, [x0, #4]"),
    (0xb800_8401, "str w1, [x0], #8"),
    (0xb81f_8c01, "str w1, [x0, #-8]!"),
    (0x381f_d401, "strb w1, [x0], #-3"),
    (0x3800_3c01, "strb w1, [x0, #3]!"),
    (0xb800_441f, "str wzr, [x0], #4"),
    (0x2900_0801, "stp w1, w2, [x0]"),
    (0x2882_0801, "stp w1, w2, [x0], #16"),
    (0x29be_0801, "stp w1, w2, [x0, #-16]!"),
    (0x2801_0801, "stnp w1, w2, [x0, #8]"),
    (0x2900_841f, "stp wzr, w1, [x0, #4]"),
    (0x2900_8401, "stp w1, w1, [x0, #4]"),
    (0xb863_c801, "ldr w1, [x0, w3, sxtw]"),
    (0xb840_87e1, "ldr w1, [sp], #8"),
    (0x29c1_0be1, "ldp w1, w2, [sp, #8]!"),
    (0x28bf_0be1, "stp w1, w2, [sp], #-8"),
    (0xb800_4fe1, "str w1, [sp, #4]!"),
];

/// What a register of 64 bits can take.
const WIDE: [Form; 6] = [
    (0xa940_0801, "ldp x1, x2, [x0]"),
    (0xa8c1_0801, "ldp x1, x2, [x0], #16"),
    (0xf840_8c01, "ldr x1, [x0, #8]!"),
    (0xa901_0801, "stp x1, x2, [x0, #16]"),
    (0xa9bf_0402, "stp x2, x1, [x0, #-16]!"),
    (0xf800_8401, "str x1, [x0], #8"),
];

/// What is not aligned: through a mapping as normal memory alone, since device memory faults at stage 1. LDTR needs one
/// that is EL0's.
const UNALIGNED: [Form; 4] = [
    (0xb840_1001, "ldur w1, [x0, #1]"),
    (0xb840_3001, "ldur w1, [x0, #3]"),
    (0xb800_1001, "stur w1, [x0, #1]"),
    (0xb840_2801, "ldtr w1, [x0, #2]"),
];

/// Bytes on either side of the base that are compared.
const REACH: usize = 32;

/// Registers that hold what is written: a window on the device.
struct Window {
    /// The middle of it.
    base: u64,
    /// The bytes that it holds at first, before the bits that it keeps are cut out.
    keeps: u8,
    /// How much a plain access transfers.
    width: Width,
}

impl Window {
    /// The priorities of 64 SPIs, a byte each, of which the upper five bits are there.
    fn priorities() -> Self {
        let base = machine().distributor.start + gic::offset::IPRIORITYR + 64;
        Self { base, keeps: 0xf8, width: Width::Byte }
    }

    /// The routes of 8 SPIs, 64 bits each, to CPU 0 or CPU 1.
    fn routes() -> Self {
        let base = machine().distributor.start + gic::offset::IROUTER + 36 * 8;
        Self { base, keeps: 0x01, width: Width::DoubleWord }
    }

    fn places(&self) -> impl Iterator<Item = usize> {
        (0..2 * REACH).step_by(self.width.bytes() as usize)
    }

    fn address(&self, place: usize) -> u64 {
        self.base - REACH as u64 + place as u64
    }

    /// Runs `form` on memory and on the registers, which hold the same, and compares all that it leaves.
    fn compare(&self, level: Level, form: Form, device_alias: u64, memory_alias: u64) -> Outcome {
        let (word, name) = form;
        let middle = 2048;
        for place in self.places() {
            let value = (place as u64 * 0x28 + 0x98) & u64::from(self.keeps);
            probe::write(self.address(place), self.width, value)?;
            for byte in 0..self.width.bytes() as usize {
                instruction::set_scratch(middle - REACH + place + byte, if byte == 0 { value as u8 } else { 0 });
            }
        }
        let keeps = u64::from(self.keeps) * if self.width == Width::Byte { 0x0101_0101_0101_0101 } else { 1 };
        let stored = [0x8870_f0a8_d850_9801 & keeps, 0x2030_4058_6078_88f8 & keeps];
        let memory = memory_alias + instruction::scratch() + middle as u64;
        let [mut wanted, mut found]: [Registers; 2] =
            [memory, device_alias + self.base].map(|base| [base, stored[0], stored[1], 0xffff_fff8]);
        instruction::execute(level, word, &mut wanted)?;
        if let Err(abort) = instruction::execute(level, word, &mut found) {
            ensure!(false, "{name} at {level:?}: {abort}");
        }
        let moved = [wanted[0].wrapping_sub(memory), found[0].wrapping_sub(device_alias + self.base)];
        ensure!(moved[0] == moved[1], "{name} at {level:?} moved its base by {:#x}, not {:#x}", moved[1], moved[0]);
        ensure!(wanted[1..] == found[1..], "{name} at {level:?} left {found:x?}, not {wanted:x?}");
        for place in self.places() {
            let found = probe::read(self.address(place), self.width)?;
            let wanted = u64::from(instruction::scratch_byte(middle - REACH + place));
            ensure!(found == wanted, "{name} at {level:?} left {found:#x} in byte {place}, not {wanted:#x}");
        }
        Ok(())
    }
}

pub(crate) fn run() {
    let (priorities, routes) = (Window::priorities(), Window::routes());
    let narrow = |level, device_alias, memory_alias| {
        NARROW.into_iter().try_for_each(|form| priorities.compare(level, form, device_alias, memory_alias))
    };
    let wide = |level, device_alias, memory_alias| {
        WIDE.into_iter().try_for_each(|form| routes.compare(level, form, device_alias, memory_alias))
    };
    report::test("pairs and write-back do to words of a device what they do to memory", || {
        narrow(Level::El1WithSpEl0, 0, 0)
    });
    report::test("pairs and write-back do to double words of a device what they do to memory", || {
        wide(Level::El1WithSpEl0, 0, 0)
    });
    report::test("the same at EL0, where the kernel lets it reach a device", || {
        narrow(Level::El0, mmu::USER_ALIAS_BASE, mmu::USER_ALIAS_BASE)?;
        wide(Level::El0, mmu::USER_ALIAS_BASE, mmu::USER_ALIAS_BASE)
    });
    report::test("the same with EL1's own stack pointer", || {
        narrow(Level::El1, 0, 0)?;
        wide(Level::El1, mmu::ALIAS_BASE, 0)
    });
    report::test("an access that is not aligned does to a device what its bytes do", || {
        let (device, memory) = (mmu::USER_ALIAS_BASE, mmu::USER_ALIAS_BASE);
        UNALIGNED.into_iter().try_for_each(|form| priorities.compare(Level::El1, form, device, memory))
    });
    report::test("a redistributor's registers are loaded and stored in pairs", || {
        let Some(frame) = gic::redistributor(0) else { return Ok(()) };
        // Of SGIs 4 to 11.
        let place = frame + gic::offset::SGI_FRAME + gic::offset::IPRIORITYR + 4;
        pair(place, [0x8090_a0b0, 0xc0b0_a090])
    });
    report::test("a UART's registers are loaded and stored in pairs", || {
        let Some(window) = machine().uart else { return Ok(()) };
        pair(window.start + uart::offset::IBRD, [0x1234, 0x2a])?;
        let mut registers = [window.start + uart::offset::IBRD, 0x4321, 0, 0];
        instruction::execute(Level::El1, 0x7800_4401, &mut registers)?; // strh w1, [x0], #4
        let found = probe::read(window.start + uart::offset::IBRD, Width::Word)?;
        ensure!(found == 0x4321, "UARTIBRD is {found:#x}");
        ensure!(registers[0] == window.start + uart::offset::FBRD, "the base is {:#x}", registers[0]);
        registers[0] = window.start + uart::offset::IBRD;
        instruction::execute(Level::El1, 0x7840_4401, &mut registers)?; // ldrh w1, [x0], #4
        ensure!(registers[1] == 0x4321, "it loads {:#x}", registers[1]);
        Ok(())
    });
}

/// Two words at `place` by STP, by plain loads, and by LDP.
fn pair(place: u64, words: [u64; 2]) -> Outcome {
    let mut registers = [place, words[0], words[1], 0];
    instruction::execute(Level::El1, 0x2881_0801, &mut registers)?; // stp w1, w2, [x0], #8
    ensure!(registers[0] == place + 8, "STP moved its base to {:#x}", registers[0]);
    let found = [probe::read(place, Width::Word)?, probe::read(place + 4, Width::Word)?];
    ensure!(found == words, "STP left {found:x?}");
    registers = [place, 0, 0, 0];
    instruction::execute(Level::El1, 0x2940_0801, &mut registers)?; // ldp w1, w2, [x0]
    ensure!(registers == [place, words[0], words[1], 0], "LDP left {registers:x?}");
    Ok(())
}
