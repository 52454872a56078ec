//! Thirty-two interrupts as bitmaps, and, for SPIs, where they go.

use core::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, Ordering::Relaxed, Ordering::SeqCst};

use super::interrupt::{IntId, mask};
use super::{ListRegister, VCPUS_MAX};

/// The number that stands for "no virtual CPU" in a route.
pub(super) const NOBODY: u8 = 0xff;

/// The implemented bits of a priority: 32 levels, as many as every list register can hold.
const PRIORITY_IMPLEMENTED: u8 = 0xf8;
const PRIORITY_BITS: usize = PRIORITY_IMPLEMENTED.count_ones() as usize;

/// Thirty-two interrupts: bit n of every bitmap speaks of the same one.
///
/// The bitmaps that decide about delivery are changed and read with sequentially consistent operations; see the
/// module's introduction for the reason. On AArch64 they cost no instruction more than relaxed ones.
///
/// `pending` comes first: the exit paths that count change it, and AArch64 has no offsets in atomic operations.
#[repr(C)]
pub(super) struct Bank {
    /// Latched pending: an edge has arrived, or the guest wrote GICx_ISPENDR, and no list register took it yet.
    pub(super) pending: AtomicU32,
    /// Forwarding is enabled (GICx_ISENABLER).
    pub(super) enabled: AtomicU32,
    /// The level of the input line.
    pub(super) line: AtomicU32,
    /// Active, and in no list register.
    pub(super) active: AtomicU32,
    /// In a list register of some virtual CPU. Only the virtual CPU that set a bit clears it.
    pub(super) inflight: AtomicU32,
    /// In flight, and no longer pending when the list register was last looked at.
    pub(super) listed_taken: AtomicU32,
    /// In flight, and active when the list register was last looked at.
    pub(super) listed_active: AtomicU32,
    /// Group 1 (GICx_IGROUPR).
    pub(super) group: AtomicU32,
    /// Edge-triggered (GICx_ICFGR).
    pub(super) edge: AtomicU32,
    /// Linked to a physical interrupt, which a deactivation by the guest deactivates too.
    pub(super) linked: AtomicU32,
    /// Linked, no longer pending or active for the guest: the physical interrupt is to be deactivated.
    pub(super) release: AtomicU32,
    /// Requests to whoever holds the interrupt in flight: it shall be pending no more,
    pub(super) clear_pending: AtomicU32,
    /// it shall be active no more,
    pub(super) clear_active: AtomicU32,
    /// it shall be active.
    pub(super) set_active: AtomicU32,
    priority: [AtomicU8; 32],
    /// The same once more, as bitmaps: the implemented bits of all priorities, the most significant bit first. They
    /// find the best of many interrupts in as many steps as there are bits.
    priority_bits: [AtomicU32; PRIORITY_BITS],
}

impl Bank {
    pub(super) const fn new(edge: u32) -> Self {
        Self {
            enabled: AtomicU32::new(0),
            pending: AtomicU32::new(0),
            line: AtomicU32::new(0),
            active: AtomicU32::new(0),
            inflight: AtomicU32::new(0),
            listed_taken: AtomicU32::new(0),
            listed_active: AtomicU32::new(0),
            group: AtomicU32::new(u32::MAX),
            edge: AtomicU32::new(edge),
            linked: AtomicU32::new(0),
            release: AtomicU32::new(0),
            clear_pending: AtomicU32::new(0),
            clear_active: AtomicU32::new(0),
            set_active: AtomicU32::new(0),
            priority: [const { AtomicU8::new(0) }; 32],
            priority_bits: [const { AtomicU32::new(0) }; PRIORITY_BITS],
        }
    }

    /// Back to power-on, except for the links, which belong to the virtual machine's construction. The physical
    /// interrupts `release` waited for the guest and are to be deactivated.
    pub(super) fn reset(&self, edge: u32, release: u32) {
        for bitmap in [
            &self.enabled,
            &self.pending,
            &self.line,
            &self.active,
            &self.inflight,
            &self.listed_taken,
            &self.listed_active,
            &self.clear_pending,
            &self.clear_active,
            &self.set_active,
        ] {
            bitmap.store(0, SeqCst);
        }
        for bitmap in &self.priority_bits {
            bitmap.store(0, SeqCst);
        }
        self.group.store(u32::MAX, SeqCst);
        self.edge.store(edge, SeqCst);
        self.release.store(release, SeqCst);
        for priority in &self.priority {
            priority.store(0, Relaxed);
        }
    }

    /// The interrupts that are pending by their latch, or by their line if they are level-sensitive.
    #[inline]
    pub(super) fn raised(&self) -> u32 {
        self.pending.load(SeqCst) | (self.line.load(SeqCst) & !self.edge.load(Relaxed))
    }

