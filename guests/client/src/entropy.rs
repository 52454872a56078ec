//! A source of entropy: every reading differs.

use crate::failed;
use rt::virtio::{Platform, Slot};
use testkit::{Failure, Outcome, ensure, report};
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::mmio::MmioTransport;

type Source<'a> = VirtIORng<Platform, MmioTransport<'a>>;

/// How often the device is brought up.
const STARTS: usize = 4;
/// Bytes of one reading. Two that are equal, or one of zeroes, do not happen by chance.
const READING: usize = 32;

pub(crate) fn run(slot: &mut Slot) {
    report::test("random numbers differ from reading to reading", || differ(slot));
    report::test("random numbers come in any amount", || amounts(slot));
}

fn open(slot: &mut Slot) -> Result<Source<'_>, Failure> {
    Source::new(slot.lend().map_err(failed("the registers"))?).map_err(failed("the driver"))
}

fn read(source: &mut Source<'_>) -> Result<[u8; READING], Failure> {
    let mut reading = [0; READING];
    let mut filled = 0;
    // A source may give less than was asked for, but not nothing.
    while let Some(rest) = reading.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        let count = source.request_entropy(rest).map_err(failed("a reading"))?;
        if count == 0 || count > rest.len() {
            return Err(Failure::new(format_args!("{count} of {} bytes came", rest.len())));
        }
        filled += count;
    }
    Ok(reading)
}

pub(crate) fn differ(slot: &mut Slot) -> Outcome {
    let mut last = [0; READING];
    for start in 0..STARTS {
        let mut source = open(slot)?;
        for _ in 0..2 {
            let reading = read(&mut source)?;
            ensure!(reading != last, "two readings after start {start} are {reading:02x?}");
            last = reading;
        }
    }
    Ok(())
}

fn amounts(slot: &mut Slot) -> Outcome {
    let mut source = open(slot)?;
    let mut bytes = [0; 6000];
    for amount in [1, 2, 63, 4096, 6000] {
        let count = source.request_entropy(&mut bytes[..amount]).map_err(failed("a reading"))?;
        ensure!(count > 0 && count <= amount, "{count} bytes came where {amount} were asked for");
    }
    Ok(())
}

/// Nobody gives random numbers: requests end, and bring nothing.
pub(crate) fn is_dry(slot: &mut Slot) -> Outcome {
    let mut source = open(slot)?;
    let mut bytes = [0; READING];
    for _ in 0..4 {
        let count = source.request_entropy(&mut bytes).map_err(failed("a request"))?;
        ensure!(count == 0 && bytes == [0; READING], "{count} bytes came: {bytes:02x?}");
    }
    Ok(())
}
