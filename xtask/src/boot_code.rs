//! Bulkhead's boot code is unmapped once every core is in its run loop: nothing that runs later may refer to it.
//!
//! Which functions are boot code says the linker script, by name (`.init.text`). This module reads the linked program
//! and looks at every branch and every address that is computed in `.text`, and at every address in data. What it
//! cannot see is a pointer to boot code that boot code itself leaves for later.

use anyhow::{Context, ensure};
use object::{Object, ObjectSection, ObjectSymbol, SymbolKind};
use std::{borrow::Cow, collections::BTreeSet, ops::Range, path::Path};

/// The section of boot code.
pub(crate) const BOOT_SECTION: &str = ".init.text";
/// The section of all other code.
pub(crate) const TEXT_SECTION: &str = ".text";
/// What the mangled names of Bulkhead's own functions contain.
const OWN: &str = "bulkhead";
/// A relocation (`Elf64_Rela`) has this many bytes; the last 8 are what it adds to the image's address.
const RELOCATION_SIZE: usize = 24;
/// How many findings are told.
const FINDINGS_MAX: usize = 5;

/// A function, as the symbol table has it.
#[derive(Debug)]
struct Function {
    name: String,
    addresses: Range<u64>,
}

/// The code of a program.
struct Code {
    boot: Range<u64>,
    text: Range<u64>,
    /// The instructions of `text`.
    words: Vec<u32>,
    /// Of `text` and `boot`, by address.
    functions: Vec<Function>,
    /// The addresses that data holds.
    pointers: Vec<u64>,
}

/// Checks that nothing in the program `elf` that runs after the boot refers to code that only the boot has.
///
/// # Errors
/// Names what refers to what; or the file cannot be read.
pub(crate) fn check(elf: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(elf).with_context(|| format!("{} cannot be read", elf.display()))?;
    let findings = Code::read(&bytes).with_context(|| format!("{} is not Bulkhead", elf.display()))?.findings();
    let told: Vec<_> = findings.iter().take(FINDINGS_MAX).map(String::as_str).collect();
    ensure!(
        findings.is_empty(),
        "boot code is unmapped when the guests run, but it is still referred to; correct the call, or the list of boot code \
         in linker/hypervisor.ld:\n{}",
        told.join("\n")
    );
    Ok(())
}

