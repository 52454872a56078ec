//! The device's side of a split virtqueue (VIRTIO 1.2, 2.7): takes chains out of the available ring, puts them into the
//! used ring, and says when to interrupt the driver.
//!
//! Everything in the rings is the driver's claim, and the driver may change it at any moment. So each index and each
//! descriptor is loaded once, checked, and used as it was loaded: what [`Virtqueue::pop`] gives is a private copy. The
//! walk is bounded by [`SEGMENTS_MAX`], whatever the rings say. A long one is cut: each call goes on by so many
//! descriptors ([`Popped::Part`]).
//!
//! A driver that breaks a rule gets a [`QueueError`], and its device then has to ask for a reset (DEVICE_NEEDS_RESET):
//! the queue itself remembers no error. The rules that are kept more strictly than some other devices do: buffers to
//! read come before buffers to write; a head is in flight once; `addr + len` does not wrap; INDIRECT needs its feature.
//! More laxly: a chain of indirect descriptors may be longer than the queue, up to [`SEGMENTS_MAX`]; an empty buffer is
//! no error.
//!
//! What this module leaves out: registers (`devices`), what the bytes of a chain mean (the device), and whether its
//! buffers lie in the guest's memory, which [`GuestMemory`] decides at each copy.

mod chain;
mod descriptor;
mod error;
#[cfg(test)]
mod tests;

pub(crate) use chain::within_first;
pub use chain::{Buffers, Chain, Cursor, Pieces, SEGMENTS_MAX, Segment};
pub use error::QueueError;

use chain::{Extent, Next};
use core::sync::atomic::{Ordering, fence};
use descriptor::{DESCRIPTOR_SIZE, Descriptor};
use vdev::{GuestAddr, GuestMemory, QueueLayout};

/// The longest queue, in descriptors.
pub const QUEUE_SIZE_MAX: u16 = 256;

const IN_FLIGHT_WORDS: usize = QUEUE_SIZE_MAX as usize / 64;

/// The features of a queue that a driver has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// VIRTIO_F_EVENT_IDX: each side says at which index it wants to hear from the other.
    pub event_index: bool,
    /// VIRTIO_F_INDIRECT_DESC: a chain may go on in a table of its own.
    pub indirect: bool,
}

/// A split virtqueue, from its device's side.
#[derive(Clone, Debug)]
pub struct Virtqueue {
    layout: QueueLayout,
    features: Features,
    /// The slot of the available ring to take next; runs freely modulo 2¹⁶, as all indices do.
    next_available: u16,
    /// The driver's available index as it was loaded last: what lies before it can be taken without another look.
    seen_available: u16,
    /// The slot of the used ring to fill next.
    next_used: u16,
    /// `next_used` when [`Virtqueue::take_interrupt`] was last asked.
    told_used: u16,
    /// One bit for each head that the device has taken and not given back.
    in_flight: [u64; IN_FLIGHT_WORDS],
}

/// Where a call of [`Virtqueue::pop`] begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At the head of the next available chain.
    Head,
    /// Where the call before, which gave [`Popped::Part`], has ended.
    Part,
}

/// What a call of [`Virtqueue::pop`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Popped {
    /// There is no chain.
    Nothing,
    /// A chain, and all of it.
    Whole,
    /// The beginning of a chain, which is still the driver's: a further call goes on.
    Part,
}

/// When a driver sees that a chain was given back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Now,
    Later,
}

/// So many descriptors of a table are copied at a time.
const BATCH: usize = 4;
/// So many descriptors are followed by one call: some 400 instructions.
const WALK_UNIT: usize = 8;

