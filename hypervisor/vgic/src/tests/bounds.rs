//! Accesses by a guest that means harm: every offset, every width.

use vdev::Width;

use super::machine::*;
use crate::{Frame, Vgic, needs_sync};

const WIDTHS: [Width; 4] = [Width::Byte, Width::HalfWord, Width::Word, Width::DoubleWord];

/// Under Miri, a sample of the offsets that meets all alignments.
fn offsets(end: u64) -> impl Iterator<Item = u64> {
    (0..end).step_by(if cfg!(miri) { 16_387 } else { 1 }).chain([end, end + 4, u64::MAX - 3, u64::MAX])
}

#[test]
fn no_access_to_the_distributor_panics() {
    let vgic = Vgic::new(2, 64);
    for offset in offsets(0x1_0000) {
        for width in WIDTHS {
            for value in [u64::MAX, 0] {
                let read = vgic.distributor_read(offset, width);
                let written = vgic.distributor_write(offset, width, value & width.mask());
                assert_eq!(read.is_some(), written.is_some(), "{offset:#x} {width:?}");
                assert!(read.unwrap_or(0) <= width.mask());
                if read.is_some() {
                    assert_eq!(offset % width.bytes(), 0, "{offset:#x} {width:?}");
                }
            }
            let _whoever = vgic.stale(0, Frame::Distributor, offset);
        }
    }
}

#[test]
fn no_access_to_a_redistributor_panics() {
    let vgic = Vgic::new(2, 64);
    for offset in offsets(0x2_0000) {
        for width in WIDTHS {
            for frame in [1, 2, usize::MAX] {
                let read = vgic.redistributor_read(frame, offset, width);
                let written = vgic.redistributor_write(frame, offset, width, width.mask());
                assert_eq!(read.is_some(), written.is_some(), "{offset:#x} {width:?}");
                assert!(frame < 2 || read.is_none());
                assert!(read.unwrap_or(0) <= width.mask());
                let _whoever = vgic.stale(0, Frame::Redistributor(frame), offset);
            }
        }
    }
}

#[test]
fn registers_of_interrupts_that_do_not_exist_read_as_zero() {
    let mut machine = Machine::new(1, 4);
    for offset in [ISENABLER + 12, ISPENDR + 0x7c, IPRIORITYR + 96, ICFGR + 0xfc, IROUTER + 8 * 96, IROUTER + 0x1ff8] {
        machine.gicd_write(0, offset, u32::MAX);
        assert_eq!(machine.gicd_read(0, offset), 0, "{offset:#x}");
    }
    for offset in [ISENABLER + 4, IPRIORITYR + 32, ICFGR + 8] {
        machine.gicr_write(0, 0, SGI_BASE + offset, u32::MAX);
        assert_eq!(machine.gicr_read(0, 0, SGI_BASE + offset), 0, "{offset:#x}");
    }
}

#[test]
fn wrong_widths_are_refused() {
    let vgic = Vgic::new(1, 32);
    for (offset, width) in [
        (ISENABLER + 4, Width::Byte),
        (ISENABLER + 4, Width::HalfWord),
        (ISENABLER + 4, Width::DoubleWord),
        (ISENABLER + 5, Width::Word),
        (IROUTER + 8 * 40, Width::Byte),
        (IROUTER + 8 * 40 + 4, Width::DoubleWord),
    ] {
        assert_eq!(vgic.distributor_read(offset, width), None, "{offset:#x} {width:?}");
        assert_eq!(vgic.distributor_write(offset, width, 0), None, "{offset:#x} {width:?}");
    }
}

#[test]
fn priorities_are_reached_byte_by_byte() {
    let vgic = Vgic::new(1, 32);
    for (offset, value) in (IPRIORITYR + 40..).zip([0x10, 0x20, 0x30, 0x40]) {
        assert!(vgic.distributor_write(offset, Width::Byte, value).is_some());
    }
    assert_eq!(vgic.distributor_read(IPRIORITYR + 40, Width::Word), Some(0x4030_2010));
    assert!(vgic.redistributor_write(0, SGI_BASE + IPRIORITYR + 27, Width::Byte, 0x88).is_some());
    assert_eq!(vgic.redistributor_read(0, SGI_BASE + IPRIORITYR + 24, Width::Word), Some(0x8800_0000));
}

#[test]
fn only_state_registers_need_a_sync() {
    assert!(needs_sync(Frame::Distributor, ISPENDR + 4) && needs_sync(Frame::Distributor, ICACTIVER + 4));
    assert!(!needs_sync(Frame::Distributor, CTLR) && !needs_sync(Frame::Distributor, ISENABLER));
    assert!(needs_sync(Frame::Redistributor(0), SGI_BASE + ISACTIVER));
    assert!(!needs_sync(Frame::Redistributor(0), ISACTIVER) && !needs_sync(Frame::Redistributor(0), u64::MAX));
}

#[test]
fn a_controller_has_the_size_it_is_asked_for_within_limits() {
    for (vcpus, spis, vcpus_seen, words_seen) in [(0, 0, 1, 0), (2, 33, 2, 2), (9, 1000, 8, 8), (usize::MAX, 1, 8, 1)] {
        let vgic = Vgic::new(vcpus, spis);
        assert_eq!(vgic.vcpus(), vcpus_seen);
        assert_eq!(vgic.distributor_read(4, Width::Word).unwrap() & 31, words_seen);
    }
}

#[test]
fn quick_reads_are_the_full_reads_wherever_they_answer() {
    let mut machine = Machine::ready(2, 4);
    machine.gicd_write(0, IGROUPR + 4, 0x1234_5678);
    machine.gicd_write(0, ICENABLER + 8, 0x0f0f_0f0f);
    machine.gicr_write(0, 1, SGI_BASE + ICENABLER, 0x00ff_00ff);
    let step = if cfg!(miri) { 1324 } else { 4 };
    for offset in (0..0x1_0000u64).step_by(step) {
        if let Some(value) = machine.vgic.distributor_quick_read(offset) {
            let full = machine.vgic.distributor_read(offset, Width::Word);
            assert_eq!(Some(u64::from(value)), full, "distributor {offset:#x}");
        }
    }
    for vcpu in 0..3 {
        for offset in (0..0x2_0000u64).step_by(step) {
            if let Some(value) = machine.vgic.redistributor_quick_read(vcpu, offset) {
                let full = machine.vgic.redistributor_read(vcpu, offset, Width::Word);
                assert_eq!(Some(u64::from(value)), full, "redistributor {vcpu} {offset:#x}");
            }
        }
    }
    assert_eq!(machine.vgic.distributor_quick_read(CTLR), Some(0b101_0010));
}
