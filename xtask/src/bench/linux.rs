//! Bulkhead's share of a Linux start: what Debian's kernel executes until it has run its first program, and what its
//! exits cost beside that.
//!
//! The start is timed on the bare board, with the device tree that Bulkhead gives its guest, so that the kernel has the
//! same to do. As a guest its exits are counted, by reason, and each counts what a row of the table says that one
//! costs. Two times could not be compared so finely: a kernel that waits for its next tick hides what it has lost
//! before.

use super::{
    Figure, Measured, Platform,
    platforms::{board, output_until},
};
use crate::{
    launch,
    qemu::{self, Uart},
    setup, systems,
    workspace::Workspace,
};
use anyhow::{Context, anyhow};
use manifest::Bundle;
use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

const SYSTEM: &str = "bench-linux";
/// What the kernel prints when its first program has ended it.
const END: &str = "reboot: Power down";
const ROW: &str = "linux-start";
const ROW_EXITS: &str = "linux-exits";

/// Adds the start on the bare board to `measured`, and the start under Bulkhead as the sum of it and its exits.
///
/// # Errors
/// When a start fails, or when `measured` has not what an exit costs.
pub(super) fn measure(workspace: &Workspace, cpu: &str, measured: &mut Measured) -> anyhow::Result<()> {
    let prepared = launch::prepare(workspace, systems::find(workspace, SYSTEM)?, "")?;
    let guest = prepared.source.vms().first().context("the system has no vm")?;
    let directory = workspace.cache().join("bench");
    std::fs::create_dir_all(&directory).with_context(|| format!("{} cannot be created", directory.display()))?;

    let tree = Bundle::new(&prepared.bundle.cpio)
        .find(&format!("{}.dtb", guest.name()))
        .map_err(|error| anyhow!("the bundle has no device tree: {error}"))?;
    let path = directory.join("linux.dtb");
    std::fs::write(&path, tree).with_context(|| format!("{} cannot be written", path.display()))?;
    let images = setup::linux(workspace)?;
    let mut native = qemu::reproducible("virt,gic-version=3", cpu, 1);
    // The last -m holds; QEMU writes it into the device tree.
    native.arg("-m").arg(format!("{}M", guest.memory_bytes() >> 20));
    native.arg("-kernel").arg(images.kernel).arg("-initrd").arg(images.initrd).arg("-dtb").arg(&path);
    native.args(["-append", &guest.command_line]);
    let lines = output_until(&native, |line| line.ends_with(END)).context("Linux does not start on the bare board")?;
    let alone = lines.last().and_then(|line| kernel_time(line)).context("the kernel does not say when it was done")?;

    let log = directory.join("linux.exceptions");
    let note = ["-d".into(), "int".into(), "-D".into(), log.clone().into_os_string()];
    let machine = prepared.machine(workspace, &board(cpu), Uart::Reader, note.into())?;
    // Off is not the end: QEMU ends by itself when Bulkhead turns the board off, and with it the log.
    let lines = output_until(&machine.command(), |line| line.contains("power off"));
    lines.context("Linux does not start under Bulkhead")?;
    let exits = Exits::read(&log)?;
    // Several megabytes, of use to nobody.
    let _ = std::fs::remove_file(&log);
    let cost = exits.cost(measured).context("the exits of the start cannot be priced")?;

    measured.of_mut(Platform::Native).insert(ROW, Figure::once(alone));
    measured.of_mut(Platform::Bulkhead).insert(ROW, Figure::once(alone + cost));
    measured.of_mut(Platform::Bulkhead).insert(ROW_EXITS, Figure::once(exits.count()));
    Ok(())
}

/// The kernel's own time of a line, `[guest] [    0.755637] reboot: …`, in nanoseconds.
fn kernel_time(line: &str) -> Option<u64> {
    let (_, rest) = line.strip_suffix(END)?.rsplit_once('[')?;
    let (seconds, microseconds) = rest.trim_end_matches([' ', ']']).trim().split_once('.')?;
    let microseconds = seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?.checked_add(microseconds.parse().ok()?)?;
    microseconds.checked_mul(1000)
}

/// How often a guest has left for EL2, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Exits {
    calls: u64,
    reads: u64,
    writes: u64,
    interrupts: u64,
    /// System registers, and whatever else there may be.
    others: u64,
}

