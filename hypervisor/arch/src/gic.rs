//! The physical GICv3: distributor, redistributors and the CPU interface as EL2 uses it.
//!
//! Every interrupt that EL2 takes is Group 1. Priority drop and deactivation are split (EOImode 1), so that an
//! interrupt handed on to a guest stays active until the guest's own EOI ends it (list registers with the HW bit).
//!
//! Leaves out what guests see (`vgic`) and the list registers ([`crate::list_registers`]).

use crate::boot::CORES_MAX;
use crate::per_core;
use crate::registers::{
    ICC_BPR1_EL1, ICC_CTLR_EL1, ICC_DIR_EL1, ICC_EOIR1_EL1, ICC_IAR1_EL1, ICC_IGRPEN1_EL1, ICC_PMR_EL1, ICC_SGI1R_EL1,
    ICC_SRE_EL1, ICC_SRE_EL2,
};
use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering};
use tock_registers::interfaces::{Readable, Writeable};
use tock_registers::register_structs;
use tock_registers::registers::{ReadOnly, ReadWrite, WriteOnly};

/// The maintenance interrupt of the virtual CPU interface (PPI 25, as the SBSA assigns it).
pub const MAINTENANCE: u32 = 25;
/// The EL2 physical timer's interrupt (PPI 26).
pub const HYP_TIMER: u32 = 26;
/// The virtual timer's interrupt (PPI 27); the guests'.
pub const VIRTUAL_TIMER: u32 = 27;
/// The EL1 physical timer's interrupt (PPI 30); the guests'.
pub const PHYSICAL_TIMER: u32 = 30;
/// The SGI by which one core makes another look at its guests.
pub const KICK: u32 = 0;
/// The SGI by which a failing core stops the others.
pub const STOP: u32 = 1;
/// The SGI by which one core makes another look at the lives of its guests.
pub const SUMMON: u32 = 2;
/// The first INTID that is not an interrupt (1020 to 1023: special).
const SPECIAL: u32 = 1020;

register_structs! {
    #[allow(missing_docs)]
    Distributor {
        (0x0000 => ctlr: ReadWrite<u32>),
        (0x0004 => typer: ReadOnly<u32>),
        (0x0008 => _reserved0),
        (0x0080 => igroupr: [ReadWrite<u32>; 32]),
        (0x0100 => isenabler: [ReadWrite<u32>; 32]),
        (0x0180 => icenabler: [ReadWrite<u32>; 32]),
        (0x0200 => ispendr: [ReadWrite<u32>; 32]),
        (0x0280 => icpendr: [ReadWrite<u32>; 32]),
        (0x0300 => isactiver: [ReadWrite<u32>; 32]),
        (0x0380 => icactiver: [ReadWrite<u32>; 32]),
        (0x0400 => ipriorityr: [ReadWrite<u32>; 256]),
        (0x0800 => _reserved1),
        (0x0c00 => icfgr: [ReadWrite<u32>; 64]),
        (0x0d00 => _reserved2),
        (0x6000 => irouter: [ReadWrite<u64>; 1020]),
        (0x7fe0 => _reserved3),
        (0x10000 => @END),
    }
}

register_structs! {
    #[allow(missing_docs)]
    Redistributor {
        (0x00000 => ctlr: ReadWrite<u32>),
        (0x00004 => iidr: ReadOnly<u32>),
        (0x00008 => typer: ReadOnly<u64>),
        (0x00010 => _reserved0),
        (0x00014 => waker: ReadWrite<u32>),
        (0x00018 => _reserved1),
        (0x10080 => igroupr0: ReadWrite<u32>),
        (0x10084 => _reserved2),
        (0x10100 => isenabler0: ReadWrite<u32>),
        (0x10104 => _reserved3),
        (0x10180 => icenabler0: ReadWrite<u32>),
        (0x10184 => _reserved4),
        (0x10280 => icpendr0: ReadWrite<u32>),
        (0x10284 => _reserved5),
        (0x10300 => isactiver0: ReadWrite<u32>),
        (0x10304 => _reserved6),
        (0x10380 => icactiver0: WriteOnly<u32>),
        (0x10384 => _reserved7),
        (0x10400 => ipriorityr: [ReadWrite<u32>; 8]),
        (0x10420 => _reserved8),
        (0x20000 => @END),
    }
}

