//! Counts what a core executes at EL2 between two looks at whether an interrupt is pending, from QEMU's log of every
//! instruction.
//!
//! A core looks when it reads ISR_EL1 or ICC_IAR1_EL1, when it waits in WFI, and when it goes back to a guest with
//! ERET: what is pending interrupts it there. What it writes to the console, its log or what a guest prints, goes to a
//! UART, and is counted apart.

use crate::symbols::Functions;
use std::collections::BTreeMap;

/// Stretches up to this are not worth their functions' names.
const SHORT: usize = 256;

/// Instructions by which a core looks whether an interrupt is pending, without their register Rt (Arm ARM C5.2, C6.2).
const LOOKS: [u32; 4] = [
    0xd538_c100, // MRS Xt, ISR_EL1
    0xd538_cc00, // MRS Xt, ICC_IAR1_EL1
    0xd503_2060, // WFI: HINT #3, whose Rt is 31
    0xd69f_03e0, // ERET
];
/// Rt, which ERET does not have: all bits of its place are zero.
const TARGET_REGISTER: u32 = 0x1f;

/// Bulkhead's section `.text`, where it lies in a run.
pub(super) struct Code {
    /// The address of its first instruction in the run.
    pub(super) base: u64,
    /// Its address in the file.
    pub(super) linked: u64,
    /// The instructions.
    pub(super) words: Vec<u32>,
    /// The address, in the file, of the function in which a core's life begins: what comes before is the boot.
    pub(super) begin: u64,
    /// The addresses, in the file, of the functions that write to the console.
    pub(super) writers: Vec<u64>,
}

/// What a core did without a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stretch {
    /// So many instructions, without those that wrote to the console.
    pub(super) instructions: usize,
    /// Those.
    pub(super) written: usize,
    /// The functions that they lie in, inlined ones as a part of their callers: first the one with most of them.
    pub(super) functions: Vec<(String, usize)>,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Stretches {
    /// The instructions of the longest, writes to the console aside.
    pub(crate) longest: u64,
    /// Those of the longest write to the console.
    pub(crate) longest_write: u64,
    /// The longest of each kind, the longest first: the function that most of them lie in makes the kind.
    pub(super) kinds: Vec<Stretch>,
}

/// Where a core is in its life.
#[derive(Default, PartialEq, Eq)]
enum State {
    /// It boots.
    #[default]
    Boots,
    /// It is about to look for the first time: nothing before could be interrupted.
    Begins,
    /// It runs guests.
    Runs,
}

/// A core on its way.
#[derive(Default)]
struct Core {
    state: State,
    /// What it has executed since its last look: instructions by their place in the section.
    places: Vec<u32>,
    written: usize,
    /// What of them the write to the console has that goes on, and where the core goes on after it.
    write: Option<(usize, usize)>,
    /// What it executed last, writes aside.
    last: usize,
}

/// Reads a log.
pub(super) struct Tracer {
    base: u64,
    is_look: Vec<bool>,
    begin: usize,
    writers: Vec<usize>,
    /// Each instruction's function, as a number.
    function_of: Vec<u32>,
    names: Vec<String>,
    cores: Vec<Core>,
    longest: usize,
    longest_write: usize,
    /// The longest stretch of those of which most lies in one function, by that function.
    stretches: BTreeMap<u32, Stretch>,
}

impl Tracer {
    /// For a run of `code`, whose functions are `functions`.
    pub(super) fn new(code: &Code, functions: &Functions) -> Self {
        let place = |address: u64| (address.saturating_sub(code.linked) / 4) as usize;
        let mut numbers: BTreeMap<&str, u32> = BTreeMap::new();
        let mut names = Vec::new();
        let mut function_of = Vec::new();
        for index in 0..code.words.len() as u64 {
            let name = functions.at(code.linked + 4 * index).unwrap_or("an unnamed function");
            function_of.push(*numbers.entry(name).or_insert_with(|| {
                names.push(name.to_owned());
                names.len() as u32 - 1
            }));
        }
        let is_look = |word: &u32| LOOKS.contains(word) || LOOKS.contains(&(word & !TARGET_REGISTER));
        Self {
            base: code.base,
            is_look: code.words.iter().map(is_look).collect(),
            begin: place(code.begin),
            writers: code.writers.iter().map(|writer| place(*writer)).collect(),
            function_of,
            names,
            cores: Vec::new(),
            longest: 0,
            longest_write: 0,
            stretches: BTreeMap::new(),
        }
    }

