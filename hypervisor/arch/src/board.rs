//! The board as its device tree describes it: RAM, cores, interrupt controller, UART, and what the boot loader left.
//!
//! Read once at boot with the MMU off; everything needed later is copied out.

use crate::boot::CORES_MAX;
use arrayvec::ArrayVec;
use core::ops::Deref;
use fdt::Fdt;
use fdt::node::FdtNode;

/// The most ranges that a device tree may reserve.
const RESERVED_MAX: usize = 16;

/// A range of physical addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

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

/// The board, as its device tree describes it. Nobody else can make one up or change it: what EL2 maps, owns and drives
/// rests on it.
pub struct Board(Description);

impl Deref for Board {
    type Target = Description;

    fn deref(&self) -> &Description {
        &self.0
    }
}

/// What EL2 needs to know of a board.
#[derive(Debug)]
pub struct Description {
    /// RAM.
    pub memory: ArrayVec<Range, 8>,
    /// RAM that the device tree reserves.
    pub reserved: ArrayVec<Range, RESERVED_MAX>,
    /// Those reservations that must not even be mapped as memory (`no-map`): a speculative read of them may be an error.
    pub no_map: ArrayVec<Range, RESERVED_MAX>,
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
    /// The GICv3 distributor.
    pub distributor: Range,
    /// The GICv3 redistributors.
    pub redistributors: Range,
    /// PCIe, if the board is QEMU's `virt`: on any other, EL2 does not touch it.
    pub pcie: Option<Pcie>,
    /// `/chosen/rng-seed`: the boot loader's entropy.
    pub seed: Option<[u8; 32]>,
    /// `bulkhead.console=lines` on Bulkhead's own command line: the console shows whole lines only, for a log.
    pub console_in_lines: bool,
}

/// What a device tree lacks: a sentence for the person at the console.
pub type Missing = &'static str;

type Reserved = ArrayVec<Range, RESERVED_MAX>;

/// All that the tree reserves, and of that what must not be mapped (Devicetree Specification 3.5.4, `no-map`).
fn reservations(tree: &Fdt<'_>) -> Result<(Reserved, Reserved), Missing> {
    const FULL: &str = "the device tree reserves more ranges than Bulkhead can hold";
    let (mut reserved, mut no_map) = (Reserved::new(), Reserved::new());
    for range in tree.memory_reservations() {
        let range = Range { start: range.address() as u64, size: range.size() as u64 };
        reserved.try_push(range).map_err(|_| FULL)?;
    }
    let Some(parent) = tree.find_node("/reserved-memory") else { return Ok((reserved, no_map)) };
    for node in parent.children() {
        for range in registers(node) {
            reserved.try_push(range).map_err(|_| FULL)?;
            if node.property("no-map").is_some() {
                no_map.try_push(range).map_err(|_| FULL)?;
            }
        }
    }
    Ok((reserved, no_map))
}

/// Whether `node` says that it is compatible with `name`.
fn is_compatible(node: FdtNode<'_, '_>, name: &str) -> bool {
    let names = node.property("compatible").map_or(&[][..], |property| property.value);
    names.split(|byte| *byte == 0).any(|entry| entry == name.as_bytes())
}