/// The priority of every physical interrupt but KICK: EL2 runs with all of them masked and takes them one at a time.
const PRIORITY_ALL: u32 = 0xa0a0_a0a0;
/// Of the first four SGIs: KICK comes after all others that are pending, for work that ends where one is
/// (IHI 0069 4.8: a lower value is a higher priority).
const PRIORITY_SGIS: u32 = PRIORITY_ALL | 0xb0 << (8 * KICK);

/// GICD_CTLR (IHI 0069 12.9.4): ARE_NS, EnableGrp1A; RWP is bit 31.
const CTLR_ENABLE: u32 = (1 << 4) | (1 << 1);
const CTLR_RWP: u32 = 1 << 31;

/// How long to wait for the GIC's own hardware, in polls; far beyond what any needs, and not for ever.
const POLLS_MAX: u32 = 1_000_000;

/// The board's interrupt controller.
pub struct Gic {
    distributor: &'static Distributor,
    redistributors: u64,
    redistributors_size: u64,
    /// Each core's redistributor frame (an address), found when the core comes up.
    frames: [AtomicU64; CORES_MAX],
    /// Each core's ICC_SGI1R_EL1 value without the INTID.
    sgi_targets: [AtomicU64; CORES_MAX],
}

// SAFETY: every register is accessed with single 32- or 64-bit loads and stores, which the GIC orders itself.
unsafe impl Sync for Gic {}
// SAFETY: as above; no register belongs to one core's thread of execution.
unsafe impl Send for Gic {}

impl Gic {
    /// The controller at `distributor` with `redistributors_size` bytes of redistributor frames at `redistributors`.
    ///
    /// # Safety
    /// Both must be the physical addresses of a GICv3's frames, mapped as device memory at EL2, and used by nothing
    /// else.
    pub(crate) unsafe fn new(distributor: u64, redistributors: u64, redistributors_size: u64) -> Self {
        // SAFETY: the caller vouches for the address; the registers live as long as the board.
        let distributor = unsafe { &*(distributor as *const Distributor) };
        Self {
            distributor,
            redistributors,
            redistributors_size,
            frames: [const { AtomicU64::new(0) }; CORES_MAX],
            sgi_targets: [const { AtomicU64::new(0) }; CORES_MAX],
        }
    }

    /// Sets the distributor up: everything Group 1, disabled, one priority. Once, by the primary core.
    pub fn configure_distributor(&self) {
        let distributor = self.distributor;
        distributor.ctlr.set(0);
        self.wait_for_distributor();
        let words = (distributor.typer.get() & 0x1f) as usize + 1;
        for word in 1..words {
            distributor.icenabler[word].set(u32::MAX);
            distributor.icpendr[word].set(u32::MAX);
            distributor.icactiver[word].set(u32::MAX);
            distributor.igroupr[word].set(u32::MAX);
            for register in &distributor.ipriorityr[word * 8..word * 8 + 8] {
                register.set(PRIORITY_ALL);
            }
        }
        self.wait_for_distributor();
        distributor.ctlr.set(CTLR_ENABLE);
        self.wait_for_distributor();
    }

    fn wait_for_distributor(&self) {
        for _ in 0..POLLS_MAX {
            if self.distributor.ctlr.get() & CTLR_RWP == 0 {
                return;
            }
        }
    }

