//! Every encoding of system registers and system instructions, on a core that two machines share: one reads them all
//! again and again, the other writes them all. What the reader sees change is what leaks.
//!
//! CPU 1 runs machine code with its MMU off, so that no register it writes can lead it astray; CPU 0 looks at what it
//! leaves in memory. Parameters: `role=` `write` or `watch`; the watcher writes all registers once, and then must find
//! what it wrote. `sweeps=` (5) through all registers; the writer should make more, so that it is there to the end.

use crate::assembler::{
    DSB, ERET, Encoding, ISB, NOP, add, add_pages, add_register, branch, load_vector_next, mov, movk, movz, mrs, msr,
    store, store_next, store_vector_next,
};
use rt::probe::{self, Width};
use rt::{gic, machine, memory, println, psci, timer};
use testkit::{Outcome, ensure, report};

/// Where things are in the area, in bytes.
const VECTORS: usize = 0x800;
const SWEEPS: usize = 0x1000;
const PATTERN: usize = 0x2000;
const VECTOR_REGISTERS: usize = 0x3000;
const VALUES: usize = 0x10_0000;
const WRITES: usize = 0x20_0000;
const READS: usize = 0x30_0000;
const AREA_WORDS: usize = 0x40_0000 / 8;
/// In the upper half of a value: the access met an exception, and the rest is its ESR_EL1.
const REFUSED: u64 = 0xe5e5;
const NAMED_MAX: usize = 12;
const LONG_MICROSECONDS: u64 = 30_000_000;

/// Registers without which the machine code would not go on: SCTLR_EL1, SCTLR2_EL1, CPACR_EL1, VBAR_EL1, SPSel, DAIF.
const SPARED: [Encoding; 6] = [
    Encoding(3, 0, 1, 0, 0),
    Encoding(3, 0, 1, 0, 3),
    Encoding(3, 0, 1, 0, 2),
    Encoding(3, 0, 12, 0, 0),
    Encoding(3, 0, 4, 2, 0),
    Encoding(3, 3, 4, 2, 1),
];

/// Reading acknowledges an interrupt: ICC_IAR0_EL1, ICC_IAR1_EL1.
const UNREAD: [Encoding; 2] = [Encoding(3, 0, 12, 8, 0), Encoding(3, 0, 12, 12, 0)];

/// What changes by itself, or by the machine code's own doing: counters, timers, random numbers, flags, the registers
/// of exceptions, and what says that an interrupt is pending.
fn changes_by_itself(register: Encoding) -> bool {
    matches!(
        register,
        Encoding(3, 3, 14, 0, 1 | 2 | 5 | 6)
            | Encoding(3, 3, 14, 2 | 3, 0 | 1)
            | Encoding(3, 3, 2, 4, 0 | 1)
            | Encoding(3, 3, 4, 2, 0)
            | Encoding(3, 0, 5, 2, 0)
            | Encoding(3, 0, 4, 0, 0 | 1)
            | Encoding(3, 0, 12, 1, 0)
            | Encoding(3, 0, 12, 8 | 12, 2)
    )
}

/// Machine code in the making.
struct Code<'a> {
    area: &'a mut [u64],
    /// Where the next instruction goes, in bytes.
    place: usize,
}

impl Code<'_> {
    fn put(&mut self, instruction: u32) {
        if let Some(word) = self.area.get_mut(self.place / 8) {
            let shift = self.place % 8 * 8;
            *word = *word & !(0xffff_ffff << shift) | u64::from(instruction) << shift;
        }
        self.place += 4;
    }

    fn put_all(&mut self, instructions: &[u32]) {
        instructions.iter().for_each(|instruction| self.put(*instruction));
    }

    fn branch(&mut self, to: usize) {
        self.put(branch(self.place, to));
    }
}

pub(crate) fn run() {
    let writes = machine().parameter("role") == Some("write");
    report::test("every system register and instruction is tried without harm", || {
        let Some(area) = memory::take(AREA_WORDS) else {
            ensure!(false, "there is no room for the machine code");
            return Ok(());
        };
        let base = area.as_ptr() as u64;
        assemble(area, writes);
        // CPU 1 runs without caches.
        let _ = probe::clean_by_set_and_way();
        psci::cpu_on(machine().cpus[1], base, base)?;
        if writes { outlast(base) } else { watch(base) }
    });
}

