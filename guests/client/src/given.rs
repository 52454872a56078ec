//! A disk whose image was there before the run: every sector says which it is.

use crate::block::open_any;
use crate::{Slots, failed};
use arrayvec::ArrayString;
use core::fmt::Write;
use rt::virtio::{Error, Kind};
use testkit::{Failure, Outcome, ensure, report};

const SECTORS: u64 = 8;
const SECTOR: usize = 512;
const LINE: usize = 64;

pub(crate) fn run(mut slots: Slots) {
    report::test("a disk whose image is given has what was in it, and nobody writes to it", || check(&mut slots));
}

fn check(slots: &mut Slots) -> Outcome {
    let slot = slots.iter_mut().find(|slot| slot.kind() == Some(Kind::Block));
    let Some(slot) = slot else { return Err(Failure::new(format_args!("there is no disk"))) };
    let mut disk = open_any(slot)?;
    ensure!(disk.capacity() == SECTORS, "it has {} sectors", disk.capacity());
    let mut bytes = [0; SECTOR];
    for sector in 0..SECTORS as usize {
        disk.read_blocks(sector, &mut bytes).map_err(failed("a read"))?;
        for (number, line) in bytes.chunks_exact(LINE).enumerate() {
            let mut expected = ArrayString::<LINE>::new();
            let _ = write!(expected, "sector {sector} line {number} of a disk image that was there before the run");
            let is_right = line.starts_with(expected.as_bytes()) && line.ends_with(b".\n");
            ensure!(is_right, "line {number} of sector {sector} is {:?}", core::str::from_utf8(line));
        }
    }
    let outcome = disk.write_blocks(0, &bytes);
    ensure!(outcome == Err(Error::IoError), "a write gave {outcome:?}");
    Ok(())
}
