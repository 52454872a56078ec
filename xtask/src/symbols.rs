//! Turns the return addresses of an epitaph into function, file and line; and a function into its address.

use anyhow::Context;
use object::{Object, ObjectSection, ObjectSymbol, SectionKind};
use std::{borrow::Cow, collections::BTreeMap, path::Path};

/// What precedes the offset in a line of a backtrace: `  frame 3: bulkhead+0x1a2b4`.
const MARK: &str = "bulkhead+0x";

/// The symbols of Bulkhead's ELF file, which is linked at address 0.
pub(crate) struct Symbols {
    loader: addr2line::Loader,
}

impl Symbols {
    /// Reads the symbols of `elf`. Without symbols a backtrace stays as it is, so a file that cannot be read gives
    /// `None`, not an error.
    pub(crate) fn read(elf: &Path) -> Option<Self> {
        Some(Self { loader: addr2line::Loader::new(elf).ok()? })
    }

    /// Where a line of a backtrace points to, innermost inlined function first: `at vgic::v3::read
    /// (hypervisor/vgic/src/v3.rs:88)`. Nothing for any other line.
    pub(crate) fn explain(&self, line: &str) -> Vec<String> {
        let Some(address) = return_address(line) else { return Vec::new() };
        let mut lines = Vec::new();
        if let Ok(mut frames) = self.loader.find_frames(address) {
            while let Ok(Some(frame)) = frames.next() {
                let name = frame.function.as_ref().and_then(|function| Some(function.demangle().ok()?.into_owned()));
                let name = name.unwrap_or_else(|| "an unnamed function".to_owned());
                let place = frame.location.and_then(|location| Some((location.file?.to_owned(), location.line?)));
                lines.push(match place {
                    Some((file, number)) => format!("at {name} ({}:{number})", shortened(&file)),
                    None => format!("at {name}"),
                });
            }
        }
        if lines.is_empty() {
            lines.extend(self.loader.find_symbol(address).map(|symbol| format!("at {symbol}")));
        }
        lines
    }
}

/// The functions of an ELF file by their addresses; what is inlined is a part of its caller.
pub(crate) struct Functions(BTreeMap<u64, (u64, String)>);

impl Functions {
    /// Those of the ELF file `file`. What has no size, written in assembly, ends where the next begins.
    pub(crate) fn of(file: &object::File<'_>) -> Self {
        let is_code = |symbol: &object::Symbol<'_, '_>| {
            let section = symbol.section_index().and_then(|index| file.section_by_index(index).ok());
            section.is_some_and(|section| section.kind() == SectionKind::Text)
        };
        // `$x` and `$d` mark code and data (ELF for the Arm 64-bit Architecture, 5.5.5).
        let is_mark = |symbol: &object::Symbol<'_, '_>| symbol.name().is_ok_and(|name| name.starts_with('$'));
        let functions = file.symbols().filter(|symbol| is_code(symbol) && !is_mark(symbol)).map(|symbol| {
            let end = if symbol.size() == 0 { u64::MAX } else { symbol.address() + symbol.size() };
            (symbol.address(), (end, name(&symbol)))
        });
        Self(functions.collect())
    }

    /// Those with these names, from an address to another.
    #[cfg(test)]
    pub(crate) fn known<'a>(functions: impl IntoIterator<Item = (&'a str, u64, u64)>) -> Self {
        Self(functions.into_iter().map(|(name, start, end)| (start, (end, name.to_owned()))).collect())
    }

    /// The function that `address` lies in.
    pub(crate) fn at(&self, address: u64) -> Option<&str> {
        let (_, (end, name)) = self.0.range(..=address).next_back()?;
        (address < *end).then_some(name.as_str())
    }

    /// The address of `function`, named with its path (`bulkhead::run::run`).
    pub(crate) fn address(&self, function: &str) -> Option<u64> {
        self.0.iter().find(|(_, (_, name))| name == function).map(|(address, _)| *address)
    }
}

/// The name of `symbol` with its path.
fn name(symbol: &object::Symbol<'_, '_>) -> String {
    let name = symbol.name().map(|name| addr2line::demangle_auto(Cow::Borrowed(name), None)).unwrap_or_default();
    without_hash(&name).to_owned()
}

/// A mangled name of the older kind ends in a hash of 16 digits.
fn without_hash(name: &str) -> &str {
    let is_hash = |hash: &str| hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.rsplit_once("::h").filter(|(_, hash)| is_hash(hash)).map_or(name, |(path, _)| path)
}

/// The address of `function`, named with its path (`bulkhead::run::run`), in the ELF file `elf`.
///
/// # Errors
/// When the file cannot be read or has no such function: it may have been inlined.
pub(crate) fn address_of(elf: &Path, function: &str) -> anyhow::Result<u64> {
    let bytes = std::fs::read(elf).with_context(|| format!("{} cannot be read", elf.display()))?;
    let file = object::File::parse(&*bytes).context("not an ELF file")?;
    let address = Functions::of(&file).address(function);
    address.with_context(|| format!("{} has no function `{function}`", elf.display()))
}

/// The address to look up for a line of a backtrace.
fn return_address(line: &str) -> Option<u64> {
    let (before, after) = line.split_once(MARK)?;
    let (_, number) = before.rsplit_once("frame ")?;
    let frame: u32 = number.trim_end_matches([':', ' ']).parse().ok()?;
    let digits = after.find(|character: char| !character.is_ascii_hexdigit()).unwrap_or(after.len());
    let address = u64::from_str_radix(after.get(..digits)?, 16).ok()?;
    // A frame above the innermost holds a return address: the call is the instruction before it.
    Some(if frame == 0 { address } else { address.saturating_sub(1) })
}

/// `file` without the part that only says where the repository or the Rust sources lie on this machine.
fn shortened(file: &str) -> &str {
    for mark in ["/hypervisor/", "/guests/", "/library/"] {
        if let Some(position) = file.find(mark) {
            return file.get(position + 1..).unwrap_or(file);
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_frame_is_looked_up_as_it_is() {
        assert_eq!(return_address("  frame 0: bulkhead+0x1000"), Some(0x1000));
    }

    #[test]
    fn a_callers_frame_is_looked_up_at_the_call() {
        assert_eq!(return_address("[bulkhead]   frame 3: bulkhead+0x1a2b4 (core 1)"), Some(0x1a2b3));
    }

    #[test]
    fn other_lines_are_left_alone() {
        for line in
            ["", "frame 3", "bulkhead+0x10", "frame x: bulkhead+0x10", "frame 1: bulkhead+0x", "[alpha] frame 1"]
        {
            assert_eq!(return_address(line), None, "{line}");
        }
    }

    #[test]
    fn this_very_test_is_found_in_its_own_program() {
        let symbols = Symbols::read(&std::env::current_exe().expect("a program")).expect("symbols");
        assert!(symbols.explain("nothing to explain").is_empty());
    }

    #[test]
    fn only_a_hash_is_taken_off_a_name() {
        assert_eq!(without_hash("bulkhead::run::run::h0123456789abcdef"), "bulkhead::run::run");
        assert_eq!(without_hash("bulkhead::hypercall"), "bulkhead::hypercall");
    }

    #[test]
    fn paths_start_at_the_repository() {
        assert_eq!(shortened("/somewhere/hypervisor/model/src/lib.rs"), "hypervisor/model/src/lib.rs");
        assert_eq!(shortened("src/lib.rs"), "src/lib.rs");
    }
}
