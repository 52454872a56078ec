//! What the device tree says about this guest: memory, CPUs, devices, its name and its parameters.

use crate::per_cpu::CPUS_MAX;
use arrayvec::ArrayVec;
use fdt::{Fdt, node::FdtNode};
use spin::Once;

const REGIONS_MAX: usize = 4;
const WINDOWS_MAX: usize = 64;

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// First address.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
}

impl Region {
    /// The first address behind the region.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// Says whether the region and `size` bytes from `start` have an address in common.
    #[must_use]
    pub const fn overlaps(&self, start: u64, size: u64) -> bool {
        self.start < start.saturating_add(size) && start < self.end()
    }
}

/// How firmware is called (the `method` of the `psci` node).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `HVC #0`.
    Hvc,
    /// `SMC #0`.
    Smc,
}

/// What kind of UART a guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UartKind {
    /// An Arm PL011 (DDI0183).
    Pl011,
    /// The part of it that a server must have (SBSA DEN0029, "Generic UART"): data, flags and interrupts; it is set up
    /// already.
    Sbsa,
}

/// This guest's machine, as its device tree describes it.
#[derive(Debug)]
pub struct Machine {
    /// RAM.
    pub memory: ArrayVec<Region, REGIONS_MAX>,
    /// The affinity of each CPU.
    pub cpus: ArrayVec<u64, CPUS_MAX>,
    /// The register windows of all devices.
    pub windows: ArrayVec<Region, WINDOWS_MAX>,
    /// The GIC distributor.
    pub distributor: Region,
    /// The GIC redistributors, one after the other.
    pub redistributors: Region,
    /// The first UART.
    pub uart: Option<Region>,
    /// What kind of UART it is.
    pub uart_kind: UartKind,
    /// The INTID of the UART's interrupt.
    pub uart_interrupt: Option<u32>,
    /// How firmware is called.
    pub conduit: Conduit,
    /// Whether Bulkhead runs this guest (the node `/hypervisor` says so); otherwise the guest owns the board.
    pub under_bulkhead: bool,
    /// The device tree itself.
    pub device_tree: Region,
    /// The initial RAM disk, if there is one.
    pub ramdisk: Option<Region>,
    command_line: &'static str,
}

impl Machine {
    /// The value of the parameter `key=value` on the command line.
    #[must_use]
    pub fn parameter(&self, key: &str) -> Option<&'static str> {
        self.command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// The device tree, for what this structure does not tell.
    #[must_use]
    pub fn tree(&self) -> Option<Fdt<'static>> {
        // SAFETY: `discover` read the whole tree at this address, and nobody writes to it.
        unsafe { Fdt::from_ptr(self.device_tree.start as *const u8) }.ok()
    }

    /// The value of a numeric parameter, decimal or `0x…`, or `default` where it is absent or not a number.
    #[must_use]
    pub fn number(&self, key: &str, default: u64) -> u64 {
        let parse = |text: &str| match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        self.parameter(key).and_then(parse).unwrap_or(default)
    }

    /// The guest's name, or `native` where nobody gave it one.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.parameter("bulkhead.name").unwrap_or("native")
    }

    /// The window of the device that covers `address`, if one does.
    #[must_use]
    pub fn window_at(&self, address: u64, size: u64) -> Option<Region> {
        self.windows.iter().find(|window| window.overlaps(address, size)).copied()
    }

    /// The region of RAM that covers part of `size` bytes from `address`, if one does.
    #[must_use]
    pub fn memory_at(&self, address: u64, size: u64) -> Option<Region> {
        self.memory.iter().find(|region| region.overlaps(address, size)).copied()
    }
}

static MACHINE: Once<Machine> = Once::new();

/// This guest's machine.
///
/// # Panics
/// Before the runtime has read the device tree; no guest code runs that early.
#[must_use]
pub fn machine() -> &'static Machine {
    MACHINE.get().expect("the device tree has been read")
}

pub(crate) fn try_machine() -> Option<&'static Machine> {
    MACHINE.get()
}

pub(crate) fn discover(device_tree: usize) {
    MACHINE.call_once(|| {
        // SAFETY: the boot protocol puts the device tree's address into x0, and nobody writes to the tree afterwards.
        let tree = unsafe { Fdt::from_ptr(device_tree as *const u8) };
        read(device_tree as u64, &tree.expect("x0 holds the address of a device tree"))
    });
}

fn read(device_tree: u64, tree: &Fdt<'static>) -> Machine {
    let gic = tree.find_compatible(&["arm,gic-v3"]);
    let pl011 = tree.find_compatible(&["arm,pl011"]);
    let uart = pl011.or_else(|| tree.find_compatible(&["arm,sbsa-uart"]));
    let nothing = Region { start: 0, size: 0 };
    let mut windows = ArrayVec::<Region, WINDOWS_MAX>::new();
    for node in tree.find_node("/").into_iter().flat_map(FdtNode::children) {
        if !node.name.starts_with("memory") {
            windows.extend(regions(node).take(windows.remaining_capacity()));
        }
    }
    let method = tree.find_node("/psci").and_then(|node| node.property("method")).and_then(|method| method.as_str());
    Machine {
        memory: tree
            .all_nodes()
            .filter(|node| node.name.starts_with("memory@"))
            .flat_map(regions)
            .take(REGIONS_MAX)
            .collect(),
        cpus: tree.cpus().map(|cpu| cpu.ids().first() as u64).take(CPUS_MAX).collect(),
        windows,
        distributor: gic.and_then(|node| regions(node).next()).unwrap_or(nothing),
        redistributors: gic.and_then(|node| regions(node).nth(1)).unwrap_or(nothing),
        uart: uart.and_then(|node| regions(node).next()),
        uart_kind: if pl011.is_some() { UartKind::Pl011 } else { UartKind::Sbsa },
        uart_interrupt: uart.and_then(shared_interrupt),
        conduit: if method == Some("smc") { Conduit::Smc } else { Conduit::Hvc },
        under_bulkhead: tree.find_compatible(&["bulkhead,bulkhead"]).is_some(),
        device_tree: Region { start: device_tree, size: tree.total_size() as u64 },
        ramdisk: ramdisk(tree),
        command_line: tree.chosen().bootargs().unwrap_or(""),
    }
}

fn regions(node: FdtNode<'_, 'static>) -> impl Iterator<Item = Region> {
    node.reg()
        .into_iter()
        .flatten()
        .map(|region| Region { start: region.starting_address as u64, size: region.size.unwrap_or(0) as u64 })
}

/// The INTID of a node's first interrupt, a GIC specifier `<0 n flags>`: SPI n is INTID 32 + n.
#[must_use]
pub fn shared_interrupt(node: FdtNode<'_, 'static>) -> Option<u32> {
    let (kind, rest) = node.property("interrupts")?.value.split_first_chunk::<4>()?;
    let (number, _) = rest.split_first_chunk::<4>()?;
    (u32::from_be_bytes(*kind) == 0).then(|| u32::from_be_bytes(*number) + 32)
}

fn ramdisk(tree: &Fdt<'static>) -> Option<Region> {
    let chosen = tree.find_node("/chosen")?;
    let start = chosen.property("linux,initrd-start")?.as_usize()? as u64;
    let end = chosen.property("linux,initrd-end")?.as_usize()? as u64;
    Some(Region { start, size: end.checked_sub(start)? })
}
