//! `image`: what a boot loader needs, and the line that starts it with nothing but QEMU.

use crate::{
    launch::{self, BoardOptions},
    qemu::Uart,
    systems,
    workspace::Workspace,
};
use anyhow::Context;
use std::{path::PathBuf, process::ExitCode};

/// The options of `image`.
#[derive(clap::Args)]
pub(super) struct Image {
    /// A system of guests/systems, or the path of a .toml file
    #[arg(default_value = super::DEFAULT_SYSTEM)]
    system: String,
    /// Where to write bulkhead.bin and SYSTEM.bundle
    #[arg(short, long, value_name = "DIR")]
    output: PathBuf,
    #[command(flatten)]
    board: BoardOptions,
}

impl Image {
    pub(super) fn run(&self, workspace: &Workspace) -> anyhow::Result<ExitCode> {
        let prepared = launch::prepare(workspace, systems::find(workspace, &self.system)?, "")?;
        let bundle = self.output.join(format!("{}.bundle", prepared.source.name()));
        prepared.write_bundle(&bundle)?;
        let kernel = self.output.join("bulkhead.bin");
        std::fs::copy(&prepared.program.image, &kernel)
            .with_context(|| format!("{} cannot be written", kernel.display()))?;
        let machine = prepared.machine_with(workspace, &self.board, Uart::Terminal, Vec::new(), kernel, bundle)?;
        println!("{}", machine.line());
        Ok(ExitCode::SUCCESS)
    }
}
