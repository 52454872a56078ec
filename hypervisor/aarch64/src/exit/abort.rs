//! Aborts: where the guest touched, how, and why stage 2 or the bus refused.

use super::Syndrome;
use vdev::{Access, GuestAddr, Width};

/// A data abort from EL0 or EL1 (Arm ARM, ESR_EL2, "ISS encoding for an exception from a Data Abort").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataAbort {
    /// The address the guest's own translation gave: the page of HPFAR_EL2, with FAR_EL2's offset into it. The offset
    /// is zero where FAR_EL2 says nothing about it: on a stage-1 table walk, which faults at a descriptor rather than
    /// at the datum, and where FAR_EL2 is not valid (ISS.FnV).
    pub address: GuestAddr,
    /// FAR_EL2: the virtual address of the access. UNKNOWN for an external abort with ISS.FnV.
    pub virtual_address: u64,
    /// Why it was refused.
    pub fault: Fault,
    /// The direction. A cache operation reports [`Access::Write`], whatever it does.
    pub access: Access,
    /// What to emulate, if the instruction has a valid syndrome (ISS.ISV): one general-purpose register, no write-back.
    pub mmio: Option<MmioAccess>,
    /// The fault was on a walk of the guest's own stage-1 tables (ISS.S1PTW).
    pub on_table_walk: bool,
    /// The fault came from a cache maintenance or address translation instruction (ISS.CM).
    pub cache_maintenance: bool,
}

impl DataAbort {
    #[inline(always)]
    pub(super) fn decode(iss: u32, syndrome: &Syndrome) -> Self {
        let bit = |position: u32| iss >> position & 1 != 0;
        let on_table_walk = bit(7);
        let offset_is_known = !on_table_walk && !bit(10);
        Self {
            address: faulting_address(syndrome, offset_is_known),
            virtual_address: syndrome.far,
            fault: Fault::decode(iss),
            access: if bit(6) { Access::Write } else { Access::Read },
            mmio: if bit(24) { Some(MmioAccess::decode(iss)) } else { None },
            on_table_walk,
            cache_maintenance: bit(8),
        }
    }
}

/// An instruction abort from EL0 or EL1 (Arm ARM, ESR_EL2, "ISS encoding for an exception from an Instruction Abort").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstructionAbort {
    /// As [`DataAbort::address`].
    pub address: GuestAddr,
    /// FAR_EL2: the virtual address of the fetch. UNKNOWN for an external abort with ISS.FnV.
    pub virtual_address: u64,
    /// Why it was refused.
    pub fault: Fault,
    /// The fault was on a walk of the guest's own stage-1 tables (ISS.S1PTW).
    pub on_table_walk: bool,
}

impl InstructionAbort {
    #[inline]
    pub(super) fn decode(iss: u32, syndrome: &Syndrome) -> Self {
        let bit = |position: u32| iss >> position & 1 != 0;
        let on_table_walk = bit(7);
        let offset_is_known = !on_table_walk && !bit(10);
        Self {
            address: faulting_address(syndrome, offset_is_known),
            virtual_address: syndrome.far,
            fault: Fault::decode(iss),
            on_table_walk,
        }
    }
}

/// The intermediate physical address of an abort.
#[inline]
fn faulting_address(syndrome: &Syndrome, offset_is_known: bool) -> GuestAddr {
    // HPFAR_EL2.FIPA, bits 43:4, is IPA bits 51:12; bit 63 (NS) is no part of the address.
    let page = (syndrome.hpfar & 0x0fff_ffff_fff0) << 8;
    // HPFAR_EL2 has no page offset; FAR_EL2 supplies bits 11:0.
    let offset = if offset_is_known { syndrome.far & 0xfff } else { 0 };
    GuestAddr(page | offset)
}

/// Why an access was refused: the status code of ISS bits 5:0 (DFSC, IFSC) without its level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is mapped at the address.
    Translation,
    /// Something is mapped, but not for this kind of access.
    Permission,
    /// The mapping's access flag is clear.
    AccessFlag,
    /// The address is wider than the mapping regime's.
    AddressSize,
    /// The bus answered with an error, on the access or on the table walk before it.
    External,
    /// Another status code, 6 bits: alignment, parity, TLB conflict, unsupported atomic.
    Other(u8),
}

