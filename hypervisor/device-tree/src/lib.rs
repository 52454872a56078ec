//! The board as its device tree describes it: RAM, cores, interrupt controller, UART, and what the boot loader left.
//!
//! The crate `fdt` reads the tree, and panics at one that is malformed: `survey` looks at the structure first, and what
//! it lets through can be read. That may still be any board: whoever uses an address of it checks that.
//!
//! What this crate leaves out: the device trees that guests get, which the host makes.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

#[cfg(test)]
extern crate std;

mod survey;
#[cfg(test)]
mod tests;

pub use survey::{Survey, size};

use arrayvec::ArrayVec;
use fdt::Fdt;
use fdt::node::FdtNode;
use survey::{Role, Seen};

/// The most cores that are known.
pub const CORES_MAX: usize = 16;
/// The most ranges of one kind that a device tree may name.
pub const RANGES_MAX: usize = 16;

/// The most pages of registers that are known: QEMU's `virt` has some 15.
const PAGES_MAX: usize = 64;

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

/// Ranges of one kind.
pub type Ranges = ArrayVec<Range, RANGES_MAX>;

/// Addresses of pages.
pub type Pages = ArrayVec<u64, PAGES_MAX>;

/// How this board's firmware is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// SMC, to EL3 (or to QEMU in its place).
    Smc,
    /// HVC: there is firmware at EL2 below us, as under nested virtualization.
    Hvc,
}

/// The PCIe root of the board, where EL2 looks for QEMU's panic device and for nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Pcie {
    /// The configuration space (ECAM).
    pub configuration: Range,
    /// The window for 32-bit memory BARs.
    pub window: Range,
}

/// What EL2 needs to know of a board.
#[derive(Debug)]
pub struct Description {
    /// RAM.
    pub memory: Ranges,
    /// RAM that the device tree reserves.
    pub reserved: Ranges,
    /// Those reservations that must not even be mapped as memory (`no-map`): a speculative read of them may be an
    /// error.
    pub no_map: Ranges,
    /// The device tree itself.
    pub device_tree: Range,
    /// The initrd: Bulkhead's bundle.
    pub bundle: Option<Range>,
    /// The cores' affinities (MPIDR_EL1), boot order.
    pub cores: ArrayVec<u64, CORES_MAX>,
    /// The firmware's conduit.
    pub conduit: Conduit,
    /// The PL011's registers.
    pub uart: Range,
    /// The PL011's INTID.
    pub uart_interrupt: u32,
    /// The first PL031's registers: the wall clock. Its node says twice where they are, as the UART's.
    pub clock: Option<u64>,
    /// The GICv3 distributor.
    pub distributor: Range,
    /// The GICv3 redistributors.
    pub redistributors: Range,
    /// The pages that begin with the registers of a device.
    pub devices: Pages,
    /// PCIe, if the board is QEMU's `virt`: on any other, EL2 does not touch it.
    pub pcie: Option<Pcie>,
    /// `/chosen/rng-seed`: the boot loader's entropy.
    pub seed: Option<[u8; 32]>,
    /// `bulkhead.console=lines` on Bulkhead's own command line: the console shows whole lines only, for a log.
    pub console_in_lines: bool,
    /// `bulkhead.columns=132` on the same command line: how wide the terminal is, if it is stated.
    pub console_columns: Option<u16>,
}

/// What a device tree lacks: a sentence for the person at the console.
pub type Missing = &'static str;

const TOO_MANY_RESERVED: Missing = "the device tree reserves more ranges than Bulkhead can hold";

/// Reads the device tree that `survey` has seen, and which lies at `address`; the core that boots has the affinity
/// `own` (MPIDR_EL1), and becomes the first.
///
/// # Errors
/// What is missing, malformed or not supported, as a sentence.
pub fn read(survey: Survey<'_>, address: u64, own: u64) -> Result<Description, Missing> {
    let Survey { bytes, seen } = survey;
    if let Some(fault) = seen.fault {
        return Err(fault);
    }
    let tree = Fdt::new(bytes).map_err(|_| "x0 does not point to a device tree")?;
    let mut found = Found { seen, start: bytes.as_ptr() as usize, ..Found::default() };
    for range in tree.memory_reservations() {
        found.reserve(Range { start: range.address() as u64, size: range.size() as u64 })?;
    }
    // Once: the caches are off, the tree is large, and each look at a property reads all of its node's.
    for node in tree.all_nodes() {
        found.take(node, own)?;
    }
    found.cores.try_insert(0, own).map_err(|_| "the device tree has no room for the core that boots")?;
    found.describe(Range { start: address, size: tree.total_size() as u64 })
}

