//! The distributor's registers (GICD_* in IHI0069, the GICv3 specification).

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use vdev::Width;

use super::bank::{Bank, Word};
use super::interrupt::{Bits, IntId, mask};
use super::registers::{
    Banked, Bitmap, DISTRIBUTOR_SIZE, Frame, IMPLEMENTER_ID, PERIPHERAL_ID_2, is_word_or_priority, needs_sync,
};
use super::state::News;
use super::{Kicks, Vgic};

/// GICD_CTLR.EnableGrp0 and EnableGrp1, where the guest sees a single security state.
const CONTROL_ENABLES: u32 = 0b11;
/// GICD_CTLR.ARE and DS: affinity routing always, one security state.
pub(super) const CONTROL_FIXED: u32 = 1 << 4 | 1 << 6;

/// The registers that exist once, by offset.
const CTLR: u64 = 0x0;
const TYPER: u64 = 0x4;
const IIDR: u64 = 0x8;
const IROUTER: u64 = 0x6000;
const IROUTER_END: u64 = 0x8000;
const PIDR2: u64 = 0xffe8;

/// GICD_IROUTER: the affinity fields that exist. Interrupt_Routing_Mode is RES0, as GICD_TYPER.No1N says.
const ROUTER_AFFINITY: u32 = 0x00ff_ffff;

/// Whether an access of `width` at `offset` is one that a GICD_IROUTER takes: all of it, or a half.
#[inline(always)]
const fn is_router(offset: u64, width: Width) -> bool {
    match width {
        Width::DoubleWord => offset & 7 == 0,
        Width::Word => offset & 3 == 0,
        Width::Byte | Width::HalfWord => false,
    }
}

/// The interrupt whose GICD_IROUTER is at `offset`.
#[inline(always)]
const fn routed_by(offset: u64) -> IntId {
    IntId::new(((offset & 0x1fff) >> 3) as u32)
}

impl Vgic {
    /// Answers a load at byte `offset` into the distributor's 64 KiB frame. Reserved registers read as zero. `None` if
    /// no register takes that width and alignment: the load ends in an external abort.
    #[inline]
    #[must_use]
    pub fn distributor_read(&self, offset: u64, width: Width) -> Option<u64> {
        if (IROUTER..IROUTER_END).contains(&offset) {
            return self.router_read(offset, width);
        }
        if offset >= DISTRIBUTOR_SIZE || !is_word_or_priority(offset, width) {
            return None;
        }
        Some(match offset {
            CTLR => u64::from(self.control.load(Relaxed) | CONTROL_FIXED),
            TYPER => self.type_register(),
            IIDR => IMPLEMENTER_ID,
            PIDR2 => PERIPHERAL_ID_2,
            _ => self.shared_word(offset).map_or(0, |(register, word)| word.read(register, width)),
        })
    }

    /// Takes a store at byte `offset` into the distributor's frame. Stores to reserved and read-only registers have no
    /// effect. `None` as for a load.
    #[inline]
    pub fn distributor_write(&self, offset: u64, width: Width, value: u64) -> Option<Kicks> {
        if (IROUTER..IROUTER_END).contains(&offset) {
            return self.router_write(offset, width, value);
        }
        if offset >= DISTRIBUTOR_SIZE || !is_word_or_priority(offset, width) {
            return None;
        }
        let value = value as u32;
        Some(match offset {
            CTLR => {
                let enables = value & CONTROL_ENABLES;
                if self.control.swap(enables, SeqCst) == enables { Kicks::NONE } else { self.notify_all() }
            }
            _ => match self.shared_word(offset) {
                None => Kicks::NONE,
                Some((register, word)) => self.write_banked(word, register, width, value),
            },
        })
    }

    /// The interrupt whose route (GICD_IROUTER) a store at byte `offset` of the distributor's frame may change.
    #[inline(always)]
    #[must_use]
    pub const fn routed_at(offset: u64) -> Option<u32> {
        if offset < IROUTER || offset >= IROUTER_END {
            return None;
        }
        Some(routed_by(offset).raw())
    }

    /// The virtual CPU that `intid`, an SPI, is routed to, if it is one that exists.
    #[must_use]
    pub fn target(&self, intid: IntId) -> Option<usize> {
        let word = self.word(0, intid.word())?;
        Some(word.routes?.target(intid.bit())).filter(|vcpu| *vcpu < self.vcpus())
    }

