//! `test`: the host's tests, then the scenarios under QEMU.

use crate::{host_tests, scenarios, workspace::Workspace};
use std::process::ExitCode;

/// The options of `test`.
#[derive(clap::Args)]
pub(super) struct Test {
    /// Run only the tests and scenarios whose names contain this
    filter: Option<String>,
}

impl Test {
    pub(super) fn run(&self, workspace: &Workspace) -> anyhow::Result<ExitCode> {
        let filter = self.filter.as_deref();
        let mut tally = host_tests::run(workspace, filter)?;
        tally.add(scenarios::run(workspace, filter)?);
        println!("{tally}");
        Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
