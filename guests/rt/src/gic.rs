//! The GICv3, as its driver sees it (Arm IHI0069): distributor, redistributors, CPU interface.
//!
//! All interrupts are group 1, affinity routing is on, and there are no LPIs. INTIDs are bare numbers here: test guests
//! also use those that no type would let through. Functions that name an SGI or a PPI act on the calling CPU's
//! redistributor.

use crate::machine::machine;
use crate::mmio;
use crate::{interrupts, per_cpu};
use core::arch::asm;

/// Register offsets in the distributor and in the redistributor's SGI frame (IHI0069 12.8, 12.10).
pub mod offset {
    /// GICD_CTLR.
    pub const CTLR: u64 = 0x0000;
    /// GICD_TYPER.
    pub const TYPER: u64 = 0x0004;
    /// GICR_TYPER, in the RD frame; 64 bits.
    pub const REDISTRIBUTOR_TYPER: u64 = 0x0008;
    /// GICR_WAKER, in the RD frame.
    pub const WAKER: u64 = 0x0014;
    /// GICx_IGROUPR.
    pub const IGROUPR: u64 = 0x0080;
    /// GICx_ISENABLER.
    pub const ISENABLER: u64 = 0x0100;
    /// GICx_ICENABLER.
    pub const ICENABLER: u64 = 0x0180;
    /// GICx_ISPENDR.
    pub const ISPENDR: u64 = 0x0200;
    /// GICx_ICPENDR.
    pub const ICPENDR: u64 = 0x0280;
    /// GICx_ISACTIVER.
    pub const ISACTIVER: u64 = 0x0300;
    /// GICx_ICACTIVER.
    pub const ICACTIVER: u64 = 0x0380;
    /// GICx_IPRIORITYR, a byte for each interrupt.
    pub const IPRIORITYR: u64 = 0x0400;
    /// GICx_ICFGR, two bits for each interrupt.
    pub const ICFGR: u64 = 0x0c00;
    /// GICD_IROUTER, 64 bits for each SPI, at 8 × INTID.
    pub const IROUTER: u64 = 0x6000;
    /// GICD_PIDR2 and GICR_PIDR2: the architecture revision in bits 7:4.
    pub const PIDR2: u64 = 0xffe8;
    /// From a redistributor's RD frame to its SGI frame.
    pub const SGI_FRAME: u64 = 0x1_0000;
    /// From a redistributor to the next (GICv3: two frames each).
    pub const NEXT_REDISTRIBUTOR: u64 = 0x2_0000;
}

/// GICD_CTLR.EnableGrp1 and ARE, as one security state sees them.
pub const DISTRIBUTOR_ON: u32 = 1 << 4 | 1 << 1;
/// GICD_CTLR.RWP.
const WRITE_PENDING: u32 = 1 << 31;
/// The priority that [`init`] gives to every interrupt.
pub const DEFAULT_PRIORITY: u8 = 0xa0;
/// Aff3 to Aff0 of no CPU.
const NO_AFFINITY: u64 = 0xff_00ff_ffff;
const FIRST_SPI: u32 = 32;
const SPECIAL: u32 = 1020;
/// How often a wait for a GIC handshake looks.
const PATIENCE: u32 = 100_000;

/// How an interrupt is triggered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Pending while its line is high.
    Level,
    /// Pending from a rising edge until acknowledged.
    Edge,
}

/// What ICC_EOIR1_EL1 does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndMode {
    /// Drops the priority and deactivates the interrupt.
    DropAndDeactivate,
    /// Drops the priority only; [`deactivate`] does the rest.
    DropOnly,
}

/// Whom an SGI is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The CPU with this index.
    Cpu(usize),
    /// All CPUs but the sender.
    Others,
}

