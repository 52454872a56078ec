//! The block service: from a client's request to a disk's command, and back.

use super::{BlockDevice, Command, Data, Part, RamDisk, Submission, Tag};
use crate::channel::{Channel, Ticket};
use abi::io::{Completion, Description, Request};
use alloc::boxed::Box;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use rt::machine::Region;
use rt::shared::Shared;
use rt::virtio::Granted;
use services::Slice;
use services::block::{self, ERASE_SEGMENT_SIZE, Features, Operation, Plan, SERIAL_SIZE, Status};
use services::describe::block::Disk;
use services::partition::{self, Missing, Sectors};
use services::share::{Owner, Refusal, Shares};

/// The most disks: QEMU's `virt` has 32 slots, and a client may have a disk of RAM.
const DISKS_MAX: usize = 32;

/// What a client's block device is: a slice of a disk.
#[derive(Clone, Copy, Debug)]
pub struct Attachment {
    disk: usize,
    /// The place of the first channel of the same virtual machine.
    vm: usize,
    slice: Slice,
    features: Features,
    block_size: u32,
    serial: Serial,
}

/// A disk's serial number.
pub type Serial = [u8; SERIAL_SIZE];

impl Attachment {
    /// The disk with `queues` queues and a request window of `window_size` bytes that the client finds; `None` if no
    /// driver can use it.
    pub fn describe(&self, queues: u16, window_size: u64) -> Option<Description> {
        let Self { slice, features, block_size, .. } = *self;
        Disk { sectors: slice.sectors(), block_size, features }.describe(queues, window_size)
    }
}

/// All disks. Those of virtio come first, in the order of their slots.
#[derive(Default)]
pub struct BlockService {
    disks: ArrayVec<Box<dyn BlockDevice>, DISKS_MAX>,
    /// By disk. On the heap, since stacks are small.
    shares: Vec<Shares>,
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
        self.shares.push(Shares::default());
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
        self.shares.push(Shares::default());
        self.ram.try_push((region, number)).ok()?;
        Some(number)
    }

    /// Gives a client of virtual machine `vm` ([`Owner`]) `part` of disk `disk`, under the serial number `serial`.
    ///
    /// # Errors
    /// See [`Missing`]; a disk that is not there cannot be read.
    pub fn attach(
        &mut self,
        disk: usize,
        vm: usize,
        part: Part,
        read_only: bool,
        serial: Serial,
    ) -> Result<Attachment, Missing> {
        let device = self.disks.get_mut(disk).ok_or(Missing::Unreadable)?.as_mut();
        let (sectors, features, block_size) = (device.sectors(), device.features(), device.block_size());
        let slice = match part {
            Part::Whole => Slice::new(sectors, 0, sectors).ok_or(Missing::BeyondDisk)?,
            Part::Range(Region { start, size }) => Slice::of_bytes(sectors, start, size).ok_or(Missing::BeyondDisk)?,
            Part::Partition(name) => partition::find(&mut Table(device), name)?,
        };
        let features = Features { is_read_only: read_only || features.is_read_only, ..features };
        let slice = if features.is_read_only { slice.read_only() } else { slice };
        Ok(Attachment { disk, vm, slice, features, block_size, serial })
    }

    /// Whether disk `number` is one of virtio's.
    pub const fn is_virtio(&self, number: usize) -> bool {
        number < self.virtio_count
    }

    /// Whether `request` on `attachment` is one whose end is waited for.
    #[inline]
    pub fn waits(&self, attachment: &Attachment, request: &Request) -> bool {
        block::is_flush(request) && self.disks.get(attachment.disk).is_some_and(|disk| disk.waits_for_flush())
    }

    /// Starts `request` of client `client`, which came through `channel`. What has finished already is completed there.
    #[inline]
    pub fn serve(
        &mut self,
        attachment: &Attachment,
        client: usize,
        channel: &mut Channel,
        request: &Request,
    ) -> Submission {
        let Attachment { disk, vm, slice, features, .. } = attachment;
        let owner = Owner { channel: client, vm: *vm };
        let mut tag = Tag { owner, bytes: 0, ticket: Ticket::of(request), written: 0, is_end: true };
        let submission = match block::plan(request, slice, *features) {
            Plan::Answer(status) => Submission::Finished(status),
            Plan::Identify { bytes } => {
                tag.written = bytes;
                Submission::Finished(identify(attachment, bytes, channel.writable(request)))
            }
            Plan::Erase(operation) => match block::erase(operation, slice, segment(channel.readable(request))) {
                Ok(extent) => self.submit(*disk, Command { operation, extent, data: Data::None }, tag),
                Err(status) => Submission::Finished(status),
            },
            Plan::Run { operation, extent } => {
                let data = match operation {
                    Operation::Read => {
                        (tag.written, tag.is_end) = (request.writable, false);
                        place(channel, request, extent.bytes, channel.writable(request))
                    }
                    Operation::Write => {
                        tag.is_end = false;
                        place(channel, request, extent.bytes, channel.readable(request))
                    }
                    Operation::Flush | Operation::Discard | Operation::WriteZeroes => Some(Data::None),
                };
                match data {
                    Some(data) => self.submit(*disk, Command { operation, extent, data }, tag),
                    None => Submission::Finished(Status::IoError),
                }
            }
        };
        if let Submission::Finished(status) = submission {
            self.pass(*disk, client);
            finish(channel, &tag, status);
        }
        submission
    }

    #[inline]
    fn submit(&mut self, disk: usize, command: Command, tag: Tag) -> Submission {
        let (Some(disk), Some(shares)) = (self.disks.get_mut(disk), self.shares.get_mut(disk)) else {
            return Submission::Finished(Status::IoError);
        };
        let (owner, bytes) = (tag.owner, command.extent.bytes);
        match shares.admit(owner, bytes) {
            Ok(()) => {}
            Err(Refusal::Enough) => return Submission::Enough,
            Err(Refusal::Turn) => return Submission::Busy,
        }
        let submission = disk.submit(&command, Tag { bytes, ..tag });
        if submission == Submission::Queued {
            shares.pass(owner.channel);
            shares.add(owner.vm, bytes);
        }
        submission
    }

    #[inline]
    fn pass(&mut self, disk: usize, client: usize) {
        if let Some(shares) = self.shares.get_mut(disk) {
            shares.pass(client);
        }
    }

    /// The disk of `attachment` was busy in all of the turn of client `client`, which comes first when it no longer is.
    #[cold]
    pub fn miss(&mut self, attachment: &Attachment, client: usize) {
        if let Some(shares) = self.shares.get_mut(attachment.disk) {
            shares.miss(client);
        }
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
        for (disk, shares) in self.disks.iter_mut().zip(&mut self.shares).take(self.virtio_count) {
            while let Some((tag, status)) = disk.poll() {
                shares.remove(tag.owner.vm, tag.bytes);
                complete(tag, status);
                found = true;
            }
        }
        found
    }
}

