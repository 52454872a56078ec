//! `run`: starts a system, or one image of the user's own, under QEMU.
//!
//! At a terminal the guests are there to be used. Without one, each Linux guest is told to check itself and power off,
//! and the exit code says whether all is well.

use crate::{
    consoles, counters,
    disks::Age,
    launch::{self, BoardOptions},
    qemu::Uart,
    restarts::{Restarts, parse_milliseconds},
    session::Session,
    system::{self, AdHoc, Source, parse_size},
    systems, verdict,
    workspace::Workspace,
};
use anyhow::{Context, ensure};
use std::{
    ffi::OsString,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

/// How long a run without a terminal may take.
const LIMIT_DEFAULT: Duration = Duration::from_secs(150);
/// The same where instructions are counted, and one core is emulated at a time, or where much is written.
const LIMIT_DEFAULT_ICOUNT: Duration = Duration::from_secs(600);

/// The options of `run`.
#[derive(clap::Args)]
pub(super) struct Run {
    /// A system of guests/systems, or the path of a .toml file
    #[arg(default_value = super::DEFAULT_SYSTEM, conflicts_with = "kernel")]
    system: String,
    /// Start this arm64 image as the only guest, in place of a system
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The initial RAM disk of --kernel
    #[arg(long, value_name = "FILE", requires = "kernel")]
    initrd: Option<PathBuf>,
    /// The command line of --kernel
    #[arg(
        long,
        value_name = "STRING",
        requires = "kernel",
        default_value = "console=ttyAMA0",
        allow_hyphen_values = true
    )]
    append: String,
    /// The RAM of --kernel, such as 512M
    #[arg(long, value_name = "SIZE", requires = "kernel", default_value = "256M", value_parser = parse_size)]
    memory: u64,
    /// The number of virtual CPUs of --kernel
    #[arg(long, value_name = "N", requires = "kernel", default_value_t = 1)]
    vcpus: u8,
    /// Give --kernel this disk image, as it is (may be repeated)
    #[arg(long, value_name = "FILE", requires = "kernel")]
    disk: Vec<PathBuf>,
    /// Give --kernel a network card, on QEMU's user network
    #[arg(long, requires = "kernel")]
    net: bool,
    /// Make the system's disks anew, in place of those that earlier runs have left
    #[arg(long, conflicts_with = "kernel")]
    fresh: bool,
    /// Have the driver domain end itself this long after each start, such as 500ms, in another phase of a block request
    /// and in another way each time; without a terminal, Linux guests write and verify 64 MiB meanwhile
    #[arg(long, value_name = "EVERY", conflicts_with = "kernel", value_parser = parse_milliseconds)]
    kill_driver_domain: Option<u64>,
    #[command(flatten)]
    board: BoardOptions,
    /// End the run after so long (default without a terminal: 150, or 600 with --icount or --kill-driver-domain)
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Further arguments for QEMU
    #[arg(last = true, value_name = "QEMU ARGS")]
    qemu: Vec<OsString>,
}

