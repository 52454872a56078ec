//! The structure of a flattened device tree (Devicetree Specification 0.4, chapter 5): whether it can be walked at all,
//! and which nodes of it matter.
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

/// Fields of the header, in bytes from its start.
const STRUCTURE_FIELD: usize = 8;
const STRINGS_FIELD: usize = 12;
const RESERVATIONS_FIELD: usize = 16;
const STRINGS_SIZE_FIELD: usize = 32;
const STRUCTURE_SIZE_FIELD: usize = 36;

const CUT: Missing = "the device tree is malformed: it ends in the middle; have the boot loader pass it whole";
const NO_TEXT: Missing = "the device tree is malformed: a name in it is no text";

/// A tree, and what a walk has seen of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survey<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) seen: Seen,
}

/// What a walk has seen of a tree. Nodes are known by where their names are, in bytes from the tree's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Why the tree cannot be read.
    pub(super) fault: Option<Missing>,
    /// The nodes below `/reserved-memory`.
    pub(super) reserved_memory: Range<usize>,
    /// The first node for each [`Role`], in the order of those.
    nodes: [Option<usize>; ROLES],
    /// Whether the board is QEMU's `virt`.
    pub(super) is_qemu: bool,
    has_nops: bool,
    uart: Option<u64>,
    pub(super) clock: Option<u64>,
}

impl Seen {
    /// The role of the node whose name is at `place`.
    pub(super) fn role(&self, place: usize) -> Option<Role> {
        let number = self.nodes.iter().position(|node| *node == Some(place))?;
        Role::ALL.get(number).copied()
    }
}

/// What a node is to EL2, by what it is compatible with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Gic,
    Uart,
    Psci,
    Pcie,
    Clock,
}

const ROLES: usize = Role::ALL.len();

impl Role {
    const ALL: [Self; 5] = [Self::Gic, Self::Uart, Self::Psci, Self::Pcie, Self::Clock];

    /// The role of a node that is compatible with `name`.
    fn of(name: &[u8]) -> Option<Self> {
        match name {
            b"arm,gic-v3" => Some(Self::Gic),
            b"arm,pl011" => Some(Self::Uart),
            b"arm,pl031" => Some(Self::Clock),
            b"arm,psci-1.0" | b"arm,psci-0.2" => Some(Self::Psci),
            b"pci-host-ecam-generic" => Some(Self::Pcie),
            _ => None,
        }
    }
}

impl<'a> Survey<'a> {
    /// Walks over the tree in `bytes`. If it has FDT_NOP tokens, they are taken out of it: the specification (5.4.1)
    /// wants them ignored, and the crate `fdt` ends its walk at one that follows a property or a node.
    #[must_use]
    pub fn of(bytes: &'a mut [u8]) -> Self {
        let mut seen = walk(bytes);
        if seen.has_nops && seen.fault.is_none() {
            remove_nops(bytes);
            seen = walk(bytes);
        }
        Self { bytes, seen }
    }

    /// The address of the first PL011 that is described before anything malformed. Its node says it twice, in its name
    /// and in its `reg`: a tree that contradicts itself there is not believed.
    #[must_use]
    pub const fn uart(&self) -> Option<u64> {
        self.seen.uart
    }
}

fn walk(bytes: &[u8]) -> Seen {
    let (node, strings) = (Node::default(), &[][..]);
    let mut walk =
        Walk { bytes, strings, place: 0, depth: 0, may_have_properties: false, in_reserved_memory: false, node };
    let mut seen = Seen::default();
    seen.fault = walk.go(&mut seen).err();
    seen
}

/// Moves what follows each FDT_NOP token of a tree that can be walked to where the token is.
fn remove_nops(bytes: &mut [u8]) -> Option<()> {
    let start = usize::try_from(word(bytes, STRUCTURE_FIELD)?).ok()?;
    let (mut from, mut to) = (start, start);
    loop {
        let token = word(bytes, from)?;
        let size = match token {
            NOP => {
                from = from.checked_add(4)?;
                continue;
            }
            BEGIN_NODE => text(bytes, from.checked_add(4)?).ok()?.len().checked_add(5)?,
            PROPERTY => usize::try_from(word(bytes, from.checked_add(4)?)?).ok()?.checked_add(12)?,
            _ => 4,
        };
        let end = from.checked_add(size.checked_next_multiple_of(4)?)?;
        bytes.get(from..end)?;
        bytes.copy_within(from..end, to);
        to = to.checked_add(end.checked_sub(from)?)?;
        from = end;
        if token == END {
            let size = u32::try_from(to.checked_sub(start)?).ok()?;
            bytes.get_mut(STRUCTURE_SIZE_FIELD..)?.first_chunk_mut().map(|field| *field = size.to_be_bytes())?;
            return Some(());
        }
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
    /// Where its name is.
    place: usize,
    /// The value of its `reg`.
    registers: &'a [u8],
    role: Option<Role>,
    is_qemu: bool,
}

impl Node<'_> {
    /// Notes what the node is compatible with.
    #[inline(never)]
    fn take_compatible(&mut self, names: &[u8]) {
        for name in names.split(|byte| *byte == 0) {
            self.role = self.role.or(Role::of(name));
            self.is_qemu |= name == b"linux,dummy-virt";
        }
    }

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
    in_reserved_memory: bool,
    node: Node<'a>,
}

