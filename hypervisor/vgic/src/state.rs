//! The guest-visible state of one virtual machine's interrupt controller, and what makes interrupts pending.

use core::sync::atomic::{
    AtomicU32,
    Ordering::{Acquire, Relaxed, Release, SeqCst},
};

use super::bank::{Bank, Groups, Routes, Word};
use super::interrupt::{Bits, IntId, mask};
use super::{Kicks, SPI_WORDS, VCPUS_MAX};

/// SGIs are always edge-triggered; PPIs and SPIs start as level-sensitive (IHI0069, GICD_ICFGRn and
/// GICR_ICFGR1).
const PRIVATE_EDGE: u32 = 0xffff;

/// A bit for each virtual CPU that there can be.
const EXISTING: u32 = mask(VCPUS_MAX as u32).wrapping_sub(1);

/// ICC_SGI1R_EL1.IRM: to all but the sender.
const ALL_BUT_SELF: u64 = 1 << 40;
/// IRM, the affinity fields Aff1 to Aff3 and RS: the target list is not that of the virtual CPUs 0 to 15, if it is not
/// zero.
const SGI_ELSEWHERE: u64 = 0x00ff_f0ff_00ff_0000 | ALL_BUT_SELF;

/// GICR_WAKER at power-on: ProcessorSleep and ChildrenAsleep.
const WAKER_ASLEEP: u32 = 0b110;

/// What one virtual CPU has for itself. Aligned, so that two cores do not share a cache line, and to a power of two, so
/// that it is found with a shift.
#[repr(C, align(128))]
pub(super) struct Private {
    pub(super) bank: Bank,
    /// The words that need a flush, as [`Ready`] has them.
    pub(super) ready: AtomicU32,
    pub(super) waker: AtomicU32,
}

impl Private {
    const fn new() -> Self {
        Self { bank: Bank::new(PRIVATE_EDGE), ready: AtomicU32::new(0), waker: AtomicU32::new(WAKER_ASLEEP) }
    }
}

/// The words that concern a virtual CPU: bit 0 is the private bank, bit 1 + n the SPI word n. Bits 15:0 name words with
/// interrupts that have become pending; bits 31:16 those where something else may have changed about interrupts in
/// flight, so that list registers have to be read. Bit 0 is never set: every flush looks at the private bank.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Ready(pub(super) u32);

impl Ready {
    /// The word `number` has something new, of the kind `news`.
    #[inline]
    const fn of(number: usize, news: News) -> Self {
        match news {
            News::Deliver => Self(mask(number as u32) & !1),
            News::Revise => Self(mask(number as u32) << 16),
        }
    }

    /// All words to look at.
    #[inline]
    pub(super) const fn words(self) -> u32 {
        ((self.0 | self.0 >> 16) & 0xffff) | 1
    }

    /// The words with a change about interrupts in flight.
    #[inline]
    pub(super) const fn revisions(self) -> u32 {
        self.0 >> 16
    }
}

const _: () = assert!(size_of::<Private>() == 128, "a virtual CPU's own part is found with a shift");

/// What a virtual CPU has to do about a word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    /// An interrupt has become pending.
    Deliver,
    /// As `Deliver`, and something else may have changed about an interrupt in flight.
    Revise,
}

/// Thirty-two SPIs.
#[repr(C, align(64))]
pub(super) struct Shared {
    pub(super) bank: Bank,
    pub(super) routes: Routes,
}

/// The interrupt controller of one virtual machine, shared by all cores that run its virtual CPUs.
#[repr(C)]
pub struct Vgic {
    private: [Private; VCPUS_MAX],
    shared: [Shared; SPI_WORDS],
    /// GICD_CTLR.EnableGrp0 and EnableGrp1; the rest of that register is constant.
    pub(super) control: AtomicU32,
    vcpus: usize,
    spi_words: usize,
}