    /// Which other virtual CPUs hold, in list registers, interrupts that an access by `vcpu` at `offset` of `frame`
    /// speaks of. Only worth a question where [`needs_sync`] says so. Once they have flushed, a load tells the state as
    /// of then; a guest that polls sees every change in the end.
    pub fn stale(&self, vcpu: usize, frame: Frame, offset: u64) -> Kicks {
        if !needs_sync(frame, offset) {
            return Kicks::NONE;
        }
        match frame {
            Frame::Distributor => match self.shared_word(offset) {
                None => Kicks::NONE,
                Some((_, word)) => {
                    let mut kicks = Kicks::NONE;
                    for bit in Bits(word.bank.inflight.load(SeqCst)) {
                        let holder = word.holder(bit);
                        if holder != vcpu {
                            kicks |= self.mark(holder, word.number, News::Revise);
                        }
                    }
                    kicks
                }
            },
            Frame::Redistributor(owner) => match self.word(owner, 0) {
                Some(word) if owner != vcpu && word.bank.inflight.load(SeqCst) != 0 => {
                    self.mark(owner, 0, News::Revise)
                }
                Some(_) | None => Kicks::NONE,
            },
        }
    }

    /// GICD_TYPER: SPIs, ten bits of INTID, no LPIs, no message-based SPIs, one range of 16 in SGI targets, and no SPI
    /// goes to any one of several CPUs.
    fn type_register(&self) -> u64 {
        const ID_BITS_LESS_ONE: u64 = 9;
        const NO_1_OF_N: u64 = 1 << 25;
        (self.spi_words() as u64) | ID_BITS_LESS_ONE << 19 | NO_1_OF_N
    }

    /// The SPI word that a banked register at `offset` speaks of. Private interrupts have none here: with affinity
    /// routing their registers are in the redistributor, and read as zero in the distributor.
    #[inline]
    fn shared_word(&self, offset: u64) -> Option<(Banked, Word<'_>)> {
        let register = Banked::decode(offset)?;
        let number = match register {
            Banked::Bitmap(_, number) => number,
            Banked::Priority(intid) => (intid >> 5) as usize,
            Banked::Configuration(half) => half >> 1,
        };
        if number == 0 {
            return None;
        }
        Some((register, self.word(0, number)?))
    }

    fn router_read(&self, offset: u64, width: Width) -> Option<u64> {
        if !is_router(offset, width) {
            return None;
        }
        let intid = routed_by(offset);
        let entry = self.shared(intid.word()).and_then(|shared| shared.routes.router.get(intid.bit() as usize));
        // The upper half is Aff3, which does not exist.
        Some(entry.filter(|_| offset & 4 == 0).map_or(0, |entry| u64::from(entry.load(Relaxed))))
    }

    fn router_write(&self, offset: u64, width: Width, value: u64) -> Option<Kicks> {
        if !is_router(offset, width) {
            return None;
        }
        let intid = routed_by(offset);
        let Some(word) = self.word(0, intid.word()).filter(|_| offset & 4 == 0) else { return Some(Kicks::NONE) };
        let (Some(routes), bit) = (word.routes, intid.bit()) else { return Some(Kicks::NONE) };
        let router = value as u32 & ROUTER_AFFINITY;
        if let Some(entry) = routes.router.get(bit as usize) {
            entry.store(router, Relaxed);
        }
        routes.set_target(bit, self.vcpu_of_affinity(router));
        let affected = word.bank.raised() | word.bank.inflight.load(SeqCst);
        Some(self.notify(word, affected & mask(bit)))
    }

    /// A store to a register that the distributor and the redistributors have in common.
    #[inline]
    pub(super) fn write_banked(&self, word: Word<'_>, register: Banked, width: Width, value: u32) -> Kicks {
        match register {
            Banked::Bitmap(bitmap, _) => self.write_bitmap(word, bitmap, value),
            Banked::Priority(intid) => {
                let (first, count) = (intid & 31, width.bytes() as u32);
                word.bank.set_priorities(first, count, value);
                let written = mask(count).wrapping_sub(1).wrapping_shl(first);
                self.notify(word, written & (word.bank.raised() | word.bank.inflight.load(SeqCst)))
            }
            Banked::Configuration(half) => {
                word.write_configuration(half, value);
                self.notify(word, word.bank.raised() | word.bank.inflight.load(SeqCst))
            }
        }
    }

    fn write_bitmap(&self, word: Word<'_>, bitmap: Bitmap, value: u32) -> Kicks {
        let bank = word.bank;
        // Who is to look again at what it holds; and interrupts whose holders or targets are to be told: in one place
        // for those that are written seldom.
        let (kicks, bits) = match bitmap {
            Bitmap::Group => {
                let changed = bank.group.swap(value, SeqCst) ^ value;
                (self.withdraw(word, changed), changed & bank.raised())
            }
            Bitmap::SetEnable => {
                let fresh = value & !bank.enabled.fetch_or(value, SeqCst);
                return self.notify(word, fresh & (bank.raised() | bank.inflight.load(SeqCst)));
            }
            Bitmap::ClearEnable => {
                let stopped = value & bank.enabled.fetch_and(!value, SeqCst);
                return self.withdraw(word, stopped);
            }
            Bitmap::SetPending => return self.latch(word, value),
            Bitmap::ClearPending => {
                let dropped = value & bank.pending.fetch_and(!value, SeqCst);
                let inflight = value & bank.inflight.load(SeqCst);
                (self.request(word, &bank.clear_pending, inflight) | self.release(word, dropped & !inflight), 0)
            }
            Bitmap::SetActive => {
                let inflight = value & bank.inflight.load(SeqCst);
                bank.active.fetch_or(value & !inflight, SeqCst);
                (self.request(word, &bank.set_active, inflight), 0)
            }
            Bitmap::ClearActive => {
                let dropped = value & bank.active.fetch_and(!value, SeqCst);
                let inflight = value & bank.inflight.load(SeqCst);
                let kicks = self.request(word, &bank.clear_active, inflight) | self.release(word, dropped & !inflight);
                (kicks, dropped & bank.raised())
            }
        };
        kicks | self.notify(word, bits)
    }

