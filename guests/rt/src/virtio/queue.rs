//! The driver's end of a split virtqueue in which every chain is one table of descriptors (VIRTIO 1.2, 2.7.5.3).
//!
//! `virtio-drivers` has a queue too, and makes a table of each request out of slices. What another guest has granted is
//! no slice of this program's, and comes as a table already: here a table goes to the device as it is.
//!
//! What this module leaves out: what a chain means, and who owns its buffers.

use super::{Error, Transport};
use crate::shared::Shared;
use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use core::mem::offset_of;
use core::ops::Deref;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering, fence};
use virtio_drivers::transport::Transport as _;

/// The entries of a queue, and so the chains in flight. A device whose queue is shorter is not taken.
pub(super) const ENTRIES: usize = 128;

/// Flags of a descriptor (VIRTIO 1.2, 2.7.5): the chain goes on; the device writes the buffer; it is a table.
const NEXT: u16 = 1 << 0;
const WRITE: u16 = 1 << 1;
const INDIRECT: u16 = 1 << 2;

/// The size of a descriptor in bytes.
pub(super) const DESCRIPTOR_SIZE: u64 = 16;

/// What the device may do with a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It reads: the data of a write to a disk.
    Reads,
    /// It writes.
    Writes,
}

/// A buffer as one of a table's descriptors, in two little-endian words; the chain goes on at `next`, if it does.
#[inline]
pub(super) const fn descriptor(address: u64, bytes: u32, access: Access, next: Option<u16>) -> [u64; 2] {
    let write = match access {
        Access::Reads => 0,
        Access::Writes => WRITE,
    };
    let (flags, next) = match next {
        Some(next) => (write | NEXT, next),
        None => (write, 0),
    };
    [address, bytes as u64 | (flags as u64) << 32 | (next as u64) << 48]
}

/// A descriptor that the device reads.
pub(super) type Entry = [AtomicU64; 2];

/// Writes a descriptor.
#[inline]
pub(super) fn write(entry: &Entry, words: [u64; 2]) {
    let ([low, high], [address, rest]) = (entry, words);
    low.store(address, Ordering::Relaxed);
    high.store(rest, Ordering::Relaxed);
}

/// Memory of which all zeroes are a value, and which a device may read and write at any time.
///
/// # Safety
/// The type consists of atomics alone.
pub(super) unsafe trait Atomics {}

/// A `T` on the heap that a device knows the address of. It must have forgotten that before this is dropped.
pub(super) struct DeviceMemory<T: Atomics>(NonNull<T>);

impl<T: Atomics> DeviceMemory<T> {
    /// All zeroes; `None` where there is no memory.
    pub(super) fn new() -> Option<Self> {
        const { assert!(size_of::<T>() > 0) };
        // SAFETY: the layout is not empty.
        NonNull::new(unsafe { alloc_zeroed(Layout::new::<T>()) }.cast()).map(Self)
    }

    /// The address, which is also the device's.
    pub(super) fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }
}

impl<T: Atomics> Deref for DeviceMemory<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: memory of the heap that this owns; atomics may be shared, and all zeroes were some.
        unsafe { self.0.as_ref() }
    }
}

impl<T: Atomics> Drop for DeviceMemory<T> {
    fn drop(&mut self) {
        // SAFETY: it came from `alloc_zeroed` with this layout, and there is nothing in it to drop.
        unsafe { dealloc(self.0.as_ptr().cast(), Layout::new::<T>()) };
    }
}

/// The rings (VIRTIO 1.2, 2.7), as one piece that is laid out as a legacy device wants it too.
#[repr(C, align(4096))]
struct Rings {
    descriptors: [Entry; ENTRIES],
    available_flags: AtomicU16,
    available_index: AtomicU16,
    available: [AtomicU16; ENTRIES],
    /// The device interrupts when it passes this index.
    used_event: AtomicU16,
    used: Used,
}

/// The ring that the device writes.
#[repr(C, align(4096))]
struct Used {
    flags: AtomicU16,
    index: AtomicU16,
    /// The index of the chain's first descriptor; the bytes that were written.
    ring: [[AtomicU32; 2]; ENTRIES],
    /// The device wants to be notified when the driver passes this index.
    available_event: AtomicU16,
}

// SAFETY: atomics alone.
unsafe impl Atomics for Rings {}

/// A virtqueue. Its owner numbers the chains in flight, below [`ENTRIES`].
pub(super) struct Queue {
    rings: DeviceMemory<Rings>,
    has_event_index: bool,
    /// Chains made available, modulo 2¹⁶.
    available: u16,
    /// As many of them as the device was told of.
    told: u16,
    /// Chains taken back.
    used: u16,
    /// What `used_event` says.
    event: u16,
}