impl Vgic {
    /// The controller of a virtual machine with `vcpus` virtual CPUs (1 to [`VCPUS_MAX`]) and `spis` SPIs, rounded up
    /// to a multiple of 32 (up to 32 · [`SPI_WORDS`]). Numbers outside those ranges are cut to them.
    #[must_use]
    pub const fn new(vcpus: usize, spis: usize) -> Self {
        let vcpus = if vcpus > VCPUS_MAX {
            VCPUS_MAX
        } else if vcpus == 0 {
            1
        } else {
            vcpus
        };
        let spi_words = spis.div_ceil(32);
        Self {
            control: AtomicU32::new(0),
            vcpus,
            spi_words: if spi_words > SPI_WORDS { SPI_WORDS } else { spi_words },
            private: [const { Private::new() }; VCPUS_MAX],
            shared: [const { Shared { bank: Bank::new(0), routes: Routes::new() } }; SPI_WORDS],
        }
    }

    /// The number of virtual CPUs.
    #[must_use]
    pub const fn vcpus(&self) -> usize {
        self.vcpus
    }

    /// The number of words of 32 SPIs.
    pub(super) const fn spi_words(&self) -> usize {
        self.spi_words
    }

    /// Links the interrupt `intid` to the physical interrupt `physical` (of no meaning for a PPI, whose physical number
    /// is its own): the core that takes the physical one leaves it active and calls
    /// [`CpuInterface::deliver_linked`](super::CpuInterface::deliver_linked); the guest's end of the virtual one
    /// deactivates it. To be called while the virtual machine is
    /// built, for interrupts 16 and up. Outlasts [`Vgic::reset_step`].
    pub fn link(&self, intid: IntId, physical: u32) {
        if intid.raw() < 16 {
            return;
        }
        if intid.is_private() {
            for private in &self.private {
                private.bank.linked.fetch_or(intid.mask(), SeqCst);
            }
        } else if let Some(word) = self.word(0, intid.word()) {
            if let Some(entry) = word.routes.and_then(|routes| routes.physical.get(intid.bit() as usize)) {
                entry.store((physical & 0x1fff) as u16, SeqCst);
            }
            word.bank.linked.fetch_or(intid.mask(), SeqCst);
        }
    }

    /// Makes `intid` pending, as an edge on its input does. `vcpu_for_private` says whose, for an SGI or PPI.
    #[inline(never)]
    pub fn inject(&self, intid: IntId, vcpu_for_private: usize) -> Kicks {
        self.word(vcpu_for_private, intid.word()).map_or(Kicks::NONE, |word| self.latch(word, intid.mask()))
    }

    /// Sets the level of the input line of `intid`. A level-sensitive interrupt is pending for as long as its line is
    /// high; one that the guest has configured as edge-triggered becomes pending when the line rises.
    #[inline]
    pub fn set_line(&self, intid: IntId, vcpu_for_private: usize, level: bool) -> Kicks {
        let Some(word) = self.word(vcpu_for_private, intid.word()) else { return Kicks::NONE };
        let bits = intid.mask();
        let is_high = word.bank.line.load(Relaxed) & bits != 0;
        if is_high == level {
            return Kicks::NONE;
        }
        if !level {
            word.bank.line.fetch_and(!bits, SeqCst);
            // Nobody but a holder has anything to take back, and of an edge nothing can be.
            let held = bits & word.bank.inflight.load(SeqCst);
            return self.notify(word, held & !word.bank.edge.load(Relaxed));
        }
        word.bank.line.fetch_or(bits, SeqCst);
        let mut raised = bits;
        if word.bank.edge.load(Relaxed) & bits != 0 {
            raised &= !word.bank.pending.fetch_or(bits, SeqCst);
        } else if bits & word.bank.inflight.load(SeqCst) != 0 {
            // Its holder may expect no more of it after its end, enabled or not.
            return self.notify(word, bits);
        }
        self.announce(word, raised & word.bank.enabled.load(SeqCst))
    }

    /// The virtual CPU, below [`VCPUS_MAX`], that a write of `icc_sgi1r` to ICC_SGI1R_EL1 names, if it names one alone
    /// and nothing else in the register is set. It need not exist.
    #[inline(always)]
    #[must_use]
    pub const fn sole_target(icc_sgi1r: u64) -> Option<usize> {
        const INTID_AND_TARGETS: u64 = 0xf << 24 | EXISTING as u64;
        let targets = icc_sgi1r as u32 & EXISTING;
        if icc_sgi1r & !INTID_AND_TARGETS == 0 && targets.is_power_of_two() {
            Some(targets.trailing_zeros() as usize)
        } else {
            None
        }
    }