    /// Tells whoever holds interrupts of `bits` in flight, or is just about to, that they may have lost their reason.
    fn withdraw(&self, word: Word<'_>, bits: u32) -> Kicks {
        let bank = word.bank;
        match word.routes {
            Some(_) => self.notify(word, bits & bank.inflight.load(SeqCst)),
            // The owner of a private bank does not look twice when it takes a latched interrupt: it first marks it
            // as in flight, then clears the latch. So one of the two is still to be seen here.
            None if bits & (bank.pending.load(SeqCst) | bank.inflight.load(SeqCst)) != 0 => {
                self.mark(word.home, 0, News::Revise)
            }
            None => Kicks::NONE,
        }
    }

    /// Asks whoever holds the interrupts `bits` in flight to do what `requests` stands for.
    fn request(&self, word: Word<'_>, requests: &core::sync::atomic::AtomicU32, bits: u32) -> Kicks {
        if bits == 0 {
            return Kicks::NONE;
        }
        requests.fetch_or(bits, SeqCst);
        self.notify(word, bits)
    }

    /// Lets go of the physical interrupts that those of `bits` that are linked stand for.
    fn release(&self, word: Word<'_>, bits: u32) -> Kicks {
        let bits = bits & word.bank.linked.load(Relaxed);
        if bits == 0 {
            return Kicks::NONE;
        }
        word.bank.release.fetch_or(bits, SeqCst);
        // Any core can deactivate a shared physical interrupt, and an SPI may be routed to nobody.
        self.mark(if word.routes.is_none() { word.home } else { 0 }, word.number, News::Revise)
    }
}

impl Word<'_> {
    /// A load of a register that the distributor and the redistributors have in common.
    #[inline]
    pub(super) fn read(&self, register: Banked, width: Width) -> u64 {
        match register {
            Banked::Bitmap(bitmap, _) => u64::from(self.bank.read_bitmap(bitmap)),
            Banked::Priority(intid) => {
                let mut value = 0;
                // The bytes of one access are in one bank: it is aligned.
                for byte in (0..width.bytes() as u32).rev() {
                    value = value << 8 | u64::from(self.bank.priority((intid & 31) | byte));
                }
                value
            }
            Banked::Configuration(half) => u64::from(self.read_configuration(half)),
        }
    }

    /// GICx_ICFGR: the upper of an interrupt's two bits says edge-triggered.
    fn read_configuration(&self, half: usize) -> u32 {
        let edge = self.bank.edge.load(Relaxed) >> if half & 1 == 0 { 0 } else { 16 };
        Bits(edge & 0xffff).fold(0, |value, bit| value | 2u32.wrapping_shl(bit.wrapping_mul(2)))
    }

    fn write_configuration(&self, half: usize, value: u32) {
        // SGIs are edge-triggered whatever is written.
        if self.number == 0 && half & 1 == 0 {
            return;
        }
        let edge = (0..16u32).filter(|bit| value.wrapping_shr(bit.wrapping_mul(2)) & 2 != 0);
        let edge = edge.fold(0, |word, bit| word | mask(bit));
        let (kept, edge) = if half & 1 == 0 { (0xffff_0000, edge) } else { (0x0000_ffff, edge << 16) };
        // Two cores that configure the same word at once: each interrupt gets one of the two configurations.
        self.bank.edge.fetch_and(kept | edge, SeqCst);
        self.bank.edge.fetch_or(edge, SeqCst);
    }
}

impl Bank {
    #[inline]
    fn read_bitmap(&self, bitmap: Bitmap) -> u32 {
        match bitmap {
            Bitmap::Group => self.group.load(Relaxed),
            Bitmap::SetEnable | Bitmap::ClearEnable => self.enabled.load(Relaxed),
            Bitmap::SetPending | Bitmap::ClearPending => {
                self.raised() | (self.inflight.load(SeqCst) & !self.listed_taken.load(SeqCst))
            }
            Bitmap::SetActive | Bitmap::ClearActive => self.active.load(SeqCst) | self.listed_active.load(SeqCst),
        }
    }
}
