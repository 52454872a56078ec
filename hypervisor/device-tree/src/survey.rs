//! The structure of a flattened device tree (Devicetree Specification 0.4, chapter 5): whether it can be walked at all.
//!
//! One walk over the bytes, which ends whatever they are: each step goes on by four bytes at least.

use super::Missing;
use core::ops::Range;

const MAGIC: u32 = 0xd00d_feed;
const HEADER_SIZE: usize = 40;
/// The largest tree that is read: as Linux has it (`booting.rst`).
pub const SIZE_MAX: usize = 2 << 20;
/// The deepest node; `fdt` keeps the nodes above it in 64 places.
const DEPTH_MAX: usize = 32;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

const CUT: Missing = "the device tree is malformed: it ends in the middle; have the boot loader pass it whole";
const NO_TEXT: Missing = "the device tree is malformed: a name in it is no text";

/// A tree, and what a walk has seen of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey<'a> {
    pub(super) bytes: &'a [u8],
    /// Why the tree cannot be read.
    pub(super) fault: Option<Missing>,
    /// Where the names of the nodes below `/reserved-memory` are, in bytes from the tree's start.
    pub(super) reserved_memory: Range<usize>,
    uart: Option<u64>,
}

impl<'a> Survey<'a> {
    /// Walks over the tree in `bytes`.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Self {
        let mut walk =
            Walk { bytes, strings: &[], place: 0, depth: 0, may_have_properties: false, node: Node::default() };
        let mut survey = Self { bytes, ..Self::default() };
        survey.fault = walk.go(&mut survey).err();
        survey
    }

    /// The address of the first PL011 that is described before anything malformed. Its node says it twice, in its name
    /// and in its `reg`: a tree that contradicts itself there is not believed.
    #[must_use]
    pub const fn uart(&self) -> Option<u64> {
        self.uart
    }
}

/// How long the tree says that it is, from its first bytes.
#[must_use]
pub fn size(header: &[u8]) -> Option<usize> {
    let size = usize::try_from(word(header, 4)?).ok()?;
    (word(header, 0)? == MAGIC && (HEADER_SIZE..=SIZE_MAX).contains(&size)).then_some(size)
}

/// The node whose properties are being read.
#[derive(Clone, Copy, Default)]
struct Node<'a> {
    name: &'a [u8],
    /// The value of its `reg`.
    registers: &'a [u8],
    is_uart: bool,
}

impl Node<'_> {
    /// The address that both its name and its `reg` have.
    fn address(&self) -> Option<u64> {
        let address = unit_address(self.name)?;
        let narrow = word(self.registers, 0).map(u64::from);
        let wide = narrow.zip(word(self.registers, 4)).map(|(high, low)| high << 32 | u64::from(low));
        [narrow, wide].contains(&Some(address)).then_some(address)
    }
}

struct Walk<'a> {
    /// The tree up to the end of its structure block.
    bytes: &'a [u8],
    strings: &'a [u8],
    place: usize,
    depth: usize,
    may_have_properties: bool,
    node: Node<'a>,
}

