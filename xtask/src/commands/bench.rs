//! `bench`: measures what a guest pays for its hypervisor, and holds it against its limits and against what it was.

use crate::{
    bench::{
        self, Budgets, Finding, Group, Measured, Rows,
        io::{self, Effort, Throughput, Works},
    },
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

/// Something else to measure than exits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Subject {
    /// What a Linux guest gets out of its disk and its network card
    Io,
    /// For how long an interrupt waits at EL2 at most, and in which functions
    Stretch,
}

/// The options of `bench`.
#[derive(clap::Args)]
pub(super) struct Bench {
    /// Measure this instead of exits
    subject: Option<Subject>,
    /// With `io`: how often the bare board and Bulkhead run by turns; 0 counts instructions alone
    #[arg(long, value_name = "N", requires = "subject", default_value_t = io::RUNS_DEFAULT)]
    runs: u32,
    /// With `io`: count instructions once, as the check before a change lands does, and leave out all else
    #[arg(long, requires = "subject", conflicts_with = "runs")]
    once: bool,
    /// With `io`: compare rates alone, and count no instructions
    #[arg(long, requires = "subject", conflicts_with_all = ["once", "update_budgets"])]
    rates: bool,
    /// A model of cores, as QEMU names it; may be given more than once (default: cortex-a53 and max)
    #[arg(long, value_name = "MODEL", conflicts_with = "subject")]
    cpu: Vec<String>,
    /// Measure another hypervisor too, with the same guest; `io` quotes its figures
    #[arg(long, value_name = "NAME")]
    peer: Option<Peer>,
    /// Write the figures for other programs
    #[arg(long, value_name = "FILE", conflicts_with = "subject")]
    json: Option<PathBuf>,
    /// Where the page goes (default: bench/index.html or bench/io.html in the target directory's `bulkhead`)
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Keep these figures as what each row costs
    #[arg(long)]
    update_budgets: bool,
}

impl Bench {
    pub(super) fn run(&self, workspace: &Workspace) -> anyhow::Result<ExitCode> {
        match self.subject {
            Some(Subject::Io) => return self.run_io(workspace),
            Some(Subject::Stretch) => return self.run_stretch(workspace),
            None => {}
        }
        let all = Rows::read(&bench::rows_path(workspace))?;
        let rows = all.of(&[Group::Exits]);
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
            budgets.write(&bench::budgets_path(workspace), &all)?;
        }
        let refused = reports.iter().filter(|(cpu, _, findings)| say(cpu, findings)).count();
        Ok(if refused > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn run_io(&self, workspace: &Workspace) -> anyhow::Result<ExitCode> {
        let all = Rows::read(&bench::rows_path(workspace))?;
        let effort = if self.once { Effort::Once } else { Effort::Repeatedly };
        let rows = io::rows(&all, effort);
        if self.peer.is_some() {
            println!(
                "Xen is quoted, not measured: its back ends need a Linux of their own as dom0, with tools that no package \
                 sets up without it. The figures and their source are in guests/bench/io.toml"
            );
        }
        let works = Works::read(&io::works_path(workspace))?;
        if self.rates {
            let (_, is_short) = self.throughput(workspace, &works)?;
            return Ok(if is_short { ExitCode::FAILURE } else { ExitCode::SUCCESS });
        }
        let mut budgets = Budgets::read(&bench::budgets_path(workspace))?;
        let measured = io::counted(workspace, effort)?;
        if self.update_budgets {
            budgets.keep(io::CPU, &measured);
            budgets.write(&bench::budgets_path(workspace), &all)?;
        }
        let findings = bench::judge(&rows, &measured, budgets.of(io::CPU));
        io::print(&rows, &works, &measured, &findings);
        let mut refused = say(io::CPU, &findings);
        let (throughput, is_short) = self.throughput(workspace, &works)?;
        refused |= is_short;
        let page = self.html.clone().unwrap_or_else(|| workspace.cache().join("bench/io.html"));
        let report = (io::CPU, &measured, findings.as_slice());
        io::write_page(&page, &setup::qemu_name(), &works, &rows, report, throughput.as_ref())?;
        println!("the page is {}", workspace.display(&page));
        Ok(if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// Prints what is too long; `bench` itself judges it.
    fn run_stretch(&self, workspace: &Workspace) -> anyhow::Result<ExitCode> {
        setup::measuring_qemu(workspace)?;
        for cpu in bench::CPUS {
            bench::stretch::measure(workspace, cpu)?.print(cpu);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Compares rates, where that is asked for. Gives whether one is too low.
    fn throughput(&self, workspace: &Workspace, works: &Works) -> anyhow::Result<(Option<Throughput>, bool)> {
        if self.once || self.runs == 0 {
            return Ok((None, false));
        }
        let throughput = io::throughput(workspace, works, self.runs)?;
        throughput.print();
        let missed: Vec<String> = throughput.missed().collect();
        for sentence in &missed {
            println!("FAIL {}: {sentence}", io::CPU);
        }
        Ok((Some(throughput), !missed.is_empty()))
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

/// Says what was found. Gives whether something is wrong.
fn say(cpu: &str, findings: &[Finding]) -> bool {
    for finding in findings {
        println!("{} {cpu}: {finding}", if finding.is_refused() { "FAIL" } else { "note" });
    }
    findings.iter().any(Finding::is_refused)
}