    /// Makes the SGI of `icc_sgi1r` pending for virtual CPU `target`. Returns whether that one has to be told.
    #[inline(always)]
    #[must_use = "an interrupt waits until its virtual CPU flushes"]
    pub fn send_sgi_to(&self, target: usize, icc_sgi1r: u64) -> bool {
        self.send_private(target as u32, mask((icc_sgi1r >> 24) as u32 & 15))
    }

    /// Sends the SGI that a write of `icc_sgi1r` to ICC_SGI1R_EL1 by virtual CPU `source` asks for (IHI0069,
    /// ICC_SGI1R_EL1). Targets that do not exist, and those for which the SGI is in group 0, are passed over.
    pub fn send_sgi(&self, source: usize, icc_sgi1r: u64) -> Kicks {
        let mut targets = icc_sgi1r as u32 & EXISTING;
        if icc_sgi1r & SGI_ELSEWHERE != 0 {
            if icc_sgi1r & ALL_BUT_SELF == 0 {
                // Aff3.Aff2.Aff1 = 0.0.0 and the first range of 16 are all there is.
                return Kicks::NONE;
            }
            targets = mask(self.vcpus as u32).wrapping_sub(1) & !mask(source as u32);
        }
        let bits = mask((icc_sgi1r >> 24) as u32 & 15);
        let mut kicks = Kicks::NONE;
        for target in Bits(targets) {
            if self.send_private(target, bits) {
                kicks |= Kicks::one(target as usize);
            }
        }
        kicks
    }

    /// Makes the SGI `bits` of virtual CPU `target` pending. Returns whether that one has to be told; one that this
    /// virtual machine does not have, never, as it cannot enable anything.
    #[inline(always)]
    fn send_private(&self, target: u32, bits: u32) -> bool {
        let Some(private) = self.own(target as usize) else { return false };
        let bank = &private.bank;
        // If not, it is not for this one, or was announced by whoever made it pending, or will be by whoever unmasks
        // it.
        bank.group.load(Relaxed) & bits != 0
            && bank.pending.fetch_or(bits, SeqCst) & bits == 0
            && bank.enabled.load(SeqCst) & bits != 0
    }

    /// Whether the next flush of `vcpu` has an interrupt to deliver that no list register holds yet, those apart that
    /// it has met before: one reason for a virtual CPU that waits for an interrupt to run. The other ones are in
    /// [`CpuInterface::has_pending`](super::CpuInterface).
    ///
    /// It looks where the flush will look, at the private bank and the words that are ready: whoever makes an interrupt
    /// deliverable has marked its word before asking.
    #[inline]
    #[must_use]
    pub fn has_deliverable(&self, vcpu: usize) -> bool {
        let Some(private) = self.own(vcpu) else { return false };
        if private.bank.candidates(self.groups()) != 0 {
            return true;
        }
        let ready = private.ready.load(SeqCst);
        ready != 0 && self.has_deliverable_in(vcpu, Ready(ready).words())
    }

    /// Whether one of the words `words` has an interrupt to deliver to `vcpu`.
    #[cold]
    #[inline(never)]
    pub(super) fn has_deliverable_in(&self, vcpu: usize, words: u32) -> bool {
        let groups = self.groups();
        let mut words = Bits(words).filter_map(|number| self.word(vcpu, number as usize));
        words.any(|word| word.waiting_for(vcpu, groups) != 0)
    }

    /// Whether `intid`, if it becomes pending, is forwarded to `vcpu`: what a virtual CPU that waits for it can be
    /// woken by.
    #[must_use]
    pub fn is_forwarded(&self, vcpu: usize, intid: IntId) -> bool {
        self.word(vcpu, intid.word()).is_some_and(|word| {
            word.bank.forwarded(self.groups()) & intid.mask() != 0 && word.target(intid.bit()) == vcpu
        })
    }