impl Virtqueue {
    /// A queue whose driver has just made it ready. A size that is no power of two or above [`QUEUE_SIZE_MAX`] makes a
    /// queue that refuses every chain.
    #[must_use]
    pub const fn new(layout: QueueLayout, features: Features) -> Self {
        let good = layout.size.is_power_of_two() && layout.size <= QUEUE_SIZE_MAX;
        Self {
            layout: QueueLayout { size: if good { layout.size } else { 0 }, ..layout },
            features,
            next_available: 0,
            seen_available: 0,
            next_used: 0,
            told_used: 0,
            in_flight: [0; IN_FLIGHT_WORDS],
        }
    }

    /// Takes the next available chain into `chain` and its buffers into `room`, or the beginning of a long one: as many
    /// descriptors as one call follows, or there is room for. With [`Start::Part`] it goes on, in the same room or a
    /// longer one with the same beginning; where that is full, a further buffer is [`QueueError::ChainTooLong`].
    ///
    /// # Errors
    /// The rule that the driver broke. Nothing was taken, and `chain` is of no use.
    #[inline(always)]
    pub fn pop(
        &mut self,
        memory: &impl GuestMemory,
        chain: &mut Chain,
        room: &mut [Segment],
        start: Start,
    ) -> Result<Popped, QueueError> {
        if start == Start::Head {
            match self.next_head(memory)? {
                Some(head) => chain.head = head,
                None => return Ok(Popped::Nothing),
            }
        }
        if !self.walk(memory, chain, room, start)? {
            return Ok(Popped::Part);
        }
        self.set_in_flight(chain.head, true);
        self.next_available = self.next_available.wrapping_add(1);
        Ok(Popped::Whole)
    }

    /// The head of the next available chain, if there is one.
    #[inline]
    fn next_head(&mut self, memory: &impl GuestMemory) -> Result<Option<u16>, QueueError> {
        if self.next_available == self.seen_available {
            self.seen_available = self.available_index(memory)?;
            if self.next_available == self.seen_available {
                return Ok(None);
            }
            // The driver wrote the slots and their descriptors before the index that covers them (2.7.13.3); they must
            // not be loaded before it either.
            fence(Ordering::Acquire);
        }
        let head = memory.load_u16(self.available_slot(self.next_available))?;
        if head >= self.layout.size {
            return Err(QueueError::Head);
        }
        if self.is_in_flight(head) {
            return Err(QueueError::HeadInFlight);
        }
        Ok(Some(head))
    }

    /// Puts the chain with this head back, because there is no room for it now: the next pop gives it again. Of several
    /// the one that was popped last comes first, and all that were popped after the first of them are put back.
    pub fn put_back(&mut self, head: u16) {
        if self.is_in_flight(head) {
            self.set_in_flight(head, false);
            self.next_available = self.next_available.wrapping_sub(1);
        }
    }

    /// Whether every chain that the device knows of was taken. There may be others: see
    /// [`Virtqueue::enable_notifications`].
    #[must_use]
    #[inline]
    pub const fn has_taken_all(&self) -> bool {
        self.next_available == self.seen_available
    }

    /// Whether chains wait, without taking one.
    ///
    /// # Errors
    /// [`QueueError::Memory`], [`QueueError::AvailableIndex`].
    #[inline]
    pub fn has_available(&self, memory: &impl GuestMemory) -> Result<bool, QueueError> {
        Ok(self.next_available != self.seen_available || self.available_index(memory)? != self.next_available)
    }

    /// Gives the chain with this head back to the driver: the device has written the first `written` bytes of its
    /// writable part, and no others.
    ///
    /// # Errors
    /// [`QueueError::Memory`]; [`QueueError::NotInFlight`] if the device does not have the chain (nothing is written).
    #[inline(always)]
    pub fn push_used(&mut self, memory: &impl GuestMemory, head: u16, written: u32) -> Result<(), QueueError> {
        self.put_used(memory, head, written, Shown::Now)
    }

