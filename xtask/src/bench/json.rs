//! The figures for other programs.

use super::{Finding, Measured, Platform};
use anyhow::Context;
use serde_json::{Map, Value, json};
use std::path::Path;

/// One model of cores: its name, its figures, what was found.
pub(crate) type Report<'a> = (&'a str, &'a Measured, &'a [Finding]);

/// Writes `{"qemu": …, "cpus": {CPU: {"figures": {PLATFORM: {ROW: {…}}}, "findings": [...]}}}`.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write(path: &Path, qemu: &str, reports: &[Report<'_>]) -> anyhow::Result<()> {
    let cpus: Map<String, Value> = reports.iter().map(|report| (report.0.to_owned(), cpu(report))).collect();
    let text = format!("{:#}\n", json!({ "qemu": qemu, "cpus": cpus }));
    std::fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
}

fn cpu((_, measured, findings): &Report<'_>) -> Value {
    let platforms: Map<String, Value> = Platform::ALL
        .into_iter()
        .filter_map(|platform| {
            let rows = measured.of(platform)?.iter().map(|(row, figure)| {
                let value = json!({
                    "average": figure.average(),
                    "loop": figure.loop_average(),
                    "rounds": figure.rounds,
                    "total": figure.total,
                });
                (row.to_owned(), value)
            });
            Some((platform.key().to_owned(), Value::Object(rows.collect())))
        })
        .collect();
    let findings: Vec<Value> = findings
        .iter()
        .map(|finding| json!({ "row": finding.row, "text": finding.to_string(), "refused": finding.is_refused() }))
        .collect();
    json!({ "figures": platforms, "findings": findings })
}