impl Board {
    /// Reads the device tree at `address`.
    ///
    /// # Errors
    /// What is missing or not supported, as a sentence.
    ///
    /// # Safety
    /// `address` must be what the boot loader passed in `x0`: the address of a device tree that nobody writes to.
    pub(crate) unsafe fn read(address: usize) -> Result<Self, Missing> {
        if address == 0 || !address.is_multiple_of(8) {
            return Err("x0 does not hold the address of a device tree; start Bulkhead as one starts Linux");
        }
        // SAFETY: the caller vouches for the tree.
        let tree = unsafe { Fdt::from_ptr(address as *const u8) }.map_err(|_| "x0 does not point to a device tree")?;
        let mut memory = ArrayVec::new();
        for node in tree.all_nodes().filter(|node| node.name.starts_with("memory@") || node.name == "memory") {
            for range in registers(node) {
                memory.try_push(range).map_err(|_| "the device tree has more memory ranges than Bulkhead can hold")?;
            }
        }
        let (reserved, no_map) = reservations(&tree)?;
        let mut cores = ArrayVec::new();
        for cpu in tree.cpus() {
            if cores.try_push(cpu.ids().first() as u64).is_err() {
                break;
            }
        }
        let chosen = tree.find_node("/chosen");
        let number = |name| chosen.and_then(|node| node.property(name)).and_then(|property| property.as_usize());
        let bundle = match (number("linux,initrd-start"), number("linux,initrd-end")) {
            (Some(start), Some(end)) if start < end => Some(Range { start: start as u64, size: (end - start) as u64 }),
            _ => None,
        };
        let seed = chosen
            .and_then(|node| node.property("rng-seed"))
            .and_then(|property| property.value.get(..32)?.try_into().ok());
        let console_in_lines = chosen
            .and_then(|node| node.property("bootargs"))
            .and_then(|property| property.as_str())
            .is_some_and(|line| line.split_whitespace().any(|word| word == "bulkhead.console=lines"));
        let gic =
            tree.find_compatible(&["arm,gic-v3"]).ok_or("the board has no GICv3; start QEMU with gic-version=3")?;
        let mut gic = registers(gic);
        let (distributor, redistributors) =
            gic.next().zip(gic.next()).ok_or("the device tree's GICv3 has no redistributors")?;
        let uart = tree.find_compatible(&["arm,pl011"]).ok_or("the board has no PL011 UART")?;
        let uart_interrupt = first_interrupt(uart).ok_or("the device tree's PL011 has no interrupt")?;
        let uart = registers(uart).next().ok_or("the device tree's PL011 has no registers")?;
        let psci = tree.find_compatible(&["arm,psci-1.0", "arm,psci-0.2"]).ok_or("the board has no PSCI firmware")?;
        let conduit = match psci.property("method").and_then(|property| property.as_str()) {
            Some("smc") => Conduit::Smc,
            Some("hvc") => Conduit::Hvc,
            _ => return Err("the device tree's PSCI node has no method"),
        };
        let pcie = qemu_pcie(&tree);
        let device_tree = Range { start: address as u64, size: tree.total_size() as u64 };
        Ok(Self(Description {
            memory,
            reserved,
            no_map,
            device_tree,
            bundle,
            cores,
            conduit,
            uart,
            uart_interrupt,
            distributor,
            redistributors,
            pcie,
            seed,
            console_in_lines,
        }))
    }
}

/// The ranges of a node's `reg`.
fn registers<'a>(node: FdtNode<'_, 'a>) -> impl Iterator<Item = Range> + use<'a> {
    node.reg()
        .into_iter()
        .flatten()
        .map(|region| Range { start: region.starting_address as u64, size: region.size.unwrap_or(0) as u64 })
}

/// The INTID of a node's first interrupt, in the GIC's binding: type (0 SPI, 1 PPI), number, flags.
fn first_interrupt(node: FdtNode<'_, '_>) -> Option<u32> {
    let cells = node.property("interrupts")?.value;
    let kind = u32::from_be_bytes(cells.get(0..4)?.try_into().ok()?);
    let number = u32::from_be_bytes(cells.get(4..8)?.try_into().ok()?);
    match kind {
        0 => number.checked_add(32),
        1 => number.checked_add(16),
        _ => None,
    }
}

/// The PCIe root of QEMU's `virt`.
fn qemu_pcie(tree: &Fdt<'_>) -> Option<Pcie> {
    tree.find_node("/").filter(|root| is_compatible(*root, "linux,dummy-virt"))?;
    let node = tree.find_compatible(&["pci-host-ecam-generic"])?;
    Some(Pcie { configuration: registers(node).next()?, window: memory_window(node)? })
}

/// The CPU's side of a PCIe node's 32-bit memory window: `ranges` has entries of 3 + 2 + 2 cells, the first of which is
/// 0x0200_0000 for such a window (IEEE 1275 PCI binding).
fn memory_window(node: FdtNode<'_, '_>) -> Option<Range> {
    let ranges = node.property("ranges")?.value;
    ranges.chunks_exact(28).find_map(|entry| {
        let cell = |index: usize| entry.get(index * 4..index * 4 + 4)?.try_into().ok().map(u32::from_be_bytes);
        let wide = |index: usize| Some(u64::from(cell(index)?) << 32 | u64::from(cell(index + 1)?));
        (cell(0)? >> 24 == 0x02).then_some(Range { start: wide(3)?, size: wide(5)? })
    })
}