/// x19 the area, x20 where values go, x25 what is written, x26 what it grows by, x27 the count of sweeps.
fn assemble(area: &mut [u64], writes: bool) {
    area.fill(0);
    for register in 0..64 {
        area[PATTERN / 8 + register] = 0x0101_0101_0101_0101 * register as u64 + if writes { 0x8000 } else { 0 };
    }
    let mut code = Code { area, place: 0 };
    let pattern = if writes { 0xa5c3 } else { 0x1234 };
    code.put_all(&[
        mov(19, 0),
        add(1, 19, VECTORS as u32),
        msr(Encoding(3, 0, 12, 0, 0), 1),
        // CPACR_EL1: FP, SVE and SME do not trap to EL1.
        movz(1, 0x0333, 1),
        msr(Encoding(3, 0, 1, 0, 2), 1),
        ISB,
        movz(25, pattern, 0),
        movk(25, pattern, 1),
        movk(25, pattern, 2),
        movk(25, pattern, 3),
        movz(26, if writes { 0x6789 } else { 0 }, 0),
        movk(26, if writes { 0x2345 } else { 0 }, 2),
        movz(27, 0, 0),
        add_pages(20, 19, (PATTERN >> 12) as u32),
    ]);
    (0..32).for_each(|register| code.put(load_vector_next(register, 20)));
    code.branch(WRITES);
    let back = code.place;
    code.put_all(&[add(27, 27, 1), add_register(25, 25, 26), add_pages(20, 19, (VECTOR_REGISTERS >> 12) as u32)]);
    (0..32).for_each(|register| code.put(store_vector_next(register, 20)));
    code.put_all(&[add_pages(20, 19, (SWEEPS >> 12) as u32), DSB, store(27, 20)]);
    code.branch(if writes { WRITES } else { READS });

    // Any exception: its syndrome in place of the value, and on behind the instruction.
    for vector in 0..16 {
        code.place = VECTORS + vector * 0x80;
        code.put_all(&[
            mrs(0, Encoding(3, 0, 5, 2, 0)),
            movk(0, REFUSED as u32, 3),
            mrs(1, Encoding(3, 0, 4, 0, 1)),
            add(1, 1, 4),
            msr(Encoding(3, 0, 4, 0, 1), 1),
            ERET,
        ]);
    }
    code.place = WRITES;
    for register in (0..Encoding::COUNT).map(Encoding::nth) {
        code.put(if SPARED.contains(&register) { NOP } else { msr(register, 25) });
    }
    code.branch(if writes { back } else { READS });
    code.place = READS;
    code.put(add_pages(20, 19, (VALUES >> 12) as u32));
    for register in (0..Encoding::COUNT).map(Encoding::nth) {
        code.put_all(&[if UNREAD.contains(&register) { NOP } else { mrs(0, register) }, store_next(0, 20)]);
    }
    code.branch(back);
}

fn word(address: u64) -> u64 {
    probe::read(address, Width::DoubleWord).unwrap_or(0)
}

fn sweeps(base: u64) -> u64 {
    word(base + SWEEPS as u64)
}

/// Looks on until CPU 1 has made its sweeps, within bounds.
fn until_swept(base: u64, mut look: impl FnMut() -> Outcome) -> Outcome {
    let due = machine().number("sweeps", 5);
    let end = timer::now() + timer::ticks(LONG_MICROSECONDS);
    while sweeps(base) < due {
        ensure!(timer::now() < end, "CPU 1 has come to the end of {} sweeps of {due}", sweeps(base));
        look()?;
    }
    Ok(())
}

/// The writer's part: it leaves the core that it computes on to others.
fn outlast(base: u64) -> Outcome {
    gic::init();
    gic::init_cpu();
    until_swept(base, || {
        timer::sleep(10_000);
        Ok(())
    })
}

fn watch(base: u64) -> Outcome {
    ensure!(
        timer::wait_until(LONG_MICROSECONDS, || sweeps(base) >= 1),
        "CPU 1 has not come to the end of its first sweep"
    );
    let Some(baseline) = memory::take(Encoding::COUNT as usize) else {
        ensure!(false, "there is no room for the values");
        return Ok(());
    };
    let value = |number: u32| word(base + VALUES as u64 + u64::from(number) * 8);
    (0..).zip(baseline.iter_mut()).for_each(|(number, entry)| *entry = value(number));
    let refused = baseline.iter().filter(|value| **value >> 48 == REFUSED).count();
    println!("refused={refused} of {}", Encoding::COUNT);
    let mut changed = 0;
    until_swept(base, || {
        for (number, first) in (0..).zip(baseline.iter_mut()) {
            let register = Encoding::nth(number);
            let now = value(number);
            if now == *first || changes_by_itself(register) || UNREAD.contains(&register) {
                continue;
            }
            if changed < NAMED_MAX {
                let Encoding(op0, op1, crn, crm, op2) = register;
                println!("leak: S{op0}_{op1}_C{crn}_C{crm}_{op2} was {first:#x} and is {now:#x}");
            }
            // Once is enough.
            *first = now;
            changed += 1;
        }
        for half in 0..64_u64 {
            let now = word(base + VECTOR_REGISTERS as u64 + half * 8);
            ensure!(now == 0x0101_0101_0101_0101 * half, "half {half} of the vector registers is {now:#x}");
        }
        Ok(())
    })?;
    ensure!(changed == 0, "{changed} registers changed their values");
    Ok(())
}
