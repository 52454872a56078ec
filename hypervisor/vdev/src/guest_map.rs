//! The address map that every guest sees: that of QEMU's `virt` board.
//!
//! An image made for QEMU's `virt` machine so runs unmodified as a guest. The host writes these numbers into guest
//! device trees and EL2 decodes guest accesses with them; nothing else may state them again.
//!
//! ```text
//! 0x0400_0000  flash, erased          64 MiB
//! 0x0800_0000  GICv3 distributor       64 KiB
//! 0x080a_0000  GICv3 redistributors   128 KiB for each virtual CPU
//! 0x0900_0000  PL011 UART               4 KiB   SPI 1
//! 0x0901_0000  PL031 clock              4 KiB   SPI 2
//! 0x0902_0000  page of calls            4 KiB   for a backend, where its system says so (`abi::io`)
//! 0x0a00_0000  virtio-mmio slots        4 KiB   SPI 16 to 47, see [`virtio_intid`]
//! 0x4000_0000  RAM
//! ```
//!
//! What this module leaves out: how much RAM and which devices a guest has (the manifest).

/// Guest address of the second bank of flash, in which firmware keeps its variables. It reads as erased.
pub const FLASH_BASE: u64 = 0x0400_0000;
/// Size of that bank in bytes.
pub const FLASH_SIZE: u64 = 0x0400_0000;

/// Guest address of the GICv3 distributor (GICD).
pub const GICD_BASE: u64 = 0x0800_0000;
/// Size of the distributor's window in bytes (GICv3 spec IHI0069 12.1: one 64 KiB frame).
pub const GICD_SIZE: u64 = 0x1_0000;

/// Guest address of the first virtual CPU's GICv3 redistributor (GICR).
pub const GICR_BASE: u64 = 0x080a_0000;
/// Bytes from one redistributor to the next: the RD_base and SGI_base frames (GICv3 spec IHI0069 12.1.1).
pub const GICR_STRIDE: u64 = 0x2_0000;

/// Guest address of the PL011 UART.
pub const PL011_BASE: u64 = 0x0900_0000;
/// Size of the PL011's window in bytes.
pub const PL011_SIZE: u64 = 0x1000;
/// INTID of the PL011's interrupt: SPI 1.
pub const PL011_INTID: u32 = spi(1);

/// Guest address of the PL031 real-time clock.
pub const PL031_BASE: u64 = 0x0901_0000;
/// Size of the PL031's window in bytes.
pub const PL031_SIZE: u64 = 0x1000;
/// INTID of the PL031's interrupt: SPI 2.
pub const PL031_INTID: u32 = spi(2);

/// Guest address of the page by which a backend makes its calls without HVC.
pub const CALLS_BASE: u64 = 0x0902_0000;

/// Guest address of virtio-mmio slot 0.
pub const VIRTIO_BASE: u64 = 0x0a00_0000;
/// Bytes from one virtio-mmio slot to the next: a page each, so that stage 2 can map them apart.
pub const VIRTIO_STRIDE: u64 = 0x1000;
/// How many virtio-mmio slots the map has room for.
pub const VIRTIO_SLOTS: u32 = 32;
/// Bytes of a slot's registers and configuration space, and from one slot to the next on QEMU's board.
pub const VIRTIO_SLOT_SIZE: u64 = 0x200;
/// INTID of virtio-mmio slot 0.
pub const VIRTIO_INTID: u32 = spi(16);

/// Guest address of the first byte of RAM.
pub const RAM_BASE: u64 = 0x4000_0000;
/// First address past everything a guest can have: stage 2 translates 39 bits.
pub const ADDRESS_END: u64 = 1 << 39;

/// INTID of the EL1 virtual timer's interrupt (PPI 11).
pub const VIRTUAL_TIMER_INTID: u32 = 27;
/// INTID of the EL1 physical timer's interrupt (PPI 14).
pub const PHYSICAL_TIMER_INTID: u32 = 30;

/// The first INTID of the shared peripheral interrupts (GICv3 spec IHI0069 2.2).
pub const SPI_INTID: u32 = 32;

