//! `debug`: QEMU waits before the first instruction, and a debugger with Bulkhead's symbols attaches.

use crate::{
    launch::{self, BoardOptions},
    qemu::Uart,
    setup, systems,
    workspace::Workspace,
};
use anyhow::Context;
use std::{
    ffi::OsString,
    fs::File,
    process::{Command, ExitCode, Stdio},
};

/// The options of `debug`.
#[derive(clap::Args)]
pub(super) struct Debug {
    /// A system of guests/systems, or the path of a .toml file
    #[arg(default_value = super::DEFAULT_SYSTEM)]
    system: String,
    #[command(flatten)]
    board: BoardOptions,
    /// The TCP port between the debugger and QEMU
    #[arg(long, default_value_t = 1234)]
    port: u16,
    /// Further arguments for gdb
    #[arg(last = true, value_name = "GDB ARGS")]
    gdb: Vec<OsString>,
}

impl Debug {
    pub(super) fn run(self, workspace: &Workspace) -> anyhow::Result<ExitCode> {
        let gdb = setup::debugger()?;
        let prepared = launch::prepare(workspace, systems::find(workspace, &self.system)?, "")?;
        let waiting = ["-S".into(), "-gdb".into(), format!("tcp:localhost:{}", self.port).into()];
        let machine = prepared.machine(workspace, &self.board, Uart::Reader, waiting.into())?;

        let log = workspace.cache().join("logs/debug.log");
        std::fs::create_dir_all(workspace.cache().join("logs"))?;
        let output = File::create(&log).with_context(|| format!("{} cannot be written", log.display()))?;
        let mut command = machine.command();
        command.stdin(Stdio::null()).stderr(output.try_clone()?).stdout(output);
        // Ctrl-C at the debugger stops the board's cores; it must not reach QEMU itself.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let mut qemu = command.spawn().context("QEMU could not be started")?;

        let board = prepared.source.board();
        let loaded_at = board.ram_base + board.image_load_offset;
        println!("debug: the console goes to {}; follow it with `tail -f`", workspace.display(&log));
        let status = Command::new(gdb)
            .args(["-q", "-ex", "set confirm off", "-ex", "set architecture aarch64"])
            .arg("-ex")
            .arg(format!("add-symbol-file {} -o {loaded_at:#x}", prepared.program.elf.display()))
            .arg("-ex")
            .arg(format!("target remote localhost:{}", self.port))
            .args(&self.gdb)
            .status();
        qemu.kill()?;
        qemu.wait()?;
        let status = status.with_context(|| format!("{gdb} could not be started"))?;
        Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
