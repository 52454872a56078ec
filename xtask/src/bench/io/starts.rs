//! Starts a Linux guest with the program that measures: under Bulkhead, or on the bare board with the same devices.

use super::CPU;
use crate::{
    bench::platforms::output_until,
    launch::{self, BoardOptions, Prepared},
    qemu::{self, Machine, Uart, Virtio},
    session::{Outcome, Session},
    setup, systems, verdict,
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use io_bench::report::Report;
use std::{collections::BTreeMap, path::PathBuf, process::Command, time::Duration};

/// The guest that measures, in every system.
pub(super) const CLIENT: &str = "client";
/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(300);
/// What the kernel says at its end.
const END: &str = "reboot: Power down";
/// The program's words on the kernel's command line; `guests/linux/init` passes them on.
const PARAMETER: &str = "bulkhead.bench";

/// The reports of a run, by name.
pub(super) type Reports = BTreeMap<String, Report>;

/// A system under Bulkhead.
pub(super) struct Hosted {
    pub(super) prepared: Prepared,
    pub(super) machine: Machine,
}

impl Hosted {
    /// Builds `system`, in which the client does what `words` say. Instructions are the clock where `icount` says so.
    ///
    /// # Errors
    /// As [`launch::prepare`].
    pub(super) fn new(workspace: &Workspace, system: &str, words: &[String], icount: bool) -> anyhow::Result<Self> {
        let mut source = systems::find(workspace, system)?;
        let client = source.vms.iter_mut().find(|vm| vm.name == CLIENT).context("the system has no client")?;
        client.command_line += &parameter(words);
        let prepared = launch::prepare(workspace, source, "")?;
        let board = BoardOptions { cpu: Some(CPU.to_owned()), smp: None, icount: icount.then_some(0) };
        let machine = prepared.machine(workspace, &board, Uart::Reader, Vec::new())?;
        Ok(Self { prepared, machine })
    }

    /// Plugs in `disk` in the place of the first.
    pub(super) fn use_disk(&mut self, disk: PathBuf) {
        let first = self.machine.virtio.as_mut().and_then(|virtio| virtio.disks.first_mut());
        if let Some((_, first)) = first {
            *first = disk;
        }
    }

    /// Runs it once.
    ///
    /// # Errors
    /// How it ended, where it did not end well; what the guest could not do.
    pub(super) fn run(&self) -> anyhow::Result<(Reports, Outcome)> {
        let symbols = self.prepared.symbols();
        let session = Session { symbols: symbols.as_ref(), echo: false, log: None, limit: Some(LIMIT) };
        let outcome = session.run(&self.machine)?;
        let name = self.prepared.source.name();
        verdict::ended_well(&outcome).map_err(anyhow::Error::msg).with_context(|| format!("system {name}"))?;
        let reports = read(outcome.guest_lines(CLIENT)).with_context(|| format!("system {name}"))?;
        Ok((reports, outcome))
    }
}

/// The same guest on the bare board, with the same devices in its first slots. Instructions are the clock where
/// `icount` says so.
///
/// # Errors
/// When the guest's images cannot be had.
pub(super) fn bare(workspace: &Workspace, words: &[String], virtio: &Virtio, icount: bool) -> anyhow::Result<Command> {
    let images = setup::linux(workspace)?;
    let archive = setup::linux_bench(workspace)?;
    let mut command = Command::new(qemu::PROGRAM);
    command.args(["-M", "virt,gic-version=3", "-cpu", CPU, "-smp", "1", "-m", "256M", "-no-reboot"]);
    command.args(["-display", "none", "-serial", "stdio", "-monitor", "none"]);
    if icount {
        command.args(["-icount", "shift=0,sleep=off", "-rtc", "base=2020-01-01T00:00:00,clock=vm", "-seed", "1"]);
    }
    command.args(virtio.arguments().into_iter().flatten());
    command.arg("-kernel").arg(images.kernel).arg("-initrd").arg(archive);
    command.args(["-append", &format!("console=ttyAMA0 ipv6.disable=1{}", parameter(words))]);
    Ok(command)
}

/// Runs the bare board once.
///
/// # Errors
/// As [`Hosted::run`].
pub(super) fn run_bare(command: &Command) -> anyhow::Result<Reports> {
    let lines = output_until(command, |line| line.ends_with(END)).context("the run without a hypervisor failed")?;
    read(lines.iter().map(String::as_str)).context("the run without a hypervisor")
}

/// What stands on the client's command line.
fn parameter(words: &[String]) -> String {
    format!(" {PARAMETER}={}", words.join(","))
}

fn read<'a>(lines: impl Iterator<Item = &'a str>) -> anyhow::Result<Reports> {
    let mut reports = Reports::new();
    for line in lines {
        ensure!(!line.starts_with("bench FAILED"), "the guest says: {line}");
        reports.extend(Report::parse(line).map(|(name, report)| (name.to_owned(), report)));
    }
    ensure!(!reports.is_empty(), "the guest has measured nothing");
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_guest_could_not_do_is_not_left_out() {
        let good = Report { rounds: 1, ..Report::default() }.line("read-4k");
        let reports = read(["[    0.1] Linux", &good].into_iter()).expect("reports");
        assert_eq!(reports["read-4k"].rounds, 1);
        read([&*good, "bench FAILED: `write-4k` cannot be done"].into_iter()).expect_err("one failed");
        read(["[    0.1] Linux"].into_iter()).expect_err("nothing was measured");
    }

    #[test]
    fn the_words_reach_the_guest_as_one_parameter() {
        assert_eq!(
            parameter(&["disk=/dev/vda".to_owned(), "read-4k=2s".to_owned()]),
            " bulkhead.bench=disk=/dev/vda,read-4k=2s"
        );
    }
}