/// Where the `bytes` bytes of data of a transfer are: in the `window`, or in the client's own memory. `None` if they
/// are not all there.
#[inline]
fn place(channel: &Channel, request: &Request, bytes: u64, window: Option<Shared>) -> Option<Data> {
    if request.segments == 0 {
        return window.map(Data::Window);
    }
    // A list of other lengths would have the disk go on where the slice ends.
    let granted = channel.segments(request).and_then(Granted::new);
    granted.filter(|granted| granted.bytes() == bytes).map(Data::Granted)
}

/// The segment of a discard or write-zeroes request, if that is all of `data`.
#[cold]
fn segment(data: Option<Shared>) -> Option<[u8; ERASE_SEGMENT_SIZE]> {
    let data = data.filter(|data| data.size() == ERASE_SEGMENT_SIZE as u64)?;
    let mut bytes = [0; ERASE_SEGMENT_SIZE];
    data.read(&mut bytes);
    Some(bytes)
}

/// Puts the first `bytes` bytes of the disk's serial number into `room`.
fn identify(attachment: &Attachment, bytes: u32, room: Option<Shared>) -> Status {
    let written = room.map(|room| room.write(&attachment.serial));
    if written.is_some_and(|written| written >= bytes as usize) { Status::Ok } else { Status::IoError }
}

/// Completes on `channel` what `tag` stands for.
#[inline]
pub fn finish(channel: &mut Channel, tag: &Tag, status: Status) {
    // A chain goes on with its next piece, or ends with its last, while all is well.
    let (written, is_end) = if status == Status::Ok { (tag.written, tag.is_end) } else { (0, true) };
    channel.complete(&Completion { is_end, tail: status.tail(), ..tag.ticket.completion(written) });
}