impl Run {
    pub(super) fn run(self, workspace: &Workspace) -> anyhow::Result<ExitCode> {
        let terminal = std::io::stdin().is_terminal();
        let source = self.source(workspace)?;
        let alone = self.kernel.is_some();
        ensure!(
            self.kill_driver_domain.is_none() || source.driver().is_some(),
            "--kill-driver-domain: system `{}` has no driver domain; start one that has, such as {}",
            source.name(),
            super::DEFAULT_SYSTEM
        );
        let work = match self.kill_driver_domain {
            _ if terminal || alone => "",
            None => "bulkhead.selfcheck",
            // The network's part of the self-check counts lost frames, and a driver domain that restarts loses some.
            Some(_) => "bulkhead.write=64",
        };
        let kill = self.kill_driver_domain.map(|milliseconds| format!(" driver-domain.kill={milliseconds}"));
        let mut prepared = launch::prepare(workspace, source, &(work.to_owned() + &kill.unwrap_or_default()))?;
        prepared.disks = if self.fresh { Age::Fresh } else { Age::Kept };
        let uart = if terminal { Uart::Terminal } else { Uart::Reader };
        let mut machine = prepared.machine(workspace, &self.board, uart, self.qemu)?;
        machine.columns = columns();
        if let Some(columns) = machine.columns.filter(|columns| *columns < terminal::COLUMNS_MIN) {
            let least = terminal::COLUMNS_MIN;
            eprintln!(
                "run: note: {columns} columns show rows in pieces; make the terminal {least} wide, and start again"
            );
        }
        machine.wait_for_disks();
        let symbols = prepared.symbols();

        let is_slow = self.board.icount.is_some() || self.kill_driver_domain.is_some();
        let limit_default = if is_slow { LIMIT_DEFAULT_ICOUNT } else { LIMIT_DEFAULT };
        let limit = match self.timeout {
            Some(seconds) => Some(Duration::from_secs(seconds)),
            None => (!terminal).then_some(limit_default),
        };
        if terminal {
            let how = if prepared.source.vms.len() > 9 { "number or name and Enter picks" } else { "digit picks" };
            eprintln!("run: Ctrl-] then a {how} the guest that gets your keys; Ctrl-A X ends QEMU");
        }
        for note in prepared.source.notes() {
            eprintln!("run: note: {note}");
        }
        if prepared.source.heard_by_virtio_alone().next().is_some() {
            let log = consoles::log(workspace, &prepared.source);
            eprintln!("run: note: what is printed to virtio consoles goes to {}", workspace.display(&log));
        }
        let started = Instant::now();
        let mut outcome = Session { symbols: symbols.as_ref(), echo: true, log: None, limit }.run(&machine)?;
        if !terminal {
            consoles::hear_and_show(workspace, &prepared.source, &mut outcome);
        }
        eprint!("{}", counters::table(&counters::collect(&outcome.lines)));
        let restarts = Restarts::of(&prepared.source, &outcome);
        if !restarts.is_empty() {
            eprintln!("run: {restarts}");
        }
        for sentence in verdict::unfinished(&prepared.source, &outcome) {
            eprintln!("run: {sentence}");
        }
        let judged = if terminal {
            verdict::ended_well(&outcome)
        } else if self.kill_driver_domain.is_some() {
            verdict::written(&prepared.source, &outcome, verdict::WRITTEN_BYTES).and_then(|()| {
                match restarts.pauses.len() {
                    0 => Err("the driver domain has not restarted once; let it end itself sooner".to_owned()),
                    _ => Ok(()),
                }
            })
        } else {
            verdict::whole_run(&prepared.source, &outcome)
        };
        match judged {
            Ok(()) => {
                if !terminal {
                    eprintln!("run: all is well after {:.1} s", started.elapsed().as_secs_f32());
                }
                Ok(ExitCode::SUCCESS)
            }
            Err(sentence) => {
                eprintln!("run: {sentence}");
                Ok(ExitCode::FAILURE)
            }
        }
    }

    /// A core for each virtual CPU, and one for a driver domain, as far as the board has them.
    fn cores(&self, most: u8) -> u8 {
        let driver = u8::from(self.net || !self.disk.is_empty());
        self.vcpus.saturating_add(driver).min(most)
    }

    fn source(&self, workspace: &Workspace) -> anyhow::Result<Source> {
        let Some(kernel) = &self.kernel else { return systems::find(workspace, &self.system) };
        let board = platform::BOARDS.first().copied().context("no board is known")?;
        ensure!(self.vcpus > 0, "--vcpus 0 leaves nothing to run on; give 1 or more");
        Ok(system::ad_hoc(&AdHoc {
            board,
            cores: self.board.smp.unwrap_or_else(|| self.cores(board.cores_max)),
            kernel: kernel.clone(),
            initrd: self.initrd.clone(),
            command_line: self.append.clone(),
            memory_bytes: self.memory,
            vcpus: self.vcpus,
            disks: self.disk.iter().map(|disk| attached(disk)).collect::<Result<_, _>>()?,
            network: self.net,
        })?)
    }
}

/// How wide the terminal is that shows the output. Whatever else reads it may show it on one, too: that is taken for
/// one of Bulkhead's default width, unless `COLUMNS` says otherwise.
fn columns() -> Option<u16> {
    let stated = || std::env::var("COLUMNS").ok()?.parse().ok();
    terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| width.0).or_else(stated)
}

/// The image `file` with its size in bytes.
fn attached(file: &Path) -> anyhow::Result<(PathBuf, u64)> {
    let metadata = std::fs::metadata(file).with_context(|| format!("there is no disk image {}", file.display()))?;
    ensure!(metadata.len() > 0, "the disk image {} is empty; give it a size with `truncate -s`", file.display());
    Ok((file.to_owned(), metadata.len()))
}