impl<'a> Walk<'a> {
    fn go(&mut self, survey: &mut Survey<'_>) -> Result<(), Missing> {
        let whole = size(self.bytes).ok_or("x0 does not point to a device tree")?;
        let whole = self.bytes.get(..whole).ok_or(CUT)?;
        let field = |index: usize| word(whole, index).and_then(|value| usize::try_from(value).ok()).ok_or(CUT);
        let (structure, strings) = (field(8)?, field(12)?);
        let structure_end = structure.checked_add(field(36)?).ok_or(CUT)?;
        let strings_end = strings.checked_add(field(32)?).ok_or(CUT)?;
        if !structure.is_multiple_of(4) || field(16)? > whole.len() {
            return Err("the device tree is malformed: a block of it lies askew, or beyond its end");
        }
        self.bytes = whole.get(..structure_end).ok_or(CUT)?;
        self.strings = whole.get(strings..strings_end).ok_or(CUT)?;
        // Once, and not for each property that has its name there.
        if !self.strings.is_ascii() || self.strings.last().is_some_and(|byte| *byte != 0) {
            return Err(NO_TEXT);
        }
        self.place = structure;
        // Depth at which `/reserved-memory` is, while inside.
        let mut inside = false;
        loop {
            let token = self.word()?;
            match token {
                BEGIN_NODE => {
                    self.end_properties(survey);
                    let start = self.place;
                    let name = self.name()?;
                    self.depth = self.depth.saturating_add(1);
                    if self.depth > DEPTH_MAX {
                        return Err("the device tree is malformed: its nodes lie too deep in one another");
                    }
                    if self.depth == 2 && name == b"reserved-memory" {
                        inside = true;
                        survey.reserved_memory = self.place..self.place;
                    } else if inside {
                        survey.reserved_memory.end = start.saturating_add(1);
                    }
                    self.may_have_properties = true;
                    self.node = Node { name, ..Node::default() };
                }
                END_NODE if self.depth > 0 => {
                    self.end_properties(survey);
                    if self.depth == 2 {
                        inside = false;
                    }
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        break;
                    }
                }
                PROPERTY if self.may_have_properties => self.property()?,
                NOP => {
                    return Err("the device tree has FDT_NOP tokens, which Bulkhead does not read; have it compacted");
                }
                _ => return Err("the device tree is malformed: a token in it is out of place"),
            }
        }
        if self.word()? == END { Ok(()) } else { Err("the device tree is malformed: it goes on after its root") }
    }

    /// The next word.
    fn word(&mut self) -> Result<u32, Missing> {
        let word = word(self.bytes, self.place).ok_or(CUT)?;
        self.place = self.place.saturating_add(4);
        Ok(word)
    }

    /// The name that comes next, and what fills its last word.
    fn name(&mut self) -> Result<&'a [u8], Missing> {
        let name = text(self.bytes, self.place)?;
        self.skip(name.len().saturating_add(1));
        Ok(name)
    }

    fn skip(&mut self, length: usize) {
        self.place = self.place.saturating_add(length.checked_next_multiple_of(4).unwrap_or(usize::MAX));
    }

    fn property(&mut self) -> Result<(), Missing> {
        let length = usize::try_from(self.word()?).map_err(|_| CUT)?;
        let name = self.strings.get(usize::try_from(self.word()?).map_err(|_| CUT)?..);
        // At the end of the strings there is no name, not even an empty one.
        let name = name.filter(|name| !name.is_empty()).ok_or(CUT)?;
        let value = self.bytes.get(self.place..).and_then(|rest| rest.get(..length)).ok_or(CUT)?;
        self.skip(length);
        match name.first() {
            Some(b'#') => {
                let is_count = name.starts_with(b"#address-cells\0") || name.starts_with(b"#size-cells\0");
                if is_count && length != 4 {
                    return Err("the device tree is malformed: a number of cells in it is no number");
                }
            }
            Some(b'c') if name.starts_with(b"compatible\0") => {
                self.node.is_uart |= value.split(|byte| *byte == 0).any(|name| name == b"arm,pl011");
            }
            Some(b'r') if name.starts_with(b"reg\0") => self.node.registers = value,
            _ => {}
        }
        Ok(())
    }

    /// The properties of the last node that began are over.
    fn end_properties(&mut self, survey: &mut Survey<'_>) {
        if self.may_have_properties && self.node.is_uart && survey.uart.is_none() {
            survey.uart = self.node.address();
        }
        self.may_have_properties = false;
    }
}

/// The address that a node's name ends in.
fn unit_address(name: &[u8]) -> Option<u64> {
    let at = name.iter().position(|byte| *byte == b'@')?;
    let digits = name.get(at.saturating_add(1)..)?;
    if digits.is_empty() || digits.len() > 16 {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, digit| Some(number << 4 | u64::from(char::from(*digit).to_digit(16)?)))
}

/// The big-endian word at byte `place`.
fn word(bytes: &[u8], place: usize) -> Option<u32> {
    bytes.get(place..)?.first_chunk::<4>().copied().map(u32::from_be_bytes)
}

/// The text at byte `place`, up to its final zero.
fn text(bytes: &[u8], place: usize) -> Result<&[u8], Missing> {
    let rest = bytes.get(place..).ok_or(CUT)?;
    // One look at each byte: most of the walk's time goes here.
    let length = rest.iter().position(|byte| *byte == 0 || !byte.is_ascii()).ok_or(CUT)?;
    match rest.get(length) {
        Some(0) => Ok(rest.get(..length).unwrap_or_default()),
        _ => Err(NO_TEXT),
    }
}
