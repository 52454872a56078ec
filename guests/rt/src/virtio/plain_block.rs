//! A disk behind the disk driver of `virtio-drivers`, for devices that [`Block`](super::Block) does not take.
//!
//! What this module leaves out, since the crate does: granted memory, which is no slice of this program's; a flush
//! beside other requests; more than sixteen of these; one notification for several.

use super::{Error, Failed, Refused, Slot, Transport};
use crate::dma::Platform;
use crate::shared::Shared;
use alloc::boxed::Box;
use core::ptr::NonNull;
use virtio_drivers::device::blk::{BlkReq, BlkResp, SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::transport::Transport as _;

/// How many requests fit the queue of `virtio-drivers`, which has 16 entries and gives each request one.
const DEPTH: usize = 16;

/// Feature bits and configuration offsets (VIRTIO 1.2, 5.2.3 and 5.2.4).
const FEATURE_BLOCK_SIZE: u64 = 1 << 6;
const FEATURE_FLUSH: u64 = 1 << 9;
const CONFIGURATION_BLOCK_SIZE: usize = 20;

/// What goes with one request; the device reads the one and writes the other.
struct Header {
    request: BlkReq,
    response: BlkResp,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Direction {
    FromDisk,
    ToDisk,
}

struct InFlightRequest<T> {
    header: usize,
    direction: Direction,
    buffer: Shared,
    tag: T,
}

/// A disk. Each request carries a tag of the owner's choice, which comes back when it has finished.
pub struct PlainBlock<T> {
    driver: VirtIOBlk<Platform, Transport>,
    /// Given to the device while the bit in `free_headers` is clear, and touched by nobody else then.
    headers: NonNull<[Header; DEPTH]>,
    free_headers: u16,
    /// By token of the crate.
    requests: [Option<InFlightRequest<T>>; DEPTH],
    in_flight: usize,
    /// A flush waits until nothing is in flight.
    is_draining: bool,
    has_cache: bool,
    block_size: u32,
}

impl<T> PlainBlock<T> {
    /// Brings the disk in `slot` up.
    ///
    /// # Errors
    /// What the device or the crate objects to.
    pub fn new(slot: Slot) -> Result<Self, Error> {
        let mut transport = slot.transport()?;
        // The crate keeps to itself what it negotiates; it takes FLUSH where that is offered.
        let features = transport.read_device_features();
        let block_size = match features & FEATURE_BLOCK_SIZE {
            0 => SECTOR_SIZE as u32,
            _ => transport.read_config_space(CONFIGURATION_BLOCK_SIZE)?,
        };
        let driver = VirtIOBlk::new(transport)?;
        let header = |_| Header { request: BlkReq::default(), response: BlkResp::default() };
        let headers: Box<[Header; DEPTH]> = Box::new(core::array::from_fn(header));
        Ok(Self {
            driver,
            headers: NonNull::from(Box::leak(headers)),
            free_headers: u16::MAX,
            requests: [const { None }; DEPTH],
            in_flight: 0,
            is_draining: false,
            has_cache: features & FEATURE_FLUSH != 0,
            block_size,
        })
    }

    /// The size of the disk in sectors of 512 bytes.
    #[must_use]
    pub fn sectors(&self) -> u64 {
        self.driver.capacity()
    }

    /// Whether the disk takes no writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.driver.readonly()
    }

    /// Whether the disk has a volatile cache, so that [`Self::flush`] means something.
    #[must_use]
    pub const fn has_cache(&self) -> bool {
        self.has_cache
    }

    /// The logical block size in bytes.
    #[must_use]
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Acknowledges the device's interrupt.
    pub fn acknowledge_interrupt(&mut self) {
        // What it says is what `poll` finds out itself.
        let _ = self.driver.ack_interrupt();
    }

    /// Asks for the sectors from `sector` on, as many as `buffer` has room for.
    ///
    /// # Errors
    /// See [`Refused`]; the tag comes back.
    pub fn read(&mut self, sector: u64, buffer: Shared, tag: T) -> Result<(), (Refused, T)> {
        self.submit(Direction::FromDisk, sector, buffer, tag)
    }

    /// Asks for `buffer` to be written to the sectors from `sector` on.
    ///
    /// # Errors
    /// See [`Refused`]; the tag comes back.
    pub fn write(&mut self, sector: u64, buffer: Shared, tag: T) -> Result<(), (Refused, T)> {
        self.submit(Direction::ToDisk, sector, buffer, tag)
    }

    fn submit(&mut self, direction: Direction, sector: u64, buffer: Shared, tag: T) -> Result<(), (Refused, T)> {
        const SECTOR: u64 = SECTOR_SIZE as u64;
        let end = sector.checked_add(buffer.size() / SECTOR);
        let is_inside = end.is_some_and(|end| end <= self.sectors());
        if buffer.size() == 0 || !buffer.size().is_multiple_of(SECTOR) || !is_inside {
            return Err((Refused::Invalid, tag));
        }
        let header = self.free_headers.trailing_zeros() as usize;
        if self.is_draining || header >= DEPTH {
            return Err((Refused::Busy, tag));
        }
        // SAFETY: the header's bit says that it is free, so neither the device nor anybody here uses it.
        let Header { request, response } = unsafe { &mut (*self.headers.as_ptr())[header] };
        // SAFETY: the crate only takes the slice's address and length.
        let slice = unsafe { buffer.as_slice() };
        let block = sector as usize;
        // SAFETY: header and buffer stay as they are until `poll` has the request back: the bit is cleared below, the
        // headers are leaked, and the buffer is RAM that was claimed for good.
        let added = unsafe {
            match direction {
                Direction::FromDisk => self.driver.read_blocks_nb(block, request, slice, response),
                Direction::ToDisk => self.driver.write_blocks_nb(block, request, slice, response),
            }
        };
        let Ok(token) = added else { return Err((Refused::Busy, tag)) };
        // The crate's queue has `DEPTH` entries, and a token is the index of one.
        self.requests[usize::from(token) % DEPTH] = Some(InFlightRequest { header, direction, buffer, tag });
        self.free_headers &= !(1 << header);
        self.in_flight += 1;
        Ok(())
    }

    /// The next request that has finished, if there is one.
    #[inline]
    pub fn poll(&mut self) -> Option<(T, Result<(), Failed>)> {
        if self.in_flight == 0 {
            return None;
        }
        let token = self.driver.peek_used()?;
        // The token was read from memory that the device writes: an unknown one is a broken device, and is left there.
        let done = self.requests.get_mut(usize::from(token))?.take()?;
        // SAFETY: the device has given the header back, and its bit is still clear, so nobody else uses it.
        let Header { request, response } = unsafe { &mut (*self.headers.as_ptr())[done.header] };
        // SAFETY: the crate only takes the slice's address and length.
        let slice = unsafe { done.buffer.as_slice() };
        // SAFETY: header and buffer are those that were submitted with this token.
        let outcome = unsafe {
            match done.direction {
                Direction::FromDisk => self.driver.complete_read_blocks(token, request, slice, response),
                Direction::ToDisk => self.driver.complete_write_blocks(token, request, slice, response),
            }
        };
        self.free_headers |= 1 << done.header;
        self.in_flight -= 1;
        Some((done.tag, outcome.map_err(|_| Failed)))
    }

    /// Makes what has been written survive a loss of power, and waits for that. `None` while requests are in flight:
    /// the crate's flush needs the queue for itself, so nothing else is taken until it has run.
    pub fn flush(&mut self) -> Option<Result<(), Failed>> {
        self.is_draining = self.in_flight > 0;
        (!self.is_draining).then(|| self.driver.flush().map_err(|_| Failed))
    }

    /// Reads sectors and waits for them; for start-up.
    ///
    /// # Errors
    /// [`Failed`] if the device failed, requests are in flight, or these are no sectors of the disk.
    pub fn read_now(&mut self, sector: u64, sectors: &mut [u8]) -> Result<(), Failed> {
        let is_whole = !sectors.is_empty() && sectors.len().is_multiple_of(SECTOR_SIZE);
        let end = sector.checked_add((sectors.len() / SECTOR_SIZE) as u64);
        if self.in_flight > 0 || !is_whole || end.is_none_or(|end| end > self.sectors()) {
            return Err(Failed);
        }
        self.driver.read_blocks(sector as usize, sectors).map_err(|_| Failed)
    }
}
