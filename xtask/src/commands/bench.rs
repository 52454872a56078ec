//! `bench`: measures what a guest pays for its hypervisor, and holds it against its limits and against what it was.

use crate::{
    bench::{self, Budgets, Finding, Measured, Rows},
    setup,
    workspace::Workspace,
};
use clap::ValueEnum;
use std::{path::PathBuf, process::ExitCode};

/// Another hypervisor to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Peer {
    /// Debian's Xen
    Xen,
}

/// The options of `bench`.
#[derive(clap::Args)]
pub(super) struct Bench {
    /// A model of cores, as QEMU names it; may be given more than once (default: cortex-a53 and max)
    #[arg(long, value_name = "MODEL")]
    cpu: Vec<String>,
    /// Measure another hypervisor too, with the same guest
    #[arg(long, value_name = "NAME")]
    peer: Option<Peer>,
    /// Write the figures for other programs
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the page goes (default: bench/index.html in the target directory's `bulkhead`)
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Keep these figures as what each row costs
    #[arg(long)]
    update_budgets: bool,
}

impl Bench {
    pub(super) fn run(&self, workspace: &Workspace) -> anyhow::Result<ExitCode> {
        let rows = Rows::read(&bench::rows_path(workspace))?;
        let mut budgets = Budgets::read(&bench::budgets_path(workspace))?;
        let xen = match self.peer {
            Some(Peer::Xen) => Some(setup::xen(workspace)?),
            None => None,
        };
        let mut reports: Vec<(String, Measured, Vec<Finding>)> = Vec::new();
        for cpu in self.cpus() {
            let measured = bench::measure(workspace, &cpu, xen.as_deref())?;
            if self.update_budgets {
                budgets.keep(&cpu, &measured);
            }
            let findings = bench::judge(&rows, &measured, budgets.of(&cpu));
            bench::print_table(&cpu, &rows, &measured, &findings);
            reports.push((cpu, measured, findings));
        }
        self.write(workspace, &rows, &reports)?;
        if self.update_budgets {
            budgets.write(&bench::budgets_path(workspace), &rows)?;
        }
        let mut refused = false;
        for (cpu, _, findings) in &reports {
            for finding in findings {
                refused |= finding.is_refused();
                println!("{} {cpu}: {finding}", if finding.is_refused() { "FAIL" } else { "note" });
            }
        }
        Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn cpus(&self) -> Vec<String> {
        if self.cpu.is_empty() { bench::CPUS.map(str::to_owned).to_vec() } else { self.cpu.clone() }
    }

    fn write(
        &self,
        workspace: &Workspace,
        rows: &Rows,
        reports: &[(String, Measured, Vec<Finding>)],
    ) -> anyhow::Result<()> {
        let reports: Vec<_> =
            reports.iter().map(|(cpu, measured, findings)| (cpu.as_str(), measured, findings.as_slice())).collect();
        let qemu = setup::qemu_name();
        let page = self.html.clone().unwrap_or_else(|| workspace.cache().join("bench/index.html"));
        bench::write_html(&page, &qemu, rows, &reports)?;
        println!("the page is {}", workspace.display(&page));
        if let Some(path) = &self.json {
            bench::write_json(path, &qemu, &reports)?;
        }
        Ok(())
    }
}
