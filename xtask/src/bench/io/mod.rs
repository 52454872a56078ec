//! `bench io`: what a Linux guest gets out of its disk and its network card.
//!
//! Two ways of measuring, because one cannot say everything. [`mod@counted`] takes instructions as the clock and disks
//! and neighbours within the machine: it repeats, and guards against regressions. [`mod@throughput`] takes the host's
//! clock, a file and the host's network, and compares with the same kernel on the bare board, run by run.
//!
//! Reading order: `works` (what is compared, and what others reached), `starts` (how a guest with the program is
//! started), then the two, then `page`.

mod counted;
mod page;
mod starts;
mod throughput;
mod works;

pub(crate) use page::write as write_page;
pub(crate) use throughput::{RUNS_DEFAULT, Throughput, measure as throughput};
pub(crate) use works::Works;

use super::{Budgets, Finding, Measured, Rows, judge, print_table, rows::Group};
use crate::{results::Results, setup, workspace::Workspace};
use std::path::PathBuf;

/// The model of cores: the one whose peers' figures there are.
pub(crate) const CPU: &str = "cortex-a72";
const WORKS: &str = "guests/bench/io.toml";

/// Where the works are described.
pub(crate) fn works_path(workspace: &Workspace) -> PathBuf {
    workspace.root().join(WORKS)
}

/// How often instructions are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Once, without the host's disk: what the check before a change lands has time for.
    Once,
    /// Until they are the same within a small share, and with the host's disk.
    Repeatedly,
}

/// Counts instructions.
///
/// # Errors
/// What this machine lacks, which run failed, or which figure was not the same each time.
pub(crate) fn counted(workspace: &Workspace, effort: Effort) -> anyhow::Result<Measured> {
    setup::measuring_qemu(workspace)?;
    counted::measure(workspace, effort)
}

/// The rows that are counted with that effort.
pub(crate) fn rows(all: &Rows, effort: Effort) -> Rows {
    match effort {
        Effort::Once => all.of(&[Group::Io]),
        Effort::Repeatedly => all.of(&[Group::Io, Group::IoDisk]),
    }
}

/// Counts once and judges: one test for each row, as [`super::check`] does.
///
/// # Errors
/// As [`fn@counted`].
pub(super) fn check(workspace: &Workspace, rows: &Rows, budgets: &Budgets) -> anyhow::Result<Results> {
    let rows = self::rows(rows, Effort::Once);
    let measured = counted(workspace, Effort::Once)?;
    let findings = judge(&rows, &measured, budgets.of(CPU));
    Ok(super::judged(CPU, &rows, &measured, &findings))
}

/// Prints the figures, with those of others beside them.
pub(crate) fn print(rows: &Rows, works: &Works, measured: &Measured, findings: &[Finding]) {
    print_table(CPU, rows, &works.with_quoted(measured), findings);
    println!("  Xen: quoted. {}", works.source());
}
