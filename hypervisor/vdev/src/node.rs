//! How a device describes itself: its kind, its usual place, and its device-tree node.
//!
//! Every device states its own node, so a new device needs no change where device trees are written. The writer (on the
//! host) adds what depends on the placement: the unit address, `reg`, `interrupts` and the phandles of clocks.
//!
//! What this module leaves out: the flattened form (the host's job) and the nodes that belong to no virtual device,
//! such as CPUs, timer and interrupt controller.

use crate::Device;

/// What the registry needs to know about a device model before one exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// The model's name in a system's TOML file, such as `pl011`.
    pub name: &'static str,
    /// The size of the register window in bytes: a multiple of 4 KiB.
    pub window_size: u64,
    /// The guest address of the window, where the system does not state another.
    pub default_address: u64,
    /// The INTID of the interrupt (an SPI: 32 and above), where the system does not state another; `None` for a device
    /// without one.
    pub default_interrupt: Option<u32>,
    /// The device-tree node.
    pub node: DeviceNode,
    /// The longest configuration that it may have in a system's TOML file, in bytes and 256 at most: 0 if it takes
    /// none. It finds it in [`Host::configuration`](crate::Host::configuration).
    pub configuration_max: usize,
    /// Whether it is there for tests alone: then it is in no Bulkhead but those that are built for them.
    pub for_tests: bool,
}

/// A device model that can be put into the registry.
pub trait Model: Device + Sized {
    /// What the registry says about the model.
    const DESCRIPTION: Description;

    /// A device in its state at power-on.
    fn create() -> Self;
}

/// A device-tree node, all but what the placement decides (Devicetree Specification 0.4, 2.2 and 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// The node's name before its unit address: `pl011` of `pl011@9000000`.
    pub name: &'static str,
    /// The `compatible` strings, the most specific first.
    pub compatible: &'static [&'static str],
    /// How the interrupt is signalled, for a device that has one; `interrupts` is made from this and the INTID.
    pub trigger: Option<Trigger>,
    /// The `clock-names`, if any. Every one of them is the guest's fixed peripheral clock (`apb-pclk`), so `clocks` is
    /// that clock's phandle as often as there are names.
    pub clocks: &'static [&'static str],
    /// Further properties, each a name and a value.
    pub properties: &'static [(&'static str, PropertyValue)],
    /// Whether the device can be the console: the first such device becomes `serial0` and `stdout-path`.
    pub console: bool,
}

/// The value of a device-tree property (Devicetree Specification 0.4, 2.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropertyValue {
    /// `<empty>`: the name alone says it.
    Empty,
    /// `<u32>`.
    Word(u32),
    /// `<prop-encoded-array>` of `<u32>` cells.
    Words(&'static [u32]),
    /// `<string>`.
    Text(&'static str),
    /// `<stringlist>`.
    Texts(&'static [&'static str]),
}

/// How a device signals its interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The line is high for as long as the device wants attention.
    LevelHigh,
    /// Each rise of the line is one interrupt.
    EdgeRising,
}

impl Trigger {
    /// The third cell of `interrupts` in the GIC's device-tree binding (`arm,gic-v3`): 4 or 1.
    #[must_use]
    pub const fn cell(self) -> u32 {
        match self {
            Self::LevelHigh => 4,
            Self::EdgeRising => 1,
        }
    }
}