    /// As [`Virtqueue::push_used`], but the driver sees it with the next chain that is pushed: of several that belong
    /// together it must not find some.
    ///
    /// # Errors
    /// As for [`Virtqueue::push_used`].
    #[inline(always)]
    pub fn push_used_unseen(&mut self, memory: &impl GuestMemory, head: u16, written: u32) -> Result<(), QueueError> {
        self.put_used(memory, head, written, Shown::Later)
    }

    #[inline(never)]
    fn put_used(&mut self, memory: &impl GuestMemory, head: u16, written: u32, shown: Shown) -> Result<(), QueueError> {
        if !self.is_in_flight(head) {
            return Err(QueueError::NotInFlight);
        }
        let slot = u64::from(self.next_used & self.mask()) << 3;
        memory.store_u32(offset(self.layout.used, slot.wrapping_add(4)), u32::from(head))?;
        memory.store_u32(offset(self.layout.used, slot.wrapping_add(8)), written)?;
        self.set_in_flight(head, false);
        self.next_used = self.next_used.wrapping_add(1);
        if shown == Shown::Now {
            // The driver, on another core, must not see the index before it sees the entry and the data (2.7.8.2).
            fence(Ordering::Release);
            memory.store_u16(offset(self.layout.used, 2), self.next_used)?;
        }
        Ok(())
    }

    /// Chains that were pushed since [`Virtqueue::take_interrupt`] was last asked, modulo 2¹⁶.
    #[must_use]
    #[inline]
    pub const fn untold(&self) -> u16 {
        self.next_used.wrapping_sub(self.told_used)
    }

    /// Whether the driver wants an interrupt for what was pushed since the last call. Ask after each batch: with
    /// EVENT_IDX, 2¹⁶ chains between two calls look like none.
    ///
    /// # Errors
    /// [`QueueError::Memory`].
    #[inline]
    pub fn take_interrupt(&mut self, memory: &impl GuestMemory) -> Result<bool, QueueError> {
        let pushed = self.untold();
        if pushed == 0 {
            return Ok(false);
        }
        self.told_used = self.next_used;
        // Store of the used index, then load of what the driver wants; the driver does the reverse. Without a full
        // barrier both may miss the other's store, and nobody wakes (2.7.7.2).
        fence(Ordering::SeqCst);
        if self.features.event_index {
            // With EVENT_IDX the flags are ignored (2.7.7.2).
            let event = memory.load_u16(offset(self.available_ring(), u64::from(self.layout.size) << 1))?;
            let behind = self.next_used.wrapping_sub(event).wrapping_sub(1);
            return Ok(behind < pushed);
        }
        const NO_INTERRUPT: u16 = 1;
        Ok(memory.load_u16(self.layout.available)? & NO_INTERRUPT == 0)
    }

    /// Asks the driver to notify of the next chain, and says whether one came meanwhile: then it may have seen no
    /// reason to notify, and the device must look itself.
    ///
    /// # Errors
    /// [`QueueError::Memory`], [`QueueError::AvailableIndex`].
    #[inline]
    pub fn enable_notifications(&mut self, memory: &impl GuestMemory) -> Result<bool, QueueError> {
        self.notify_from(memory, self.next_available)
    }

    /// As [`Virtqueue::enable_notifications`], for a device that has put chains back because it needs more than there
    /// are: only what [`Virtqueue::pop`] has not seen counts.
    ///
    /// # Errors
    /// As for [`Virtqueue::enable_notifications`].
    pub fn ask_for_more(&mut self, memory: &impl GuestMemory) -> Result<bool, QueueError> {
        self.notify_from(memory, self.seen_available)
    }

    #[inline]
    fn notify_from(&mut self, memory: &impl GuestMemory, index: u16) -> Result<bool, QueueError> {
        if self.features.event_index {
            let entries = u64::from(self.layout.size) << 3;
            memory.store_u16(offset(self.layout.used, entries.wrapping_add(4)), index)?;
        } else {
            memory.store_u16(self.layout.used, 0)?;
        }
        // Store of the wish, then load of the index; the driver does the reverse (2.7.10.2).
        fence(Ordering::SeqCst);
        Ok(self.available_index(memory)? != index)
    }

