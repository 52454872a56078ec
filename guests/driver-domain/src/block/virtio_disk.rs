//! A real virtio disk.

use super::outcome::{features, status, submission};
use super::{BlockDevice, Command, Data, Submission, Tag};
use abi::io::SEGMENTS_MAX;
use rt::virtio::Block;
use services::block::{Features, Operation, Status};

/// A real virtio disk.
pub struct VirtioDisk(pub Block<Tag>);

impl BlockDevice for VirtioDisk {
    fn sectors(&self) -> u64 {
        self.0.sectors()
    }

    fn block_size(&self) -> u32 {
        self.0.block_size()
    }

    fn features(&self) -> Features {
        let takes_grants = self.0.segments_max() >= u32::from(SEGMENTS_MAX);
        Features { takes_grants, ..features(self.0.is_read_only(), self.0.has_cache()) }
    }

    fn submit(&mut self, command: &Command, tag: Tag) -> Submission {
        let submitted = match (command.operation, command.data) {
            (Operation::Read, Data::Window(data)) => self.0.read(command.extent.sector, data, tag),
            (Operation::Write, Data::Window(data)) => self.0.write(command.extent.sector, data, tag),
            (Operation::Read, Data::Granted(granted)) => self.0.read_granted(command.extent.sector, granted, tag),
            (Operation::Write, Data::Granted(granted)) => self.0.write_granted(command.extent.sector, granted, tag),
            (Operation::Flush, _) => self.0.flush(tag),
            // The driver has no discard, so it was not offered.
            _ => return Submission::Finished(Status::Unsupported),
        };
        submission(submitted)
    }

    #[inline]
    fn kick(&mut self) {
        self.0.kick();
    }

    #[inline]
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
