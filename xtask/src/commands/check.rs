//! `check`: validates a system and prints the partition report.

use crate::{
    images::Need,
    launch, setup,
    system::{self, Bundle, Problems, Source},
    systems,
    workspace::Workspace,
};
use std::process::ExitCode;

/// The options of `check`.
#[derive(clap::Args)]
pub(super) struct Check {
    /// A system of guests/systems, or the path of a .toml file
    #[arg(default_value = super::DEFAULT_SYSTEM)]
    system: String,
    /// Look at the description alone: builds and fetches nothing, and no image needs to be there
    #[arg(long)]
    quick: bool,
    /// Print the report for programs; xtask/src/system/report/json.rs says what is in it
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(&self, workspace: &Workspace) -> anyhow::Result<ExitCode> {
        match (self.checked(workspace), self.json) {
            (Ok((source, bundle)), true) => print!("{}", system::json(&source, bundle.as_ref())),
            (Ok((source, bundle)), false) => print!("{}", system::report(&source, bundle.as_ref())),
            (Err(error), true) if error.is::<Problems>() => {
                print!("{}", system::json_of_problems(&error.downcast()?));
                return Ok(ExitCode::FAILURE);
            }
            (Err(error), _) => return Err(error),
        }
        Ok(ExitCode::SUCCESS)
    }

    fn checked(&self, workspace: &Workspace) -> anyhow::Result<(Source, Option<Bundle>)> {
        if self.quick {
            return Ok((systems::find_with(workspace, &self.system, Need::Nothing)?, None));
        }
        let source = systems::find(workspace, &self.system)?;
        setup::room(workspace)?;
        let bundle = launch::bundle(workspace, &source, "")?;
        bundle.check_cores(&source, source.board().cpu_default).map_err(Problems::from)?;
        Ok((source, Some(bundle)))
    }
}
