//! What is measured, and what it may cost: `guests/bench/rows.toml`.

use super::{Measured, Platform};
use anyhow::Context;
use serde::Deserialize;
use std::path::Path;

/// What a number counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// Instructions, of all cores.
    #[default]
    Instructions,
    /// Bytes.
    Bytes,
}

/// What a row belongs to: rows of a group are measured together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Group {
    /// What a bare-metal guest's exits cost, and all that is measured beside them.
    #[default]
    Exits,
    /// What a Linux guest's requests and frames cost where nothing outside the machine has a part in them.
    Io,
    /// What its requests to a disk of the host's cost.
    IoDisk,
}

/// One row.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Row {
    /// The name that the guest prints.
    pub(crate) name: String,
    /// What it belongs to.
    #[serde(default)]
    pub(crate) group: Group,
    /// What it is, for a reader.
    pub(crate) title: String,
    /// What it counts.
    #[serde(default)]
    pub(crate) unit: Unit,
    /// What Bulkhead may cost at most.
    pub(crate) limit: Option<f64>,
    /// What it may cost at most above native.
    pub(crate) above_native: Option<f64>,
    /// What it may cost at most above native, as a share of native.
    pub(crate) share: Option<f64>,
    /// The row that takes native's place: what Bulkhead takes for that.
    pub(crate) compared_with: Option<String>,
    /// What has to exist before it can be measured.
    pub(crate) due: Option<String>,
}

impl Row {
    /// What Bulkhead may cost at most, where the row has a limit and what that is above was measured.
    pub(crate) fn ceiling(&self, measured: &Measured) -> Option<f64> {
        let native = match &self.compared_with {
            Some(other) => measured.average(Platform::Bulkhead, other),
            None => measured.average(Platform::Native, &self.name),
        };
        let above = || Some(native? + self.above_native?);
        let share = || native.zip(self.share).map(|(native, share)| native * (1.0 + share));
        self.limit.or_else(above).or_else(share)
    }
}

/// Every row, in the order in which they are shown.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rows {
    row: Vec<Row>,
}

impl Rows {
    /// Reads the file.
    ///
    /// # Errors
    /// The file, and what is wrong in it.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a list of rows", path.display()))
    }

    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Row> {
        self.row.iter()
    }

    /// Those of `groups` alone.
    pub(crate) fn of(&self, groups: &[Group]) -> Self {
        Self { row: self.all().filter(|row| groups.contains(&row.group)).cloned().collect() }
    }

    /// Those that can be measured today.
    pub(crate) fn due(&self) -> impl Iterator<Item = &Row> {
        self.row.iter().filter(|row| row.due.is_none())
    }

    #[cfg(test)]
    pub(crate) fn parse(text: &str) -> Self {
        toml::from_str(text).expect("rows")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Figure;
    use crate::workspace::Workspace;

    fn measured(platform: Platform, row: &str, average: u64) -> Measured {
        let mut measured = Measured::default();
        measured.of_mut(platform).insert(row, Figure::once(average));
        measured
    }

    #[test]
    fn the_rows_in_the_repository_are_in_order() {
        let workspace = Workspace::find().expect("a workspace");
        let rows = Rows::read(&crate::bench::rows_path(&workspace)).expect("rows");
        let mut names: Vec<&str> = rows.all().map(|row| row.name.as_str()).collect();
        assert!(names.contains(&"hvc"), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows.all().count(), "two rows share a name");
        for other in rows.all().filter_map(|row| row.compared_with.as_deref()) {
            assert!(names.binary_search(&other).is_ok(), "there is no row `{other}`");
        }
    }

    #[test]
    fn a_limit_above_native_needs_native() {
        let rows = Rows::parse("[[row]]\nname = \"a\"\ntitle = \"A\"\nabove_native = 78\n");
        let row = rows.all().next().expect("a row");
        assert_eq!(row.ceiling(&measured(Platform::Native, "a", 4)), Some(82.0));
        assert_eq!(row.ceiling(&measured(Platform::Bulkhead, "a", 4)), None);
    }

    #[test]
    fn a_share_of_nothing_is_allowed_where_nothing_is_native() {
        let rows = Rows::parse("[[row]]\nname = \"a\"\ntitle = \"A\"\nshare = 0.5\n");
        let row = rows.all().next().expect("a row");
        assert_eq!(row.ceiling(&measured(Platform::Native, "a", 8)), Some(12.0));
    }

    #[test]
    fn a_row_that_is_compared_with_another_goes_by_what_bulkhead_takes_for_that() {
        let text = "[[row]]\nname = \"a\"\ntitle = \"A\"\ncompared_with = \"b\"\nshare = 0.5\n";
        let rows = Rows::parse(text);
        let row = rows.all().next().expect("a row");
        assert_eq!(row.ceiling(&measured(Platform::Bulkhead, "b", 8)), Some(12.0));
        assert_eq!(row.ceiling(&measured(Platform::Native, "b", 8)), None);
    }
}
