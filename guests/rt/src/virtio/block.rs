//! A disk, with many requests in flight, a flush among them like any other.

use super::queue::{self, Access, Atomics, DeviceMemory, Entry, Granted, Queue, descriptor};
use super::{Error, Slot, Transport};
use crate::shared::Shared;
use alloc::boxed::Box;
use bitflags::bitflags;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU8, Ordering};
use virtio_drivers::device::blk::SECTOR_SIZE;
use virtio_drivers::transport::{InterruptStatus, Transport as _};

/// Requests in flight: each takes an entry of the queue, and a table.
const DEPTH: usize = queue::ENTRIES;

/// The one queue.
const QUEUE: u16 = 0;

bitflags! {
    /// Features that the driver takes (VIRTIO 1.2, 5.2.3 and 6).
    #[derive(Clone, Copy, Debug)]
    struct Feature: u64 {
        const SEGMENTS_MAX = 1 << 2;
        const READ_ONLY = 1 << 5;
        const BLOCK_SIZE = 1 << 6;
        const FLUSH = 1 << 9;
        const INDIRECT = 1 << 28;
        const EVENT_INDEX = 1 << 29;
        const VERSION_1 = 1 << 32;
    }
}

/// Offsets of the configuration (VIRTIO 1.2, 5.2.4).
mod configuration {
    pub const CAPACITY: usize = 0;
    pub const SEGMENTS_MAX: usize = 12;
    pub const BLOCK_SIZE: usize = 20;
}

/// The status of a request that was done (VIRTIO 1.2, 5.2.6); the device overwrites what it finds.
const STATUS_OK: u8 = 0;
const STATUS_NONE: u8 = 0xff;

/// The device could not do what it was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed;

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full: ask again when a request has finished.
    Busy,
    /// No sectors, part of a sector, sectors beyond the end, or too many segments.
    Invalid,
}

/// What goes with one request.
#[repr(C, align(64))]
struct Record {
    /// Header, data, status; a table of granted memory has its own.
    table: [Entry; 3],
    /// Type, zero, sector (VIRTIO 1.2, 5.2.6).
    header: Entry,
    status: AtomicU8,
}

/// The records of all requests.
struct Records([Record; DEPTH]);

// SAFETY: atomics alone.
unsafe impl Atomics for Records {}

impl Record {
    /// The descriptor of the header of a record at `at`; the chain goes on at `next`.
    #[inline]
    const fn header(at: u64, next: u16) -> [u64; 2] {
        descriptor(at + offset_of!(Self, header) as u64, 16, Access::Reads, Some(next))
    }

    /// The descriptor of the status of a record at `at`.
    #[inline]
    const fn status(at: u64) -> [u64; 2] {
        descriptor(at + offset_of!(Self, status) as u64, 1, Access::Writes, None)
    }
}

/// What is asked for, by its number (VIRTIO 1.2, 5.2.6).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read = 0,
    Write = 1,
    Flush = 4,
}

impl Kind {
    /// What the device does with the data.
    const fn access(self) -> Access {
        match self {
            Self::Read => Access::Writes,
            Self::Write | Self::Flush => Access::Reads,
        }
    }
}

/// Where the data is.
#[derive(Clone, Copy)]
enum Data {
    None,
    /// So many bytes at this address.
    Own(u64, u32),
    Granted(Granted),
}

/// A disk. Each request carries a tag of the owner's choice, which comes back when it has finished. Requests wait in
/// the queue until [`Self::kick`].
pub struct Block<T> {
    queue: Queue,
    transport: Transport,
    records: DeviceMemory<Records>,
    /// A bit for each record that is not in flight.
    free: u128,
    /// By record. On the heap, since stacks are small.
    tags: Box<[Option<T>]>,
    features: Feature,
    sectors: u64,
    block_size: u32,
    segments_max: u32,
}

impl<T> Block<T> {
    /// Whether this driver takes the disk in `slot`, and that takes requests of `segments` pieces of granted memory:
    /// with tables of descriptors, a queue that is long enough, and so many segments. The disk is reset.
    ///
    /// # Errors
    /// What the crate objects to.
    pub fn takes_granted(slot: &Slot, segments: u32) -> Result<bool, Error> {
        let mut transport = slot.transport()?;
        transport.set_status(virtio_drivers::transport::DeviceStatus::empty());
        let features = Feature::from_bits_truncate(transport.read_device_features());
        let has_queue = transport.max_queue_size(QUEUE) >= queue::ENTRIES as u32;
        if !has_queue || !features.contains(Feature::INDIRECT | Feature::SEGMENTS_MAX) {
            return Ok(false);
        }
        Ok(transport.read_config_space::<u32>(configuration::SEGMENTS_MAX)? >= segments)
    }

