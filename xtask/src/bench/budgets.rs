//! What each row has cost before: `guests/bench/budgets.toml`, written by `bench --update-budgets` alone.

use super::{Measured, Platform, Rows};
use anyhow::Context;
use std::{collections::BTreeMap, fmt::Write, path::Path};

const HEAD: &str = "\
# What each row of rows.toml has cost, for each operation: what `cargo xtask bench` compares with.
# Written by `cargo xtask bench --update-budgets`; not edited by hand.
";

/// Averages by row.
type Averages = BTreeMap<String, f64>;
/// Averages by platform and row: those of one model of cores.
pub(crate) type Kept = BTreeMap<String, Averages>;

/// Averages by model of cores, platform and row.
#[derive(Debug, Default)]
pub(crate) struct Budgets(BTreeMap<String, Kept>);

impl Budgets {
    /// Reads the file; where there is none nothing has been kept.
    ///
    /// # Errors
    /// The file, and what is wrong in it.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        if !path.is_file() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        let kept = toml::from_str(&text);
        kept.map(Self).with_context(|| format!("{} does not hold averages; restore it from git", path.display()))
    }

    /// What was kept for the model `cpu`.
    pub(crate) fn of(&self, cpu: &str) -> Option<&Kept> {
        self.0.get(cpu)
    }

    /// Keeps `measured` for the model `cpu`, in the place of what was kept of the same platforms and rows.
    pub(crate) fn keep(&mut self, cpu: &str, measured: &Measured) {
        let kept = self.0.entry(cpu.to_owned()).or_default();
        for platform in Platform::ALL {
            if let Some(figures) = measured.of(platform) {
                let averages = figures.iter().map(|(row, figure)| (row.to_owned(), figure.average()));
                kept.entry(platform.key().to_owned()).or_default().extend(averages);
            }
        }
    }

    /// Writes the file, in the order of `rows`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&self, path: &Path, rows: &Rows) -> anyhow::Result<()> {
        std::fs::write(path, self.text(rows)).with_context(|| format!("{} cannot be written", path.display()))
    }

    fn text(&self, rows: &Rows) -> String {
        let mut text = HEAD.to_owned();
        for (cpu, platforms) in &self.0 {
            for platform in Platform::ALL {
                let Some(averages) = platforms.get(platform.key()) else { continue };
                // Writing to a string cannot fail.
                let _ = writeln!(text, "\n[{cpu}.{}]", platform.key());
                for row in rows.all() {
                    if let Some(average) = averages.get(&row.name) {
                        let _ = writeln!(text, "{} = {average:.2}", row.name);
                    }
                }
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Figures;

    #[test]
    fn what_was_not_measured_again_stays() {
        let mut budgets = Budgets::default();
        for line in ["bench hvc rounds=1 total=50 loop=0", "bench eoi rounds=1 total=6 loop=0"] {
            let mut measured = Measured::default();
            measured.of_mut(Platform::Bulkhead).extend(Figures::from_lines([line]));
            budgets.keep("max", &measured);
        }
        assert_eq!(budgets.of("max").and_then(|kept| kept.get("bulkhead")).map(Averages::len), Some(2));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let rows = Rows::parse("[[row]]\nname = \"hvc\"\ntitle = \"HVC\"\n");
        let mut measured = Measured::default();
        measured.of_mut(Platform::Bulkhead).extend(Figures::from_lines(["bench hvc rounds=4 total=210 loop=12"]));
        let mut budgets = Budgets::default();
        budgets.keep("cortex-a53", &measured);
        let text = budgets.text(&rows);
        assert!(text.ends_with("[cortex-a53.bulkhead]\nhvc = 52.50\n"), "{text}");
        let again: BTreeMap<String, Kept> = toml::from_str(&text).expect("TOML");
        assert_eq!(again, budgets.0);
    }
}