/// Guest address of virtio-mmio slot `slot`, if the map has room for it.
#[must_use]
pub const fn virtio_address(slot: u32) -> Option<u64> {
    if slot < VIRTIO_SLOTS {
        Some(VIRTIO_BASE.saturating_add((slot as u64).saturating_mul(VIRTIO_STRIDE)))
    } else {
        None
    }
}

/// INTID of virtio-mmio slot `slot`, if the map has room for it.
///
/// QEMU's board has 32 slots in four pages, eight to a page, and slot `n` of those has the `n`th interrupt. Software
/// that knows that by heart finds the first four devices of this map at its slots 0, 8, 16 and 24; so they have the
/// interrupts 0, 8, 16 and 24. The next four have those after these, and so on.
#[must_use]
pub const fn virtio_intid(slot: u32) -> Option<u32> {
    if slot < VIRTIO_SLOTS {
        let (page, round) = (slot % VIRTIO_QEMU_PAGES, slot / VIRTIO_QEMU_PAGES);
        Some(VIRTIO_INTID.saturating_add(page.saturating_mul(VIRTIO_SLOTS_PER_PAGE)).saturating_add(round))
    } else {
        None
    }
}

/// How many of QEMU's slots share a page.
const VIRTIO_SLOTS_PER_PAGE: u32 = (VIRTIO_STRIDE / VIRTIO_SLOT_SIZE) as u32;
/// How many pages QEMU's slots take.
const VIRTIO_QEMU_PAGES: u32 = VIRTIO_SLOTS / VIRTIO_SLOTS_PER_PAGE;

/// How many bytes the redistributors of `vcpus` virtual CPUs take.
#[must_use]
pub const fn redistributors_size(vcpus: u8) -> u64 {
    (vcpus as u64).saturating_mul(GICR_STRIDE)
}

/// The INTID of shared peripheral interrupt `number`; these constants alone use it, so it cannot wrap.
const fn spi(number: u32) -> u32 {
    SPI_INTID.saturating_add(number)
}

const _: () = {
    assert!(FLASH_BASE + FLASH_SIZE <= GICD_BASE, "the flash ends below the distributor");
    assert!(GICD_BASE + GICD_SIZE <= GICR_BASE, "the distributor ends below the redistributors");
    assert!(GICR_BASE + redistributors_size(123) <= PL011_BASE, "QEMU's virt board has room for 123 redistributors");
    assert!(PL011_BASE + PL011_SIZE <= PL031_BASE, "the UART ends below the clock");
    assert!(PL031_BASE + PL031_SIZE <= CALLS_BASE, "the clock ends below the page of calls");
    assert!(CALLS_BASE + VIRTIO_STRIDE <= VIRTIO_BASE, "the page of calls ends below the virtio slots");
    assert!(VIRTIO_BASE + VIRTIO_STRIDE * VIRTIO_SLOTS as u64 <= RAM_BASE, "the virtio slots end below RAM");
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_qemu_s_slots_by_heart_holds_for_devices_in_their_pages() {
        let qemu = |slot: u32| (VIRTIO_BASE + u64::from(slot) * VIRTIO_SLOT_SIZE, VIRTIO_INTID + slot);
        for (slot, theirs) in [(0, 0), (1, 8), (2, 16), (3, 24)] {
            assert_eq!((virtio_address(slot), virtio_intid(slot)), (Some(qemu(theirs).0), Some(qemu(theirs).1)));
        }
    }

    #[test]
    fn each_slot_has_an_interrupt_of_its_own_among_qemu_s() {
        let mut seen = 0_u32;
        for slot in 0..VIRTIO_SLOTS {
            let bit = 1 << (virtio_intid(slot).unwrap() - VIRTIO_INTID);
            assert_eq!(seen & bit, 0, "slot {slot}");
            seen |= bit;
        }
        assert_eq!((seen, virtio_intid(VIRTIO_SLOTS), virtio_address(VIRTIO_SLOTS)), (u32::MAX, None, None));
    }
}
