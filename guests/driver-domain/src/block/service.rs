//! The block service: from a client's request to a disk's command, and back.

use super::{BlockDevice, Command, Data, Part, RamDisk, Submission, Tag};
use crate::channel::{Channel, Ticket};
use abi::io::{FEATURE_READ_ONLY, Operation, Request, SERIAL_SIZE, Status};
use alloc::boxed::Box;
use arrayvec::ArrayVec;
use rt::machine::Region;
use rt::shared::Shared;
use rt::virtio::Granted;
use services::partition::{self, Missing, Sectors};
use services::{Access, Slice};

/// The most disks: QEMU's `virt` has 32 slots, and a client may have a disk of RAM.
const DISKS_MAX: usize = 32;

/// What a client's block device is: a slice of a disk.
#[derive(Clone, Copy, Debug)]
pub struct Attachment {
    disk: usize,
    slice: Slice,
    features: u64,
    block_size: u32,
    serial: Serial,
}

/// A disk's serial number.
pub type Serial = [u8; SERIAL_SIZE];

impl Attachment {
    /// The size in sectors.
    pub const fn sectors(&self) -> u64 {
        self.slice.sectors()
    }

    /// The `FEATURE_` bits of [`abi::io`].
    pub const fn features(&self) -> u64 {
        self.features
    }

    /// The logical block size in bytes.
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }
}

/// All disks. Those of virtio come first, in the order of their slots.
#[derive(Default)]
pub struct BlockService {
    disks: ArrayVec<Box<dyn BlockDevice>, DISKS_MAX>,
    virtio_count: usize,
    /// Where the disks of RAM are, and their numbers.
    ram: ArrayVec<(Region, usize), DISKS_MAX>,
}

/// A disk as the partition table's reader wants it.
struct Table<'a>(&'a mut dyn BlockDevice);

impl Sectors for Table<'_> {
    fn sectors(&self) -> u64 {
        self.0.sectors()
    }

    fn block_size(&self) -> u32 {
        self.0.block_size()
    }

    fn read(&mut self, sector: u64, bytes: &mut [u8]) -> bool {
        self.0.read_now(sector, bytes)
    }
}

impl BlockService {
    /// Adds a virtio disk; all of them come before the first disk of RAM. Gives its number.
    pub fn add(&mut self, disk: Box<dyn BlockDevice>) -> Option<usize> {
        let number = self.disks.len();
        self.disks.try_push(disk).ok()?;
        self.virtio_count = number + 1;
        Some(number)
    }

    /// The number of the disk of RAM at `region`, which is made where there is none: clients can have parts of one.
    pub fn ram_disk(&mut self, region: Region) -> Option<usize> {
        if let Some(&(_, number)) = self.ram.iter().find(|(place, _)| *place == region) {
            return Some(number);
        }
        let memory = Shared::claim(region.start, region.size)?;
        let number = self.disks.len();
        self.disks.try_push(Box::new(RamDisk::new(memory))).ok()?;
        self.ram.try_push((region, number)).ok()?;
        Some(number)
    }

    /// Gives a client `part` of disk `disk`, under the serial number `serial`.
    ///
    /// # Errors
    /// See [`Missing`]; a disk that is not there cannot be read.
    pub fn attach(&mut self, disk: usize, part: Part, read_only: bool, serial: Serial) -> Result<Attachment, Missing> {
        let device = self.disks.get_mut(disk).ok_or(Missing::Unreadable)?.as_mut();
        let (sectors, features, block_size) = (device.sectors(), device.features(), device.block_size());
        let slice = match part {
            Part::Whole => Slice::new(sectors, 0, sectors).ok_or(Missing::BeyondDisk)?,
            Part::Range(Region { start, size }) => Slice::of_bytes(sectors, start, size).ok_or(Missing::BeyondDisk)?,
            Part::Partition(name) => partition::find(&mut Table(device), name)?,
        };
        let read_only = read_only || features & FEATURE_READ_ONLY != 0;
        let (slice, flag) = if read_only { (slice.read_only(), FEATURE_READ_ONLY) } else { (slice, 0) };
        Ok(Attachment { disk, slice, features: features | flag, block_size, serial })
    }