impl Queue {
    /// Sets queue `number` up.
    ///
    /// # Errors
    /// [`Error::AlreadyUsed`]; [`Error::InvalidParam`] for a queue that is too short; [`Error::DmaError`] without
    /// memory.
    pub(super) fn new(transport: &mut Transport, number: u16, has_event_index: bool) -> Result<Self, Error> {
        if transport.queue_used(number) {
            return Err(Error::AlreadyUsed);
        }
        if transport.max_queue_size(number) < ENTRIES as u32 {
            return Err(Error::InvalidParam);
        }
        let rings = DeviceMemory::<Rings>::new().ok_or(Error::DmaError)?;
        let at = |offset: usize| rings.address() + offset as u64;
        let (available, used) = (at(offset_of!(Rings, available_flags)), at(offset_of!(Rings, used)));
        transport.queue_set(number, ENTRIES as u32, rings.address(), available, used);
        Ok(Self { rings, has_event_index, available: 0, told: 0, used: 0, event: 0 })
    }

    /// Makes the chain in the `bytes` of the table at `address` available, as number `chain`, which is not in flight.
    #[inline]
    pub(super) fn add(&mut self, chain: u16, address: u64, bytes: u32) {
        let index = usize::from(chain) % ENTRIES;
        write(&self.rings.descriptors[index], [address, u64::from(bytes) | u64::from(INDIRECT) << 32]);
        self.rings.available[usize::from(self.available) % ENTRIES].store(index as u16, Ordering::Relaxed);
        // Whoever took the last chain back and has not looked for another is told when this one is done.
        self.event = self.used;
        self.rings.used_event.store(self.event, Ordering::Relaxed);
        self.available = self.available.wrapping_add(1);
        // Table, descriptor, slot and event before the index that covers them (2.7.13.3).
        self.rings.available_index.store(self.available, Ordering::Release);
    }

    /// Whether the device wants to be notified of what was added since this was last asked.
    #[inline]
    pub(super) fn is_notification_due(&mut self) -> bool {
        let added = self.available.wrapping_sub(self.told);
        if added == 0 {
            return false;
        }
        self.told = self.available;
        // The index, then the look at what the device wants; it does the reverse (2.7.13.4).
        fence(Ordering::SeqCst);
        if self.has_event_index {
            let event = self.rings.used.available_event.load(Ordering::Relaxed);
            return self.available.wrapping_sub(event).wrapping_sub(1) < added;
        }
        const NO_NOTIFY: u16 = 1;
        self.rings.used.flags.load(Ordering::Relaxed) & NO_NOTIFY == 0
    }

    /// The number of the next chain that the device gives back: its claim. Where there is none, the device interrupts
    /// when there is one again; so whoever sleeps with chains in flight looks until there is none.
    #[inline]
    pub(super) fn next_used(&mut self) -> Option<usize> {
        loop {
            if self.rings.used.index.load(Ordering::Acquire) != self.used {
                let [chain, _] = &self.rings.used.ring[usize::from(self.used) % ENTRIES];
                self.used = self.used.wrapping_add(1);
                return Some(chain.load(Ordering::Relaxed) as usize);
            }
            if !self.has_event_index || self.event == self.used {
                return None;
            }
            // Once for all that came together. Then one more look: the device may have passed the index meanwhile
            // (2.7.7.1).
            self.event = self.used;
            self.rings.used_event.store(self.event, Ordering::Relaxed);
            fence(Ordering::SeqCst);
        }
    }
}

/// Memory that a device may reach and this program may not: another guest's, granted for one request. It is a list of
/// descriptors, with room for one in front and one behind, and so becomes the table of its request where it is.
#[derive(Clone, Copy, Debug)]
pub struct Granted {
    table: Shared,
    bytes: u64,
}

impl Granted {
    /// The list in `table`, all of it; `None` where nothing can be one.
    #[must_use]
    pub fn new(table: Shared) -> Option<Self> {
        let is_table = table.size() > 2 * DESCRIPTOR_SIZE
            && table.size().is_multiple_of(DESCRIPTOR_SIZE)
            && table.address().is_multiple_of(DESCRIPTOR_SIZE);
        let segments = table.piece(DESCRIPTOR_SIZE, table.size().checked_sub(2 * DESCRIPTOR_SIZE)?)?;
        is_table.then(|| Self { table, bytes: segments.sum_of_lengths() })
    }

    /// Makes a list of `segments`, address and bytes of each, in `memory`; `None` where it has no room for so many.
    #[must_use]
    pub fn fill(memory: Shared, access: Access, segments: impl Iterator<Item = (u64, u32)>) -> Option<Self> {
        let mut count = 1;
        for (address, bytes) in segments {
            let words = descriptor(address, bytes, access, Some(count + 1));
            let is_in = memory.store_pair(u64::from(count) * DESCRIPTOR_SIZE, words);
            count = is_in.then_some(count)?.checked_add(1)?;
        }
        Self::new(memory.piece(0, (u64::from(count) + 1) * DESCRIPTOR_SIZE)?)
    }

    /// The bytes in all of it.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many pieces it has.
    #[inline]
    pub(super) const fn segments(&self) -> u64 {
        self.table.size() / DESCRIPTOR_SIZE - 2
    }

    /// Puts a header in front and a status behind: gives the table's address and its bytes.
    #[inline]
    pub(super) fn complete(&self, header: [u64; 2], status: [u64; 2]) -> (u64, u32) {
        self.table.store_pair(0, header);
        self.table.store_pair(self.table.size() - DESCRIPTOR_SIZE, status);
        (self.table.address(), self.table.size() as u32)
    }
}
