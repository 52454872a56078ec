//! Development commands: everything a person does with this repository is `cargo xtask COMMAND`.
//!
//! Each command has one file under `commands`; the modules beside it are what several commands share. Reading order:
//! `commands/run.rs`, `launch` (from a description to a board), `qemu` (its command line), `session` (one run),
//! `verdict` (was it good). What a system description means is decided in `system` and in the `manifest` crate.

mod bare_metal;
mod bench;
mod claim;
mod commands;
mod consoles;
mod counters;
mod deny;
mod disks;
mod flat_image;
mod fuzz;
mod host_tests;
mod images;
mod launch;
mod lines;
mod linux;
mod miri;
mod pool;
mod progress;
mod qemu;
mod reports;
mod restarts;
mod results;
mod scenarios;
mod session;
mod setup;
mod symbols;
mod system;
mod systems;
mod tally;
mod tidy;
mod u_boot;
mod verdict;
mod workspace;

use clap::Parser;
use std::{io::IsTerminal, process::ExitCode};

fn main() -> ExitCode {
    match commands::CommandLine::parse().run() {
        Ok(code) => code,
        Err(error) => {
            match error.downcast_ref::<system::Problems>() {
                Some(problems) => eprint!("{}", problems.shown(std::io::stderr().is_terminal())),
                None => eprintln!("error: {error:#}"),
            }
            if let Some(sentence) = setup::behind(&error) {
                eprintln!("error: {sentence}");
            }
            ExitCode::FAILURE
        }
    }
}
