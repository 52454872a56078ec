//! A real virtio disk that no grant is for: its queue is short, or it takes few segments with one request. The disk
//! driver of `virtio-drivers` drives it.
//!
//! That driver would serve every disk, and [`VirtioDisk`](super::VirtioDisk) could go, if it had
//!
//! - a request whose table of descriptors lies in memory already, given by address: what a client grants is no slice of
//!   this program's;
//! - a flush that does not wait, and so one that may be under way beside other requests;
//! - a longer queue than its 16 entries, as a parameter;
//! - a notification apart from the request, so that a round of requests takes one exit;
//! - the features that it has negotiated and the configuration that goes with them: write cache, block size, segments.

use super::{BlockDevice, Command, Data, Submission, Tag};
use abi::io::{FEATURE_FLUSH, FEATURE_READ_ONLY, Operation, Status};
use rt::virtio::{Failed, PlainBlock, Refused};

/// A real virtio disk without grants.
pub struct PlainDisk(pub PlainBlock<Tag>);

fn status(outcome: Result<(), Failed>) -> Status {
    match outcome {
        Ok(()) => Status::Done,
        Err(Failed) => Status::Failed,
    }
}

impl BlockDevice for PlainDisk {
    fn sectors(&self) -> u64 {
        self.0.sectors()
    }

    fn block_size(&self) -> u32 {
        self.0.block_size()
    }

    fn features(&self) -> u64 {
        let read_only = if self.0.is_read_only() { FEATURE_READ_ONLY } else { 0 };
        let flush = if self.0.has_cache() { FEATURE_FLUSH } else { 0 };
        read_only | flush
    }

    fn waits_for_flush(&self) -> bool {
        true
    }

    fn submit(&mut self, command: &Command, tag: Tag) -> Submission {
        let submitted = match (command.operation, command.data) {
            (Operation::Read, Data::Window(data)) => self.0.read(command.sector, data, tag),
            (Operation::Write, Data::Window(data)) => self.0.write(command.sector, data, tag),
            (Operation::Flush, _) => {
                return self.0.flush().map_or(Submission::Busy, |outcome| Submission::Finished(status(outcome)));
            }
            // Neither grants nor discard were offered.
            _ => return Submission::Finished(Status::Unsupported),
        };
        match submitted {
            Ok(()) => Submission::Queued,
            Err((Refused::Busy, _)) => Submission::Busy,
            Err((Refused::Invalid, _)) => Submission::Finished(Status::Failed),
        }
    }

    /// The crate has told the device with each request.
    fn kick(&mut self) {}

    fn poll(&mut self) -> Option<(Tag, Status)> {
        self.0.poll().map(|(tag, outcome)| (tag, status(outcome)))
    }

    fn acknowledge_interrupt(&mut self) {
        self.0.acknowledge_interrupt();
    }

    fn read_now(&mut self, sector: u64, bytes: &mut [u8]) -> bool {
        self.0.read_now(sector, bytes).is_ok()
    }
}