/// What has been found on the way through the tree.
#[derive(Default)]
struct Found<'b, 'a: 'b> {
    memory: Ranges,
    reserved: Ranges,
    no_map: Ranges,
    cores: ArrayVec<u64, CORES_MAX>,
    chosen: Option<FdtNode<'b, 'a>>,
    gic: Option<FdtNode<'b, 'a>>,
    uart: Option<FdtNode<'b, 'a>>,
    psci: Option<FdtNode<'b, 'a>>,
    pcie: Option<FdtNode<'b, 'a>>,
    devices: Pages,
    /// What was seen before, and where the tree is in memory.
    seen: Seen,
    start: usize,
}

impl<'b, 'a: 'b> Found<'b, 'a> {
    /// Notes what `node` is, by its name or by its role.
    fn take(&mut self, node: FdtNode<'b, 'a>, own: u64) -> Result<(), Missing> {
        let place = (node.name.as_ptr() as usize).wrapping_sub(self.start);
        if self.seen.reserved_memory.contains(&place) {
            // Also where it is called `memory@…`.
            return self.take_reservation(node);
        }
        self.take_place(node);
        match node.name.as_bytes() {
            b"memory" | [b'm', b'e', b'm', b'o', b'r', b'y', b'@', ..] => {
                return registers(node, &mut self.memory)
                    .map_err(|_| "the device tree has more memory ranges than Bulkhead can hold");
            }
            b"cpu" | [b'c', b'p', b'u', b'@', ..] => self.take_core(node, own),
            b"chosen" => {
                self.chosen.get_or_insert(node);
            }
            _ => match self.seen.role(place) {
                Some(Role::Gic) => self.gic = Some(node),
                Some(Role::Uart) => self.uart = Some(node),
                Some(Role::Psci) => self.psci = Some(node),
                Some(Role::Pcie) => self.pcie = Some(node),
                Some(Role::Clock) | None => {}
            },
        }
        Ok(())
    }

    fn take_core(&mut self, node: FdtNode<'b, 'a>, own: u64) {
        let mut affinity = Ranges::new();
        let is_complete = registers(node, &mut affinity).is_ok() && property(node, "device_type") == b"cpu\0";
        if let (true, Some(affinity)) = (is_complete, affinity.first())
            && affinity.start != own
            // One place is that of the core that boots.
            && self.cores.remaining_capacity() > 1
        {
            // There is room. Further cores than Bulkhead can run are left alone.
            let _ = self.cores.try_push(affinity.start);
        }
    }

    /// What a child of `/reserved-memory` reserves, and of that what must not be mapped (Devicetree Specification
    /// 3.5.4, `no-map`).
    fn take_reservation(&mut self, node: FdtNode<'b, 'a>) -> Result<(), Missing> {
        let mut ranges = Ranges::new();
        registers(node, &mut ranges).map_err(|_| TOO_MANY_RESERVED)?;
        let no_map = node.property("no-map").is_some();
        for range in ranges {
            self.reserve(range)?;
            if no_map && range.size != 0 {
                self.no_map.try_push(range).map_err(|_| TOO_MANY_RESERVED)?;
            }
        }
        Ok(())
    }

    /// Notes a reservation. One without a byte reserves nothing.
    fn reserve(&mut self, range: Range) -> Result<(), Missing> {
        if range.size == 0 { Ok(()) } else { self.reserved.try_push(range).map_err(|_| TOO_MANY_RESERVED) }
    }

    /// Notes where `node` is, if it begins a page. Its name says it (Devicetree Specification 2.2.1.1), and is quicker
    /// to read than its properties.
    fn take_place(&mut self, node: FdtNode<'b, 'a>) {
        // A page's address ends in twelve zeroes: most names need no closer look.
        let [.., b'0', b'0', b'0'] = node.name.as_bytes() else { return };
        let digits = node.name.split_once('@').map_or("", |(_, digits)| digits);
        if let Ok(address) = u64::from_str_radix(digits, 16) {
            // One too many cannot be assigned, and nothing else comes of it.
            let _ = self.devices.try_push(address);
        }
    }

    fn describe(self, device_tree: Range) -> Result<Description, Missing> {
        let gic = self.gic.ok_or("the board has no GICv3; start QEMU with gic-version=3")?;
        let [distributor, redistributors, ..] = some_registers(gic)[..] else {
            return Err("the device tree's GICv3 has no redistributors");
        };
        let uart_node = self.uart.ok_or("the board has no PL011 UART")?;
        let uart_interrupt = first_interrupt(uart_node).ok_or("the device tree's PL011 has no interrupt")?;
        let [uart, ..] = some_registers(uart_node)[..] else { return Err("the device tree's PL011 has no registers") };
        let psci = self.psci.ok_or("the board has no PSCI firmware")?;
        let conduit = match property(psci, "method") {
            b"smc\0" => Conduit::Smc,
            b"hvc\0" => Conduit::Hvc,
            _ => return Err("the device tree's PSCI node has no method"),
        };
        let chosen = |name| self.chosen.map_or(&[][..], |node| property(node, name));
        let bundle = match (number(chosen("linux,initrd-start")), number(chosen("linux,initrd-end"))) {
            (Some(start), Some(end)) if start < end => Some(Range { start, size: end.saturating_sub(start) }),
            _ => None,
        };
        let seed = chosen("rng-seed").first_chunk::<32>().copied();
        let is_between_words = |byte: &u8| *byte == b' ' || *byte == 0;
        let (mut console_in_lines, mut console_columns) = (false, None);
        for word in chosen("bootargs").split(is_between_words) {
            console_in_lines |= word == b"bulkhead.console=lines";
            if let Some(digits) = word.strip_prefix(b"bulkhead.columns=") {
                console_columns = Some(decimal(digits));
            }
        }
        // No combinator: its code might be put outside of the boot's.
        let pcie = match self.pcie {
            Some(node) if self.seen.is_qemu => pcie_root(node),
            Some(_) | None => None,
        };
        Ok(Description {
            memory: self.memory,
            reserved: self.reserved,
            no_map: self.no_map,
            device_tree,
            bundle,
            cores: self.cores,
            conduit,
            uart,
            uart_interrupt,
            clock: self.seen.clock,
            distributor,
            redistributors,
            devices: self.devices,
            pcie,
            seed,
            console_in_lines,
            console_columns,
        })
    }
}

