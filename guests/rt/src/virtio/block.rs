//! A disk, with many requests in flight, a flush among them like any other.

use super::grant::{self, Granted};
use super::{Error, Slot, Transport};
use crate::dma::Platform;
use crate::shared::Shared;
use alloc::boxed::Box;
use arrayvec::ArrayVec;
use bitflags::bitflags;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use virtio_drivers::device::blk::SECTOR_SIZE;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{InterruptStatus, Transport as _};

/// The entries of the queue, and so the requests in flight: with indirect descriptors each takes one. A device whose queue is
/// shorter is not taken.
const DEPTH: usize = 128;
/// The most pieces that the data of one request may have: the crate takes as many buffers as the queue has entries.
pub const SEGMENTS_MAX: usize = DEPTH - 2;

/// The one queue.
const QUEUE: u16 = 0;

bitflags! {
    /// Features that the driver takes (VIRTIO 1.2, 5.2.3 and 6).
    #[derive(Clone, Copy, Debug)]
    struct Feature: u64 {
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
    /// No sectors, part of a sector, or sectors beyond the end.
    Invalid,
}

/// What goes with one request: the device reads the one and writes the other.
struct Header {
    /// Type, zero, sector.
    request: [u8; 16],
    status: [u8; 1],
}

/// What is asked for, by its number (VIRTIO 1.2, 5.2.6).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read = 0,
    Write = 1,
    Flush = 4,
}

/// Where the data is.
#[derive(Clone, Copy)]
enum Data {
    None,
    Own(Shared),
    Granted(Granted),
}

/// What is done with a request's buffers.
#[derive(Clone, Copy)]
enum Action {
    Add,
    Take(u16),
}

struct Flight<T> {
    header: usize,
    kind: Kind,
    data: Data,
    tag: T,
}

/// A disk. Each request carries a tag of the owner's choice, which comes back when it has finished. Requests wait in the queue
/// until [`Self::kick`].
pub struct Block<T> {
    queue: VirtQueue<Platform, DEPTH>,
    transport: Transport,
    /// Given to the device while the bit in `free_headers` is clear, and touched by nobody else then.
    headers: NonNull<[Header; DEPTH]>,
    free_headers: u128,
    /// By token of the crate. On the heap, since stacks are small.
    flights: Box<[Option<Flight<T>>]>,
    in_flight: usize,
    /// The device wants to be told of what was added.
    owes_kick: bool,
    features: Feature,
    sectors: u64,
    block_size: u32,
}