impl Code {
    fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let file = object::File::parse(bytes)?;
        let section = |name: &str| file.section_by_name(name).with_context(|| format!("there is no section {name}"));
        let range = |name: &str| section(name).map(|section| section.address()..section.address() + section.size());
        let (boot, text) = (range(BOOT_SECTION)?, range(TEXT_SECTION)?);
        let words = section(TEXT_SECTION)?.data()?.chunks_exact(4);
        let words = words.map(|word| word.try_into().map(u32::from_le_bytes)).collect::<Result<_, _>>()?;
        let relocations = section(".rela.dyn")?.data()?.chunks_exact(RELOCATION_SIZE);
        let pointers = relocations.filter_map(|entry| entry.last_chunk().copied()).map(u64::from_le_bytes).collect();
        let mut functions: Vec<_> = file
            .symbols()
            .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() != 0)
            .map(|symbol| Function {
                name: symbol.name().unwrap_or_default().to_owned(),
                addresses: symbol.address()..symbol.address() + symbol.size(),
            })
            .collect();
        functions.sort_by_key(|function| function.addresses.start);
        Ok(Self { boot, text, words, functions, pointers })
    }

    /// Each reference that must not be, as a line.
    fn findings(&self) -> Vec<String> {
        let references = self.references();
        let live = self.live(&references);
        let mut findings = BTreeSet::new();
        for (from, target) in references.iter().filter(|(_, target)| self.boot.contains(target)) {
            // What nothing but boot code can reach may lie in either section: it is a generic function of a library's.
            let source = self.function_at(*from);
            if source.is_none_or(|source| live.contains(&source)) {
                findings.insert(format!("  {} refers to {}", self.name(source, *from), self.name_at(*target)));
            }
        }
        // The assembly at the image's start has no functions: its address is the image's.
        let functions = self.pointers.iter().filter(|pointer| self.function_at(**pointer).is_some());
        for pointer in functions.filter(|pointer| self.boot.contains(pointer)) {
            findings.insert(format!("  a constant or static variable refers to {}", self.name_at(*pointer)));
        }
        findings.into_iter().collect()
    }

    /// What instructions of `text` refer to: the instruction's address, and the other.
    fn references(&self) -> Vec<(u64, u64)> {
        let mut references = Vec::new();
        // What was last computed into each register: the page of an address, whose offset comes later.
        let mut pages = [None; 32];
        let mut function = None;
        for (address, word) in (self.text.start..).step_by(4).zip(self.words.iter().copied()) {
            let here = self.function_at(address);
            if here != function {
                // No function finds a page in a register.
                (function, pages) = (here, [None; 32]);
            }
            match decode(address, word) {
                Some(Reference::Whole(target)) => references.push((address, target)),
                Some(Reference::Page { register, page }) => {
                    pages[register] = Some(page);
                    // Boot code has pages of its own, so that to name one is to refer to it.
                    if self.boot.contains(&page) {
                        references.push((address, page));
                    }
                }
                Some(Reference::Offset { register, offset }) => {
                    references.extend(pages[register].map(|page| (address, page + offset)));
                }
                None => {}
            }
        }
        references
    }

    /// The functions of `text` that may run after the boot: Bulkhead's own that are not in the other section, those
    /// that assembly or data refers to, and whatever these refer to.
    fn live(&self, references: &[(u64, u64)]) -> BTreeSet<usize> {
        let in_text = |index: &usize| self.text.contains(&self.functions[*index].addresses.start);
        let own = (0..self.functions.len()).filter(|index| self.functions[*index].name.contains(OWN));
        let assembly = references.iter().filter(|(from, _)| self.function_at(*from).is_none());
        let named = assembly.map(|(_, target)| target).chain(&self.pointers).filter_map(|to| self.function_at(*to));
        let mut to_visit: Vec<usize> = own.chain(named).filter(in_text).collect();
        let mut live = BTreeSet::new();
        while let Some(index) = to_visit.pop() {
            if live.insert(index) {
                let addresses = &self.functions[index].addresses;
                let first = references.partition_point(|(from, _)| *from < addresses.start);
                let own = references[first..].iter().take_while(|(from, _)| *from < addresses.end);
                to_visit.extend(own.filter_map(|(_, target)| self.function_at(*target)).filter(in_text));
            }
        }
        live
    }

    fn function_at(&self, address: u64) -> Option<usize> {
        let after = self.functions.partition_point(|function| function.addresses.start <= address);
        after.checked_sub(1).filter(|index| self.functions[*index].addresses.contains(&address))
    }

    fn name_at(&self, address: u64) -> String {
        self.name(self.function_at(address), address)
    }

    fn name(&self, function: Option<usize>, address: u64) -> String {
        let name =
            |index: usize| addr2line::demangle_auto(Cow::Borrowed(&self.functions[index].name), None).into_owned();
        function.map_or_else(|| format!("assembly at {address:#x}"), name)
    }
}

/// What an instruction refers to.
#[derive(Debug, PartialEq, Eq)]
enum Reference {
    Whole(u64),
    Page { register: usize, page: u64 },
    Offset { register: usize, offset: u64 },
}