impl Fault {
    /// Arm ARM, ESR_EL2, table of DFSC. Level -1 exists with 52-bit addresses only; it is decoded all the same.
    #[inline]
    fn decode(iss: u32) -> Self {
        match (iss & 0x3f) as u8 {
            0x00..=0x03 | 0x29 => Self::AddressSize,
            0x04..=0x07 | 0x2b => Self::Translation,
            0x08..=0x0b => Self::AccessFlag,
            0x0c..=0x0f => Self::Permission,
            0x10 | 0x13..=0x17 => Self::External,
            other => Self::Other(other),
        }
    }
}

/// The register transfer of a load or store that a device model can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmioAccess {
    /// How much is transferred (ISS.SAS).
    pub width: Width,
    /// The general-purpose register (ISS.SRT), 0 to 31; 31 is XZR.
    pub transfer: u8,
    /// A load extends the sign (ISS.SSE).
    pub sign_extend: bool,
    /// A load fills 64 bits of the register rather than 32 (ISS.SF).
    pub to_64_bits: bool,
}

impl MmioAccess {
    #[inline(always)]
    fn decode(iss: u32) -> Self {
        let width = match iss >> 22 & 3 {
            0 => Width::Byte,
            1 => Width::HalfWord,
            2 => Width::Word,
            _ => Width::DoubleWord,
        };
        Self {
            width,
            transfer: (iss >> 16 & 0x1f) as u8,
            sign_extend: iss >> 21 & 1 != 0,
            to_64_bits: iss >> 15 & 1 != 0,
        }
    }

    /// What a load of `value` leaves in the 64-bit register: cut to the width, sign-extended if the instruction asks
    /// for it, and with the upper half cleared if it names a W register.
    #[inline]
    #[must_use]
    pub fn extend(&self, value: u64) -> u64 {
        let extended = match (self.sign_extend, self.width) {
            // `as` between integer types of different size is the sign extension itself.
            (true, Width::Byte) => value as i8 as u64,
            (true, Width::HalfWord) => value as i16 as u64,
            (true, Width::Word) => value as i32 as u64,
            (true, Width::DoubleWord) => value,
            (false, width) => value & width.mask(),
        };
        if self.to_64_bits { extended } else { extended & 0xffff_ffff }
    }

    /// What a store of the 64-bit register `value` puts on the bus: `value` cut to the width.
    #[inline]
    #[must_use]
    pub fn cut(&self, value: u64) -> u64 {
        value & self.width.mask()
    }
}

/// A load or store that a device model can answer, straight from the syndrome: a translation fault of the access
/// itself, with a valid syndrome. Nearly every access to a device is one, so this is what the exit path looks for
/// first.
///
/// [`decode`](super::decode) tells the rest: why an access is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceAccess(u32);

impl DeviceAccess {
    /// EC; and of the ISS: ISV, FnV, CM, S1PTW, and DFSC but for the level.
    const MASK: u64 = 0x3f << 26 | 1 << 24 | 1 << 10 | 1 << 8 | 1 << 7 | 0x3c;
    /// A data abort from a lower exception level; ISV; a translation fault.
    const VALUE: u64 = 0x24 << 26 | 1 << 24 | 0x04;

    /// The access behind `esr`, if it is one.
    #[inline(always)]
    #[must_use]
    pub const fn of(esr: u64) -> Option<Self> {
        if esr & Self::MASK == Self::VALUE { Some(Self(esr as u32)) } else { None }
    }

    /// The access behind `esr`, if it is one that loads a word without extending its sign: what it loads is the
    /// register's new value, upper half clear, whatever ISS.SF says.
    #[inline(always)]
    #[must_use]
    pub const fn word_load_of(esr: u64) -> Option<Self> {
        // SAS, SSE, WnR.
        const FORM: u64 = 0b11 << 22 | 1 << 21 | 1 << 6;
        if esr & (Self::MASK | FORM) == Self::VALUE | 0b10 << 22 { Some(Self(esr as u32)) } else { None }
    }

    /// The access behind `esr`, if it is a store to a page that may only be read: a permission fault. HPFAR_EL2 does
    /// not hold its address.
    #[inline(always)]
    #[must_use]
    pub const fn permission_store_of(esr: u64) -> Option<Self> {
        const VALUE: u64 = 0x24 << 26 | 1 << 24 | 1 << 6 | 0x0c;
        if esr & (Self::MASK | 1 << 6) == VALUE { Some(Self(esr as u32)) } else { None }
    }

