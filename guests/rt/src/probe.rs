//! Accesses that may fault: each gives the exception back as a value.
//!
//! All of these are safe functions, although they can touch any address. Reads cannot break Rust's rules: they are
//! volatile, and a value is just bits. Writes could, if they hit this guest's own RAM; [`write()`] and the other
//! storing probes therefore refuse an address in RAM with a panic. What lies outside is contained by the machine: under
//! Bulkhead stage 2 decides, natively the board belongs to the guest.
//!
//! While a probe runs, this CPU's block names the instruction behind it; the synchronous vector records ESR, FAR and
//! ELR and goes on there. A fault in an interrupt handler that interrupts a probe would be taken for the probe's:
//! handlers must not fault.

pub mod instruction;

use crate::machine::machine;
use crate::mmu;
use crate::per_cpu;
use core::fmt;

/// A synchronous exception that a probe met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Abort {
    /// ESR_EL1.
    pub syndrome: u64,
    /// FAR_EL1: meaningful for aborts only.
    pub address: u64,
    /// ELR_EL1: the instruction that faulted.
    pub pc: u64,
}

impl Abort {
    /// The exception class (ESR_EL1.EC, Arm ARM D17.2.37).
    #[must_use]
    pub const fn class(&self) -> u64 {
        self.syndrome >> 26 & 0x3f
    }

    /// The fault status code (ESR_EL1.ISS.DFSC or IFSC).
    #[must_use]
    pub const fn status(&self) -> u64 {
        self.syndrome & 0x3f
    }

    /// A data or instruction abort taken from EL1 itself.
    #[must_use]
    pub const fn is_abort(&self) -> bool {
        matches!(self.class(), 0x21 | 0x25)
    }

    /// A synchronous external abort, not on a table walk.
    #[must_use]
    pub const fn is_external(&self) -> bool {
        self.is_abort() && self.status() == 0x10
    }

    /// A synchronous external abort, on a table walk.
    #[must_use]
    pub const fn is_external_on_walk(&self) -> bool {
        self.is_abort() && matches!(self.status(), 0x13..=0x17)
    }

    /// An alignment fault, which stage 1 raises before anybody else sees the access.
    #[must_use]
    pub const fn is_alignment(&self) -> bool {
        self.is_abort() && self.status() == 0x21
    }

    /// An undefined instruction (class 0), or a trapped one that EL1 is told about in its own class (0x18).
    #[must_use]
    pub const fn is_undefined(&self) -> bool {
        self.class() == 0
    }

    /// Whether the faulting access was a write (ISS.WnR; data aborts only).
    #[must_use]
    pub const fn is_write(&self) -> bool {
        self.syndrome & 1 << 6 != 0
    }
}

impl fmt::Display for Abort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { syndrome, address, pc } = self;
        write!(formatter, "exception: ESR {syndrome:#x} FAR {address:#x} PC {pc:#x}")
    }
}

/// Runs instructions of which one may fault; `Err` if it did. Operands follow the semicolon.
macro_rules! probe {
    ($($instruction:expr),+ ; $($operands:tt)*) => {{
        let cpu = $crate::per_cpu::current();
        // SAFETY: `syndrome` belongs to this CPU; the vector may write it only while the probe below runs.
        unsafe { cpu.syndrome.get().write_volatile(0) };
        // SAFETY: the vector resumes at the label behind the instructions and keeps every register, so the block has
        // one entry and one exit. What the instructions do is the caller's business, as the module documentation says.
        unsafe {
            core::arch::asm!(
                "adr {probe_scratch}, 771f",
                "str {probe_scratch}, [{probe_resume}]",
                $($instruction,)+
                "771: str xzr, [{probe_resume}]",
                probe_resume = in(reg) cpu.resume.get(),
                // Not `lateout`, here and in every caller: nothing may share a register with `probe_resume`.
                probe_scratch = out(reg) _,
                $($operands)*
            );
        }
        $crate::probe::outcome(cpu)
    }};
}
pub(crate) use probe;

#[inline]
pub(crate) fn outcome(cpu: &per_cpu::Block) -> Result<(), Abort> {
    // SAFETY: as in `probe!`: the cells belong to this CPU, and the probe is over.
    let (syndrome, address, pc) = unsafe {
        (
            cpu.syndrome.get().read_volatile(),
            cpu.fault_address.get().read_volatile(),
            cpu.fault_pc.get().read_volatile(),
        )
    };
    if syndrome == 0 { Ok(()) } else { Err(Abort { syndrome, address, pc }) }
}

/// The width of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    HalfWord,
    /// 32 bits.
    Word,
    /// 64 bits.
    DoubleWord,
}

impl Width {
    /// All four.
    pub const ALL: [Self; 4] = [Self::Byte, Self::HalfWord, Self::Word, Self::DoubleWord];

    /// The width in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Byte => 1,
            Self::HalfWord => 2,
            Self::Word => 4,
            Self::DoubleWord => 8,
        }
    }
}

