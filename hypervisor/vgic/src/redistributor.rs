//! The redistributors' registers (GICR_* in IHI0069, the GICv3 specification): one pair of frames for each virtual CPU.

use core::sync::atomic::Ordering::Relaxed;

use vdev::Width;

use super::registers::{Banked, Bitmap, IMPLEMENTER_ID, PERIPHERAL_ID_2, SGI_BASE, is_word_or_priority};
use super::{Kicks, Vgic};

/// The size of a redistributor's pair of frames in bytes.
const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;

/// The registers of RD_base, by offset.
const IIDR: u64 = 0x4;
const TYPER: u64 = 0x8;
const TYPER_UPPER: u64 = 0xc;
const WAKER: u64 = 0x14;
const PIDR2: u64 = 0xffe8;

/// GICR_WAKER.ProcessorSleep and ChildrenAsleep.
const PROCESSOR_SLEEP: u32 = 1 << 1;
const CHILDREN_ASLEEP: u32 = 1 << 2;

impl Vgic {
    /// Answers a load at byte `offset` into the 128 KiB pair of frames of the redistributor of `vcpu_of_frame`:
    /// RD_base, then SGI_base. Reserved registers read as zero. `None` if no register takes that width and alignment,
    /// or if there is no such redistributor: the load ends in an external abort.
    #[inline]
    #[must_use]
    pub fn redistributor_read(&self, vcpu_of_frame: usize, offset: u64, width: Width) -> Option<u64> {
        let private = self.private(vcpu_of_frame)?;
        if offset < SGI_BASE {
            return match (offset, width) {
                (TYPER, Width::DoubleWord) => Some(self.redistributor_type(vcpu_of_frame)),
                (TYPER, Width::Word) => Some(self.redistributor_type(vcpu_of_frame) & 0xffff_ffff),
                (TYPER_UPPER, Width::Word) => Some(self.redistributor_type(vcpu_of_frame) >> 32),
                (IIDR, Width::Word) => Some(IMPLEMENTER_ID),
                (WAKER, Width::Word) => Some(u64::from(private.waker.load(Relaxed))),
                (PIDR2, Width::Word) => Some(PERIPHERAL_ID_2),
                // GICR_CTLR and all that belongs to LPIs: zero.
                (_, Width::Word) if offset & 3 == 0 => Some(0),
                // GICR_PROPBASER and GICR_PENDBASER are 64 bits wide, and zero.
                (0x70 | 0x78, Width::DoubleWord) => Some(0),
                (_, Width::Byte | Width::HalfWord | Width::Word | Width::DoubleWord) => None,
            };
        }
        let register = Self::sgi_register(offset, width)?;
        let word = self.word(vcpu_of_frame, 0)?;
        Some(register.map_or(0, |register| word.read(register, width)))
    }

    /// The linked PPIs that a load at `offset` of the redistributor of `vcpu` shows as pending because their lines are
    /// high, active or not: those of `lines`, if they are level-sensitive and the register is GICR_ISPENDR0 or
    /// GICR_ICPENDR0. No line of a linked interrupt is known here otherwise.
    #[must_use]
    pub fn pending_by_line(&self, vcpu: usize, offset: u64, lines: u32) -> u32 {
        let register = Banked::decode(offset.wrapping_sub(SGI_BASE));
        match (register, self.private(vcpu)) {
            (Some(Banked::Bitmap(Bitmap::SetPending | Bitmap::ClearPending, 0)), Some(private)) => {
                lines & private.bank.linked.load(Relaxed) & !private.bank.edge.load(Relaxed)
            }
            (_, _) => 0,
        }
    }

    /// Takes a store at byte `offset` into the pair of frames of the redistributor of `vcpu_of_frame`. Stores to
    /// reserved and read-only registers have no effect. `None` as for a load.
    #[inline]
    pub fn redistributor_write(&self, vcpu_of_frame: usize, offset: u64, width: Width, value: u64) -> Option<Kicks> {
        let private = self.private(vcpu_of_frame)?;
        if offset < SGI_BASE {
            return match (offset, width) {
                (WAKER, Width::Word) => {
                    // The redistributor falls asleep and wakes at once. Interrupts are forwarded in either state: the
                    // software that puts it to sleep masks them itself (IHI0069, "Power management").
                    let sleep = value as u32 & PROCESSOR_SLEEP;
                    private.waker.store(if sleep == 0 { 0 } else { sleep | CHILDREN_ASLEEP }, Relaxed);
                    Some(Kicks::NONE)
                }
                (_, Width::Word) if offset & 3 == 0 => Some(Kicks::NONE),
                (TYPER | 0x70 | 0x78, Width::DoubleWord) => Some(Kicks::NONE),
                (_, Width::Byte | Width::HalfWord | Width::Word | Width::DoubleWord) => None,
            };
        }
        let register = Self::sgi_register(offset, width)?;
        let word = self.word(vcpu_of_frame, 0)?;
        Some(register.map_or(Kicks::NONE, |register| self.write_banked(word, register, width, value as u32)))
    }

    /// The register at `offset` of a redistributor, which lies in SGI_base; `None` inside where it is reserved.
    #[inline]
    fn sgi_register(offset: u64, width: Width) -> Option<Option<Banked>> {
        if offset >= REDISTRIBUTOR_SIZE {
            return None;
        }
        let offset = offset.wrapping_sub(SGI_BASE);
        if !is_word_or_priority(offset, width) {
            return None;
        }
        // Only one word of bitmaps, 32 priorities and two configuration registers exist here.
        Some(Banked::decode(offset).filter(|register| match register {
            Banked::Bitmap(
                Bitmap::Group
                | Bitmap::SetEnable
                | Bitmap::ClearEnable
                | Bitmap::SetPending
                | Bitmap::ClearPending
                | Bitmap::SetActive
                | Bitmap::ClearActive,
                number,
            ) => *number == 0,
            Banked::Priority(intid) => *intid < 32,
            Banked::Configuration(half) => *half < 2,
        }))
    }

    /// GICR_TYPER: affinity, processor number, and whether this is the last redistributor. No LPIs.
    fn redistributor_type(&self, vcpu: usize) -> u64 {
        let last = u64::from(vcpu.wrapping_add(1) == self.vcpus());
        u64::from(Self::affinity_of_vcpu(vcpu)) << 32 | (vcpu as u64) << 8 | last << 4
    }
}
