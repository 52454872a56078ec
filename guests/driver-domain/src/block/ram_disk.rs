//! A disk of RAM: for tests, and for costs that repeat exactly. Its content is what the loader put there, and goes with
//! this domain.

use super::{BlockDevice, Command, Data, Submission, Tag};
use rt::shared::Shared;
use services::block::{Extent, Features, Operation, Status};
use services::slice::SECTOR_SIZE;

/// A disk of RAM.
#[derive(Debug)]
pub struct RamDisk {
    memory: Shared,
}

impl RamDisk {
    /// A disk that is all of `memory`.
    pub const fn new(memory: Shared) -> Self {
        Self { memory }
    }

    fn piece(&self, sector: u64, bytes: u64) -> Option<Shared> {
        self.memory.piece(sector.checked_mul(SECTOR_SIZE)?, bytes)
    }
}

impl BlockDevice for RamDisk {
    fn sectors(&self) -> u64 {
        self.memory.size() / SECTOR_SIZE
    }

    fn block_size(&self) -> u32 {
        SECTOR_SIZE as u32
    }

    fn features(&self) -> Features {
        Features { discards: true, writes_zeroes: true, ..Features::default() }
    }

    #[inline]
    fn submit(&mut self, command: &Command, _: Tag) -> Submission {
        let Extent { sector, bytes } = command.extent;
        let done = match (command.operation, self.piece(sector, bytes), command.data) {
            (Operation::Read, Some(disk), Data::Window(data)) => disk.copy_to(&data) == bytes,
            (Operation::Write, Some(disk), Data::Window(data)) => data.copy_to(&disk) == bytes,
            (Operation::Discard | Operation::WriteZeroes, Some(disk), _) => {
                disk.clear();
                true
            }
            // Nothing here survives a loss of power, and nothing lies in between: what was written is there.
            (Operation::Flush, ..) => true,
            _ => false,
        };
        Submission::Finished(if done { Status::Ok } else { Status::IoError })
    }

    fn kick(&mut self) {}

    fn poll(&mut self) -> Option<(Tag, Status)> {
        None
    }

    fn acknowledge_interrupt(&mut self) {}

    fn read_now(&mut self, sector: u64, bytes: &mut [u8]) -> bool {
        self.piece(sector, bytes.len() as u64).is_some_and(|piece| piece.read(bytes) == bytes.len())
    }
}