    /// Whether `esr` and FAR_EL2 are those of an access to a place without memory, or of a store to a page that may
    /// only be read, that only its instruction can tell all about: the syndrome does not say what is transferred, or
    /// the access is not aligned.
    #[inline(always)]
    #[must_use]
    pub const fn needs_instruction(esr: u64, far: u64) -> bool {
        const SYNDROME_MASK: u64 = DeviceAccess::MASK & !(1 << 24);
        let is_aligned = far & (1_u64 << (esr >> 22 & 3)).wrapping_sub(1) == 0;
        if esr & 1 << 24 != 0 && is_aligned {
            return false;
        }
        let syndrome = esr & (SYNDROME_MASK | 1 << 6);
        syndrome & !(1 << 6) == 0x24 << 26 | 0x04 || syndrome == 0x24 << 26 | 1 << 6 | 0x0c
    }

    /// The direction of such an access.
    #[must_use]
    pub const fn direction_of(esr: u64) -> Access {
        Self(esr as u32).direction()
    }

    /// What ESR_EL2 would be, had `transfer` been all of the access behind `esr`, which [needs its
    /// instruction](Self::needs_instruction).
    #[must_use]
    pub const fn syndrome_of(transfer: MmioAccess, esr: u64) -> u64 {
        let MmioAccess { width, transfer, sign_extend, to_64_bits } = transfer;
        let iss = (width.bytes().trailing_zeros() as u64) << 22
            | (sign_extend as u64) << 21
            | (transfer as u64) << 16
            | (to_64_bits as u64) << 15;
        // EC, IL, WnR, DFSC.
        esr & (0x7f << 25 | 1 << 6 | 0x3f) | 1 << 24 | iss
    }

    /// The register that is loaded or stored (ISS.SRT), 0 to 31; 31 is XZR.
    #[inline(always)]
    #[must_use]
    pub const fn register(self) -> u8 {
        (self.0 >> 16 & 0x1f) as u8
    }

    /// The address, from FAR_EL2 and HPFAR_EL2, if it is a multiple of the access's width.
    #[inline(always)]
    #[must_use]
    pub const fn address(self, far: u64, hpfar: u64) -> Option<GuestAddr> {
        // HPFAR_EL2 has no page offset; FAR_EL2 supplies bits 11:0.
        let address = (hpfar & 0x0000_0fff_ffff_fff0) << 8 | far & 0xfff;
        let bytes = 1u64 << (self.0 >> 22 & 3);
        if address & bytes.wrapping_sub(1) == 0 { Some(GuestAddr(address)) } else { None }
    }

    /// The direction.
    #[inline(always)]
    #[must_use]
    pub const fn direction(self) -> Access {
        if self.0 & 1 << 6 != 0 { Access::Write } else { Access::Read }
    }

