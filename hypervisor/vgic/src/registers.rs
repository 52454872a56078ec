//! Where the registers are: decoding of offsets, once, for the distributor and the redistributors.

use vdev::Width;

/// A register frame of the interrupt controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The distributor.
    Distributor,
    /// The redistributor of the virtual CPU with this index.
    Redistributor(usize),
}

impl Frame {
    /// The word of 32 interrupts that the bitmap at `offset` speaks of: 0 is the private bank, 1 + n the SPI word n.
    pub(super) const fn word_at(self, offset: u64) -> usize {
        match self {
            Self::Distributor => ((offset & 0x7f) >> 2) as usize,
            Self::Redistributor(_) => 0,
        }
    }
}

/// The size of the distributor's frame in bytes.
pub(super) const DISTRIBUTOR_SIZE: u64 = 0x1_0000;

/// The offset of SGI_base from RD_base in a redistributor's pair of frames, in bytes.
pub(super) const SGI_BASE: u64 = 0x1_0000;

/// GICD_PIDR2 and GICR_PIDR2: architecture revision 3 (GICv3), JEP106 code of Arm (IHI0069, GICD_PIDR2).
pub(super) const PERIPHERAL_ID_2: u64 = 0x3b;

/// GICD_IIDR and GICR_IIDR: product "B" for Bulkhead, implementer Arm (0x43b), as guests look for errata by it.
pub(super) const IMPLEMENTER_ID: u64 = 0x4200_043b;

/// The registers that exist once per word of 32 interrupts, at the same offsets in the distributor and in SGI_base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bitmap {
    /// GICx_IGROUPR
    Group,
    /// GICx_ISENABLER
    SetEnable,
    /// GICx_ICENABLER
    ClearEnable,
    /// GICx_ISPENDR
    SetPending,
    /// GICx_ICPENDR
    ClearPending,
    /// GICx_ISACTIVER
    SetActive,
    /// GICx_ICACTIVER
    ClearActive,
}

/// A register that the distributor and SGI_base have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Banked {
    /// A bitmap of the 32 interrupts of a word.
    Bitmap(Bitmap, usize),
    /// GICx_IPRIORITYR: the priority of the interrupt with this INTID and of those that follow it.
    Priority(u32),
    /// GICx_ICFGR: two bits for each of 16 interrupts, counted in groups of 16.
    Configuration(usize),
}

impl Banked {
    /// Decodes an offset (IHI0069, "The Distributor register map"). The word is the one that the offset names; whether
    /// it exists is the caller's affair.
    #[inline]
    pub(super) const fn decode(offset: u64) -> Option<Self> {
        let word = ((offset & 0x7f) >> 2) as usize;
        let bitmap = match offset >> 7 {
            1 => Bitmap::Group,
            2 => Bitmap::SetEnable,
            3 => Bitmap::ClearEnable,
            4 => Bitmap::SetPending,
            5 => Bitmap::ClearPending,
            6 => Bitmap::SetActive,
            7 => Bitmap::ClearActive,
            8..=15 => return Some(Self::Priority((offset & 0x3ff) as u32)),
            24 | 25 => return Some(Self::Configuration(((offset & 0xff) >> 2) as usize)),
            _ => return None,
        };
        Some(Self::Bitmap(bitmap, word))
    }
}

/// Whether an access of `width` at `offset` is aligned and of a width that some register there allows: words anywhere,
/// bytes for priorities and for the targets of the legacy mode.
#[inline]
pub(super) const fn is_word_or_priority(offset: u64, width: Width) -> bool {
    match width {
        Width::Word => offset & 3 == 0,
        // GICD_IPRIORITYR and GICD_ITARGETSR, GICR_IPRIORITYR.
        Width::Byte => matches!(offset >> 7, 8..=23),
        Width::HalfWord | Width::DoubleWord => false,
    }
}

/// Whether an access at `offset` of `frame` speaks of pending or active states, which list registers may know better
/// than the banks: the caller then runs [`CpuInterface::sync`](super::CpuInterface::sync) first, and kicks the virtual
/// CPUs that [`Vgic::stale`](super::Vgic::stale) names.
#[must_use]
#[inline]
pub const fn needs_sync(frame: Frame, offset: u64) -> bool {
    let offset = match frame {
        Frame::Distributor => offset,
        Frame::Redistributor(_) => offset.wrapping_sub(SGI_BASE),
    };
    matches!(offset >> 7, 4..=7)
}