impl Exits {
    /// Counts the exceptions in QEMU's log that EL2 has taken from below.
    fn read(log: &Path) -> anyhow::Result<Self> {
        let file = File::open(log).with_context(|| format!("QEMU has not written {}", log.display()))?;
        let mut exits = Self::default();
        let mut exception = Exception::default();
        for line in BufReader::new(file).lines() {
            exits.take(&mut exception, &line?);
        }
        Ok(exits)
    }

    /// Takes one line of an exception: its kind, from which level to which, and its syndrome, in this order.
    fn take(&mut self, exception: &mut Exception, line: &str) {
        if let Some(kind) = line.strip_prefix("Taking exception ") {
            *exception = Exception { interrupt: kind.contains("[IRQ]"), to_hypervisor: false };
        } else if let Some(levels) = line.strip_prefix("...from ") {
            exception.to_hypervisor = matches!(levels, "EL0 to EL2" | "EL1 to EL2");
        } else if let Some(syndrome) = line.strip_prefix("...with ESR 0x").filter(|_| exception.to_hypervisor) {
            *self.counter(exception, syndrome) += 1;
            exception.to_hypervisor = false;
        }
    }

    /// The counter of an exception with the syndrome `class/ESR`, as QEMU writes it.
    fn counter(&mut self, exception: &Exception, syndrome: &str) -> &mut u64 {
        /// ESR_EL2.ISS.WnR (Arm ARM D17.2.37, data aborts).
        const WRITE: u64 = 1 << 6;
        let (class, whole) = syndrome.split_once("/0x").unwrap_or((syndrome, "0"));
        let write = u64::from_str_radix(whole.trim(), 16).unwrap_or(0) & WRITE != 0;
        match class {
            _ if exception.interrupt => &mut self.interrupts,
            "16" | "17" => &mut self.calls,
            "24" if write => &mut self.writes,
            "24" => &mut self.reads,
            _ => &mut self.others,
        }
    }

    const fn count(&self) -> u64 {
        self.calls + self.reads + self.writes + self.interrupts + self.others
    }

    /// What they cost, by the rows that measure one of each: a start's reads and writes of devices are those of its
    /// console.
    fn cost(&self, measured: &Measured) -> Option<u64> {
        let above = |row| {
            let bulkhead = measured.average(Platform::Bulkhead, row)?;
            Some(bulkhead - measured.average(Platform::Native, row)?)
        };
        let read = above("uart-read")?;
        // A character is a look at the flags and a write.
        let write = above("uart-put")? - read;
        let parts = [
            (self.calls, above("hvc")?),
            (self.reads, read),
            (self.writes, write),
            (self.interrupts, above("timer-running")?),
            (self.others, above("sgi-self")?),
        ];
        Some(parts.iter().map(|(count, cost)| *count as f64 * cost).sum::<f64>().round() as u64)
    }
}

/// The exception whose lines are being read.
#[derive(Debug, Default)]
struct Exception {
    interrupt: bool,
    to_hypervisor: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_time_is_read_behind_any_prefix() {
        assert_eq!(kernel_time("[    0.755637] reboot: Power down"), Some(755_637_000));
        assert_eq!(kernel_time("[linux] [    1.000001] reboot: Power down"), Some(1_000_001_000));
        assert_eq!(kernel_time("reboot: Power down"), None);
    }

    #[test]
    fn exits_are_counted_by_reason() {
        let log = "\
            Exception return from AArch64 EL2 to AArch64 EL1 PC 0x40200000\n\
            Taking exception 4 [Data Abort] on CPU 0\n...from EL1 to EL2\n...with ESR 0x24/0x93c28005\n\
            Taking exception 4 [Data Abort] on CPU 0\n...from EL1 to EL2\n...with ESR 0x24/0x93c28045\n\
            Taking exception 5 [IRQ] on CPU 0\n...from EL0 to EL2\n...with ESR 0x24/0x93c28045\n\
            Taking exception 2 [SVC] on CPU 0\n...from EL0 to EL1\n...with ESR 0x15/0x56000000\n\
            Taking exception 11 [Hypervisor Call] on CPU 0\n...from EL1 to EL2\n...with ESR 0x16/0x5a000000\n\
            Taking exception 1 [Undefined Instruction] on CPU 0\n...from EL1 to EL2\n...with ESR 0x18/0x62240024\n";
        let (mut exits, mut exception) = (Exits::default(), Exception::default());
        log.lines().for_each(|line| exits.take(&mut exception, line));
        assert_eq!(exits, Exits { calls: 1, reads: 1, writes: 1, interrupts: 1, others: 1 });
    }
}
