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

use super::outcome::{features, status, submission};
use super::{BlockDevice, Command, Data, Submission, Tag};
use rt::virtio::PlainBlock;
use services::block::{Features, Operation, Status};

/// A real virtio disk without grants.
pub struct PlainDisk(pub PlainBlock<Tag>);

impl BlockDevice for PlainDisk {
    fn sectors(&self) -> u64 {
        self.0.sectors()
    }

    fn block_size(&self) -> u32 {
        self.0.block_size()
    }

    fn features(&self) -> Features {
        features(self.0.is_read_only(), self.0.has_cache())
    }

    fn waits_for_flush(&self) -> bool {
        true
    }

    fn submit(&mut self, command: &Command, tag: Tag) -> Submission {
        let submitted = match (command.operation, command.data) {
            (Operation::Read, Data::Window(data)) => self.0.read(command.extent.sector, data, tag),
            (Operation::Write, Data::Window(data)) => self.0.write(command.extent.sector, data, tag),
            (Operation::Flush, _) => {
                return self.0.flush().map_or(Submission::Busy, |outcome| Submission::Finished(status(outcome)));
            }
            // Neither grants nor discard were offered.
            _ => return Submission::Finished(Status::Unsupported),
        };
        submission(submitted)
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