    /// The interrupts that are enabled, they and their group.
    #[inline]
    pub(super) fn forwarded(&self, groups: Groups) -> u32 {
        self.enabled.load(SeqCst) & groups.select(self.group.load(Relaxed))
    }

    /// The interrupts that wait for a list register: raised, forwarded, not active, not in flight.
    #[inline]
    pub(super) fn candidates(&self, groups: Groups) -> u32 {
        let raised = self.raised();
        if raised == 0 {
            return 0;
        }
        raised & self.forwarded(groups) & !self.active.load(SeqCst) & !self.inflight.load(SeqCst)
    }

    /// The priority of interrupt `bit`.
    #[inline]
    pub(super) fn priority(&self, bit: u32) -> u8 {
        self.priority.get((bit & 31) as usize).map_or(0, |priority| priority.load(Relaxed))
    }

    /// The priorities of the four interrupts from `first`, a multiple of 4, on: one in each byte.
    fn four_priorities(&self, first: u32) -> u32 {
        // In the order of the bitmaps' changes: whoever writes last must see what others have written before.
        let priority = |bit: u32| self.priority.get((bit & 31) as usize).map_or(0, |priority| priority.load(SeqCst));
        (0..4).rev().fold(0, |word, byte| word << 8 | u32::from(priority(first | byte)))
    }

    /// Sets the implemented bits of the priorities of `count` interrupts, up to four, from `first` on. All are of one
    /// group of four: `first` is a multiple of 4, or `count` is 1.
    pub(super) fn set_priorities(&self, first: u32, count: u32, values: u32) {
        let mut changed = 0;
        let mut rest = values;
        for bit in first..first.saturating_add(count) {
            if let Some(priority) = self.priority.get((bit & 31) as usize) {
                let value = rest as u8 & PRIORITY_IMPLEMENTED;
                changed |= priority.swap(value, SeqCst) ^ value;
            }
            rest >>= 8;
        }
        if changed != 0 {
            self.follow_priorities(first & 28, changed);
        }
    }

    /// Brings those of the bits `changed` of the four priorities from `first` on up to date in the bitmaps.
    #[inline(never)]
    fn follow_priorities(&self, first: u32, changed: u8) {
        let of_four = 0xf_u32.wrapping_shl(first);
        let mut changed = changed;
        // Another virtual CPU may write the same ones: whoever writes last finds its own values in the end.
        for _ in 0..VCPUS_MAX {
            let four = self.four_priorities(first);
            for (place, bitmap) in (0..PRIORITY_BITS as u32).zip(&self.priority_bits) {
                let shift = 7_u32.wrapping_sub(place);
                if u32::from(changed).wrapping_shr(shift) & 1 != 0 {
                    // One bit of each byte, gathered in the product's upper four bits.
                    let gathered = (four.wrapping_shr(shift) & 0x0101_0101).wrapping_mul(0x1020_4080) >> 28;
                    replace(bitmap, of_four, gathered.wrapping_shl(first));
                }
            }
            if self.four_priorities(first) == four {
                return;
            }
            changed = PRIORITY_IMPLEMENTED;
        }
    }

    /// Those of `interrupts` that have the highest priority.
    #[inline]
    pub(super) fn best_of(&self, interrupts: u32) -> u32 {
        self.priority_bits.iter().fold(interrupts, |best, bitmap| {
            let better = best & !bitmap.load(Relaxed);
            if better == 0 { best } else { better }
        })
    }

    /// The group of interrupt `bit`, 0 or 1.
    #[inline]
    pub(super) fn group_of(&self, bit: u32) -> u32 {
        self.group.load(Relaxed).wrapping_shr(bit) & 1
    }

    /// Publishes which of the in-flight interrupts `bits` are pending and which are active in their list registers, for
    /// other cores' register reads.
    pub(super) fn publish(&self, bits: u32, pending: u32, active: u32) {
        replace(&self.listed_taken, bits, !pending);
        replace(&self.listed_active, bits, active);
    }

    /// Forgets what was published about the interrupts `bits`, which leave their list registers. Returns whether
    /// anything stays published.
    #[inline]
    pub(super) fn unpublish(&self, bits: u32) -> bool {
        clear(&self.listed_taken, bits) | clear(&self.listed_active, bits) != 0
    }

    /// Moves the requests of `bits` out of `requests` and gives them.
    #[inline]
    pub(super) fn take(requests: &AtomicU32, bits: u32) -> u32 {
        if requests.load(SeqCst) & bits == 0 {
            return 0;
        }
        requests.fetch_and(!bits, SeqCst) & bits
    }
}