impl<'a> Walk<'a> {
    fn go(&mut self, seen: &mut Seen) -> Result<(), Missing> {
        let whole = size(self.bytes).ok_or("x0 does not point to a device tree")?;
        let whole = self.bytes.get(..whole).ok_or(CUT)?;
        let field = |place: usize| word(whole, place).and_then(|value| usize::try_from(value).ok()).ok_or(CUT);
        let (structure, strings) = (field(STRUCTURE_FIELD)?, field(STRINGS_FIELD)?);
        let structure_end = structure.checked_add(field(STRUCTURE_SIZE_FIELD)?).ok_or(CUT)?;
        let strings_end = strings.checked_add(field(STRINGS_SIZE_FIELD)?).ok_or(CUT)?;
        if !structure.is_multiple_of(4) || field(RESERVATIONS_FIELD)? > whole.len() {
            return Err("the device tree is malformed: a block of it lies askew, or beyond its end");
        }
        self.bytes = whole.get(..structure_end).ok_or(CUT)?;
        self.strings = whole.get(strings..strings_end).ok_or(CUT)?;
        // Once, and not for each property that has its name there.
        if !self.strings.is_ascii() || self.strings.last().is_some_and(|byte| *byte != 0) {
            return Err(NO_TEXT);
        }
        self.place = structure;
        loop {
            let token = self.word()?;
            match token {
                BEGIN_NODE => {
                    self.end_properties(seen);
                    let place = self.place;
                    let name = self.name()?;
                    self.depth = self.depth.saturating_add(1);
                    if self.depth > DEPTH_MAX {
                        return Err("the device tree is malformed: its nodes lie too deep in one another");
                    }
                    if self.depth == 2 && name == b"reserved-memory" {
                        self.in_reserved_memory = true;
                        seen.reserved_memory = self.place..self.place;
                    } else if self.in_reserved_memory {
                        seen.reserved_memory.end = place.saturating_add(1);
                    }
                    self.may_have_properties = true;
                    self.node = Node { name, place, ..Node::default() };
                }
                END_NODE if self.depth > 0 => {
                    self.end_properties(seen);
                    if self.depth == 2 {
                        self.in_reserved_memory = false;
                    }
                    self.depth = self.depth.saturating_sub(1);
                    if self.depth == 0 {
                        break;
                    }
                }
                PROPERTY if self.may_have_properties => self.property()?,
                NOP => seen.has_nops = true,
                _ => return Err("the device tree is malformed: a token in it is out of place"),
            }
        }
        let mut token = self.word()?;
        while token == NOP {
            seen.has_nops = true;
            token = self.word()?;
        }
        if token == END { Ok(()) } else { Err("the device tree is malformed: it goes on after its root") }
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
            Some(b'#') if length != 4 => check_cells(name)?,
            Some(b'c') if name.starts_with(b"compatible\0") => self.node.take_compatible(value),
            Some(b'r') if name.starts_with(b"reg\0") => self.node.registers = value,
            _ => {}
        }
        Ok(())
    }

    /// The properties of the last node that began are over.
    fn end_properties(&mut self, seen: &mut Seen) {
        if !self.may_have_properties {
            return;
        }
        self.may_have_properties = false;
        seen.is_qemu |= self.depth == 1 && self.node.is_qemu;
        // What is reserved is no device, whatever it is compatible with.
        if let Some(role) = self.node.role
            && !self.in_reserved_memory
            && let Some(first) = seen.nodes.get_mut(role as usize)
            && first.is_none()
        {
            *first = Some(self.node.place);
            match role {
                Role::Uart => seen.uart = self.node.address(),
                // On a bus, the address might be the bus's own.
                Role::Clock if self.depth == 2 => seen.clock = self.node.address().filter(|at| at % 0x1000 == 0),
                Role::Clock | Role::Gic | Role::Psci | Role::Pcie => {}
            }
        }
    }
}

/// Refuses the property `name`, which is no cell, where it must be one.
#[inline(never)]
fn check_cells(name: &[u8]) -> Result<(), Missing> {
    if name.starts_with(b"#address-cells\0") || name.starts_with(b"#size-cells\0") {
        return Err("the device tree is malformed: a number of cells in it is no number");
    }
    Ok(())
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
