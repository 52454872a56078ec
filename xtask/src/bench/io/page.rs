//! The figures as a page that needs nothing else: a picture of the rates, and tables.

use super::{
    throughput::{Compared, Throughput, Verdict},
    works::Works,
};
use crate::bench::{
    Platform, Rows, chart,
    html::{STYLE, escaped, table},
    json::Report,
};
use anyhow::Context;
use std::{fmt::Write, path::Path};

/// Writes the page to `path`, and the picture of the rates beside it as `bench-io.svg`.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write(
    path: &Path,
    qemu: &str,
    works: &Works,
    rows: &Rows,
    (cpu, measured, findings): Report<'_>,
    throughput: Option<&Throughput>,
) -> anyhow::Result<()> {
    let directory = path.parent().context("a page lies in a directory")?;
    std::fs::create_dir_all(directory).with_context(|| format!("{} cannot be created", directory.display()))?;
    let mut page = String::new();
    writeln!(
        page,
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>What a Linux guest gets out of its devices</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\"><style>{STYLE}</style></head><body>\n\
         <h1>What a Linux guest gets out of its devices</h1>\n\
         <p>Disk and network card of a guest with one CPU, served by the driver domain on a core of its own; {}, \
         <code>-cpu {}</code>.</p>",
        escaped(qemu),
        escaped(cpu)
    )?;
    if let Some(throughput) = throughput {
        rates(&mut page, &directory.join("bench-io.svg"), throughput)?;
    }
    writeln!(
        page,
        "<h2>Instructions</h2>\n<p>Of all cores together, for each request, or for each frame on its way from one guest to the \
         other. Disks are RAM in the driver domain, except where the row says so: nothing outside the machine has a part in \
         them, and three runs in a row have been the same within 0.3 %. For the real disk QEMU answers at once, and the median \
         request counts. Exits are Bulkhead's own count.</p>"
    )?;
    table(&mut page, rows, &works.with_quoted(measured), findings)?;
    writeln!(
        page,
        "<p class=\"small\">Xen and the other hypervisors are quoted, not measured here. {} The limits are in \
         <code>guests/bench/rows.toml</code> and <code>guests/bench/io.toml</code>.</p>\n</body></html>",
        escaped(works.source())
    )?;
    std::fs::write(path, page).with_context(|| format!("{} cannot be written", path.display()))
}

fn rates(page: &mut String, picture: &Path, throughput: &Throughput) -> anyhow::Result<()> {
    let svg = draw(throughput)?;
    std::fs::write(picture, &svg).with_context(|| format!("{} cannot be written", picture.display()))?;
    writeln!(
        page,
        "<h2>Rates</h2>\n<p>With the host's clock: the same kernel, program and devices on the bare board and under Bulkhead, \
         {} times each by turns. The share is the median of the pairs.</p>\n{svg}\n\
         <div><table><thead><tr><th></th><th>no hypervisor</th><th>Bulkhead</th><th>share</th><th>from – to</th>\
         <th>at least</th><th>best peer, quoted</th><th>result</th></tr></thead><tbody>",
        throughput.runs
    )?;
    for compared in &throughput.compared {
        row(page, compared)?;
    }
    writeln!(page, "</tbody></table></div>")?;
    Ok(())
}

fn row(page: &mut String, compared: &Compared) -> anyhow::Result<()> {
    let Compared { work, native, bulkhead, ratio, spread } = compared;
    let share = |value: Option<f64>| value.map_or(String::new(), |value| format!("{:.0} %", value * 100.0));
    let (class, word) = match compared.verdict() {
        None => ("", ""),
        Some(verdict @ Verdict::Reached) => ("good", verdict.word()),
        Some(verdict @ (Verdict::Missed | Verdict::Unsettled)) => ("bad", verdict.word()),
    };
    writeln!(
        page,
        "<tr><td>{}</td><td>{native:.1} {unit}</td><td class=\"own\">{bulkhead:.1} {unit}</td><td class=\"own\">{:.1} %</td>\
         <td>{:.0} – {:.0} %</td><td>{}</td><td>{}</td><td class=\"{class}\">{word}</td></tr>",
        escaped(&work.title),
        ratio * 100.0,
        spread.0 * 100.0,
        spread.1 * 100.0,
        share(work.at_least),
        share(work.quoted.best_share()),
        unit = work.unit,
    )?;
    Ok(())
}

/// A bar for each work, in percent of the bare board, and one for the best of the others.
fn draw(throughput: &Throughput) -> anyhow::Result<String> {
    let groups: Vec<chart::Bars> = throughput
        .compared
        .iter()
        .map(|compared| {
            let peer = compared.work.quoted.best_share().map(|share| (Platform::Xen, share * 100.0));
            let bars = std::iter::once((Platform::Bulkhead, compared.ratio * 100.0)).chain(peer).collect();
            chart::Bars { title: compared.work.title.clone(), bars }
        })
        .collect();
    let legend = [(Platform::Bulkhead, "Bulkhead".to_owned()), (Platform::Xen, "best peer (quoted)".to_owned())];
    chart::draw_bars(&groups, &legend, "% of the bare board")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::{Figure, Measured};

    #[test]
    fn the_page_has_the_figures_and_says_whose_others_are_quoted() {
        let works = Works::parse(
            "work = []\n[peers]\nsource = \"Measured <elsewhere>\"\n[peers.instructions]\nio-read-4k = { xen = 51750 }\n",
        );
        let rows =
            Rows::parse("[[row]]\ngroup = \"io\"\nname = \"io-read-4k\"\ntitle = \"read of 4 KiB\"\nlimit = 24000\n");
        let mut measured = Measured::default();
        measured.of_mut(Platform::Bulkhead).insert("io-read-4k", Figure::once(23_456));
        let path = std::env::temp_dir().join(format!("bulkhead-page-{}", std::process::id())).join("io.html");
        write(&path, "QEMU", &works, &rows, ("cortex-a72", &measured, &[]), None).expect("written");
        let page = std::fs::read_to_string(&path).expect("a page");
        std::fs::remove_dir_all(path.parent().expect("a directory")).expect("removed");
        for text in ["23,456", "51,750", "24,000", "Measured &lt;elsewhere&gt;", "quoted, not measured here"] {
            assert!(page.contains(text), "{text} is missing: {page}");
        }
    }
}