    /// Takes a line of QEMU's log. Gives whether it was one of an instruction.
    pub(super) fn take(&mut self, line: &str) -> bool {
        let Some((core, address)) = parse(line) else { return false };
        let place = address.wrapping_sub(self.base) / 4;
        if let Ok(place) = usize::try_from(place)
            && place < self.is_look.len()
        {
            self.step(core, place);
        }
        true
    }

    /// Core `number` executes the instruction at `place`.
    fn step(&mut self, number: usize, place: usize) {
        if self.cores.len() <= number {
            self.cores.resize_with(number + 1, Core::default);
        }
        let Some(core) = self.cores.get_mut(number) else { return };
        if core.state == State::Boots {
            if place == self.begin {
                core.state = State::Begins;
            }
            return;
        }
        if core.write.is_none() && self.writers.contains(&place) {
            core.write = Some((0, core.last + 1));
        }
        if let Some((written, after)) = &mut core.write {
            if *after != place {
                *written += 1;
                return;
            }
            self.longest_write = self.longest_write.max(*written);
            core.written += *written;
            core.write = None;
        }
        core.last = place;
        core.places.push(place as u32);
        if self.is_look.get(place) != Some(&true) {
            return;
        }
        let mut places = std::mem::take(&mut core.places);
        let written = std::mem::take(&mut core.written);
        let is_first = std::mem::replace(&mut core.state, State::Runs) == State::Begins;
        if !is_first {
            self.end(&places, written);
        }
        places.clear();
        if let Some(core) = self.cores.get_mut(number) {
            // Its room serves again.
            core.places = places;
        }
    }

    fn end(&mut self, places: &[u32], written: usize) {
        self.longest = self.longest.max(places.len());
        if places.len() <= SHORT {
            return;
        }
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for place in places {
            if let Some(function) = self.function_of.get(*place as usize) {
                *counts.entry(*function).or_default() += 1;
            }
        }
        let Some(main) = counts.iter().max_by_key(|(_, count)| **count).map(|(function, _)| *function) else { return };
        if self.stretches.get(&main).is_some_and(|stretch| stretch.instructions >= places.len()) {
            return;
        }
        let name = |function: u32| self.names.get(function as usize).cloned().unwrap_or_default();
        let mut functions: Vec<_> = counts.into_iter().map(|(function, count)| (name(function), count)).collect();
        functions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        self.stretches.insert(main, Stretch { instructions: places.len(), written, functions });
    }

    /// What was found.
    pub(super) fn finish(self) -> Stretches {
        let mut kinds: Vec<_> = self.stretches.into_values().collect();
        kinds.sort_by_key(|stretch| std::cmp::Reverse(stretch.instructions));
        Stretches { longest: self.longest as u64, longest_write: self.longest_write as u64, kinds }
    }
}