/// Gives the bits `range` of `bitmap` the values that they have in `bits`, with no write where nothing changes: in one
/// order with what the bits are made from, since several virtual CPUs may do so at once.
#[inline]
fn replace(bitmap: &AtomicU32, range: u32, bits: u32) {
    let changed = (bitmap.load(SeqCst) ^ bits) & range;
    if changed & !bits != 0 {
        bitmap.fetch_and(!(changed & !bits), SeqCst);
    }
    if changed & bits != 0 {
        bitmap.fetch_or(changed & bits, SeqCst);
    }
}

/// Clears `bits`, with no write where nothing changes. Gives the others.
#[inline]
fn clear(bitmap: &AtomicU32, bits: u32) -> u32 {
    let before = bitmap.load(Relaxed);
    if before & bits != 0 {
        bitmap.fetch_and(!bits, SeqCst);
    }
    before & !bits
}

/// Which interrupt groups the distributor forwards (GICD_CTLR.EnableGrp0 and EnableGrp1).
#[derive(Clone, Copy)]
pub(super) struct Groups {
    zero: u32,
    one: u32,
}

impl Groups {
    /// Decodes the two enable bits of GICD_CTLR.
    #[inline]
    pub(super) const fn of(control: u32) -> Self {
        Self { zero: 0u32.wrapping_sub(control & 1), one: 0u32.wrapping_sub((control >> 1) & 1) }
    }

    /// The interrupts of a word whose group is enabled; `group` has a bit set for each interrupt of group 1.
    #[inline]
    const fn select(self, group: u32) -> u32 {
        (group & self.one) | (!group & self.zero)
    }
}

/// Where the 32 SPIs of a word go and who has them.
pub(super) struct Routes {
    /// GICD_IROUTER bits 23:0 as the guest wrote them; Aff3 does not exist (GICD_TYPER.A3V = 0).
    pub(super) router: [AtomicU32; 32],
    /// The virtual CPU that GICD_IROUTER names, or [`NOBODY`].
    target: [AtomicU8; 32],
    /// The same once more, as bitmaps: which interrupts go to each virtual CPU.
    routed: [AtomicU32; VCPUS_MAX],
    /// The virtual CPU whose list register holds the interrupt; meaningful for an interrupt in flight.
    pub(super) holder: [AtomicU8; 32],
    /// The physical interrupt of a linked one.
    pub(super) physical: [AtomicU16; 32],
}

impl Routes {
    pub(super) const fn new() -> Self {
        Self {
            router: [const { AtomicU32::new(0) }; 32],
            target: [const { AtomicU8::new(0) }; 32],
            routed: {
                let mut routed = [const { AtomicU32::new(0) }; VCPUS_MAX];
                routed[0] = AtomicU32::new(u32::MAX);
                routed
            },
            holder: [const { AtomicU8::new(NOBODY) }; 32],
            physical: [const { AtomicU16::new(0) }; 32],
        }
    }

    pub(super) fn reset(&self) {
        for ((router, target), holder) in self.router.iter().zip(&self.target).zip(&self.holder) {
            router.store(0, SeqCst);
            target.store(0, SeqCst);
            holder.store(NOBODY, SeqCst);
        }
        for (vcpu, routed) in self.routed.iter().enumerate() {
            routed.store(if vcpu == 0 { u32::MAX } else { 0 }, SeqCst);
        }
    }

    /// The virtual CPU that shall get interrupt `bit`; an index that no virtual CPU has, if it goes nowhere.
    #[inline]
    pub(super) fn target(&self, bit: u32) -> usize {
        self.target.get((bit & 31) as usize).map_or(usize::from(NOBODY), |target| usize::from(target.load(SeqCst)))
    }

    /// Routes interrupt `bit` to `vcpu`, or nowhere.
    pub(super) fn set_target(&self, bit: u32, vcpu: Option<usize>) {
        if let Some(target) = self.target.get((bit & 31) as usize) {
            target.store(vcpu.map_or(NOBODY, |vcpu| vcpu as u8), SeqCst);
        }
        // Another virtual CPU may write the same route: whoever writes last finds its own in the end.
        for _ in 0..VCPUS_MAX {
            let target = self.target(bit);
            for (vcpu, routed) in self.routed.iter().enumerate() {
                replace(routed, mask(bit), if vcpu == target { u32::MAX } else { 0 });
            }
            if self.target(bit) == target {
                return;
            }
        }
    }
}

