//! Registers that are read or written now and then: of the distributor, and of the processor's identification. What
//! answers at once, `accesses` measures.

use crate::accesses::{read, write};
use crate::clock::measure;
use rt::gic::offset;
use rt::machine;
use rt::system_registers;

/// GICD_IIDR (IHI 0069 12.9.13).
const IIDR: u64 = 0x0008;
/// An SPI that no device has.
const UNUSED_SPI: u64 = 60;
const WORD: u64 = UNUSED_SPI / 32 * 4;

pub fn run() {
    let distributor = machine().distributor.start;
    read("gicd-iidr-read", distributor + IIDR);
    write("gicd-icenabler-write", distributor + offset::ICENABLER + WORD, 1 << (UNUSED_SPI % 32));
    read("gicd-irouter-read", distributor + offset::IROUTER + UNUSED_SPI * 8);
    read("gicd-ipriorityr-read", distributor + offset::IPRIORITYR + UNUSED_SPI);
    read("gicd-isactiver-read", distributor + offset::ISACTIVER + WORD);
    read("gicd-ispendr-read", distributor + offset::ISPENDR + WORD);
    measure("id-read", || {
        let _ = system_registers::id_aa64pfr0();
    });
}