    /// The register transfer.
    #[inline(always)]
    #[must_use]
    pub fn transfer(self) -> MmioAccess {
        MmioAccess::decode(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::{DataAbort, DeviceAccess, Fault, MmioAccess};
    use crate::exit::{Exit, Syndrome, decode};
    use vdev::{Access, GuestAddr, Width};

    const ISV: u64 = 1 << 24;
    const SF: u64 = 1 << 15;
    const FNV: u64 = 1 << 10;
    const CM: u64 = 1 << 8;
    const S1PTW: u64 = 1 << 7;
    const WNR: u64 = 1 << 6;
    const TRANSLATION_LEVEL_3: u64 = 0x07;

    fn data_abort(iss: u64) -> DataAbort {
        // A UART register, as Linux reaches it: some kernel address, page 0x0900_0, offset 0x018.
        let syndrome = Syndrome { esr: 0x24 << 26 | 1 << 25 | iss, far: 0xffff_8000_0a00_0018, hpfar: 0x9_0000 };
        let Exit::DataAbort(abort) = decode(&syndrome) else { panic!("EC 0x24 is a data abort") };
        abort
    }

    #[test]
    fn device_access_is_what_the_full_decoding_says_it_is() {
        let (far, hpfar) = (0xffff_8000_0a00_0018, 0x9_0000);
        for iss in
            [ISV | 2 << 22 | 3 << 16, ISV | WNR | 31 << 16, ISV | 1 << 22 | SF | 1 << 21, ISV | 3 << 22 | SF | WNR]
        {
            let iss = iss | TRANSLATION_LEVEL_3;
            let full = data_abort(iss);
            let access = DeviceAccess::of(0x24 << 26 | 1 << 25 | iss).expect("a plain access");
            assert_eq!(access.address(far, hpfar), Some(full.address));
            assert_eq!(access.direction(), full.access);
            assert_eq!(Some(access.transfer()), full.mmio);
            assert_eq!(Some(access.register()), full.mmio.map(|mmio| mmio.transfer));
            let is_word_load = full.access == Access::Read
                && full.mmio.is_some_and(|mmio| mmio.width == Width::Word && !mmio.sign_extend);
            assert_eq!(DeviceAccess::word_load_of(0x24 << 26 | 1 << 25 | iss).is_some(), is_word_load);
        }
    }

    #[test]
    fn what_is_not_plain_is_no_device_access() {
        let esr = 0x24 << 26 | 1 << 25 | ISV | 2 << 22 | TRANSLATION_LEVEL_3;
        assert!(DeviceAccess::of(esr).is_some());
        // No syndrome, a table walk, cache maintenance, no address, a permission fault, an abort from EL2 itself.
        for other in [esr & !ISV, esr | S1PTW, esr | CM, esr | FNV, esr | 0x08, esr | 1 << 26] {
            assert_eq!(DeviceAccess::of(other), None, "{other:#x}");
        }
        let misaligned = DeviceAccess::of(esr).expect("a word");
        assert_eq!(misaligned.address(0x1002, 0x9_0000), None);
    }

    #[test]
    fn word_load_from_a_device_names_address_register_and_width() {
        let abort = data_abort(ISV | 2 << 22 | 3 << 16 | TRANSLATION_LEVEL_3);
        assert_eq!(abort.address, GuestAddr(0x0900_0018));
        assert_eq!(abort.virtual_address, 0xffff_8000_0a00_0018);
        assert_eq!(abort.fault, Fault::Translation);
        assert_eq!(abort.access, Access::Read);
        assert!(!abort.on_table_walk && !abort.cache_maintenance);
        let mmio = MmioAccess { width: Width::Word, transfer: 3, sign_extend: false, to_64_bits: false };
        assert_eq!(abort.mmio, Some(mmio));
    }

    #[test]
    fn store_of_the_zero_register_names_register_31() {
        let abort = data_abort(ISV | SF | 3 << 22 | 31 << 16 | WNR | TRANSLATION_LEVEL_3);
        assert_eq!(abort.access, Access::Write);
        let mmio = MmioAccess { width: Width::DoubleWord, transfer: 31, sign_extend: false, to_64_bits: true };
        assert_eq!(abort.mmio, Some(mmio));
    }

    #[test]
    fn pair_store_has_nothing_to_emulate() {
        // ISV is clear, so the rest of the syndrome is noise.
        assert_eq!(data_abort(3 << 22 | 7 << 16 | WNR | TRANSLATION_LEVEL_3).mmio, None);
    }

    #[test]
    fn cache_operation_is_marked() {
        assert!(data_abort(CM | WNR | TRANSLATION_LEVEL_3).cache_maintenance);
    }

    #[test]
    fn fault_on_a_table_walk_does_not_borrow_the_offset_of_the_datum() {
        let abort = data_abort(S1PTW | TRANSLATION_LEVEL_3);
        assert!(abort.on_table_walk);
        assert_eq!(abort.address, GuestAddr(0x0900_0000));
    }

    #[test]
    fn offset_is_not_taken_from_an_invalid_far() {
        let abort = data_abort(FNV | 0x10);
        assert_eq!(abort.fault, Fault::External);
        assert_eq!(abort.address, GuestAddr(0x0900_0000));
    }

    #[test]
    fn highest_address_survives_and_the_security_bit_does_not_leak_into_it() {
        let syndrome = Syndrome { esr: 0x24 << 26, far: 0xfff, hpfar: u64::MAX };
        let Exit::DataAbort(abort) = decode(&syndrome) else { panic!("EC 0x24 is a data abort") };
        assert_eq!(abort.address, GuestAddr(0x000f_ffff_ffff_ffff));
    }

    #[test]
    fn instruction_fetch_outside_memory_names_the_address() {
        let syndrome = Syndrome { esr: 0x20 << 26 | 1 << 25 | 0x06, far: 0x1234, hpfar: 0x10 };
        let Exit::InstructionAbort(abort) = decode(&syndrome) else { panic!("EC 0x20 is an instruction abort") };
        assert_eq!(abort.address, GuestAddr(0x1234));
        assert_eq!(abort.fault, Fault::Translation);
        assert!(!abort.on_table_walk);
    }

    #[test]
    fn status_codes_map_to_their_kinds_at_every_level() {
        for level in 0..4 {
            assert_eq!(data_abort(level).fault, Fault::AddressSize);
            assert_eq!(data_abort(0x04 | level).fault, Fault::Translation);
            assert_eq!(data_abort(0x08 | level).fault, Fault::AccessFlag);
            assert_eq!(data_abort(0x0c | level).fault, Fault::Permission);
            assert_eq!(data_abort(0x14 | level).fault, Fault::External);
        }
        assert_eq!(data_abort(0x21).fault, Fault::Other(0x21));
        assert_eq!(data_abort(0x35).fault, Fault::Other(0x35));
    }

    #[test]
    fn instruction_is_asked_for_where_the_syndrome_leaves_something_open() {
        let needs = |iss: u64, far| DeviceAccess::needs_instruction(0x24 << 26 | 1 << 25 | iss, far);
        let word = ISV | 2 << 22;
        assert!(needs(TRANSLATION_LEVEL_3, 0x100) && needs(WNR | TRANSLATION_LEVEL_3, 0x101));
        assert!(needs(WNR | 0x0f, 0x100), "a store to a page that may only be read");
        assert!(needs(word | TRANSLATION_LEVEL_3, 0x102) && needs(word | WNR | 0x0f, 0x101), "not aligned");
        assert!(!needs(word | TRANSLATION_LEVEL_3, 0x104) && !needs(word | WNR | 0x0f, 0x104), "all is said");
        for other in [0x0f, 0x03, WNR | 0x0b, WNR | 0x10, WNR | 0x21, S1PTW | TRANSLATION_LEVEL_3, CM | WNR | 0x07] {
            assert!(!needs(other, 0x100) && !needs(word | other, 0x101), "{other:#x}");
        }
        assert!(!DeviceAccess::needs_instruction(0x25 << 26 | TRANSLATION_LEVEL_3, 0), "EL2's own");
        assert!(!DeviceAccess::needs_instruction(0x20 << 26 | TRANSLATION_LEVEL_3, 0), "a fetch");
    }

    #[test]
    fn syndrome_that_is_made_up_says_what_it_was_made_of() {
        for (width, direction, fault) in
            [(Width::Byte, 0, TRANSLATION_LEVEL_3), (Width::HalfWord, WNR, 0x06), (Width::DoubleWord, WNR, 0x0f)]
        {
            for (sign_extend, to_64_bits) in [(false, false), (true, false), (true, true)] {
                let transfer = MmioAccess { width, transfer: 30, sign_extend, to_64_bits };
                // What the syndrome without ISV has elsewhere says nothing.
                let esr = 0x24 << 26 | 1 << 25 | direction | fault | 0x003f_8000;
                let made = DeviceAccess::syndrome_of(transfer, esr);
                assert!(!DeviceAccess::needs_instruction(made, 0));
                let abort = data_abort(made & 0x01ff_ffff);
                assert_eq!((abort.mmio, abort.access), (Some(transfer), data_abort(esr & 0x1ff_ffff).access));
                let access = DeviceAccess::of(made).or(DeviceAccess::permission_store_of(made));
                assert_eq!(access.map(DeviceAccess::transfer), Some(transfer));
            }
        }
    }

    #[test]
    fn loads_extend_as_the_instruction_asks() {
        let load = |width, sign_extend, to_64_bits| MmioAccess { width, transfer: 0, sign_extend, to_64_bits };
        // LDRB, LDRSB to W, LDRSB to X.
        assert_eq!(load(Width::Byte, false, false).extend(0xffff_ff80), 0x80);
        assert_eq!(load(Width::Byte, true, false).extend(0x80), 0xffff_ff80);
        assert_eq!(load(Width::Byte, true, true).extend(0x80), 0xffff_ffff_ffff_ff80);
        assert_eq!(load(Width::HalfWord, true, true).extend(0x7fff), 0x7fff);
        assert_eq!(load(Width::HalfWord, true, false).extend(0x8000), 0xffff_8000);
        // LDRSW always fills an X register.
        assert_eq!(load(Width::Word, true, true).extend(0x8000_0000), 0xffff_ffff_8000_0000);
        assert_eq!(load(Width::Word, false, false).extend(u64::MAX), 0xffff_ffff);
        assert_eq!(load(Width::DoubleWord, false, true).extend(u64::MAX), u64::MAX);
    }

    #[test]
    fn stores_put_only_their_width_on_the_bus() {
        let store = MmioAccess { width: Width::HalfWord, transfer: 0, sign_extend: false, to_64_bits: false };
        assert_eq!(store.cut(0x1234_5678), 0x5678);
    }
}
