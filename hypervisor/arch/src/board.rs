//! The board as its device tree describes it: RAM, cores, interrupt controller, UART, and what the boot loader left.
//!
//! Read once at boot with the MMU off; everything needed later is copied out.

use crate::boot::CORES_MAX;
use arrayvec::ArrayVec;
use fdt::Fdt;
use fdt::node::FdtNode;

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

/// What EL2 needs to know of the board.
#[derive(Clone, Debug)]
pub struct Board {
    /// RAM.
    pub memory: ArrayVec<Range, 8>,
    /// RAM that the device tree reserves.
    pub reserved: ArrayVec<Range, 16>,
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
    /// PCIe, if the board has it.
    pub pcie: Option<Pcie>,
    /// `/chosen/rng-seed`: the boot loader's entropy.
    pub seed: Option<[u8; 32]>,
    /// `bulkhead.console=lines` on Bulkhead's own command line: the console shows whole lines only, for a log.
    pub console_in_lines: bool,
}

/// What a device tree lacks: a sentence for the person at the console.
pub type Missing = &'static str;

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
        let mut reserved = ArrayVec::new();
        let reservations =
            tree.memory_reservations().map(|range| Range { start: range.address() as u64, size: range.size() as u64 });
        let reserved_nodes = tree
            .find_node("/reserved-memory")
            .into_iter()
            .flat_map(|node| node.children().flat_map(registers).collect::<ArrayVec<Range, 16>>());
        for range in reservations.chain(reserved_nodes) {
            reserved.try_push(range).map_err(|_| "the device tree reserves more ranges than Bulkhead can hold")?;
        }
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
        let pcie = tree.find_compatible(&["pci-host-ecam-generic"]).and_then(|node| {
            let configuration = registers(node).next()?;
            Some(Pcie { configuration, window: memory_window(node)? })
        });
        let device_tree = Range { start: address as u64, size: tree.total_size() as u64 };
        Ok(Self {
            memory,
            reserved,
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
        })
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