/// The number that `digits` begins with; no larger one than fits.
#[inline(never)]
fn decimal(digits: &[u8]) -> u16 {
    let mut number: u16 = 0;
    for digit in digits.iter().take_while(|byte| byte.is_ascii_digit()) {
        number = number.saturating_mul(10).saturating_add(u16::from(digit & 0xf));
    }
    number
}

/// The bytes of a node's property; none if it has no such property.
#[inline(never)]
fn property<'a>(node: FdtNode<'_, 'a>, name: &str) -> &'a [u8] {
    node.property(name).map_or(&[], |property| property.value)
}

/// Adds the ranges of a node's `reg`.
#[inline(never)]
fn registers(node: FdtNode<'_, '_>, ranges: &mut Ranges) -> Result<(), arrayvec::CapacityError<Range>> {
    for region in node.reg().into_iter().flatten() {
        let range = Range { start: region.starting_address as u64, size: region.size.unwrap_or(0) as u64 };
        ranges.try_push(range)?;
    }
    Ok(())
}

/// The first ranges of a node's `reg`.
fn some_registers(node: FdtNode<'_, '_>) -> Ranges {
    let mut ranges = Ranges::new();
    // Those that have no room are not looked at.
    let _ = registers(node, &mut ranges);
    ranges
}

/// Cell `index` of a property.
#[inline(never)]
fn cell(value: &[u8], index: usize) -> Option<u32> {
    value.as_chunks().0.get(index).copied().map(u32::from_be_bytes)
}

/// The number in the two cells from cell `index` on.
fn wide(value: &[u8], index: usize) -> Option<u64> {
    Some(u64::from(cell(value, index)?) << 32 | u64::from(cell(value, index.saturating_add(1))?))
}

/// The number that a property is, in one cell or two.
fn number(value: &[u8]) -> Option<u64> {
    if value.len() == 4 { cell(value, 0).map(u64::from) } else { wide(value, 0) }
}

/// The INTID of a node's first interrupt, in the GIC's binding: type (0 SPI, 1 PPI), number, flags.
fn first_interrupt(node: FdtNode<'_, '_>) -> Option<u32> {
    let cells = property(node, "interrupts");
    let number = cell(cells, 1)?;
    match cell(cells, 0)? {
        0 => number.checked_add(32),
        1 => number.checked_add(16),
        _ => None,
    }
}

/// Where a PCIe node's configuration space and its 32-bit memory window are.
fn pcie_root(node: FdtNode<'_, '_>) -> Option<Pcie> {
    Some(Pcie { configuration: *some_registers(node).first()?, window: memory_window(node)? })
}

/// The CPU's side of a PCIe node's 32-bit memory window: `ranges` has entries of 3 + 2 + 2 cells, the first of which is
/// 0x0200_0000 for such a window (IEEE 1275 PCI binding).
fn memory_window(node: FdtNode<'_, '_>) -> Option<Range> {
    property(node, "ranges").chunks_exact(28).find_map(|entry| {
        (cell(entry, 0)? >> 24 == 0x02).then_some(Range { start: wide(entry, 3)?, size: wide(entry, 5)? })
    })
}