/// Refuses to let a safe function store into the guest's own RAM.
#[inline]
fn refuse_memory(address: u64, bytes: u64) {
    let physical = [mmu::ALIAS_BASE, mmu::USER_ALIAS_BASE]
        .into_iter()
        .filter_map(|base| address.checked_sub(base))
        .find(|offset| *offset < mmu::ALIAS_BYTES)
        .unwrap_or(address);
    assert!(machine().memory_at(physical, bytes).is_none(), "a probe must not write to this guest's own memory");
}

/// Loads once from `address`, by a load that carries a full syndrome.
///
/// # Errors
/// The exception, if the load met one.
#[inline]
pub fn read(address: u64, width: Width) -> Result<u64, Abort> {
    let value: u64;
    match width {
        Width::Byte => probe!("ldrb {value:w}, [{address}]"; address = in(reg) address, value = out(reg) value)?,
        Width::HalfWord => probe!("ldrh {value:w}, [{address}]"; address = in(reg) address, value = out(reg) value)?,
        Width::Word => probe!("ldr {value:w}, [{address}]"; address = in(reg) address, value = out(reg) value)?,
        Width::DoubleWord => probe!("ldr {value}, [{address}]"; address = in(reg) address, value = out(reg) value)?,
    }
    Ok(value)
}

/// Stores once to `address`, by a store that carries a full syndrome.
///
/// # Errors
/// The exception, if the store met one.
///
/// # Panics
/// If the address is in this guest's own RAM.
#[inline]
pub fn write(address: u64, width: Width, value: u64) -> Result<(), Abort> {
    refuse_memory(address, width.bytes());
    match width {
        Width::Byte => probe!("strb {value:w}, [{address}]"; address = in(reg) address, value = in(reg) value),
        Width::HalfWord => probe!("strh {value:w}, [{address}]"; address = in(reg) address, value = in(reg) value),
        Width::Word => probe!("str {value:w}, [{address}]"; address = in(reg) address, value = in(reg) value),
        Width::DoubleWord => probe!("str {value}, [{address}]"; address = in(reg) address, value = in(reg) value),
    }
}

/// A 32-bit [`read()`].
///
/// # Errors
/// The exception, if the load met one.
#[inline]
pub fn try_read32(address: u64) -> Result<u32, Abort> {
    read(address, Width::Word).map(|value| value as u32)
}

/// A 32-bit [`write()`].
///
/// # Errors
/// The exception, if the store met one.
///
/// # Panics
/// If the address is in this guest's own RAM.
#[inline]
pub fn try_write32(address: u64, value: u32) -> Result<(), Abort> {
    write(address, Width::Word, u64::from(value))
}

/// An access whose syndrome does not say which register it transfers (Arm ARM: ESR_EL2.ISS.ISV is 0), or that is no
/// data access at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OddAccess {
    /// `LDP` of two words.
    LoadPair,
    /// `STP` of two zero words.
    StorePair,
    /// `LDR` with post-index write-back.
    LoadPostIndex,
    /// `STR` with post-index write-back.
    StorePostIndex,
    /// `LDR` with pre-index write-back.
    LoadPreIndex,
    /// `LDXR`.
    LoadExclusive,
    /// `LDXR` then `STXR` of what was read.
    StoreExclusive,
    /// `LDXP`.
    LoadExclusivePair,
    /// `LDADD` (LSE): undefined where the CPU has none.
    AtomicAdd,
    /// `CAS` (LSE): undefined where the CPU has none.
    CompareAndSwap,
    /// `DC ZVA`.
    ZeroBlock,
    /// `DC CVAC`.
    CleanLine,
    /// `DC IVAC`.
    InvalidateLine,
    /// `DC CIVAC`.
    CleanAndInvalidateLine,
    /// `IC IVAU`.
    InvalidateInstructions,
    /// `PRFM PLDL1KEEP`: a hint, which never faults.
    Prefetch,
    /// `AT S1E1R`: translates by stage 1 only.
    Translate,
    /// `LDR` of an address that is not a multiple of four.
    Misaligned,
    /// A call of the address.
    Execute,
}