/// The core and the address of a line `Trace 0: 0x7f47b8015940 [00000000/0000000046025134/00000461/ff022201] `.
fn parse(line: &str) -> Option<(usize, u64)> {
    let (core, rest) = line.strip_prefix("Trace ")?.split_once(": ")?;
    let (_, rest) = rest.split_once('/')?;
    let (address, _) = rest.split_once('/')?;
    Some((core.parse().ok()?, u64::from_str_radix(address, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x4601_0000;
    const NOP: u32 = 0xd503_201f;
    const ISR: u32 = 0xd538_c108;
    const IAR: u32 = 0xd538_cc00;
    const WFI: u32 = 0xd503_207f;
    const ERET: u32 = 0xd69f_03e0;
    /// By their places: 0 the vector, 4 the boot's end, 8 `run`, 12 a write to the console, 16 what looks.
    const WORDS: [u32; 20] =
        [NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP, ISR, IAR, WFI, ERET];

    fn tracer() -> Tracer {
        let code = Code {
            base: BASE,
            linked: 0x1000,
            words: WORDS.to_vec(),
            begin: 0x1000 + 4 * 8,
            writers: vec![0x1000 + 4 * 12],
        };
        let functions = [("vector", 0, 4), ("boot", 4, 8), ("run", 8, 12), ("write", 12, 16), ("looks", 16, 20)];
        Tracer::new(
            &code,
            &Functions::known(functions.map(|(name, from, to)| (name, 0x1000 + 4 * from, 0x1000 + 4 * to))),
        )
    }

    fn execute(tracer: &mut Tracer, core: usize, places: impl IntoIterator<Item = u64>) {
        for place in places {
            let address = BASE + 4 * place;
            assert!(tracer.take(&format!("Trace {core}: 0x7f47b8015940 [00000000/{address:016x}/00000461/ff022201] ")));
        }
    }

    /// Core `core` has come to its first look.
    fn begin(tracer: &mut Tracer, core: usize) {
        execute(tracer, core, (0..900).map(|_| 4));
        execute(tracer, core, [8, 9, 10, 16]);
    }

    #[test]
    fn a_stretch_goes_from_look_to_look() {
        for look in 16..20 {
            let mut tracer = tracer();
            begin(&mut tracer, 0);
            execute(&mut tracer, 0, (0..299).map(|_| 0).chain([look]));
            execute(&mut tracer, 0, (0..700).map(|_| 8).chain([look]));
            execute(&mut tracer, 0, (0..2000).map(|_| 8));
            let found = tracer.finish();
            assert_eq!(found.longest, 701, "what never looks again is no stretch");
            let [first, second] = &*found.kinds else { panic!("{:?}", found.kinds) };
            assert_eq!(first.functions, [("run".to_owned(), 700), ("looks".to_owned(), 1)]);
            assert_eq!((second.instructions, second.written), (300, 0));
        }
    }

    #[test]
    fn the_boot_is_no_stretch() {
        let mut tracer = tracer();
        begin(&mut tracer, 0);
        assert_eq!(tracer.finish().longest, 0);
    }

    #[test]
    fn cores_are_counted_by_themselves() {
        let mut tracer = tracer();
        begin(&mut tracer, 0);
        begin(&mut tracer, 1);
        for _ in 0..500 {
            execute(&mut tracer, 0, [8]);
            execute(&mut tracer, 1, [9]);
        }
        execute(&mut tracer, 0, [16]);
        execute(&mut tracer, 1, [16]);
        assert_eq!(tracer.finish().longest, 501);
    }

    #[test]
    fn a_write_to_the_console_is_counted_apart() {
        let mut tracer = tracer();
        begin(&mut tracer, 0);
        // It calls others, and goes on behind the call.
        execute(&mut tracer, 0, (0..300).map(|_| 0).chain([9, 12, 13]).chain((0..400).map(|_| 4)).chain([15, 10, 16]));
        let found = tracer.finish();
        assert_eq!((found.longest, found.longest_write), (303, 403));
        assert_eq!(found.kinds.first().map(|stretch| stretch.written), Some(403));
    }

    #[test]
    fn what_qemu_says_besides_is_left_alone() {
        let mut tracer = tracer();
        for line in
            ["", "qemu-system-aarch64: warning: x", "Trace", "Trace 0", "Trace x: 0x0 [0/0/0/0]", "Trace 0: 0x0 [0/y/"]
        {
            assert!(!tracer.take(line), "{line}");
        }
        // A guest's address.
        assert!(tracer.take("Trace 0: 0x7f47b8015940 [00000000/ffff800008000000/00000461/ff022201] "));
        assert_eq!(tracer.finish().longest, 0);
    }
}
