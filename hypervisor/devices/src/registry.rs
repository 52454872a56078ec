//! The registry of device models: one line for each.
//!
//! [`AnyDevice`] holds any registered model by value, so EL2 keeps devices in plain arrays and calls them through a
//! `match`: no allocation, no pointer to a function that a stray write could change.

use core::task::Poll;
use vdev::{AccessId, Device, DeviceNode, GuestFault, Host, Model, PropertyValue, ResetKind, Ticks, Trigger, Width};

/// A kind of device: what a system may name, and what host and EL2 make of it.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// The name in a system's TOML file.
    pub name: &'static str,
    /// The size of the register window in bytes: a multiple of 4 KiB.
    pub window_size: u64,
    /// The guest address of the window, where the system does not state another.
    pub default_address: u64,
    /// The INTID of the interrupt, where the system does not state another; `None` for a device without one.
    pub default_interrupt: Option<u32>,
    /// The device-tree node.
    pub node: DeviceNode,
    /// The longest configuration that it may have, in bytes; 0 if it takes none.
    pub configuration_max: usize,
    /// Whether it is there for tests alone: in no Bulkhead but one with the feature `test-devices`.
    pub for_tests: bool,
    /// Makes a device of this kind in its state at power-on.
    pub make: fn() -> AnyDevice,
}

/// The device-tree node of a virtio device: the same for all kinds, which say what they are in their registers
/// ([`VirtioMmio`](crate::virtio_mmio::VirtioMmio)). Its place is a slot
/// ([`guest_map::virtio_address`](vdev::guest_map::virtio_address)).
pub const VIRTIO_NODE: DeviceNode = DeviceNode {
    name: "virtio_mmio",
    compatible: &["virtio,mmio"],
    // The driver acknowledges before it looks into its rings, so that each rise of InterruptStatus is enough. A line
    // whose level counts would have to be looked at whenever it falls.
    trigger: Some(Trigger::EdgeRising),
    clocks: &[],
    // The "device" that touches the rings is EL2, through the caches.
    properties: &[("dma-coherent", PropertyValue::Empty)],
    console: false,
};

/// The kind called `name`.
#[must_use]
pub fn find(name: &str) -> Option<&'static Kind> {
    KINDS.iter().find(|kind| kind.name == name)
}

