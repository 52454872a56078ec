//! The address map that every guest sees: that of QEMU's `virt` board.
//!
//! An image made for QEMU's `virt` machine so runs unmodified as a guest. The host writes these numbers into guest
//! device trees and EL2 decodes guest accesses with them; nothing else may state them again.
//!
//! ```text
//! 0x0800_0000  GICv3 distributor       64 KiB
//! 0x080a_0000  GICv3 redistributors   128 KiB for each virtual CPU
//! 0x0900_0000  PL011 UART               4 KiB   SPI 1
//! 0x0901_0000  PL031 clock              4 KiB   SPI 2
//! 0x0a00_0000  virtio-mmio slot n       4 KiB   SPI 16 + n
//! 0x4000_0000  RAM
//! ```
//!
//! What this module leaves out: how much RAM and which devices a guest has (the manifest).

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

/// Guest address of virtio-mmio slot 0.
pub const VIRTIO_BASE: u64 = 0x0a00_0000;
/// Bytes from one virtio-mmio slot to the next: a page each, so that stage 2 can map them apart.
pub const VIRTIO_STRIDE: u64 = 0x1000;
/// How many virtio-mmio slots the map has room for.
pub const VIRTIO_SLOTS: u32 = 32;
/// INTID of virtio-mmio slot 0; slot `n` has the `n`th after it.
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
#[must_use]
pub const fn virtio_intid(slot: u32) -> Option<u32> {
    if slot < VIRTIO_SLOTS { Some(VIRTIO_INTID.saturating_add(slot)) } else { None }
}

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
    assert!(GICD_BASE + GICD_SIZE <= GICR_BASE, "the distributor ends below the redistributors");
    assert!(GICR_BASE + redistributors_size(123) <= PL011_BASE, "QEMU's virt board has room for 123 redistributors");
    assert!(PL011_BASE + PL011_SIZE <= PL031_BASE, "the UART ends below the clock");
    assert!(PL031_BASE + PL031_SIZE <= VIRTIO_BASE, "the clock ends below the virtio slots");
    assert!(VIRTIO_BASE + VIRTIO_STRIDE * VIRTIO_SLOTS as u64 <= RAM_BASE, "the virtio slots end below RAM");
};