    /// Whether disk `number` is one of virtio's.
    pub const fn is_virtio(&self, number: usize) -> bool {
        number < self.virtio_count
    }

    /// Whether `request` on `attachment` is one whose end is waited for.
    #[inline]
    pub fn waits(&self, attachment: &Attachment, request: &Request) -> bool {
        request.operation == Operation::Flush as u16
            && self.disks.get(attachment.disk).is_some_and(|disk| disk.waits_for_flush())
    }

    /// Starts `request` of client `client`, whose data, or the list of whose segments, is `data`.
    #[inline]
    pub fn submit(
        &mut self,
        attachment: &Attachment,
        client: usize,
        request: &Request,
        data: Option<Shared>,
    ) -> Submission {
        let Some(operation) = Operation::from_number(request.operation) else {
            return Submission::Finished(Status::Unsupported);
        };
        if operation == Operation::Identify {
            return Submission::Finished(identify(attachment, request, data));
        }
        let bytes = u64::from(request.length);
        let locate = |access| attachment.slice.locate(request.sector, bytes, access);
        let data = match data {
            None => None,
            Some(data) if request.segments == 0 => Some(Data::Window(data)),
            // A list of other lengths would have the disk go on where the slice ends.
            Some(list) => Granted::new(list).filter(|granted| granted.bytes() == bytes).map(Data::Granted),
        };
        let (sector, data) = match (operation, data) {
            (Operation::Read, Some(data)) => (locate(Access::Read), data),
            (Operation::Write, Some(data)) => (locate(Access::Write), data),
            // Without data there is no sector: the request named bytes outside the window, or segments that are none.
            (Operation::Read | Operation::Write, None) => (None, Data::None),
            (Operation::Discard | Operation::WriteZeroes, _) => (locate(Access::Write), Data::None),
            (Operation::Flush, _) => (Some(0), Data::None),
            (Operation::Transmit | Operation::Print | Operation::Random | Operation::Identify, _) => {
                return Submission::Finished(Status::Unsupported);
            }
        };
        let (Some(sector), Some(disk)) = (sector, self.disks.get_mut(attachment.disk)) else {
            return Submission::Finished(Status::Failed);
        };
        let length = if operation.fills_window() { request.length } else { 0 };
        let tag = Tag { client, ticket: Ticket::of(request), length };
        disk.submit(&Command { operation, sector, bytes, data }, tag)
    }

    /// Acknowledges the interrupt of virtio disk `number`.
    pub fn acknowledge_interrupt(&mut self, number: usize) {
        if let Some(disk) = self.disks.get_mut(number) {
            disk.acknowledge_interrupt();
        }
    }

    /// Tells the virtio disks of what was queued.
    #[inline]
    pub fn kick(&mut self) {
        for disk in self.disks.iter_mut().take(self.virtio_count) {
            disk.kick();
        }
    }

    /// Hands what the virtio disks have finished to `complete`; says whether there was anything.
    #[inline]
    pub fn poll(&mut self, mut complete: impl FnMut(Tag, Status)) -> bool {
        let mut found = false;
        for disk in self.disks.iter_mut().take(self.virtio_count) {
            while let Some((tag, status)) = disk.poll() {
                complete(tag, status);
                found = true;
            }
        }
        found
    }
}

/// Says who the client's disk is. `data` is as long as the request.
fn identify(attachment: &Attachment, request: &Request, data: Option<Shared>) -> Status {
    let wanted = (request.length as usize).min(SERIAL_SIZE);
    let written = data.filter(|_| request.segments == 0).map(|data| data.write(&attachment.serial));
    if written.is_some_and(|written| written >= wanted) { Status::Done } else { Status::Failed }
}

/// Completes on `channel` what `tag` stands for.
#[inline]
pub fn finish(channel: &mut Channel, tag: &Tag, status: Status) {
    let length = if status == Status::Done { tag.length } else { 0 };
    channel.complete(tag.ticket, status, length);
}
