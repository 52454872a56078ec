//! The command line, one file per command.

mod bench;
mod check;
mod ci;
mod console;
pub(crate) mod debug;
mod doc;
mod fuzz;
pub(crate) mod image;
mod run;
mod setup;
mod test;

use crate::workspace::Workspace;
use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// The system that a command works on when it is given none.
const DEFAULT_SYSTEM: &str = "two-linux";

/// Bulkhead's development commands.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a system under QEMU: two Linux guests, unless you name another
    Run(run::Run),
    /// Run the host's tests, then the scenarios under QEMU
    Test(test::Test),
    /// Measure what a guest pays for Bulkhead, beside the bare board and, where asked, beside Xen
    Bench(bench::Bench),
    /// Do at random what drivers and devices do, to our virtqueue and to another
    Fuzz(fuzz::Fuzz),
    /// Everything that must hold before a change lands: format, lints, tests, documentation, tidy rules
    Ci,
    /// Write bulkhead.bin and a system's bundle, to start by hand
    Image(image::Image),
    /// Check a system and print who owns what
    Check(check::Check),
    /// Start a system under QEMU with a debugger attached
    Debug(debug::Debug),
    /// Be the terminal of the board that `debug` has started; Ctrl-A X leaves
    Console,
    /// Make the documentation of every crate, with an index
    Doc,
    /// Fetch what the other commands would fetch when they need it
    Setup,
}

/// The names of the commands.
pub(crate) fn names() -> Vec<String> {
    CommandLine::command().get_subcommands().map(|command| command.get_name().to_owned()).collect()
}

impl CommandLine {
    /// Runs the command that was asked for; an error becomes one sentence on standard error and a failing exit code.
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let workspace = Workspace::find()?;
        match self.command {
            Command::Run(run) => run.run(&workspace),
            Command::Test(test) => test.run(&workspace),
            Command::Bench(bench) => bench.run(&workspace),
            Command::Fuzz(fuzz) => fuzz.run(&workspace),
            Command::Ci => ci::run(&workspace),
            Command::Image(image) => image.run(&workspace),
            Command::Check(check) => check.run(&workspace),
            Command::Debug(debug) => debug.run(&workspace),
            Command::Console => console::run(&workspace),
            Command::Doc => doc::run(&workspace),
            Command::Setup => setup::run(&workspace),
        }
    }
}