    /// How many physical interrupts are kept active for this virtual machine, or are pending in it: until its virtual
    /// CPUs end them.
    #[must_use]
    pub fn held_interrupts(&self) -> u32 {
        let private = self.private.iter().take(self.vcpus).map(|private| &private.bank);
        let shared = self.shared.iter().take(self.spi_words).map(|shared| &shared.bank);
        let held = |bank: &Bank| bank.linked.load(SeqCst) & (bank.pending.load(SeqCst) | bank.active.load(SeqCst));
        private.chain(shared).map(|bank| held(bank).count_ones()).sum()
    }

    /// How many steps it takes to go back to power-on: [`Vgic::reset_step`].
    #[must_use]
    pub fn reset_steps(&self) -> usize {
        self.vcpus.saturating_add(self.spi_words)
    }

    /// Back to power-on, for a restart of the virtual machine; the links stay. The caller has stopped all its virtual
    /// CPUs and has called [`CpuInterface::reset`](super::CpuInterface) for each of them. A level-sensitive line
    /// is low until its device sets it again.
    ///
    /// It goes by steps, each for 32 interrupts, so that a core can look after others in between: all of them, in
    /// ascending order from 0.
    pub fn reset_step(&self, step: usize) {
        let Some(word) = step.checked_sub(self.vcpus) else {
            self.control.store(0, SeqCst);
            if let Some(private) = self.private.get(step) {
                private.bank.reset(PRIVATE_EDGE, 0);
                private.waker.store(WAKER_ASLEEP, SeqCst);
                private.ready.store(0, SeqCst);
            }
            return;
        };
        let Some(shared) = self.shared.get(word).filter(|_| word < self.spi_words) else { return };
        let bank = &shared.bank;
        let release = bank.linked.load(SeqCst) & (bank.pending.load(SeqCst) | bank.active.load(SeqCst));
        bank.reset(0, release);
        shared.routes.reset();
        if release != 0 {
            // Virtual CPU 0 always exists; any core can deactivate a shared physical interrupt.
            let _flushed_before_it_runs = self.mark(0, word.saturating_add(1), News::Revise);
        }
    }

