//! The disk, past the page cache: at random places in pieces of 4 KiB, and from one end to the other in pieces of 1
//! MiB.

use crate::{
    amount::{Amount, repeat},
    report::{Report, Running},
};
use rustix::fs::OFlags;
use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::Barrier,
    thread,
};

const SMALL_BYTES: usize = 4 << 10;
const LARGE_BYTES: usize = 1 << 20;
/// O_DIRECT wants buffers and places in whole blocks, which no disk has larger.
const ALIGNMENT: usize = 4096;
/// Operations before the clock starts: they fill caches and tables.
const WARM_UP_ROUNDS: u64 = 16;

/// A way to use a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// 4 KiB from random places.
    RandomRead {
        /// So many at a time, each in a thread of its own.
        depth: u32,
    },
    /// 4 KiB to random places.
    RandomWrite {
        /// So many at a time, each in a thread of its own.
        depth: u32,
    },
    /// 1 MiB after the other.
    SequentialRead,
    /// 1 MiB after the other.
    SequentialWrite,
}

impl Access {
    const fn depth(self) -> u32 {
        match self {
            Self::RandomRead { depth } | Self::RandomWrite { depth } => depth,
            Self::SequentialRead | Self::SequentialWrite => 1,
        }
    }

    const fn writes(self) -> bool {
        matches!(self, Self::RandomWrite { .. } | Self::SequentialWrite)
    }

    const fn piece_bytes(self) -> usize {
        match self {
            Self::RandomRead { .. } | Self::RandomWrite { .. } => SMALL_BYTES,
            Self::SequentialRead | Self::SequentialWrite => LARGE_BYTES,
        }
    }
}

/// Uses the disk at `path` so often or so long.
///
/// # Errors
/// The operating system's, and a disk without room for one piece.
pub fn measure(path: &Path, access: Access, amount: Amount) -> io::Result<Report> {
    let direct = OFlags::DIRECT.bits().cast_signed();
    let mut file = OpenOptions::new().read(true).write(access.writes()).custom_flags(direct).open(path)?;
    let pieces = file.seek(SeekFrom::End(0))? / access.piece_bytes() as u64;
    if pieces == 0 {
        return Err(io::Error::other(format!("{} is smaller than one piece", path.display())));
    }
    let depth = access.depth();
    let gate = Barrier::new(usize::try_from(depth).unwrap_or(1).saturating_add(1));
    thread::scope(|scope| {
        let hands: Vec<_> = (0..depth)
            .map(|number| {
                let share = share(amount, number, depth);
                let (file, gate) = (&file, &gate);
                scope.spawn(move || {
                    let mut hand = Hand::new(file, access, pieces, number);
                    let ready = (0..WARM_UP_ROUNDS).try_for_each(|_| hand.step());
                    // Whatever has failed, the others wait for this one.
                    gate.wait();
                    ready.and_then(|()| repeat(share, || hand.step()))
                })
            })
            .collect();
        let running = Running::start();
        gate.wait();
        let running = running.restart();
        let (mut rounds, mut median) = (0_u64, 0);
        for hand in hands {
            let (done, its_median) = hand.join().unwrap_or_else(|_| Err(io::Error::other("a thread failed")))?;
            rounds = rounds.saturating_add(done);
            median = if depth == 1 { its_median } else { 0 };
        }
        let report = running.stop(rounds, rounds.saturating_mul(access.piece_bytes() as u64));
        Ok(Report { median, ..report })
    })
}

/// What one of `depth` does of the whole.
fn share(amount: Amount, number: u32, depth: u32) -> Amount {
    match amount {
        Amount::Time(time) => Amount::Time(time),
        Amount::Rounds(rounds) => {
            let (each, rest) = (rounds / u64::from(depth), rounds % u64::from(depth));
            Amount::Rounds(each + u64::from(u64::from(number) < rest))
        }
    }
}

/// One of those who use the disk at a time.
struct Hand<'a> {
    file: &'a File,
    access: Access,
    /// How many the disk has.
    pieces: u64,
    /// The piece that was last used.
    piece: u64,
    random: Random,
    /// Longer than a piece, so that an aligned piece lies in it.
    buffer: Vec<u8>,
    start: usize,
}

impl<'a> Hand<'a> {
    fn new(file: &'a File, access: Access, pieces: u64, number: u32) -> Self {
        // Written, so that its pages are there.
        let buffer = vec![0x5a; access.piece_bytes() + ALIGNMENT];
        let start = buffer.as_ptr().align_offset(ALIGNMENT);
        Self { file, access, pieces, piece: 0, random: Random::new(number), buffer, start }
    }

    fn step(&mut self) -> io::Result<()> {
        let bytes = self.access.piece_bytes();
        let place = match self.access {
            Access::RandomRead { .. } | Access::RandomWrite { .. } => self.random.below(self.pieces),
            Access::SequentialRead | Access::SequentialWrite => {
                self.piece = (self.piece + 1) % self.pieces;
                self.piece
            }
        };
        let offset = place * bytes as u64;
        let range = self.start..self.start + bytes;
        let piece = self.buffer.get_mut(range).ok_or_else(|| io::Error::other("the buffer has no aligned piece"))?;
        if self.access.writes() {
            self.file.write_all_at(piece, offset)
        } else {
            self.file.read_exact_at(piece, offset)
        }
    }
}

/// Marsaglia's xorshift64: the same places in every run.
struct Random(u64);

impl Random {
    fn new(number: u32) -> Self {
        Self(0x9e37_79b9_7f4a_7c15 ^ u64::from(number).wrapping_mul(0x0100_0000_01b3))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_hands_together_do_what_was_asked_for() {
        let done: u64 = (0..16)
            .map(|number| match share(Amount::Rounds(100), number, 16) {
                Amount::Rounds(rounds) => rounds,
                Amount::Time(_) => 0,
            })
            .sum();
        assert_eq!(done, 100);
    }

    #[test]
    fn places_are_spread_and_the_same_each_time() {
        let places = || {
            let mut random = Random::new(3);
            (0..64).map(|_| random.below(1000)).collect::<Vec<_>>()
        };
        let mut first = places();
        assert_eq!(first, places());
        first.sort_unstable();
        first.dedup();
        assert!(first.len() > 56, "{first:?}");
    }

    #[test]
    fn a_file_is_read_as_often_as_asked() {
        // Not every file system has O_DIRECT; where it is missing there is nothing to measure.
        let path = std::env::temp_dir().join(format!("io-bench-{}", std::process::id()));
        std::fs::write(&path, vec![0; 64 << 10]).expect("written");
        let measured = measure(&path, Access::RandomRead { depth: 4 }, Amount::Rounds(10));
        std::fs::remove_file(&path).expect("removed");
        if let Ok(report) = measured {
            assert_eq!((report.rounds, report.bytes), (10, 40_960));
        }
    }

    #[test]
    fn a_disk_smaller_than_a_piece_is_refused() {
        measure(Path::new("/dev/null"), Access::SequentialRead, Amount::Rounds(1)).expect_err("no piece");
    }
}