/// The reference of the instruction `word` at `address`: B and BL, ADR, ADRP, ADD of a constant (Arm ARM C4.1).
/// Conditional branches, which reach 1 MiB, and tables of jumps stay within their functions.
fn decode(address: u64, word: u32) -> Option<Reference> {
    let register = |at: u32| (word >> at & 31) as usize;
    let signed = |value: u32, bits: u32| i64::from((value << (32 - bits)).cast_signed() >> (32 - bits));
    if word & 0x7c00_0000 == 0x1400_0000 {
        return Some(Reference::Whole(address.wrapping_add_signed(signed(word, 26) * 4)));
    }
    let distance = signed(word >> 3 & 0x1f_fffc | word >> 29 & 3, 21);
    match word & 0x9f00_0000 {
        0x1000_0000 => return Some(Reference::Whole(address.wrapping_add_signed(distance))),
        0x9000_0000 => {
            let page = (address & !0xfff).wrapping_add_signed(distance << 12);
            return Some(Reference::Page { register: register(0), page });
        }
        _ => {}
    }
    (word & 0xffc0_0000 == 0x9100_0000)
        .then(|| Reference::Offset { register: register(5), offset: u64::from(word >> 10 & 0xfff) })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOP: u32 = 0xd503_201f;
    const BOOT: u64 = 0x1000;
    const TEXT: u64 = 0x2000;

    fn branch(from: u64, to: u64) -> u32 {
        0x1400_0000 | (to.wrapping_sub(from) >> 2) as u32 & 0x3ff_ffff
    }

    /// One function of boot code; in `.text` one of Bulkhead's own and one of a library's, of two instructions each.
    fn program(words: [u32; 4]) -> Code {
        let function = |name: &str, start| Function { name: name.to_owned(), addresses: start..start + 8 };
        Code {
            boot: BOOT..TEXT,
            text: TEXT..TEXT + 16,
            words: words.to_vec(),
            functions: vec![
                function("bulkhead::build", BOOT + 8),
                function("bulkhead::run", TEXT),
                function("core::any", TEXT + 8),
            ],
            pointers: Vec::new(),
        }
    }

    #[test]
    fn code_that_refers_to_no_boot_code_passes() {
        assert!(program([NOP, branch(TEXT + 4, TEXT + 8), NOP, NOP]).findings().is_empty());
    }

    #[test]
    fn a_call_of_boot_code_is_found() {
        let call = branch(TEXT + 4, BOOT + 8) | 1 << 31;
        assert_eq!(program([NOP, call, NOP, NOP]).findings(), ["  bulkhead::run refers to bulkhead::build"]);
    }

    #[test]
    fn an_address_in_boot_code_is_found() {
        // adrp x3, .-0x1000; add x0, x3, #8
        let code = program([0xf000_0000 | 0x7f_ffff << 5 & 0xff_ffe0 | 3, 0x9100_0000 | 8 << 10 | 3 << 5, NOP, NOP]);
        assert!(
            code.findings().contains(&"  bulkhead::run refers to bulkhead::build".to_owned()),
            "{:?}",
            code.findings()
        );
    }

    #[test]
    fn a_librarys_function_may_refer_to_boot_code_if_only_boot_code_calls_it() {
        let mut words = [NOP, NOP, NOP, branch(TEXT + 12, BOOT + 8)];
        assert!(program(words).findings().is_empty());
        words[0] = branch(TEXT, TEXT + 8);
        assert_eq!(program(words).findings(), ["  core::any refers to bulkhead::build"]);
    }

    #[test]
    fn a_pointer_to_boot_code_is_found() {
        let mut code = program([NOP; 4]);
        code.pointers = vec![TEXT, BOOT + 8];
        assert_eq!(code.findings(), ["  a constant or static variable refers to bulkhead::build"]);
    }

    #[test]
    fn instructions_are_decoded() {
        // As an assembler puts them: b .-4, bl .+8, adr x1, .+5, adrp x2, .+0x3000, add x3, x4, #0x123.
        assert_eq!(decode(0x1000, 0x17ff_ffff), Some(Reference::Whole(0xffc)));
        assert_eq!(decode(0x1000, 0x9400_0002), Some(Reference::Whole(0x1008)));
        assert_eq!(decode(0x1000, 0x3000_0021), Some(Reference::Whole(0x1005)));
        assert_eq!(decode(0x1234, 0xf000_0002), Some(Reference::Page { register: 2, page: 0x4000 }));
        assert_eq!(decode(0x1000, 0x9104_8c83), Some(Reference::Offset { register: 4, offset: 0x123 }));
        assert_eq!(decode(0x1000, NOP), None);
    }
}
