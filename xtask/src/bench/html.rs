//! The comparison as one page that needs nothing else: pictures, tables, and how it was measured.

use super::{
    Finding, Measured, Platform, Rows, chart,
    json::Report,
    rows::{Row, Unit},
    table::{number, ratio, verdict},
};
use anyhow::Context;
use std::{fmt::Write, path::Path};

pub(super) const STYLE: &str = "
body { font: 16px/1.5 system-ui, sans-serif; color: #22262b; background: #fff; margin: 2rem auto; max-width: 76rem; padding: 0 1rem }
h1 { font-size: 1.7rem; margin-bottom: .2rem } h2 { font-size: 1.25rem; margin-top: 2.5rem; border-bottom: 1px solid #d7dbe0 }
div { overflow-x: auto; margin-top: 1.5rem } table { border-collapse: collapse; width: 100%; font-size: .92rem } th, td { padding: .25rem .45rem; text-align: right }
th { border-bottom: 2px solid #22262b; vertical-align: bottom; font-weight: 600 } td { border-bottom: 1px solid #eceef1 }
th:first-child, td:first-child { text-align: left; min-width: 19rem } td.own { font-weight: 600; color: #1f6fb2 }
td:last-child { white-space: nowrap } td.bad { color: #b3261e; font-weight: 600 } td.good { color: #1b7f3b } tr.later td { color: #8a929b }
svg { width: 100%; height: auto } p.small { color: #59616a; font-size: .92rem } code { background: #f2f4f6; padding: 0 .25rem }
";

/// Writes the page to `path`, and each model's picture beside it as `bench-CPU.svg`.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write(path: &Path, qemu: &str, rows: &Rows, reports: &[Report<'_>]) -> anyhow::Result<()> {
    let directory = path.parent().context("a page lies in a directory")?;
    std::fs::create_dir_all(directory).with_context(|| format!("{} cannot be created", directory.display()))?;
    let mut page = String::new();
    head(&mut page, qemu, reports)?;
    for (cpu, measured, findings) in reports {
        let picture = chart::draw(rows, measured)?;
        let file = directory.join(format!("bench-{cpu}.svg"));
        std::fs::write(&file, &picture).with_context(|| format!("{} cannot be written", file.display()))?;
        writeln!(
            page,
            "<h2>On <code>-cpu {}</code></h2>\n{picture}\n<p class=\"small\">Rows of {} instructions and more are in the table \
             alone: beside them all others would be too short to see.</p>",
            escaped(cpu),
            number(Some(chart::SHOWN_MAX), Unit::Instructions)
        )?;
        table(&mut page, rows, measured, findings)?;
    }
    foot(&mut page)?;
    std::fs::write(path, page).with_context(|| format!("{} cannot be written", path.display()))
}

fn head(page: &mut String, qemu: &str, reports: &[Report<'_>]) -> anyhow::Result<()> {
    let refused: usize =
        reports.iter().map(|(_, _, findings)| findings.iter().filter(|it| it.is_refused()).count()).sum();
    let summary = match refused {
        0 => "Every figure is within its limit and no dearer than before.".to_owned(),
        1 => "One figure is above its limit or dearer than before.".to_owned(),
        more => format!("{more} figures are above their limits or dearer than before."),
    };
    writeln!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>What a guest pays for Bulkhead</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n\
         <h1>What a guest pays for Bulkhead</h1>\n<p>{summary}</p>\n\
         <p>Each number is instructions for one operation, of all cores together, the guest's own loop of two instructions \
         included. One and the same guest has measured on the board itself, under Bulkhead, and, where it was asked for, \
         under Debian's Xen with the setting that is fastest for it.</p>\n\
         <p class=\"small\">{} counts each instruction as one nanosecond (<code>-icount shift=0,sleep=off</code>), so a guest \
         that reads its counter counts instructions: the same on every machine, and what the guest has measured was the same in three \
         runs. Caches, pipelines and memory are not modelled; a count is a measure of work, not of time.</p>",
        escaped(qemu)
    )?;
    Ok(())
}

pub(super) fn table(page: &mut String, rows: &Rows, measured: &Measured, findings: &[Finding]) -> anyhow::Result<()> {
    let xen = measured.of(Platform::Xen).is_some();
    let (xen_head, ratio_head) = if xen { ("<th>Xen</th>", "<th>Xen takes</th>") } else { ("", "") };
    writeln!(
        page,
        "<div><table><thead><tr><th></th><th>no hypervisor</th><th>Bulkhead</th>{xen_head}<th>Bulkhead above native</th>\
         {ratio_head}<th>at most</th><th>result</th></tr></thead><tbody>"
    )?;
    for row in rows.all() {
        table_row(page, row, measured, findings, xen)?;
    }
    writeln!(page, "</tbody></table></div>")?;
    Ok(())
}

fn table_row(page: &mut String, row: &Row, measured: &Measured, findings: &[Finding], xen: bool) -> anyhow::Result<()> {
    let average = |platform| measured.average(platform, &row.name);
    let (native, bulkhead, peer) = (average(Platform::Native), average(Platform::Bulkhead), average(Platform::Xen));
    let cell = |text: String| format!("<td>{}</td>", escaped(&text));
    let peer_cells = |text: String| if xen { cell(text) } else { String::new() };
    let title = match row.unit {
        Unit::Instructions => row.title.clone(),
        Unit::Bytes => format!("{}, in bytes", row.title),
    };
    if let Some(due) = &row.due {
        let columns = if xen { 7 } else { 5 };
        writeln!(
            page,
            "<tr class=\"later\"><td>{}</td><td colspan=\"{columns}\">not yet: {}</td></tr>",
            escaped(&title),
            escaped(due)
        )?;
        return Ok(());
    }
    let ceiling = row.ceiling(measured);
    let word = verdict(&row.name, bulkhead, ceiling, findings);
    let bad = findings.iter().any(|finding| finding.row == row.name && finding.is_refused());
    let class = if bad { "bad" } else { "good" };
    let above = bulkhead.zip(native).map(|(bulkhead, native)| bulkhead - native);
    writeln!(
        page,
        "<tr><td>{}</td>{}<td class=\"own\">{}</td>{}{}{}{}<td class=\"{class}\">{}</td></tr>",
        escaped(&title),
        cell(number(native, row.unit)),
        number(bulkhead, row.unit),
        peer_cells(number(peer, row.unit)),
        cell(number(above, row.unit)),
        peer_cells(ratio(bulkhead, peer)),
        cell(number(ceiling, row.unit)),
        escaped(&word)
    )?;
    Ok(())
}

fn foot(page: &mut String) -> anyhow::Result<()> {
    writeln!(
        page,
        "<p class=\"small\"><code>cargo xtask bench --peer xen</code> measures all of this again and writes this page. The \
         limits are in <code>guests/bench/rows.toml</code>; what each row has cost is in \
         <code>guests/bench/budgets.toml</code>.</p>\n</body></html>"
    )?;
    Ok(())
}

/// `text` with what HTML would take for its own.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Figure;

    #[test]
    fn a_row_above_its_limit_stands_out() {
        let rows = Rows::parse("[[row]]\nname = \"hvc\"\ntitle = \"HVC <0>\"\nlimit = 90\n");
        let mut measured = Measured::default();
        measured.of_mut(Platform::Bulkhead).insert("hvc", Figure::once(91));
        let findings = crate::bench::judge(&rows, &measured, None);
        let mut page = String::new();
        table(&mut page, &rows, &measured, &findings).expect("a table");
        assert!(page.contains("HVC &lt;0&gt;") && page.contains("class=\"bad\">TOO MUCH"), "{page}");
    }
}