    /// Brings the disk in `slot` up.
    ///
    /// # Errors
    /// What the device objects to, or the crate; [`Error::Unsupported`] for one without indirect descriptors.
    pub fn new(slot: Slot) -> Result<Self, Error> {
        let mut transport = slot.transport()?;
        let features = transport.begin_init(Feature::all());
        if !features.contains(Feature::INDIRECT) {
            return Err(Error::Unsupported);
        }
        let sectors = transport.read_consistent(|| transport_capacity(&transport))?;
        let word = |feature, offset, otherwise| {
            if features.contains(feature) { transport.read_config_space(offset) } else { Ok(otherwise) }
        };
        let block_size = word(Feature::BLOCK_SIZE, configuration::BLOCK_SIZE, SECTOR_SIZE as u32)?;
        let segments_max = word(Feature::SEGMENTS_MAX, configuration::SEGMENTS_MAX, 1)?;
        let queue = Queue::new(&mut transport, QUEUE, features.contains(Feature::EVENT_INDEX))?;
        let records = DeviceMemory::<Records>::new().ok_or(Error::DmaError)?;
        for (place, record) in (0..).zip(&records.0) {
            let at = records.address() + place * size_of::<Record>() as u64;
            queue::write(&record.table[2], Record::status(at));
        }
        transport.finish_init();
        let tags = (0..DEPTH).map(|_| None).collect();
        Ok(Self { queue, transport, records, free: u128::MAX, tags, features, sectors, block_size, segments_max })
    }

