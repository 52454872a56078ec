//! Development commands: everything a person does with this repository is `cargo xtask COMMAND`.
//!
//! Each command has one file under `commands`; the modules beside it are what several commands share. What the system
//! description means is not decided here but in `system` and in the `manifest` crate.

mod commands;
mod system;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match commands::CommandLine::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
