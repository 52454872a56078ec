//! `fuzz`: the virtqueue beside its reference, for as long as you like.

use crate::{fuzz, workspace::Workspace};
use std::process::ExitCode;

/// The options of `fuzz`.
#[derive(clap::Args)]
pub(super) struct Fuzz {
    /// How long to go on
    #[arg(default_value_t = 60)]
    seconds: u32,
}

impl Fuzz {
    pub(super) fn run(&self, workspace: &Workspace) -> anyhow::Result<ExitCode> {
        let good = if fuzz::is_guidance_there(workspace) {
            fuzz::guided(workspace, self.seconds)?
        } else {
            println!(
                "chance alone chooses the steps: `cargo install cargo-fuzz` and a nightly toolchain let libFuzzer do it"
            );
            fuzz::random(workspace, self.seconds)?.tally.failed == 0
        };
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