/// One word of 32 interrupts in its place: a private bank or an SPI word of a virtual machine.
#[derive(Clone, Copy)]
pub(super) struct Word<'a> {
    pub(super) bank: &'a Bank,
    /// The routes of an SPI word; a private bank has none.
    pub(super) routes: Option<&'a Routes>,
    /// The virtual CPU that a private bank belongs to; of no meaning for an SPI word.
    pub(super) home: usize,
    /// 0 for a private bank, 1 + n for the SPI word n.
    pub(super) number: usize,
}

impl Word<'_> {
    /// The INTID of interrupt `bit`.
    #[inline]
    pub(super) const fn intid(&self, bit: u32) -> IntId {
        IntId::new(((self.number as u32) << 5) | bit)
    }

    /// The virtual CPU that shall get interrupt `bit`; an index that no virtual CPU has, if it goes nowhere.
    #[inline]
    pub(super) fn target(&self, bit: u32) -> usize {
        self.routes.map_or(self.home, |routes| routes.target(bit))
    }

    /// The interrupts that go to `vcpu`, which has this word.
    #[inline]
    pub(super) fn routed_to(&self, vcpu: usize) -> u32 {
        self.routes.map_or(u32::MAX, |routes| routes.routed.get(vcpu).map_or(0, |routed| routed.load(SeqCst)))
    }

    /// The interrupts that wait for a list register of `vcpu`.
    #[inline]
    pub(super) fn waiting_for(&self, vcpu: usize, groups: Groups) -> u32 {
        let candidates = self.bank.candidates(groups);
        if candidates == 0 { 0 } else { candidates & self.routed_to(vcpu) }
    }

    /// The virtual CPU whose list register holds interrupt `bit`; meaningful for an interrupt in flight.
    #[inline]
    pub(super) fn holder(&self, bit: u32) -> usize {
        self.routes
            .and_then(|routes| routes.holder.get((bit & 31) as usize))
            .map_or(self.home, |holder| usize::from(holder.load(SeqCst)))
    }

    /// The physical interrupt of the linked interrupt `bit`. A private one has its own number.
    #[inline]
    pub(super) fn physical(&self, bit: u32) -> u32 {
        match self.routes {
            None => self.intid(bit).raw(),
            Some(routes) => {
                routes.physical.get((bit & 31) as usize).map_or(0, |physical| u32::from(physical.load(Relaxed)))
            }
        }
    }

    /// What a list register that holds the pending interrupt `bit` has in it.
    #[inline]
    pub(super) fn register(&self, bit: u32) -> ListRegister {
        let (intid, priority, group) = (self.intid(bit), self.bank.priority(bit), self.bank.group_of(bit));
        if self.bank.linked.load(Relaxed) & mask(bit) != 0 {
            ListRegister::linked(intid, self.physical(bit), priority, group)
        } else {
            ListRegister::software(intid, priority, group)
        }
    }

    /// Marks interrupt `bit` as in flight for `vcpu`, unless it is so for another virtual CPU. Returns whether it did.
    ///
    /// Until `vcpu` lets go of it, others who look pass it over, and others who change it tell `vcpu` alone. So one
    /// that is let go of has to be [reconsidered](super::CpuInterface::reconsider).
    #[inline]
    pub(super) fn take_in_flight(&self, bit: u32, vcpu: usize) -> bool {
        let bits = mask(bit);
        if self.bank.inflight.fetch_or(bits, SeqCst) & bits != 0 {
            return false;
        }
        if let Some(holder) = self.routes.and_then(|routes| routes.holder.get((bit & 31) as usize)) {
            holder.store(vcpu as u8, SeqCst);
        }
        #[cfg(test)]
        super::tests::meanwhile();
        true
    }

    /// Takes interrupt `bit` for a list register of `vcpu`; says whether its latch was set, which is thereby cleared.
    /// `None` if another virtual CPU has it, or if it is not to be delivered to `vcpu` any more: then it has to be
    /// [reconsidered](super::CpuInterface::reconsider).
    #[inline]
    pub(super) fn claim(&self, bit: u32, vcpu: usize, groups: Groups) -> Option<bool> {
        let bits = mask(bit);
        if !self.take_in_flight(bit, vcpu) {
            return None;
        }
        // From here on whoever changes this interrupt sees that we hold it. What changed before, we look at now.
        let latched = self.bank.pending.fetch_and(!bits, SeqCst) & bits != 0;
        let by_line = self.bank.line.load(SeqCst) & !self.bank.edge.load(Relaxed) & bits != 0;
        let deliverable = self.bank.forwarded(groups) & !self.bank.active.load(SeqCst) & bits != 0;
        if deliverable && (latched || by_line) && self.target(bit) == vcpu {
            return Some(latched);
        }
        if latched {
            self.bank.pending.fetch_or(bits, SeqCst);
        }
        self.bank.inflight.fetch_and(!bits, SeqCst);
        None
    }
}