impl OddAccess {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::LoadPair,
        Self::StorePair,
        Self::LoadPostIndex,
        Self::StorePostIndex,
        Self::LoadPreIndex,
        Self::LoadExclusive,
        Self::StoreExclusive,
        Self::LoadExclusivePair,
        Self::AtomicAdd,
        Self::CompareAndSwap,
        Self::ZeroBlock,
        Self::CleanLine,
        Self::InvalidateLine,
        Self::CleanAndInvalidateLine,
        Self::InvalidateInstructions,
        Self::Prefetch,
        Self::Translate,
        Self::Misaligned,
        Self::Execute,
    ];

    /// Whether the access is one that a hypervisor can only refuse: its syndrome does not say what it transfers, and
    /// its effect is more than that of loads and stores.
    #[must_use]
    pub const fn is_exclusive(self) -> bool {
        matches!(self, Self::LoadExclusive | Self::StoreExclusive | Self::LoadExclusivePair)
    }

    /// Does what the access does in plain loads and stores, if that can be: what it adds to its address register.
    ///
    /// # Errors
    /// The exception, if one of them met one.
    #[must_use]
    pub fn plain(self, address: u64) -> Option<Result<u64, Abort>> {
        let load = |place| read(place, Width::Word).map(|_| ());
        let store = |place| write(place, Width::Word, 0);
        let (result, write_back) = match self {
            Self::LoadPair => (load(address).and_then(|()| load(address + 4)), 0),
            Self::StorePair => (store(address).and_then(|()| store(address + 4)), 0),
            Self::LoadPostIndex => (load(address), 8),
            Self::StorePostIndex => (store(address), 8),
            Self::LoadPreIndex => (load(address + 8), 8),
            Self::LoadExclusive
            | Self::StoreExclusive
            | Self::LoadExclusivePair
            | Self::AtomicAdd
            | Self::CompareAndSwap
            | Self::ZeroBlock
            | Self::CleanLine
            | Self::InvalidateLine
            | Self::CleanAndInvalidateLine
            | Self::InvalidateInstructions
            | Self::Prefetch
            | Self::Translate
            | Self::Misaligned
            | Self::Execute => return None,
        };
        Some(result.map(|()| write_back))
    }
}

/// What became of an [`OddAccess`].
#[derive(Clone, Copy, Debug)]
pub struct OddOutcome {
    /// The exception, if the access met one.
    pub result: Result<(), Abort>,
    /// The address register afterwards, less the address: what write-back added. A refused access adds nothing.
    pub write_back: u64,
}

/// Does one [`OddAccess`] to `address`, a multiple of 64.
///
/// # Panics
/// If the address is in this guest's own RAM.
#[must_use]
pub fn odd(access: OddAccess, address: u64) -> OddOutcome {
    refuse_memory(address, 2048);
    let mut base = address;
    macro_rules! go {
        ($($instruction:literal),+) => {
            probe!($($instruction),+; base = inout(reg) base, out("x9") _, out("x10") _)
        };
    }
    let result = match access {
        OddAccess::LoadPair => go!("ldp w9, w10, [{base}]"),
        OddAccess::StorePair => go!("stp wzr, wzr, [{base}]"),
        OddAccess::LoadPostIndex => go!("ldr w9, [{base}], #8"),
        OddAccess::StorePostIndex => go!("str wzr, [{base}], #8"),
        OddAccess::LoadPreIndex => go!("ldr w9, [{base}, #8]!"),
        OddAccess::LoadExclusive => go!("ldxr w9, [{base}]", "clrex"),
        OddAccess::StoreExclusive => go!("ldxr w9, [{base}]", "stxr w10, w9, [{base}]"),
        OddAccess::LoadExclusivePair => go!("ldxp w9, w10, [{base}]", "clrex"),
        OddAccess::AtomicAdd => go!(".arch_extension lse", "ldadd wzr, w9, [{base}]"),
        OddAccess::CompareAndSwap => go!(".arch_extension lse", "mov w9, #-1", "cas w9, w9, [{base}]"),
        OddAccess::ZeroBlock => go!("dc zva, {base}"),
        OddAccess::CleanLine => go!("dc cvac, {base}"),
        OddAccess::InvalidateLine => go!("dc ivac, {base}"),
        OddAccess::CleanAndInvalidateLine => go!("dc civac, {base}"),
        OddAccess::InvalidateInstructions => go!("ic ivau, {base}"),
        OddAccess::Prefetch => go!("prfm pldl1keep, [{base}]"),
        OddAccess::Translate => go!("at s1e1r, {base}"),
        OddAccess::Misaligned => go!("ldur w9, [{base}, #1]"),
        OddAccess::Execute => {
            probe!(
                "blr {address}"; address = in(reg) address,
                out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x4") _, out("x5") _, out("x6") _,
                out("x7") _, out("x8") _, out("x9") _, out("x10") _, out("x11") _, out("x12") _, out("x13") _,
                out("x14") _, out("x15") _, out("x16") _, out("x17") _, out("x30") _,
            )
        }
    };
    OddOutcome { result, write_back: base.wrapping_sub(address) }
}

/// Cleans and invalidates every level-1 data cache line by set and way (`DC CISW`), as old boot code does; a hypervisor
/// traps it.
///
/// # Errors
/// The exception, if the instruction met one.
pub fn clean_by_set_and_way() -> Result<(), Abort> {
    for set_and_way in 0..256_u64 {
        // Level 1 is level field 0; a number beyond the cache's sets does nothing.
        probe!("dc cisw, {operand}"; operand = in(reg) set_and_way << 6)?;
        probe!("dc csw, {operand}"; operand = in(reg) set_and_way << 6)?;
    }
    // No `DC ISW`: natively it would drop the guest's own dirty lines. Clean first, so nothing is lost.
    Ok(())
}

/// Executes the undefined instruction `UDF #0`.
///
/// # Errors
/// Always: the exception.
pub fn undefined() -> Result<(), Abort> {
    probe!("udf #0";)
}
