//! The registers themselves: identification, widths, reserved places.

use crate::{spi, test};
use rt::gic::{self, offset};
use rt::probe::{self, Width};
use rt::{cpu, machine};
use testkit::{Outcome, ensure};

pub(crate) fn run() {
    test("the distributor is a GICv3 with SPIs", identification);
    test("each redistributor names its CPU, and the last says so", redistributors);
    test("the CPU interface is reached by system registers", || {
        ensure!(gic::system_register_enable() & 1 == 1, "ICC_SRE_EL1.SRE is {:#x}", gic::system_register_enable());
        Ok(())
    });
    test("a priority is a byte, and part of its word", priorities);
    test("enable bits are set and cleared each by its own register", enable_bits);
    test("a route is read back, whole and in halves", routes);
    test("a trigger is read back", triggers);
    test("reserved offsets read as zero and ignore writes", reserved);
    test("read-only registers ignore writes", read_only);
}

fn distributor(at: u64) -> u64 {
    machine().distributor.start + at
}

fn identification() -> Outcome {
    let revision = probe::try_read32(distributor(offset::PIDR2))? >> 4 & 0xf;
    ensure!(revision == 3, "GICD_PIDR2 says architecture revision {revision}");
    let count = gic::interrupt_count();
    ensure!(count >= 64, "GICD_TYPER promises {count} interrupts");
    let control = probe::try_read32(distributor(offset::CTLR))?;
    ensure!(control & gic::DISTRIBUTOR_ON == gic::DISTRIBUTOR_ON, "GICD_CTLR is {control:#x} after turning it on");
    Ok(())
}

fn redistributors() -> Outcome {
    for index in 0..cpu::count() {
        let Some(frame) = gic::redistributor(index) else {
            ensure!(false, "no redistributor has the affinity of CPU {index}");
            continue;
        };
        let kind = probe::read(frame + offset::REDISTRIBUTOR_TYPER, Width::DoubleWord)?;
        let low = u64::from(probe::try_read32(frame + offset::REDISTRIBUTOR_TYPER)?);
        let high = u64::from(probe::try_read32(frame + offset::REDISTRIBUTOR_TYPER + 4)?);
        ensure!(kind == high << 32 | low, "GICR_TYPER is {kind:#x} whole, {high:#x}:{low:#x} in halves");
        ensure!(
            kind >> 8 & 0xffff == index as u64,
            "GICR_TYPER of CPU {index} has processor number {}",
            kind >> 8 & 0xffff
        );
        let last = kind >> 4 & 1 == 1;
        ensure!(last == (index + 1 == cpu::count()), "GICR_TYPER.Last of CPU {index} is {last}");
        let revision = probe::try_read32(frame + offset::PIDR2)? >> 4 & 0xf;
        ensure!(revision == 3, "GICR_PIDR2 of CPU {index} says architecture revision {revision}");
    }
    Ok(())
}

fn priorities() -> Outcome {
    let word = distributor(offset::IPRIORITYR + u64::from(spi(0)));
    for (byte, priority) in [0x10, 0x50, 0x90, 0xf0].into_iter().enumerate() {
        gic::set_priority(spi(byte as u32), priority);
    }
    let value = probe::try_read32(word)?;
    ensure!(value == 0xf090_5010, "four bytes read {value:#x} as a word");
    probe::try_write32(word, 0x2060_a0e0)?;
    for (byte, priority) in [0xe0, 0xa0, 0x60, 0x20].into_iter().enumerate() {
        let got = gic::priority(spi(byte as u32));
        ensure!(got == priority, "byte {byte} of the word reads {got:#x}");
    }
    Ok(())
}

fn enable_bits() -> Outcome {
    for id in [3, 20, spi(1)] {
        ensure!(!gic::is_enabled(id), "interrupt {id} is enabled from the start");
        gic::enable(id);
        ensure!(gic::is_enabled(id), "interrupt {id} did not become enabled");
        gic::disable(id);
        ensure!(!gic::is_enabled(id), "interrupt {id} did not become disabled");
    }
    gic::enable(spi(2));
    gic::enable(spi(3));
    gic::disable(spi(2));
    ensure!(gic::is_enabled(spi(3)), "disabling one interrupt disabled its neighbour");
    Ok(())
}

fn routes() -> Outcome {
    let last = cpu::count() - 1;
    let affinity = machine().cpus[last];
    gic::route(spi(0), last);
    let whole = gic::routing(spi(0));
    ensure!(whole == affinity, "GICD_IROUTER reads {whole:#x}, not {affinity:#x}");
    let at = distributor(offset::IROUTER + u64::from(spi(0)) * 8);
    let low = probe::try_read32(at)?;
    ensure!(u64::from(low) == affinity & 0xffff_ffff, "its low half reads {low:#x}");
    probe::try_write32(at, machine().cpus[0] as u32)?;
    let whole = gic::routing(spi(0));
    ensure!(whole == machine().cpus[0], "GICD_IROUTER reads {whole:#x} after its low half was written");
    Ok(())
}

fn triggers() -> Outcome {
    let at = distributor(offset::ICFGR + u64::from(spi(0) / 16 * 4));
    gic::set_trigger(spi(0), gic::Trigger::Edge);
    let bit = 0b10 << (spi(0) % 16 * 2);
    ensure!(probe::try_read32(at)? & bit != 0, "edge did not stick");
    gic::set_trigger(spi(0), gic::Trigger::Level);
    ensure!(probe::try_read32(at)? & bit == 0, "level did not stick");
    let frame = gic::redistributor(0).unwrap_or(0) + offset::SGI_FRAME;
    let sgis = probe::try_read32(frame + offset::ICFGR)?;
    ensure!(sgis == 0xaaaa_aaaa, "GICR_ICFGR0 reads {sgis:#x}: SGIs are edge-triggered");
    Ok(())
}

fn reserved() -> Outcome {
    let frame = gic::redistributor(0).unwrap_or(0);
    // GICD 0x1000 and 0x5000, RD frame 0x1000, SGI frame 0x2000: reserved in IHI0069 12.8 and 12.10.
    for address in [distributor(0x1000), distributor(0x5000), frame + 0x1000, frame + offset::SGI_FRAME + 0x2000] {
        let value = probe::try_read32(address)?;
        ensure!(value == 0, "{address:#x} reads {value:#x}");
        probe::try_write32(address, u32::MAX)?;
        let value = probe::try_read32(address)?;
        ensure!(value == 0, "{address:#x} reads {value:#x} after a write");
    }
    Ok(())
}

fn read_only() -> Outcome {
    let frame = gic::redistributor(0).unwrap_or(0);
    for address in [
        distributor(offset::TYPER),
        distributor(offset::PIDR2),
        frame + offset::REDISTRIBUTOR_TYPER,
        frame + offset::PIDR2,
    ] {
        let before = probe::try_read32(address)?;
        probe::try_write32(address, !before)?;
        let after = probe::try_read32(address)?;
        ensure!(before == after, "{address:#x} changed from {before:#x} to {after:#x}");
    }
    Ok(())
}