macro_rules! registry {
    ($($(#[$attribute:meta])* $variant:ident: $model:ty,)*) => {
        /// A device of any registered model.
        pub enum AnyDevice {
            $($(#[$attribute])* $variant($model),)*
        }

        /// Every kind of device there is.
        pub const KINDS: &[Kind] = &[$(Kind {
            name: <$model as Model>::DESCRIPTION.name,
            window_size: <$model as Model>::DESCRIPTION.window_size,
            default_address: <$model as Model>::DESCRIPTION.default_address,
            default_interrupt: <$model as Model>::DESCRIPTION.default_interrupt,
            node: <$model as Model>::DESCRIPTION.node,
            configuration_max: <$model as Model>::DESCRIPTION.configuration_max,
            for_tests: <$model as Model>::DESCRIPTION.for_tests,
            make: || AnyDevice::$variant(<$model as Model>::create()),
        },)*
        ];

        impl Device for AnyDevice {
            #[inline]
            fn read(&mut self, offset: u64, width: Width, host: &mut Host<'_>) -> Result<Poll<u64>, GuestFault> {
                match self { $(Self::$variant(device) => device.read(offset, width, host),)* }
            }

            #[inline(always)]
            fn peek(&self, offset: u64, width: Width) -> Option<u64> {
                match self { $(Self::$variant(device) => device.peek(offset, width),)* }
            }

            #[inline]
            fn write(&mut self, offset: u64, width: Width, value: u64, host: &mut Host<'_>) -> Result<Poll<()>, GuestFault> {
                match self { $(Self::$variant(device) => device.write(offset, width, value, host),)* }
            }

            #[inline]
            fn take_answer(&mut self) -> Option<(AccessId, u64)> {
                match self { $(Self::$variant(device) => device.take_answer(),)* }
            }

            #[inline]
            fn line(&self) -> bool {
                match self { $(Self::$variant(device) => device.line(),)* }
            }

            #[inline]
            fn deadline(&self) -> Option<Ticks> {
                match self { $(Self::$variant(device) => device.deadline(),)* }
            }

            #[inline]
            fn poll(&mut self, host: &mut Host<'_>) {
                match self { $(Self::$variant(device) => device.poll(host),)* }
            }

            fn reset(&mut self, kind: ResetKind) {
                match self { $(Self::$variant(device) => device.reset(kind),)* }
            }
        }
    };
}

#[cfg(not(feature = "test-devices"))]
registry! {
    /// An Arm PL011 UART: the guest's console.
    Pl011: crate::pl011::Pl011,
}

#[cfg(feature = "test-devices")]
registry! {
    /// An Arm PL011 UART: the guest's console.
    Pl011: crate::pl011::Pl011,
    /// A device that tests what `vdev` promises.
    TestTimer: crate::test_timer::TestTimer,
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdev::testkit::Bench;

    /// A device of each emulated kind.
    fn emulated() -> impl Iterator<Item = (&'static Kind, Bench<AnyDevice>)> {
        KINDS.iter().map(|kind| (kind, Bench::new((kind.make)())))
    }

    #[test]
    fn a_system_finds_the_uart_where_linux_expects_it() {
        let kind = find("pl011").unwrap();
        assert_eq!((kind.default_address, kind.window_size), (0x0900_0000, 0x1000));
        assert_eq!(kind.default_interrupt, Some(33));
        assert_eq!(kind.node.compatible, ["arm,pl011", "arm,primecell"]);
        assert!(kind.node.console);
    }

    #[test]
    fn an_unknown_kind_is_not_found() {
        assert!(find("pl012").is_none());
        assert!(find("").is_none());
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        for (index, kind) in KINDS.iter().enumerate() {
            assert!(KINDS.iter().skip(index + 1).all(|other| other.name != kind.name), "{}", kind.name);
        }
    }

    #[test]
    fn default_windows_are_whole_pages_below_ram_and_apart_from_one_another() {
        for (index, kind) in KINDS.iter().enumerate() {
            assert_eq!(kind.default_address % 0x1000, 0, "{}", kind.name);
            assert!(kind.window_size > 0 && kind.window_size % 0x1000 == 0, "{}", kind.name);
            assert!(kind.default_address + kind.window_size <= vdev::guest_map::RAM_BASE, "{}", kind.name);
            for other in KINDS.iter().skip(index + 1) {
                assert!(
                    kind.default_address + kind.window_size <= other.default_address
                        || other.default_address + other.window_size <= kind.default_address,
                    "{} and {}",
                    kind.name,
                    other.name
                );
            }
        }
    }

    #[test]
    fn an_interrupt_is_a_shared_peripheral_interrupt_and_states_its_trigger() {
        for kind in KINDS {
            assert_eq!(kind.default_interrupt.is_some(), kind.node.trigger.is_some(), "{}", kind.name);
            assert!(kind.default_interrupt.is_none_or(|interrupt| (32..288).contains(&interrupt)), "{}", kind.name);
        }
    }

    #[test]
    fn a_configuration_has_room_in_a_manifest() {
        assert!(KINDS.iter().all(|kind| kind.configuration_max <= 256));
    }

    #[test]
    fn every_kind_is_quiet_when_created_and_after_a_reset() {
        for (kind, mut bench) in emulated() {
            assert!(!bench.line(), "{}", kind.name);
            bench.poll();
            bench.reset(ResetKind::VmRestart);
            assert!(!bench.line(), "{}", kind.name);
            assert_eq!(bench.output(), "", "{}", kind.name);
        }
    }

    /// xorshift64*: the same sequence in every run.
    fn next(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    #[test]
    fn a_guest_that_stores_at_random_only_ever_gets_a_value_or_a_fault() {
        for (kind, mut bench) in emulated() {
            let mut state = 0x9e37_79b9_7f4a_7c15;
            for _ in 0..if cfg!(miri) { 200 } else { 20_000 } {
                let offset = next(&mut state) % (kind.window_size + 8);
                let width = match next(&mut state) % 4 {
                    0 => Width::Byte,
                    1 => Width::HalfWord,
                    2 => Width::Word,
                    _ => Width::DoubleWord,
                };
                match next(&mut state) % 8 {
                    0 => bench.type_in("x"),
                    1..4 => {
                        let _ = bench.load(offset, width);
                    }
                    _ => {
                        let value = next(&mut state);
                        let _ = bench.store(offset, width, value);
                    }
                }
                let _ = (bench.line(), bench.device.deadline());
            }
        }
    }
}