    /// Sets this core's redistributor and CPU interface up. `core` is its number.
    ///
    /// # Errors
    /// The core's affinity, if no redistributor has it.
    pub fn configure_core(&self, core: usize) -> Result<(), u64> {
        let affinity = per_core::affinity();
        let frame = self.find_frame(affinity).ok_or(affinity)?;
        self.frames[core].store(frame as *const Redistributor as u64, Ordering::Release);
        let aff0 = affinity & 0xf;
        let range = (affinity >> 4) & 0xf;
        let target = ((affinity >> 32) & 0xff) << 48
            | range << 44
            | ((affinity >> 16) & 0xff) << 32
            | ((affinity >> 8) & 0xff) << 16
            | 1 << aff0;
        self.sgi_targets[core].store(target, Ordering::Release);

        // GICR_WAKER (IHI 0069 12.11.42): ProcessorSleep is bit 1, ChildrenAsleep bit 2.
        frame.waker.set(frame.waker.get() & !(1 << 1));
        for _ in 0..POLLS_MAX {
            if frame.waker.get() & (1 << 2) == 0 {
                break;
            }
        }
        frame.icenabler0.set(u32::MAX);
        frame.icpendr0.set(u32::MAX);
        frame.icactiver0.set(u32::MAX);
        frame.igroupr0.set(u32::MAX);
        for register in &frame.ipriorityr {
            register.set(PRIORITY_ALL);
        }
        frame.ipriorityr[0].set(PRIORITY_SGIS);
        let enabled = [KICK, STOP, SUMMON, MAINTENANCE, HYP_TIMER, VIRTUAL_TIMER, PHYSICAL_TIMER];
        frame.isenabler0.set(enabled.iter().fold(0, |bits, intid| bits | 1 << intid));

        // SRE, DFB and DIB for EL2 and, banked apart, for EL1 (IHI 0069 12.2.22, 12.2.23). Enable stays clear: a
        // guest's access to ICC_SRE_EL1 traps, or it could turn the system registers off for the next guest of this
        // core.
        ICC_SRE_EL2.set(0b0111);
        barrier();
        ICC_SRE_EL1.set(0b111);
        ICC_CTLR_EL1.set(1 << 1);
        ICC_BPR1_EL1.set(0);
        ICC_PMR_EL1.set(0xff);
        ICC_IGRPEN1_EL1.set(1);
        barrier();
        Ok(())
    }

