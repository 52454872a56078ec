//! Turns the return addresses of an epitaph into function, file and line; and a function into its address.

use anyhow::Context;
use object::{Object, ObjectSymbol};
use std::{borrow::Cow, path::Path};

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

    /// Where a line of a backtrace points to, innermost inlined function first: `at model::vgic::v3::read
    /// (hypervisor/model/src/vgic/v3.rs:88)`. Nothing for any other line.
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

/// The address of `function`, named with its path (`bulkhead::run::run`), in the ELF file `elf`.
///
/// # Errors
/// When the file cannot be read or has no such function: it may have been inlined.
pub(crate) fn address_of(elf: &Path, function: &str) -> anyhow::Result<u64> {
    let bytes = std::fs::read(elf).with_context(|| format!("{} cannot be read", elf.display()))?;
    let file = object::File::parse(&*bytes).context("not an ELF file")?;
    let symbol = file.symbols().find(|symbol| {
        let name = symbol.name().map(|name| addr2line::demangle_auto(Cow::Borrowed(name), None)).unwrap_or_default();
        // A mangled name of the older kind ends in a hash.
        name == function || name.rsplit_once("::h").is_some_and(|(path, _)| path == function)
    });
    Ok(symbol.with_context(|| format!("{} has no function `{function}`", elf.display()))?.address())
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
    fn paths_start_at_the_repository() {
        assert_eq!(shortened("/somewhere/hypervisor/model/src/lib.rs"), "hypervisor/model/src/lib.rs");
        assert_eq!(shortened("src/lib.rs"), "src/lib.rs");
    }
}