macro_rules! cpu_interface {
    ($($(#[$documentation:meta])* $read:ident, $write:ident = $register:literal;)*) => {
        $(
            #[allow(dead_code)]
            fn $read() -> u64 {
                let value: u64;
                // SAFETY: a GIC CPU interface register changes which interrupts this CPU takes, nothing in memory.
                unsafe { asm!(concat!("mrs {0}, ", $register), "dsb sy", out(reg) value) };
                value
            }

            #[allow(dead_code)]
            fn $write(value: u64) {
                // SAFETY: as for the read.
                unsafe { asm!("dsb sy", concat!("msr ", $register, ", {0}"), "isb", in(reg) value) };
            }
        )*
    };
}

cpu_interface! {
    read_pmr, write_pmr = "S3_0_C4_C6_0"; // ICC_PMR_EL1
    read_iar1, _write_iar1 = "S3_0_C12_C12_0"; // ICC_IAR1_EL1
    _read_eoir1, write_eoir1 = "S3_0_C12_C12_1"; // ICC_EOIR1_EL1
    read_hppir1, _write_hppir1 = "S3_0_C12_C12_2"; // ICC_HPPIR1_EL1
    read_bpr1, write_bpr1 = "S3_0_C12_C12_3"; // ICC_BPR1_EL1
    read_ctlr, write_ctlr = "S3_0_C12_C12_4"; // ICC_CTLR_EL1
    read_sre, write_sre = "S3_0_C12_C12_5"; // ICC_SRE_EL1
    _read_igrpen1, write_igrpen1 = "S3_0_C12_C12_7"; // ICC_IGRPEN1_EL1
    read_rpr, _write_rpr = "S3_0_C12_C11_3"; // ICC_RPR_EL1
    _read_ap1r0, write_ap1r0 = "S3_0_C12_C9_0"; // ICC_AP1R0_EL1
    _read_dir, write_dir = "S3_0_C12_C11_1"; // ICC_DIR_EL1
    _read_sgi1r, write_sgi1r = "S3_0_C12_C11_5"; // ICC_SGI1R_EL1
}

/// Where the registers of `id` are: the distributor, or this CPU's redistributor for SGIs and PPIs.
fn bank(id: u32) -> u64 {
    if id < FIRST_SPI {
        redistributor(per_cpu::index()).unwrap_or(0) + offset::SGI_FRAME
    } else {
        machine().distributor.start
    }
}

/// The address of the RD frame of CPU `index`, found by GICR_TYPER.
#[must_use]
pub fn redistributor(index: usize) -> Option<u64> {
    let affinity = *machine().cpus.get(index)?;
    // GICR_TYPER has Aff3 to Aff0 in bits 63:32.
    let wanted = (affinity >> 8 & 0xff00_0000) | (affinity & 0x00ff_ffff);
    let frames = machine().redistributors;
    (frames.start..frames.end())
        .step_by(offset::NEXT_REDISTRIBUTOR as usize)
        .find(|frame| mmio::read64(frame + offset::REDISTRIBUTOR_TYPER) >> 32 == wanted)
}

fn bit_register(base: u64, id: u32) -> (u64, u32) {
    (bank(id) + base + u64::from(id / 32 * 4), 1 << (id % 32))
}

fn set_bit(base: u64, id: u32) {
    let (address, bit) = bit_register(base, id);
    mmio::write32(address, bit);
}

fn has_bit(base: u64, id: u32) -> bool {
    let (address, bit) = bit_register(base, id);
    mmio::read32(address) & bit != 0
}

/// How many INTIDs the distributor has, SGIs and PPIs included (GICD_TYPER.ITLinesNumber).
#[must_use]
pub fn interrupt_count() -> u32 {
    let lines = mmio::read32(machine().distributor.start + offset::TYPER) & 0x1f;
    (32 * (lines + 1)).min(SPECIAL)
}

/// Waits, within bounds, until a register write has taken effect everywhere (GICD_CTLR.RWP).
pub fn synchronise() {
    for _ in 0..PATIENCE {
        if mmio::read32(machine().distributor.start + offset::CTLR) & WRITE_PENDING == 0 {
            return;
        }
    }
}

/// Turns forwarding of group 1 interrupts by the distributor on or off.
pub fn set_distributor(on: bool) {
    let value = if on { DISTRIBUTOR_ON } else { DISTRIBUTOR_ON & !0b10 };
    mmio::write32(machine().distributor.start + offset::CTLR, value);
    synchronise();
}

/// Brings the distributor into a known state: every SPI disabled, inactive, not pending, level, group 1, of
/// [`DEFAULT_PRIORITY`], routed to CPU 0.
pub fn init() {
    let base = machine().distributor.start;
    mmio::write32(base + offset::CTLR, 0);
    synchronise();
    mmio::write32(base + offset::CTLR, DISTRIBUTOR_ON);
    synchronise();
    let first = machine().cpus.first().copied().unwrap_or(0);
    let words = u64::from(interrupt_count() / 32);
    // One word more than GICD_TYPER promises: QEMU 7.2 has it, and a storm of writes can leave something there.
    (1..=words.min(31)).for_each(|word| reset_word(base, word));
    for word in 1..words {
        for id in word * 32..word * 32 + 32 {
            mmio::write64(base + offset::IROUTER + id * 8, first);
        }
    }
    synchronise();
}

/// Brings 32 interrupts into a known state.
fn reset_word(base: u64, word: u64) {
    mmio::write32(base + offset::ICENABLER + word * 4, u32::MAX);
    mmio::write32(base + offset::ICPENDR + word * 4, u32::MAX);
    mmio::write32(base + offset::ICACTIVER + word * 4, u32::MAX);
    mmio::write32(base + offset::IGROUPR + word * 4, u32::MAX);
    for priorities in word * 8..word * 8 + 8 {
        mmio::write32(base + offset::IPRIORITYR + priorities * 4, u32::from_ne_bytes([DEFAULT_PRIORITY; 4]));
    }
    if word > 0 {
        mmio::write32(base + offset::ICFGR + word * 8, 0);
        mmio::write32(base + offset::ICFGR + word * 8 + 4, 0);
    }
}

/// Brings this CPU's redistributor and CPU interface into a known state: awake, every SGI and PPI disabled, priority
/// mask open, EOI deactivates.
pub fn init_cpu() {
    write_sre(read_sre() | 1);
    if let Some(frame) = redistributor(per_cpu::index()) {
        const SLEEP: u32 = 1 << 1;
        const ASLEEP: u32 = 1 << 2;
        mmio::write32(frame + offset::WAKER, mmio::read32(frame + offset::WAKER) & !SLEEP);
        for _ in 0..PATIENCE {
            if mmio::read32(frame + offset::WAKER) & ASLEEP == 0 {
                break;
            }
        }
        reset_word(frame + offset::SGI_FRAME, 0);
    }
    // An interrupt that was acknowledged and never ended would hold the running priority.
    write_ap1r0(0);
    set_mask(0xff);
    write_bpr1(0);
    set_end_mode(EndMode::DropAndDeactivate);
    write_igrpen1(1);
}

/// Enables `id`.
pub fn enable(id: u32) {
    set_bit(offset::ISENABLER, id);
}

/// Disables `id`, and waits until that has taken effect.
pub fn disable(id: u32) {
    set_bit(offset::ICENABLER, id);
    synchronise();
}

/// Says whether `id` is enabled.
#[must_use]
pub fn is_enabled(id: u32) -> bool {
    has_bit(offset::ISENABLER, id)
}

/// Makes `id` pending.
pub fn set_pending(id: u32) {
    set_bit(offset::ISPENDR, id);
}

/// Makes `id` not pending, unless its line is high.
pub fn clear_pending(id: u32) {
    set_bit(offset::ICPENDR, id);
}

/// Says whether `id` is pending.
#[must_use]
pub fn is_pending(id: u32) -> bool {
    has_bit(offset::ISPENDR, id)
}

/// Makes `id` active.
pub fn set_active(id: u32) {
    set_bit(offset::ISACTIVER, id);
}

/// Makes `id` inactive.
pub fn clear_active(id: u32) {
    set_bit(offset::ICACTIVER, id);
}

/// Says whether `id` is active.
#[must_use]
pub fn is_active(id: u32) -> bool {
    has_bit(offset::ISACTIVER, id)
}

/// Sets the priority of `id` by a byte access; a lower value is more urgent.
pub fn set_priority(id: u32, priority: u8) {
    mmio::write8(bank(id) + offset::IPRIORITYR + u64::from(id), priority);
}

/// The priority of `id`, read by a byte access.
#[must_use]
pub fn priority(id: u32) -> u8 {
    mmio::read8(bank(id) + offset::IPRIORITYR + u64::from(id))
}

/// Sets how `id` is triggered. It must be disabled.
pub fn set_trigger(id: u32, trigger: Trigger) {
    let address = bank(id) + offset::ICFGR + u64::from(id / 16 * 4);
    let bit = 0b10 << (id % 16 * 2);
    let value = mmio::read32(address) & !bit;
    mmio::write32(address, if trigger == Trigger::Edge { value | bit } else { value });
}

/// Routes the SPI `id` to CPU `index`.
pub fn route(id: u32, index: usize) {
    if let Some(&affinity) = machine().cpus.get(index) {
        mmio::write64(machine().distributor.start + offset::IROUTER + u64::from(id) * 8, affinity);
    }
}

/// Routes the SPI `id` to an affinity that no CPU has.
pub fn route_nowhere(id: u32) {
    mmio::write64(machine().distributor.start + offset::IROUTER + u64::from(id) * 8, NO_AFFINITY);
}

/// The affinity to which the SPI `id` is routed.
#[must_use]
pub fn routing(id: u32) -> u64 {
    mmio::read64(machine().distributor.start + offset::IROUTER + u64::from(id) * 8)
}

/// Sends the SGI `id` (ICC_SGI1R_EL1).
pub fn send_sgi(id: u32, target: Target) {
    let id = u64::from(id & 0xf) << 24;
    let value = match target {
        Target::Others => 1 << 40 | id,
        Target::Cpu(index) => {
            let Some(&affinity) = machine().cpus.get(index) else { return };
            let affinity1 = affinity >> 8 & 0xff;
            let affinity2 = affinity >> 16 & 0xff;
            let affinity3 = affinity >> 32 & 0xff;
            let range = affinity >> 4 & 0xf;
            affinity3 << 48 | range << 44 | affinity2 << 32 | id | affinity1 << 16 | 1 << (affinity & 0xf)
        }
    };
    write_sgi1r(value);
}

/// Writes ICC_SGI1R_EL1 as it is.
pub fn send_raw_sgi(value: u64) {
    write_sgi1r(value);
}

/// Acknowledges the most urgent interrupt that may be taken; `None` if there is none.
pub fn acknowledge() -> Option<u32> {
    let id = read_iar1() as u32 & 0xff_ffff;
    (id < SPECIAL).then_some(id)
}

/// The most urgent pending interrupt (ICC_HPPIR1_EL1), which stays pending; `None` if there is none.
#[must_use]
pub fn highest_pending() -> Option<u32> {
    let id = read_hppir1() as u32 & 0xff_ffff;
    (id < SPECIAL).then_some(id)
}

/// Ends `id` (ICC_EOIR1_EL1).
pub fn end(id: u32) {
    write_eoir1(u64::from(id));
}

/// Deactivates `id` (ICC_DIR_EL1); for [`EndMode::DropOnly`].
pub fn deactivate(id: u32) {
    write_dir(u64::from(id));
}

/// Chooses what [`end`] does.
pub fn set_end_mode(mode: EndMode) {
    const END_MODE: u64 = 1 << 1;
    let value = read_ctlr() & !END_MODE;
    write_ctlr(if mode == EndMode::DropOnly { value | END_MODE } else { value });
}

/// Sets the priority mask: only interrupts more urgent than `priority` are taken (ICC_PMR_EL1).
pub fn set_mask(priority: u8) {
    write_pmr(u64::from(priority));
}

/// The priority mask.
#[must_use]
pub fn priority_mask() -> u8 {
    read_pmr() as u8
}

/// The priority of the interrupt being handled, 0xff if none (ICC_RPR_EL1).
#[must_use]
pub fn running_priority() -> u8 {
    read_rpr() as u8
}

/// The binary point of group 1 (ICC_BPR1_EL1).
#[must_use]
pub fn binary_point() -> u8 {
    read_bpr1() as u8
}

/// ICC_SRE_EL1, whose bit 0 says that the CPU interface is reached by system registers.
#[must_use]
pub fn system_register_enable() -> u64 {
    read_sre()
}

/// The usual start: distributor, this CPU, and `handler` for what comes.
pub fn start(handler: interrupts::Handler) {
    init();
    init_cpu();
    interrupts::set_handler(handler);
}