    fn find_frame(&self, affinity: u64) -> Option<&'static Redistributor> {
        let packed = (affinity & 0xff_ffff) | ((affinity >> 32) & 0xff) << 24;
        let mut offset = 0;
        while offset + 0x2_0000 <= self.redistributors_size {
            // SAFETY: the frame is inside the redistributors' range, for which `new`'s caller vouched.
            let frame = unsafe { &*((self.redistributors + offset) as *const Redistributor) };
            let typer = frame.typer.get();
            if typer >> 32 == packed {
                return Some(frame);
            }
            // GICR_TYPER: Last is bit 4; VLPIS (bit 1) frames are twice as long.
            if typer & (1 << 4) != 0 {
                return None;
            }
            offset += if typer & (1 << 1) != 0 { 0x4_0000 } else { 0x2_0000 };
        }
        None
    }

    fn frame(&self, core: usize) -> Option<&'static Redistributor> {
        let address = self.frames.get(core)?.load(Ordering::Acquire);
        // SAFETY: only `configure_core` stores here, the address of a frame that it found.
        (address != 0).then(|| unsafe { &*(address as *const Redistributor) })
    }

    /// Sets whether SPI `intid`, which is disabled, is edge-triggered or level-sensitive. Numbers beyond the
    /// controller's are ignored. For one core while nobody else is there: sixteen interrupts share a register.
    pub fn configure_spi(&self, intid: u32, is_edge: bool) {
        let Some(register) = self.distributor.icfgr.get((intid / 16) as usize) else { return };
        // The upper of an interrupt's two bits (IHI 0069, GICD_ICFGR<n>).
        let bit = 2 << (intid % 16 * 2);
        register.set(if is_edge { register.get() | bit } else { register.get() & !bit });
    }

    /// Enables SPI `intid` and sends it to `core`. Numbers beyond the controller's are ignored.
    pub fn enable_spi(&self, intid: u32, core: usize) {
        self.route_spi(intid, core);
        if let Some(register) = self.distributor.isenabler.get((intid / 32) as usize) {
            register.set(1 << (intid % 32));
        }
    }

    /// Disables SPI `intid`: what is pending or active of it stays so. Numbers beyond the controller's are ignored.
    pub fn disable_spi(&self, intid: u32) {
        if let Some(register) = self.distributor.icenabler.get((intid / 32) as usize) {
            register.set(1 << (intid % 32));
        }
    }

    /// Sends SPI `intid` to `core` from now on. Numbers beyond the controller's are ignored.
    pub fn route_spi(&self, intid: u32, core: usize) {
        let Some(register) = self.distributor.irouter.get(intid as usize) else { return };
        let target = self.sgi_targets.get(core).map_or(0, |target| target.load(Ordering::Acquire));
        let aff0 = u64::from((target as u16).trailing_zeros() & 0xf) | ((target >> 44) & 0xf) << 4;
        let affinity =
            aff0 | ((target >> 16) & 0xff) << 8 | ((target >> 32) & 0xff) << 16 | ((target >> 48) & 0xff) << 32;
        register.set(affinity);
    }

    /// Takes SPI `intid` out of play: disabled, neither pending nor active. Numbers beyond the controller's are
    /// ignored.
    pub fn quiesce_spi(&self, intid: u32) {
        if !(32..SPECIAL).contains(&intid) {
            return;
        }
        let (word, bit) = ((intid / 32) as usize, 1 << (intid % 32));
        self.distributor.icenabler[word].set(bit);
        self.wait_for_distributor();
        self.distributor.icpendr[word].set(bit);
        self.distributor.icactiver[word].set(bit);
    }

    /// Makes private interrupt `intid` of `core` active again: its virtual CPU comes back with it in a list register.
    pub fn activate_private(&self, core: usize, intid: u32) {
        if let Some(frame) = self.frame(core) {
            frame.isactiver0.set(1 << (intid & 31));
            // Before its timer is loaded, or it would fire again.
            // SAFETY: a barrier.
            unsafe { asm!("dsb sy", options(nostack)) };
        }
    }

    /// Interrupts `core` with SGI `intid`, after everything that this core has written is visible to it.
    #[inline]
    pub fn send_sgi(&self, core: usize, intid: u32) {
        let Some(target) = self.sgi_targets.get(core) else { return };
        let target = target.load(Ordering::Relaxed);
        if target != 0 {
            // SAFETY: a barrier.
            unsafe { asm!("dsb ishst", options(nostack)) };
            ICC_SGI1R_EL1.set(target | u64::from(intid) << 24);
            barrier();
        }
    }
}

fn barrier() {
    // SAFETY: a barrier.
    unsafe { asm!("isb", options(nostack)) };
}

/// Acknowledges the most urgent pending interrupt of this core, if there is one.
#[inline]
pub fn acknowledge() -> Option<u32> {
    let intid = (ICC_IAR1_EL1.get() & 0xff_ffff) as u32;
    // Reading IAR makes the interrupt active; what follows must not start before (IHI 0069 4.1.1).
    // SAFETY: a barrier.
    unsafe { asm!("dsb sy", options(nostack)) };
    (intid < SPECIAL).then_some(intid)
}

/// Drops the running priority after [`acknowledge`]; the interrupt stays active.
#[inline]
pub fn drop_priority(intid: u32) {
    ICC_EOIR1_EL1.set(u64::from(intid));
}

/// Ends an interrupt whose priority was dropped.
#[inline]
pub fn deactivate(intid: u32) {
    ICC_DIR_EL1.set(u64::from(intid));
}