    /// The word `number` (0 is the private bank of `vcpu`, 1 + n the SPI word n), if this virtual machine has it.
    #[inline]
    pub(super) fn word(&self, vcpu: usize, number: usize) -> Option<Word<'_>> {
        if number == 0 {
            if vcpu >= self.vcpus {
                return None;
            }
            let private = self.private.get(vcpu)?;
            return Some(Word { bank: &private.bank, routes: None, home: vcpu, number });
        }
        let Shared { bank, routes } = self.shared(number)?;
        Some(Word { bank, routes: Some(routes), home: vcpu, number })
    }

    /// The SPI word `number`, counted from 1, if this virtual machine has it.
    #[inline(always)]
    pub(super) fn shared(&self, number: usize) -> Option<&Shared> {
        if number > self.spi_words {
            return None;
        }
        self.shared.get(number.wrapping_sub(1))
    }

    /// What a virtual CPU has for itself whose existence is not in question. As [`Vgic::private`], in fewer
    /// instructions.
    #[inline(always)]
    pub(super) fn own(&self, vcpu: usize) -> Option<&Private> {
        self.private.get(vcpu % VCPUS_MAX)
    }

    /// What the virtual CPU `vcpu` has for itself, if it exists.
    #[inline]
    pub(super) fn private(&self, vcpu: usize) -> Option<&Private> {
        self.private.get(vcpu).filter(|_| vcpu < self.vcpus)
    }

    /// The groups that GICD_CTLR forwards.
    #[inline]
    pub(super) fn groups(&self) -> Groups {
        Groups::of(self.control.load(SeqCst))
    }

    /// Latches `bits` of `word` as pending, and tells those who have to do with the ones that were not.
    #[inline]
    pub(super) fn latch(&self, word: Word<'_>, bits: u32) -> Kicks {
        // An interrupt that was pending already has been announced by whoever made it so; one that is masked will be by
        // whoever unmasks it.
        let fresh = bits & !word.bank.pending.fetch_or(bits, SeqCst);
        self.announce(word, fresh & word.bank.enabled.load(SeqCst))
    }

    /// Tells the virtual CPU that holds, or else shall get, each interrupt of `bits` that it has become pending.
    #[inline]
    fn announce(&self, word: Word<'_>, bits: u32) -> Kicks {
        if bits == 0 {
            return Kicks::NONE;
        }
        let Some(_) = word.routes else { return self.mark(word.home, 0, News::Deliver) };
        let inflight = word.bank.inflight.load(SeqCst);
        let mut kicks = Kicks::NONE;
        let mut rest = bits;
        while rest != 0 {
            let bit = rest.trailing_zeros();
            rest &= !mask(bit);
            let vcpu = if inflight & mask(bit) != 0 {
                word.holder(bit)
            } else {
                // One mark does for all that go there.
                let target = word.target(bit);
                rest &= inflight | !word.routed_to(target);
                target
            };
            kicks |= self.mark(vcpu, word.number, News::Deliver);
        }
        kicks
    }

    /// Tells the virtual CPU that holds, or else shall get, each interrupt of `bits` to look at it.
    #[inline]
    pub(super) fn notify(&self, word: Word<'_>, bits: u32) -> Kicks {
        if bits == 0 { Kicks::NONE } else { self.notify_apart(&word, bits) }
    }

    #[inline(never)]
    fn notify_apart(&self, word: &Word<'_>, bits: u32) -> Kicks {
        let inflight = word.bank.inflight.load(SeqCst);
        if word.routes.is_none() {
            let news = if inflight & bits != 0 { News::Revise } else { News::Deliver };
            return self.mark(word.home, 0, news);
        }
        let mut kicks = Kicks::NONE;
        for bit in Bits(bits) {
            kicks |= if inflight & mask(bit) != 0 {
                self.mark(word.holder(bit), word.number, News::Revise)
            } else {
                self.mark(word.target(bit), word.number, News::Deliver)
            };
        }
        kicks
    }

    /// Tells every virtual CPU to look at everything.
    pub(super) fn notify_all(&self) -> Kicks {
        let mut kicks = Kicks::NONE;
        for (vcpu, private) in self.private.iter().take(self.vcpus).enumerate() {
            private.ready.fetch_or(self.words().wrapping_shl(16), Release);
            kicks |= Kicks::one(vcpu);
        }
        kicks
    }

    /// The words that there are, a bit each.
    const fn words(&self) -> u32 {
        mask((self.spi_words as u32).wrapping_add(1)).wrapping_sub(1)
    }

    /// Marks the word `number` as ready for `vcpu`, if there is such a virtual CPU.
    #[inline]
    pub(super) fn mark(&self, vcpu: usize, number: usize, news: News) -> Kicks {
        let Some(private) = self.private(vcpu) else { return Kicks::NONE };
        let ready = Ready::of(number, news);
        if ready.0 != 0 {
            private.ready.fetch_or(ready.0, Release);
        }
        Kicks::one(vcpu)
    }

    /// Makes `vcpu` look at every word when it flushes next.
    #[cold]
    pub(super) fn mark_all(&self, vcpu: usize) {
        if let Some(private) = self.private(vcpu) {
            // Flushed before it runs.
            private.ready.fetch_or(self.words() & !1, Release);
        }
    }

    /// Takes the words that are ready for `vcpu`.
    #[inline]
    pub(super) fn take_ready(&self, vcpu: usize) -> Ready {
        let Some(private) = self.private(vcpu) else { return Ready(0) };
        if private.ready.load(Relaxed) == 0 {
            return Ready(0);
        }
        Ready(private.ready.swap(0, Acquire))
    }

    /// The virtual CPU with the affinity `affinity` (Aff2 in bits 23:16, Aff1 in 15:8, Aff0 in 7:0), if there is one.
    pub(super) const fn vcpu_of_affinity(&self, affinity: u32) -> Option<usize> {
        let index = (affinity & 15) | ((affinity & 0x00ff_ff00) >> 4);
        if affinity & 0xf0 != 0 || index as usize >= self.vcpus {
            return None;
        }
        Some(index as usize)
    }

    /// The affinity of virtual CPU `vcpu`: Aff0 is the index modulo 16, Aff1 the rest.
    pub(super) const fn affinity_of_vcpu(vcpu: usize) -> u32 {
        (vcpu as u32 & 15) | ((vcpu as u32 >> 4) << 8)
    }
}
