//! Boards, as data.
//!
//! A board is one short file: what the host needs to start it under QEMU and to check that a system fits, and what a
//! reader needs to know about its addresses. To add one, write a file beside `qemu_virt.rs` and add a line to
//! [`BOARDS`].
//!
//! What this crate leaves out: drivers (`arch`), and whatever EL2 reads from the board's own device tree at boot; where
//! the two disagree, the device tree wins.
#![no_std]
#![forbid(unsafe_code)]

mod board;
mod qemu_virt;

pub use board::{Board, Conduit, Dma, Gic, InstanceNode, PhysicalDevice, Region, Trigger, Uart};

/// Every board that Bulkhead knows.
pub const BOARDS: &[&Board] = &[&qemu_virt::QEMU_VIRT];

/// The board called `name` in a system's TOML file.
#[must_use]
pub fn find(name: &str) -> Option<&'static Board> {
    BOARDS.iter().copied().find(|board| board.name == name)
}

/// Models of cores, as QEMU names them, that translate no pages of 16 KiB (ID_AA64MMFR0_EL1.TGran16 is 0, in their
/// technical reference manuals).
const WITHOUT_16_KIB_PAGES: [&str; 4] = ["cortex-a53", "cortex-a57", "cortex-a72", "a64fx"];

/// Whether cores that QEMU calls `model` translate pages of 16 KiB; those of 4 KiB and of 64 KiB are in all of them.
/// What follows a comma are the model's options.
#[must_use]
pub fn has_16_kib_pages(model: &str) -> bool {
    let name = model.split(',').next().unwrap_or(model);
    !WITHOUT_16_KIB_PAGES.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO_MIB: u64 = 2 << 20;

    #[test]
    fn every_board_is_found_by_its_name() {
        for board in BOARDS {
            assert_eq!(find(board.name).map(|found| found.name), Some(board.name));
        }
        assert!(find("no-such-board").is_none());
    }

    #[test]
    fn no_two_boards_share_a_name() {
        for (index, board) in BOARDS.iter().enumerate() {
            assert!(BOARDS.iter().skip(index + 1).all(|other| other.name != board.name), "{}", board.name);
        }
    }

    #[test]
    fn every_board_describes_itself_to_a_reader() {
        for board in BOARDS {
            assert!(!board.description.is_empty(), "{}", board.name);
            assert!(!board.regions.is_empty(), "{}", board.name);
        }
    }

    #[test]
    fn regions_ascend_and_do_not_overlap() {
        for board in BOARDS {
            for pair in board.regions.windows(2) {
                assert!(pair[0].base + pair[0].size <= pair[1].base, "{}: {}", board.name, pair[1].name);
            }
        }
    }

    #[test]
    fn uart_and_interrupt_controller_lie_in_regions_of_the_map() {
        for board in BOARDS {
            let Uart::Pl011 { base: uart, .. } = board.uart;
            let Gic::V3 { distributor, redistributors } = board.gic;
            for address in [uart, distributor, redistributors] {
                let inside = |region: &Region| address >= region.base && address - region.base < region.size;
                assert!(board.regions.iter().any(inside), "{}: {address:#x}", board.name);
            }
        }
    }

    #[test]
    fn ram_is_last_in_the_map_and_can_be_mapped_in_large_blocks() {
        for board in BOARDS {
            assert_eq!(board.ram_base % TWO_MIB, 0, "{}", board.name);
            assert_eq!(board.image_load_offset % TWO_MIB, 0, "{}", board.name);
            assert_eq!(board.memory_default % TWO_MIB, 0, "{}", board.name);
            assert_eq!(board.reserved_for_hypervisor % TWO_MIB, 0, "{}", board.name);
            assert!(board.reserved_for_hypervisor < board.memory_default, "{}", board.name);
            assert!(board.regions.iter().all(|region| region.base + region.size <= board.ram_base), "{}", board.name);
        }
    }

    #[test]
    fn only_shared_peripheral_interrupts_can_be_assigned() {
        for board in BOARDS {
            for interrupts in board.assignable_interrupts {
                assert!(*interrupts.start() >= 32 && *interrupts.end() <= 1019, "{}", board.name);
                let Uart::Pl011 { interrupt, .. } = board.uart;
                assert!(!interrupts.contains(&interrupt), "{}: Bulkhead keeps the UART", board.name);
            }
        }
    }

    #[test]
    fn devices_fill_whole_pages_of_the_map_and_have_assignable_interrupts() {
        for board in BOARDS {
            for device in board.devices {
                assert!(device.base % 4096 == 0 && device.size % 4096 == 0, "{}: {}", board.name, device.name);
                assert_eq!(device.instance_size() * u64::from(device.instances), device.size, "{}", device.name);
                let is_register = |offset: u32| offset.is_multiple_of(4) && u64::from(offset) < device.instance_size();
                assert!(device.silence.iter().all(|(offset, _)| is_register(*offset)), "{}", device.name);
                let inside = |region: &Region| {
                    device.base >= region.base && device.base + device.size <= region.base + region.size
                };
                assert!(board.regions.iter().any(inside), "{}: {}", board.name, device.name);
                for interrupt in device.interrupts() {
                    let assignable = board.assignable_interrupts.iter().any(|range| range.contains(&interrupt));
                    assert!(assignable, "{}: {} has interrupt {interrupt}", board.name, device.name);
                }
            }
        }
    }

    #[test]
    fn no_two_devices_of_a_board_share_a_name() {
        for board in BOARDS {
            for (index, device) in board.devices.iter().enumerate() {
                assert!(board.devices.iter().skip(index + 1).all(|other| other.name != device.name), "{}", device.name);
            }
        }
    }

    #[test]
    fn defaults_are_within_the_limits() {
        for board in BOARDS {
            assert!((1..=board.cores_max).contains(&board.cores_default), "{}", board.name);
            assert!(board.memory_default <= board.memory_max, "{}", board.name);
        }
    }

    #[test]
    fn the_boards_default_cores_have_no_16_kib_pages_and_later_ones_do() {
        for (model, expected) in
            [("cortex-a57", false), ("cortex-a72,pmu=off", false), ("cortex-a76", true), ("max", true)]
        {
            assert_eq!(has_16_kib_pages(model), expected, "{model}");
        }
    }
}