impl<T> Block<T> {
    /// Brings the disk in `slot` up.
    ///
    /// # Errors
    /// What the device or the crate objects to.
    pub fn new(slot: Slot) -> Result<Self, Error> {
        let mut transport = slot.transport()?;
        let features = transport.begin_init(Feature::all());
        let sectors = transport.read_consistent(|| transport_capacity(&transport))?;
        let block_size = if features.contains(Feature::BLOCK_SIZE) {
            transport.read_config_space(configuration::BLOCK_SIZE)?
        } else {
            SECTOR_SIZE as u32
        };
        let (indirect, event_index) = (features.contains(Feature::INDIRECT), features.contains(Feature::EVENT_INDEX));
        let queue = VirtQueue::new(&mut transport, QUEUE, indirect, event_index)?;
        transport.finish_init();
        let header = |_| Header { request: [0; 16], status: [STATUS_NONE] };
        let headers: Box<[Header; DEPTH]> = Box::new(core::array::from_fn(header));
        Ok(Self {
            queue,
            transport,
            headers: NonNull::from(Box::leak(headers)),
            free_headers: u128::MAX,
            flights: (0..DEPTH).map(|_| None).collect(),
            in_flight: 0,
            owes_kick: false,
            features,
            sectors,
            block_size,
        })
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

    /// Asks for the sectors from `sector` on, as many as `buffer` has room for.
    ///
    /// # Errors
    /// See [`Refused`]; the tag comes back.
    #[inline]
    pub fn read(&mut self, sector: u64, buffer: Shared, tag: T) -> Result<(), (Refused, T)> {
        self.transfer(Kind::Read, sector, buffer.size(), Data::Own(buffer), &[], tag)
    }

    /// Asks for `buffer` to be written to the sectors from `sector` on.
    ///
    /// # Errors
    /// See [`Refused`]; the tag comes back.
    #[inline]
    pub fn write(&mut self, sector: u64, buffer: Shared, tag: T) -> Result<(), (Refused, T)> {
        self.transfer(Kind::Write, sector, buffer.size(), Data::Own(buffer), &[], tag)
    }

    /// As [`Self::read`], into memory that is not this program's but was granted to the device, `segments` of it.
    ///
    /// # Errors
    /// See [`Refused`]; the tag comes back. Segments that are too many, empty or too large are invalid.
    pub fn read_granted(&mut self, sector: u64, segments: &[grant::Segment], tag: T) -> Result<(), (Refused, T)> {
        self.transfer_granted(Kind::Read, sector, segments, tag)
    }

    /// As [`Self::write`], from memory that is not this program's but was granted to the device, `segments` of it.
    ///
    /// # Errors
    /// As [`Self::read_granted`].
    pub fn write_granted(&mut self, sector: u64, segments: &[grant::Segment], tag: T) -> Result<(), (Refused, T)> {
        self.transfer_granted(Kind::Write, sector, segments, tag)
    }

    /// Asks for everything that has finished so far to survive a loss of power.
    ///
    /// # Errors
    /// [`Refused::Busy`], with the tag; [`Refused::Invalid`] for a disk without a cache.
    pub fn flush(&mut self, tag: T) -> Result<(), (Refused, T)> {
        if !self.has_cache() {
            return Err((Refused::Invalid, tag));
        }
        self.submit(Kind::Flush, 0, Data::None, &[], tag)
    }

    fn transfer_granted(
        &mut self,
        kind: Kind,
        sector: u64,
        segments: &[grant::Segment],
        tag: T,
    ) -> Result<(), (Refused, T)> {
        match Granted::new(segments) {
            Some(granted) => self.transfer(kind, sector, granted.bytes(), Data::Granted(granted), segments, tag),
            None => Err((Refused::Invalid, tag)),
        }
    }

    #[inline]
    fn transfer(
        &mut self,
        kind: Kind,
        sector: u64,
        bytes: u64,
        data: Data,
        segments: &[grant::Segment],
        tag: T,
    ) -> Result<(), (Refused, T)> {
        const SECTOR: u64 = SECTOR_SIZE as u64;
        let is_inside = sector.checked_add(bytes / SECTOR).is_some_and(|end| end <= self.sectors);
        if bytes == 0 || !bytes.is_multiple_of(SECTOR) || !is_inside {
            return Err((Refused::Invalid, tag));
        }
        self.submit(kind, sector, data, segments, tag)
    }

    fn submit(
        &mut self,
        kind: Kind,
        sector: u64,
        data: Data,
        segments: &[grant::Segment],
        tag: T,
    ) -> Result<(), (Refused, T)> {
        let header = self.free_headers.trailing_zeros() as usize;
        if header >= DEPTH {
            return Err((Refused::Busy, tag));
        }
        // SAFETY: the header's bit says that it is free, so neither the device nor anybody here uses it.
        let fields = unsafe { &mut (*self.headers.as_ptr())[header] };
        let (low, high) = fields.request.split_at_mut(8);
        low.copy_from_slice(&(kind as u64).to_le_bytes());
        high.copy_from_slice(&sector.to_le_bytes());
        fields.status = [STATUS_NONE];
        // SAFETY: header and buffers stay as they are until `poll` has the request back: the bit is cleared below, the headers
        // are given back when the device has been reset, the buffer is RAM that was claimed for good, and of what was granted
        // the crate has addresses alone.
        let added = unsafe { exchange(&mut self.queue, Action::Add, fields, kind, data, segments) };
        let Ok(token) = added else { return Err((Refused::Busy, tag)) };
        // The crate's queue has `DEPTH` entries, and a token is the index of one.
        self.flights[usize::from(token) % DEPTH] = Some(Flight { header, kind, data, tag });
        self.free_headers &= !(1 << header);
        self.in_flight += 1;
        // Asked after each request: between two of them the device may say that it wants to hear of the second.
        self.owes_kick |= self.queue.should_notify();
        Ok(())
    }

    /// Tells the device of what was asked for since the last call, if it wants to be told.
    #[inline]
    pub fn kick(&mut self) {
        if core::mem::take(&mut self.owes_kick) {
            self.transport.notify(QUEUE);
        }
    }

    /// The next request that has finished, if there is one.
    #[inline]
    pub fn poll(&mut self) -> Option<(T, Result<(), Failed>)> {
        if self.in_flight == 0 {
            return None;
        }
        let token = self.queue.peek_used()?;
        // The token was read from memory that the device writes: an unknown one is a broken device, and is left there.
        let Flight { header, kind, data, tag } = self.flights.get_mut(usize::from(token))?.take()?;
        // SAFETY: the device has given the header back, and its bit is still clear, so nobody else uses it.
        let fields = unsafe { &mut (*self.headers.as_ptr())[header] };
        // SAFETY: header and buffers are those that were added with this token.
        let taken = unsafe { exchange(&mut self.queue, Action::Take(token), fields, kind, data, &[]) };
        self.free_headers |= 1 << header;
        self.in_flight -= 1;
        let is_done = taken.is_ok() && fields.status == [STATUS_OK];
        Some((tag, if is_done { Ok(()) } else { Err(Failed) }))
    }

    /// Reads sectors and waits for them; for start-up.
    ///
    /// # Errors
    /// [`Failed`] if the device failed, requests are in flight, or these are no sectors of the disk.
    pub fn read_now(&mut self, sector: u64, sectors: &mut [u8]) -> Result<(), Failed> {
        let is_whole = !sectors.is_empty() && sectors.len().is_multiple_of(SECTOR_SIZE);
        let end = sector.checked_add((sectors.len() / SECTOR_SIZE) as u64);
        if self.in_flight > 0 || !is_whole || end.is_none_or(|end| end > self.sectors) {
            return Err(Failed);
        }
        let mut request = [0; 16];
        request[8..].copy_from_slice(&sector.to_le_bytes());
        let mut status = [STATUS_NONE];
        let done = self.queue.add_notify_wait_pop(&[&request], &mut [sectors, &mut status], &mut self.transport);
        if done.is_ok() && status == [STATUS_OK] { Ok(()) } else { Err(Failed) }
    }
}

impl<T> Drop for Block<T> {
    fn drop(&mut self) {
        self.transport.queue_unset(QUEUE);
        self.transport.set_status(virtio_drivers::transport::DeviceStatus::empty());
        // SAFETY: the headers come from a box in `new`, and the device, which was reset, has none of them any more.
        drop(unsafe { Box::from_raw(self.headers.as_ptr()) });
    }
}

/// The size of the disk, of which half may change between two loads.
fn transport_capacity(transport: &Transport) -> Result<u64, Error> {
    let low: u32 = transport.read_config_space(configuration::CAPACITY)?;
    let high: u32 = transport.read_config_space(configuration::CAPACITY + 4)?;
    Ok(u64::from(low) | u64::from(high) << 32)
}

/// Adds a request to the queue, or takes one out that is done; gives its token.
///
/// # Safety
/// To add: nobody touches header and own data until the token was taken. To take: they are those that were added with it.
#[inline]
unsafe fn exchange(
    queue: &mut VirtQueue<Platform, DEPTH>,
    action: Action,
    header: &mut Header,
    kind: Kind,
    data: Data,
    segments: &[grant::Segment],
) -> Result<u16, Error> {
    let Header { request, status } = header;
    match (kind, data) {
        // SAFETY: the caller's promise; the crate takes the slice's address and length alone.
        (Kind::Read, Data::Own(buffer)) => unsafe { act(queue, action, &[request], &mut [buffer.as_slice(), status]) },
        // SAFETY: as above.
        (Kind::Write, Data::Own(buffer)) => unsafe { act(queue, action, &[request, buffer.as_slice()], &mut [status]) },
        // SAFETY: as above.
        (Kind::Flush, _) | (_, Data::None) => unsafe { act(queue, action, &[request], &mut [status]) },
        (Kind::Read, Data::Granted(granted)) => granted.stand_in(segments, |slices| {
            let inputs: [&[u8]; 1] = [request];
            // Borrowed for as long as what is in it, which a drop would end. There is nothing to drop.
            let mut outputs = ManuallyDrop::new(slices.collect::<ArrayVec<&mut [u8], DEPTH>>());
            outputs.push(status);
            // SAFETY: as above; `Platform` gives the device the segments in place of their stand-ins, and the crate looks at no
            // more than the number of these when it takes the request back.
            unsafe { act(queue, action, &inputs, &mut outputs) }
        }),
        (Kind::Write, Data::Granted(granted)) => granted.stand_in(segments, |slices| {
            let mut inputs: ArrayVec<&[u8], DEPTH> = ArrayVec::new();
            inputs.push(request);
            inputs.extend(slices.map(|slice| &*slice));
            // SAFETY: as above.
            unsafe { act(queue, action, &inputs, &mut [status]) }
        }),
    }
}

/// # Safety
/// As [`exchange`].
#[inline]
unsafe fn act<'a>(
    queue: &mut VirtQueue<Platform, DEPTH>,
    action: Action,
    inputs: &'a [&'a [u8]],
    outputs: &'a mut [&'a mut [u8]],
) -> Result<u16, Error> {
    match action {
        // SAFETY: the caller's promise.
        Action::Add => unsafe { queue.add(inputs, outputs) },
        // SAFETY: the caller's promise.
        Action::Take(token) => unsafe { queue.pop_used(token, inputs, outputs) }.map(|_| token),
    }
}
