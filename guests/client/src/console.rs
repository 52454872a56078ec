//! A console: what is printed is taken, whatever its length.

use crate::failed;
use rt::machine;
use rt::virtio::{Platform, Slot};
use testkit::{Outcome, ensure, report};
use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::transport::mmio::MmioTransport;

type Console<'a> = VirtIOConsole<Platform, MmioTransport<'a>>;

/// What would clear the screen, set its title, ask it something, or pass for somebody else's row.
const HOSTILE: &[u8] = b"\x1b[2J\x1b[1;1H\r[bulkhead] forged\x1b]0;title\x07\xc2\x9b6n\x0b[neighbour] forged\x9b2J\n\
    \x08\x08\x08\x08\x08\x08\x08\x08\x08\x08\x08[bulkhead] forged\x1b[99D[bulkhead] forged\n";
/// How often the device is brought up.
const STARTS: usize = 4;
/// Longer than what is taken of a buffer at one go.
const LONG: usize = 6000;

pub(crate) fn run(slot: &mut Slot) {
    report::test("a console has the size of a terminal", || {
        let size = open(slot)?.size().map_err(failed("the size"))?;
        ensure!(size.is_some_and(|size| (size.columns, size.rows) == (80, 24)), "it is {size:?}");
        Ok(())
    });
    report::test("a console prints, and can be brought up again and again", || print(slot));
}

fn open(slot: &mut Slot) -> Result<Console<'_>, testkit::Failure> {
    Console::new(slot.lend().map_err(failed("the registers"))?).map_err(failed("the driver"))
}

fn print(slot: &mut Slot) -> Outcome {
    for _ in 0..STARTS {
        let mut console = open(slot)?;
        for text in ["client ", machine().name(), " prints\n"] {
            console.send_bytes(text.as_bytes()).map_err(failed("a line"))?;
        }
        let typed = console.recv(true).map_err(failed("a look at what was typed"))?;
        ensure!(typed.is_none(), "nobody typed, and there is {typed:?}");
    }
    open(slot)?.send_bytes(HOSTILE).map_err(failed("whatever there is"))?;
    let mut long = [b'.'; LONG];
    long[LONG - 1] = b'\n';
    open(slot)?.send_bytes(&long).map_err(failed("a long line"))
}

/// Prints `line`, as one of many.
pub(crate) fn load(slot: &mut Slot, line: &str) -> Outcome {
    open(slot)?.send_bytes(line.as_bytes()).map_err(failed("a line"))
}
