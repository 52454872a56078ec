//! Leaf attributes: how a block or page may be accessed.

/// MAIR_EL2, as the `HYP_*` attributes index it: 0 is Device-nGnRE, 1 Normal write-back, 2 Normal non-cacheable (Arm
/// ARM, MAIR_EL2). The other five stay Device-nGnRnE, the strictest.
pub const MAIR_EL2: u64 = 0x0044_ff04;

/// The upper and lower attribute bits of a block or page descriptor, Arm ARM D8.3.
///
/// The `GUEST_*` ones are for stage 2, the `HYP_*` ones for the stage 1 of EL2 without VHE; the two formats differ, and
/// one is never valid in place of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes(u64);

/// The access flag, in both formats: clear, the first access would fault.
const ACCESS_FLAG: u64 = 1 << 10;
/// SH, both formats: inner shareable, the domain of all cores.
const INNER_SHAREABLE: u64 = 3 << 8;
/// Bit 54: XN of EL2's stage 1; XN\[1\] of stage 2, which alone forbids EL0 and EL1 alike.
const EXECUTE_NEVER: u64 = 1 << 54;

/// Stage 2, MemAttr\[3:0\] (HCR_EL2.FWB is 0): Device-nGnRE; Normal, outer and inner write-back.
const STAGE2_DEVICE: u64 = 0b0001 << 2;
const STAGE2_WRITE_BACK: u64 = 0b1111 << 2;
/// Stage 2, S2AP\[1:0\].
const STAGE2_READ: u64 = 0b01 << 6;
const STAGE2_READ_WRITE: u64 = 0b11 << 6;

/// EL2 stage 1, AttrIndx\[2:0\] into [`MAIR_EL2`].
const HYP_INDEX_DEVICE: u64 = 0 << 2;
const HYP_INDEX_WRITE_BACK: u64 = 1 << 2;
const HYP_INDEX_NON_CACHEABLE: u64 = 2 << 2;
/// EL2 stage 1: AP\[1\] is RES1 in a regime with one exception level; AP\[2\] makes it read-only.
const HYP_READ_WRITE: u64 = 0b01 << 6;
const HYP_READ: u64 = 0b11 << 6;

/// Everything in a leaf that is neither address nor type: bits 11:2 and 63:50.
const ATTRIBUTE_BITS: u64 = 0xfffc_0000_0000_0ffc;

impl Attributes {
    /// Guest RAM: cacheable, read, write and execute. The guest's own stage 1 restricts it further.
    pub const GUEST_MEMORY: Self = Self(ACCESS_FLAG | INNER_SHAREABLE | STAGE2_WRITE_BACK | STAGE2_READ_WRITE);
    /// Guest memory that only Bulkhead writes; the guest may execute it.
    pub const GUEST_MEMORY_READ_ONLY: Self = Self(ACCESS_FLAG | INNER_SHAREABLE | STAGE2_WRITE_BACK | STAGE2_READ);
    /// Registers of an assigned device: read and write, never executed. Device memory is outer shareable whatever SH
    /// says.
    pub const GUEST_DEVICE: Self = Self(ACCESS_FLAG | STAGE2_DEVICE | STAGE2_READ_WRITE | EXECUTE_NEVER);
    /// Registers of a virtual device that can be read without an exit: never written or executed.
    pub const GUEST_DEVICE_READ_ONLY: Self = Self(ACCESS_FLAG | STAGE2_DEVICE | STAGE2_READ | EXECUTE_NEVER);

    /// Bulkhead's code: read and execute.
    pub const HYP_CODE: Self = Self(ACCESS_FLAG | INNER_SHAREABLE | HYP_INDEX_WRITE_BACK | HYP_READ);
    /// Bulkhead's constants: read.
    pub const HYP_READ_ONLY: Self = Self(Self::HYP_CODE.0 | EXECUTE_NEVER);
    /// Bulkhead's data, and the memory it copies from and to: read and write.
    pub const HYP_DATA: Self =
        Self(ACCESS_FLAG | INNER_SHAREABLE | HYP_INDEX_WRITE_BACK | HYP_READ_WRITE | EXECUTE_NEVER);
    /// Memory shared with an observer that does not look into the caches: read and write, non-cacheable.
    pub const HYP_NON_CACHEABLE: Self =
        Self(ACCESS_FLAG | INNER_SHAREABLE | HYP_INDEX_NON_CACHEABLE | HYP_READ_WRITE | EXECUTE_NEVER);
    /// Device registers: read and write.
    pub const HYP_DEVICE: Self = Self(ACCESS_FLAG | HYP_INDEX_DEVICE | HYP_READ_WRITE | EXECUTE_NEVER);

    /// The bits as a descriptor holds them, address and type left out.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The attributes of a valid block or page descriptor.
    pub(super) const fn from_descriptor(descriptor: u64) -> Self {
        Self(descriptor & ATTRIBUTE_BITS)
    }
}

#[cfg(test)]
mod tests {
    use super::{ATTRIBUTE_BITS, Attributes, EXECUTE_NEVER, HYP_READ, MAIR_EL2};

    const ALL: [Attributes; 9] = [
        Attributes::GUEST_MEMORY,
        Attributes::GUEST_MEMORY_READ_ONLY,
        Attributes::GUEST_DEVICE,
        Attributes::GUEST_DEVICE_READ_ONLY,
        Attributes::HYP_CODE,
        Attributes::HYP_READ_ONLY,
        Attributes::HYP_DATA,
        Attributes::HYP_NON_CACHEABLE,
        Attributes::HYP_DEVICE,
    ];

    #[test]
    fn no_attribute_reaches_into_the_address_or_the_type() {
        for attributes in ALL {
            assert_eq!(attributes.bits() & !ATTRIBUTE_BITS, 0, "{attributes:?}");
        }
    }

    #[test]
    fn nothing_of_the_hypervisor_is_both_writable_and_executable() {
        for attributes in &ALL[4..] {
            let writable = attributes.bits() & (3 << 6) != HYP_READ;
            let executable = attributes.bits() & EXECUTE_NEVER == 0;
            assert!(!(writable && executable), "{attributes:?}");
        }
    }

    #[test]
    fn walker_reads_the_encodings_of_the_manual() {
        // Normal write-back, S2AP 11, inner shareable, AF.
        assert_eq!(Attributes::GUEST_MEMORY.bits(), 0x7fc);
        assert_eq!(Attributes::GUEST_MEMORY_READ_ONLY.bits(), 0x77c);
        assert_eq!(Attributes::GUEST_DEVICE.bits(), 0x0040_0000_0000_04c4);
        assert_eq!(Attributes::GUEST_DEVICE_READ_ONLY.bits(), 0x0040_0000_0000_0444);
        assert_eq!(Attributes::HYP_CODE.bits(), 0x7c4);
        assert_eq!(Attributes::HYP_DATA.bits(), 0x0040_0000_0000_0744);
        assert_eq!(Attributes::HYP_DEVICE.bits(), 0x0040_0000_0000_0440);
    }

    #[test]
    fn memory_types_index_the_register_that_defines_them() {
        let kind = |attributes: Attributes| MAIR_EL2 >> ((attributes.bits() >> 2 & 7) * 8) & 0xff;
        assert_eq!(kind(Attributes::HYP_DATA), 0xff);
        assert_eq!(kind(Attributes::HYP_CODE), 0xff);
        assert_eq!(kind(Attributes::HYP_DEVICE), 0x04);
        assert_eq!(kind(Attributes::HYP_NON_CACHEABLE), 0x44);
    }
}
