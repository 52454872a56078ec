//! The command line, one file per command.

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Bulkhead's development commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {}

impl CommandLine {
    /// Runs the command that was asked for; an error becomes one sentence on standard error and a failing exit code.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {}
    }
}