    /// Lends the disk in `slot` to `body`, and resets it afterwards, whatever is in flight.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with<R>(slot: &mut Slot, body: impl FnOnce(&mut Self) -> R) -> Result<R, Error> {
        let mut disk = Self::new(slot.again())?;
        Ok(body(&mut disk))
    }

    /// The size of the disk in sectors of 512 bytes.
    #[must_use]
    pub const fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Whether the disk takes no writes.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.features.contains(Feature::READ_ONLY)
    }

    /// Whether the disk has a volatile cache, so that [`Self::flush`] means something.
    #[must_use]
    pub const fn has_cache(&self) -> bool {
        self.features.contains(Feature::FLUSH)
    }

    /// The logical block size in bytes.
    #[must_use]
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Acknowledges the device's interrupt.
    #[inline]
    pub fn acknowledge_interrupt(&mut self) -> InterruptStatus {
        self.transport.ack_interrupt()
    }

    /// The most segments that the device takes with one request.
    #[must_use]
    pub const fn segments_max(&self) -> u32 {
        self.segments_max
    }

    /// Asks for the sectors from `sector` on, as many as `buffer` has room for.
    ///
    /// # Errors
    /// See [`Refused`]; the tag comes back.
    #[inline]
    pub fn read(&mut self, sector: u64, buffer: Shared, tag: T) -> Result<(), (Refused, T)> {
        self.transfer(Kind::Read, sector, buffer.size(), Data::Own(buffer.address(), buffer.size() as u32), tag)
    }

    /// Asks for `buffer` to be written to the sectors from `sector` on.
    ///
    /// # Errors
    /// See [`Refused`]; the tag comes back.
    #[inline]
    pub fn write(&mut self, sector: u64, buffer: Shared, tag: T) -> Result<(), (Refused, T)> {
        self.transfer(Kind::Write, sector, buffer.size(), Data::Own(buffer.address(), buffer.size() as u32), tag)
    }

    /// As [`Self::read`], into memory that is not this program's but was granted to the device. The list of it is the
    /// device's until the request has finished.
    ///
    /// # Errors
    /// See [`Refused`]; the tag comes back.
    #[inline]
    pub fn read_granted(&mut self, sector: u64, granted: Granted, tag: T) -> Result<(), (Refused, T)> {
        self.transfer_granted(Kind::Read, sector, granted, tag)
    }

    /// As [`Self::write`], from memory that is not this program's but was granted to the device. The list of it is the
    /// device's until the request has finished.
    ///
    /// # Errors
    /// See [`Refused`]; the tag comes back.
    #[inline]
    pub fn write_granted(&mut self, sector: u64, granted: Granted, tag: T) -> Result<(), (Refused, T)> {
        self.transfer_granted(Kind::Write, sector, granted, tag)
    }

    /// Asks for everything that has finished so far to survive a loss of power.
    ///
    /// # Errors
    /// [`Refused::Busy`], with the tag; [`Refused::Invalid`] for a disk without a cache.
    pub fn flush(&mut self, tag: T) -> Result<(), (Refused, T)> {
        if !self.has_cache() {
            return Err((Refused::Invalid, tag));
        }
        self.submit(Kind::Flush, 0, Data::None, tag)
    }

    #[inline]
    fn transfer_granted(&mut self, kind: Kind, sector: u64, granted: Granted, tag: T) -> Result<(), (Refused, T)> {
        if granted.segments() > u64::from(self.segments_max) {
            return Err((Refused::Invalid, tag));
        }
        self.transfer(kind, sector, granted.bytes(), Data::Granted(granted), tag)
    }

    #[inline]
    fn transfer(&mut self, kind: Kind, sector: u64, bytes: u64, data: Data, tag: T) -> Result<(), (Refused, T)> {
        if self.has_sectors(sector, bytes) {
            self.submit(kind, sector, data, tag)
        } else {
            Err((Refused::Invalid, tag))
        }
    }

    /// Whether `bytes` from `sector` on are sectors of this disk, and not too many for one request.
    #[inline]
    fn has_sectors(&self, sector: u64, bytes: u64) -> bool {
        const SECTOR: u64 = SECTOR_SIZE as u64;
        let is_inside = sector.checked_add(bytes / SECTOR).is_some_and(|end| end <= self.sectors);
        bytes != 0 && bytes.is_multiple_of(SECTOR) && u32::try_from(bytes).is_ok() && is_inside
    }

    #[inline]
    fn submit(&mut self, kind: Kind, sector: u64, data: Data, tag: T) -> Result<(), (Refused, T)> {
        let Some(place) = self.start(kind, sector, data) else { return Err((Refused::Busy, tag)) };
        self.tags[place] = Some(tag);
        Ok(())
    }

    /// Puts a request into the queue; gives the place of its record, if one is free. Its data stays what it is until
    /// [`Self::end`] gives the place back: it is RAM that was claimed for good, or not this program's, or borrowed by a
    /// caller that waits.
    #[inline]
    fn start(&mut self, kind: Kind, sector: u64, data: Data) -> Option<usize> {
        let place = self.free.trailing_zeros() as usize;
        let record = self.records.0.get(place)?;
        let at = self.records.address() + (place * size_of::<Record>()) as u64;
        queue::write(&record.header, [kind as u64, sector]);
        record.status.store(STATUS_NONE, Ordering::Relaxed);
        let (table, bytes) = match data {
            Data::None => {
                queue::write(&record.table[0], Record::header(at, 2));
                (at, size_of_val(&record.table) as u32)
            }
            Data::Own(address, bytes) => {
                queue::write(&record.table[0], Record::header(at, 1));
                queue::write(&record.table[1], descriptor(address, bytes, kind.access(), Some(2)));
                (at, size_of_val(&record.table) as u32)
            }
            Data::Granted(granted) => granted.complete(Record::header(at, 1), Record::status(at)),
        };
        self.free &= !(1 << place);
        self.queue.add(place as u16, table, bytes);
        Some(place)
    }

    /// The place of the next request that has finished, and whether it was done.
    #[inline]
    fn end(&mut self) -> Option<(usize, Result<(), Failed>)> {
        let place = self.queue.next_used()?;
        // The place is the device's claim: one that is not in flight is a broken device, and stays where it is.
        let record = self.records.0.get(place).filter(|_| self.free & (1 << place) == 0)?;
        self.free |= 1 << place;
        let is_done = record.status.load(Ordering::Relaxed) == STATUS_OK;
        Some((place, if is_done { Ok(()) } else { Err(Failed) }))
    }

    /// Tells the device of what was asked for since the last call, if it wants to be told.
    #[inline]
    pub fn kick(&mut self) {
        if self.queue.is_notification_due() {
            self.transport.notify(QUEUE);
        }
    }

    /// Resets the device in the middle of whatever is in flight, by one store to Status, as Linux does. It does nothing
    /// more until it is brought up anew.
    pub fn reset(&mut self) {
        self.transport.set_status(virtio_drivers::transport::DeviceStatus::empty());
    }

    /// The next request that has finished, if there is one.
    #[inline]
    pub fn poll(&mut self) -> Option<(T, Result<(), Failed>)> {
        // Also with nothing in flight: it is the look that finds nothing which asks for the next interrupt.
        let (place, outcome) = self.end()?;
        Some((self.tags.get_mut(place)?.take()?, outcome))
    }

    /// Reads sectors and waits for them; for start-up.
    ///
    /// # Errors
    /// [`Failed`] if the device failed, requests are in flight, or these are no sectors of the disk.
    pub fn read_now(&mut self, sector: u64, sectors: &mut [u8]) -> Result<(), Failed> {
        if self.free != u128::MAX || !self.has_sectors(sector, sectors.len() as u64) {
            return Err(Failed);
        }
        let data = Data::Own(sectors.as_mut_ptr().expose_provenance() as u64, sectors.len() as u32);
        self.start(Kind::Read, sector, data).ok_or(Failed)?;
        self.kick();
        loop {
            if let Some((_, outcome)) = self.end() {
                return outcome;
            }
            core::hint::spin_loop();
        }
    }
}

impl<T> Drop for Block<T> {
    fn drop(&mut self) {
        // The device forgets rings and records, which are freed after this.
        self.transport.queue_unset(QUEUE);
        self.transport.set_status(virtio_drivers::transport::DeviceStatus::empty());
    }
}

/// The size of the disk, of which half may change between two loads.
fn transport_capacity(transport: &Transport) -> Result<u64, Error> {
    let low: u32 = transport.read_config_space(configuration::CAPACITY)?;
    let high: u32 = transport.read_config_space(configuration::CAPACITY + 4)?;
    Ok(u64::from(low) | u64::from(high) << 32)
}