    /// Tells the driver that it need not notify. With EVENT_IDX there is nothing to tell: it notifies once for each
    /// [`Virtqueue::enable_notifications`], and the flags must be 0 (2.7.10.1).
    ///
    /// # Errors
    /// [`QueueError::Memory`].
    #[inline]
    pub fn disable_notifications(&mut self, memory: &impl GuestMemory) -> Result<(), QueueError> {
        const NO_NOTIFY: u16 = 1;
        if !self.features.event_index {
            memory.store_u16(self.layout.used, NO_NOTIFY)?;
        }
        Ok(())
    }

    /// How many chains the device has taken and not given back.
    #[must_use]
    pub fn in_flight(&self) -> u16 {
        let bits: u32 = self.in_flight.iter().map(|word| word.count_ones()).sum();
        bits as u16
    }

    /// Where the queue lies.
    #[must_use]
    pub const fn layout(&self) -> QueueLayout {
        self.layout
    }

    /// Loads the driver's available index.
    #[inline]
    fn available_index(&self, memory: &impl GuestMemory) -> Result<u16, QueueError> {
        let index = memory.load_u16(offset(self.layout.available, 2))?;
        // Also an index that has gone back: it is then almost 2¹⁶ ahead.
        if index.wrapping_sub(self.next_available) > self.layout.size {
            return Err(QueueError::AvailableIndex);
        }
        Ok(index)
    }

    /// Copies `chain` on by [`WALK_UNIT`] descriptors, or as far as there is room. Returns whether that was its end.
    #[inline(always)]
    fn walk(
        &self,
        memory: &impl GuestMemory,
        chain: &mut Chain,
        segments: &mut [Segment],
        start: Start,
    ) -> Result<bool, QueueError> {
        let (mut extent, looked_at, mut next) = match start {
            Start::Head => (Extent::NONE, 0, Next::at(chain.head)),
            Start::Part => chain.so_far(),
        };
        // A chain that is full takes no further buffer, and those that are empty.
        let room = segments.len().wrapping_sub(extent.segments());
        let room = if room == 0 { WALK_UNIT } else { room };
        let unit = room.min(SEGMENTS_MAX.wrapping_sub(looked_at)).min(WALK_UNIT);
        let mut left = unit;
        let result = self.walk_from(memory, &mut next, segments, &mut extent, &mut left);
        if result == Ok(false) {
            chain.go_on_at(next);
        }
        chain.keep(extent, looked_at.wrapping_add(unit).wrapping_sub(left));
        result
    }

    /// Follows a chain from where `next` says on, for at most `left` descriptors, of which it leaves what it did not
    /// need.
    #[inline(always)]
    fn walk_from(
        &self,
        memory: &impl GuestMemory,
        next: &mut Next,
        segments: &mut [Segment],
        extent: &mut Extent,
        left: &mut usize,
    ) -> Result<bool, QueueError> {
        while next.entries == 0 {
            let index = next.index;
            if index >= self.layout.size {
                return Err(QueueError::Next);
            }
            let descriptor = Descriptor::load(memory, offset(self.layout.descriptors, u64::from(index) << 4))?;
            if descriptor.is_indirect() {
                *next = self.indirect_table(descriptor)?;
                break;
            }
            *left = left.checked_sub(1).ok_or(QueueError::ChainTooLong)?;
            extent.add(segments, descriptor)?;
            if !descriptor.continues() {
                return Ok(true);
            }
            next.index = descriptor.next;
            if *left == 0 {
                return Ok(false);
            }
        }
        walk_table(memory, next, segments, extent, left)
    }

