//! The platforms on which the measuring guest runs: the board itself, Bulkhead, and Xen.

use super::{Figures, Measured, Platform, xen};
use crate::{
    bare_metal,
    launch::{self, BoardOptions},
    qemu::{self, Uart},
    session::Session,
    systems, verdict,
    workspace::Workspace,
};
use anyhow::{Context, bail, ensure};
use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::Duration,
};

/// How long a run may take: most take a second.
const LIMIT: Duration = Duration::from_secs(120);
/// What the guest says at its end.
const LAST_LINE: &str = "DONE";
/// The systems under Bulkhead: a core for each virtual CPU, one for two, four and eight, and a client of a driver
/// domain.
const SYSTEMS: [&str; 5] = ["bench-alone", "bench-shared", "bench-shared-four", "bench-shared-eight", "bench-virtio"];
/// The guest's name in them.
const GUEST: &str = "bench";
/// What the guest measures by its own start; [`super::boot`] makes a figure of that.
const START: &str = "boot";

/// Everything that is started to measure on one model of cores.
pub(super) struct Platforms {
    native: Command,
    bulkhead: Vec<launch::Prepared>,
    machines: Vec<qemu::Machine>,
    xen: Vec<Command>,
}

impl Platforms {
    /// Builds Bulkhead and its guest.
    ///
    /// # Errors
    /// When something does not build, or QEMU does not describe its board.
    pub(super) fn build(workspace: &Workspace, cpu: &str, xen: Option<&Path>) -> anyhow::Result<Self> {
        let mut bulkhead = Vec::new();
        let mut machines = Vec::new();
        for system in SYSTEMS {
            let prepared = launch::prepare(workspace, systems::find(workspace, system)?, "")?;
            machines.push(prepared.machine(workspace, &board(cpu), Uart::Reader, Vec::new())?);
            bulkhead.push(prepared);
        }
        let guest = bare_metal::build_guest(workspace, GUEST)?.image;
        let mut native = qemu::reproducible("virt,gic-version=3", cpu, 2);
        native.arg("-kernel").arg(&guest);
        let xen = match xen {
            Some(image) => xen::commands(workspace, cpu, image, &guest)?,
            None => Vec::new(),
        };
        Ok(Self { native, bulkhead, machines, xen })
    }

    /// Runs each platform once.
    ///
    /// # Errors
    /// Which run failed, and how it ended.
    pub(super) fn measure(&self) -> anyhow::Result<Measured> {
        let mut measured = Measured::default();
        let native = until_done(&self.native).context("the run without a hypervisor failed")?;
        measured.of_mut(Platform::Native).extend(Figures::from_lines(native.iter().map(String::as_str)).without(START));
        for (prepared, machine) in self.bulkhead.iter().zip(&self.machines) {
            let symbols = prepared.symbols();
            let outcome =
                Session { symbols: symbols.as_ref(), echo: false, log: None, limit: Some(LIMIT) }.run(machine)?;
            let name = prepared.source.name();
            verdict::ended_well(&outcome).map_err(anyhow::Error::msg).with_context(|| format!("system {name}"))?;
            let figures = Figures::from_lines(outcome.guest_lines(GUEST)).without(START);
            ensure!(!figures.is_empty(), "the guest of system {name} has measured nothing");
            measured.of_mut(Platform::Bulkhead).extend(figures);
        }
        for command in &self.xen {
            let lines = until_done(command).context("the run under Xen failed")?;
            let figures = Figures::from_lines(lines.iter().map(|line| xen::guest_line(line))).without(START);
            measured.of_mut(Platform::Xen).extend(figures);
        }
        Ok(measured)
    }
}

/// The board of a run that counts instructions.
pub(super) fn board(cpu: &str) -> BoardOptions {
    BoardOptions { cpu: Some(cpu.to_owned()), smp: None, icount: Some(0) }
}

/// Starts `command` and gives what it prints, up to the guest's last line.
fn until_done(command: &Command) -> anyhow::Result<Vec<String>> {
    output_until(command, |line| line.ends_with(LAST_LINE))
}

/// Starts `command` and gives what it prints, up to the first line that is the `last`; then it is ended, for not every
/// platform ends by itself.
///
/// # Errors
/// How it ended, where that line does not come.
pub(super) fn output_until(command: &Command, last: impl Fn(&str) -> bool) -> anyhow::Result<Vec<String>> {
    let mut again = Command::new(command.get_program());
    again.args(command.get_args()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = again.spawn().context("QEMU could not be started")?;
    let lines = read_until(&mut child, last);
    // It may have ended by itself.
    let _ = child.kill();
    child.wait()?;
    lines
}

fn read_until(child: &mut Child, last: impl Fn(&str) -> bool) -> anyhow::Result<Vec<String>> {
    let output = BufReader::new(child.stdout.take().context("QEMU has no output")?);
    let (sender, receiver) = mpsc::channel();
    // Ends with the pipe, so with QEMU.
    thread::spawn(move || {
        for line in output.split(b'\n') {
            let Ok(line) = line else { break };
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    let mut lines = Vec::new();
    loop {
        match receiver.recv_timeout(LIMIT) {
            Ok(line) => {
                let is_last = last(&line);
                lines.push(line);
                if is_last {
                    return Ok(lines);
                }
            }
            Err(reason) => {
                let line = lines.iter().rev().find(|line| !line.is_empty()).map_or("nothing at all", String::as_str);
                match reason {
                    RecvTimeoutError::Timeout => bail!("it hangs; the last it printed was `{line}`"),
                    RecvTimeoutError::Disconnected => bail!("it ended early; the last it printed was `{line}`"),
                }
            }
        }
    }
}
