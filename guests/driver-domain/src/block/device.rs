//! The boundary between the block service and a disk's driver: another driver is another implementation of this trait.

use crate::channel::Ticket;
use rt::shared::Shared;
use rt::virtio::Granted;
use services::block::{Extent, Features, Operation, Status};
use services::share::Owner;

/// Where the data of a request is.
#[derive(Clone, Copy, Debug)]
pub enum Data {
    /// There is none.
    None,
    /// In the window.
    Window(Shared),
    /// In a client's own memory, which the device may reach, and this domain may not.
    Granted(Granted),
}

/// What a disk is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// What to do.
    pub operation: Operation,
    /// To which sectors; their bytes are those of `data`, if there is any.
    pub extent: Extent,
    /// Where the data of a read goes, and that of a write is.
    pub data: Data,
}

/// Whose request it is; comes back when it has finished.
#[derive(Clone, Copy, Debug)]
pub struct Tag {
    /// The client, by the place of its channel, and its virtual machine.
    pub owner: Owner,
    /// Bytes in the disk's queue.
    pub bytes: u64,
    /// What the completion repeats.
    pub ticket: Ticket,
    /// Bytes that are in the request's room when it succeeds.
    pub written: u32,
    /// Its chain ends with it, also when it succeeds and is not the chain's last piece: it moves no data.
    pub is_end: bool,
}

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Submission {
    /// It has finished already.
    Finished(Status),
    /// [`BlockDevice::poll`] will tell.
    Queued,
    /// The queue is full, or it is another's turn: submit it again later.
    Busy,
    /// Its owner has enough in the queue: submit it again later.
    Enough,
}

/// A disk.
pub trait BlockDevice {
    /// The size in sectors of 512 bytes.
    fn sectors(&self) -> u64;

    /// The logical block size in bytes.
    fn block_size(&self) -> u32;

    /// What it can do.
    fn features(&self) -> Features;

    /// Whether a flush is waited for, rather than queued.
    fn waits_for_flush(&self) -> bool {
        false
    }

    /// Starts `command`.
    fn submit(&mut self, command: &Command, tag: Tag) -> Submission;

    /// Tells the device of what was queued, if it has not been told.
    fn kick(&mut self);

    /// The next queued command that has finished, if there is one.
    fn poll(&mut self) -> Option<(Tag, Status)>;

    /// Acknowledges its interrupt.
    fn acknowledge_interrupt(&mut self);

    /// Reads sectors and waits for them, before there are clients; `false` if that failed.
    fn read_now(&mut self, sector: u64, bytes: &mut [u8]) -> bool;
}