    /// The table that an indirect descriptor names. Its WRITE flag means nothing (2.7.5.3.2), and it may follow plain
    /// descriptors.
    fn indirect_table(&self, descriptor: Descriptor) -> Result<Next, QueueError> {
        if !self.features.indirect {
            return Err(QueueError::IndirectNotNegotiated);
        }
        if descriptor.continues() {
            return Err(QueueError::IndirectAndNext);
        }
        let Descriptor { address, length, .. } = descriptor;
        let entries = length / DESCRIPTOR_SIZE;
        if entries == 0 || !length.is_multiple_of(DESCRIPTOR_SIZE) || entries > u32::from(u16::MAX) {
            return Err(QueueError::IndirectLength);
        }
        if address.0.checked_add(u64::from(length)).is_none() {
            return Err(QueueError::AddressWraps);
        }
        Ok(Next { table: address, entries: entries as u16, index: 0 })
    }

    /// What turns an index into a slot. The size is a power of two wherever a slot is used: with none, no chain is in
    /// flight and no index is in reach.
    #[inline]
    const fn mask(&self) -> u16 {
        self.layout.size.wrapping_sub(1)
    }

    /// Where the slots of the available ring begin.
    #[inline]
    const fn available_ring(&self) -> GuestAddr {
        offset(self.layout.available, 4)
    }

    #[inline]
    const fn available_slot(&self, index: u16) -> GuestAddr {
        offset(self.available_ring(), ((index & self.mask()) as u64) << 1)
    }

    #[inline]
    fn is_in_flight(&self, head: u16) -> bool {
        self.in_flight.get(usize::from(head >> 6)).is_some_and(|word| word & bit(head) != 0)
    }

    #[inline]
    fn set_in_flight(&mut self, head: u16, taken: bool) {
        if let Some(word) = self.in_flight.get_mut(usize::from(head >> 6)) {
            *word = if taken { *word | bit(head) } else { *word & !bit(head) };
        }
    }
}

/// Goes on with a chain in a table of indirect descriptors, as [`Virtqueue::walk_from`].
#[inline(never)]
fn walk_table(
    memory: &impl GuestMemory,
    next: &mut Next,
    segments: &mut [Segment],
    extent: &mut Extent,
    left: &mut usize,
) -> Result<bool, QueueError> {
    let Next { table, entries, mut index } = *next;
    let mut batch = [[0; 2]; BATCH];
    loop {
        let Some(behind) = entries.checked_sub(index).filter(|behind| *behind != 0) else {
            return Err(QueueError::Next);
        };
        let count = usize::from(behind).min(*left).clamp(1, BATCH);
        let address = offset(table, u64::from(index) << 4);
        // Each batch is copied once, and used as it was copied. What the chain does not lead to may lie anywhere.
        let count = match batch.get_mut(..count).map(|batch| memory.load_u64_pairs(address, batch)) {
            Some(Ok(())) => count,
            Some(Err(_)) | None => {
                memory.load_u64_pairs(address, batch.get_mut(..1).unwrap_or_default())?;
                1
            }
        };
        for pair in batch.get(..count).unwrap_or_default() {
            let descriptor = Descriptor::of(*pair);
            *left = left.checked_sub(1).ok_or(QueueError::ChainTooLong)?;
            if descriptor.is_indirect() {
                return Err(QueueError::IndirectNested);
            }
            extent.add(segments, descriptor)?;
            if !descriptor.continues() {
                return Ok(true);
            }
            index = index.wrapping_add(1);
            if descriptor.next != index {
                index = descriptor.next;
                break;
            }
        }
        if *left == 0 {
            next.index = index;
            return Ok(false);
        }
    }
}

/// The bit of `head` in its word of the bitmap.
#[inline]
const fn bit(head: u16) -> u64 {
    1 << (head & 63)
}

/// `address + bytes`. A ring that wraps around the address space is found out where it is used: each address is judged
/// by [`GuestMemory`], on its own.
#[inline]
const fn offset(address: GuestAddr, bytes: u64) -> GuestAddr {
    GuestAddr(address.0.wrapping_add(bytes))
}
