//! `check`: validates a system and prints the partition report.

use crate::{launch, system, systems, workspace::Workspace};
use std::process::ExitCode;

/// The options of `check`.
#[derive(clap::Args)]
pub(super) struct Check {
    /// A system of guests/systems, or the path of a .toml file
    #[arg(default_value = super::DEFAULT_SYSTEM)]
    system: String,
}

impl Check {
    pub(super) fn run(&self, workspace: &Workspace) -> anyhow::Result<ExitCode> {
        let source = systems::find(workspace, &self.system)?;
        let bundle = launch::bundle(workspace, &source, "")?;
        print!("{}", system::report(&source, Some(&bundle)));
        Ok(ExitCode::SUCCESS)
    }
}
