//! `bench`: measures what a guest pays for its hypervisor, compares it with what it has paid before and with what it
//! may pay at most, and shows it beside a board without a hypervisor and beside another one.
//!
//! What Linux guests pay for their devices is measured apart, in `io`.
//!
//! Reading order: `figures` (what a measurement is), `rows` (what is measured, and the limits), `platforms` (how each
//! platform is started), `judge` (what is wrong), then the three ways to show it: `table`, `html` with `chart`, `json`.

mod boot;
mod budgets;
mod chart;
mod figures;
mod html;
pub(crate) mod io;
mod json;
mod judge;
mod linux;
mod platforms;
mod rows;
mod sizes;
pub(crate) mod stretch;
mod table;
mod xen;

pub(crate) use budgets::Budgets;
pub(crate) use figures::{Figure, Figures, Measured, Platform};
pub(crate) use html::write as write_html;
pub(crate) use json::write as write_json;
pub(crate) use judge::{Finding, judge};
pub(crate) use rows::{Group, Rows};
pub(crate) use table::print as print_table;

use crate::{results::Results, setup, workspace::Workspace};
use anyhow::{Context, ensure};
use std::path::{Path, PathBuf};

/// The models of cores whose figures are kept: the oldest that Bulkhead runs on, and everything that QEMU emulates.
pub(crate) const CPUS: [&str; 2] = ["cortex-a53", "max"];
/// How often everything is measured. What counts instructions gives the same each time, or something is wrong.
const RUNS: u32 = 3;
/// How often at most, until that many in a row were the same.
const RUNS_MAX: u32 = 9;

/// What is kept in the repository: the rows with their limits, and what each row has cost.
const ROWS: &str = "guests/bench/rows.toml";
const BUDGETS: &str = "guests/bench/budgets.toml";

/// Where [`ROWS`] lies.
pub(crate) fn rows_path(workspace: &Workspace) -> PathBuf {
    workspace.root().join(ROWS)
}

/// Where [`BUDGETS`] lies.
pub(crate) fn budgets_path(workspace: &Workspace) -> PathBuf {
    workspace.root().join(BUDGETS)
}

/// Measures on cores of model `cpu`: without a hypervisor, under Bulkhead, and where asked under Xen.
///
/// # Errors
/// A sentence: what this machine lacks, which run failed, or which figure was not the same each time.
pub(crate) fn measure(workspace: &Workspace, cpu: &str, xen: Option<&Path>) -> anyhow::Result<Measured> {
    setup::measuring_qemu(workspace)?;
    let platforms = platforms::Platforms::build(workspace, cpu, xen)?;
    let mut measured = measure_alike(&platforms, cpu)?;
    linux::measure(workspace, cpu, &mut measured)?;
    let bulkhead = measured.of_mut(Platform::Bulkhead);
    let [boot, whole] = boot::measure(workspace, cpu).context("the start cannot be measured")?;
    bulkhead.insert("boot", boot);
    bulkhead.insert("boot-whole", whole);
    sizes::measure(workspace, bulkhead)?;
    let stretches = stretch::measure(workspace, cpu).context("the stretches at EL2 cannot be measured")?;
    bulkhead.insert("stretch", Figure::once(stretches.longest));
    bulkhead.insert("stretch-console", Figure::once(stretches.longest_write));
    Ok(measured)
}

/// Measures until [`RUNS`] runs in a row have given the same figures.
///
/// Instructions are the clock, but QEMU's own threads still end a core's turn early now and then, and an interrupt
/// between two cores then comes some instructions sooner or later: such a run is said and not counted.
fn measure_alike(platforms: &platforms::Platforms, cpu: &str) -> anyhow::Result<Measured> {
    let mut measured = platforms.measure()?;
    let mut alike = 1;
    for _ in 1..RUNS_MAX {
        if alike == RUNS {
            return Ok(measured);
        }
        let again = platforms.measure()?;
        match measured.difference(&again) {
            None => alike += 1,
            Some((platform, row)) => {
                let (before, after) = (measured.text(platform, &row), again.text(platform, &row));
                println!("`{row}` on {platform} ({cpu}) was {before} and is {after}; measuring anew");
                (measured, alike) = (again, 1);
            }
        }
    }
    ensure!(
        alike == RUNS,
        "{RUNS_MAX} runs on {cpu} gave no {RUNS} in a row that are alike; with instructions as the clock they are, so \
         something else than the guest decides here: leave this machine to itself and try again"
    );
    Ok(measured)
}

/// Measures on every model in [`CPUS`] and holds it against the limits and the kept figures: one test for each row. A
/// row that has never met its limit is no failure as long as it gets no dearer; `cargo xtask bench` says that it is
/// open.
///
/// # Errors
/// When something is wrong with this machine, or a run fails.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Results> {
    let all = Rows::read(&rows_path(workspace))?;
    let rows = all.of(&[Group::Exits]);
    let budgets = Budgets::read(&budgets_path(workspace))?;
    let mut results = Results::default();
    for cpu in CPUS {
        let measured = measure(workspace, cpu, None)?;
        let findings = judge(&rows, &measured, budgets.of(cpu));
        results.add(judged(cpu, &rows, &measured, &findings));
    }
    results.add(io::check(workspace, &all, &budgets)?);
    Ok(results)
}

/// Prints what was measured and found, and counts a test for each of `rows`.
fn judged(cpu: &str, rows: &Rows, measured: &Measured, findings: &[Finding]) -> Results {
    // Other tests go on beside these, and say so: their lines must not come between.
    let _whole = std::io::stdout().lock();
    print_table(cpu, rows, measured, findings);
    let mut results = Results::default();
    for row in rows.due() {
        let missed = findings.iter().any(|finding| finding.is_regression() && finding.row == row.name);
        results.tally.count(!missed);
    }
    for finding in findings.iter().filter(|finding| finding.is_refused()) {
        let what = format!("{cpu}: {finding}");
        if finding.is_regression() {
            println!("FAIL {what}");
            results.failures.push(what);
        } else {
            println!("open {what}");
        }
    }
    results
}
