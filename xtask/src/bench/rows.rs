//! What is measured, and what it may cost: `guests/bench/rows.toml`.

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
    /// What has to exist before it can be measured.
    pub(crate) due: Option<String>,
}

impl Row {
    /// What Bulkhead may cost at most, where the row has a limit, given what the board costs by itself.
    pub(crate) fn ceiling(&self, native: Option<f64>) -> Option<f64> {
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
    use crate::workspace::Workspace;

    #[test]
    fn the_rows_in_the_repository_are_in_order() {
        let workspace = Workspace::find().expect("a workspace");
        let rows = Rows::read(&crate::bench::rows_path(&workspace)).expect("rows");
        let mut names: Vec<&str> = rows.all().map(|row| row.name.as_str()).collect();
        assert!(names.contains(&"hvc"), "{names:?}");
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), rows.all().count(), "two rows share a name");
    }

    #[test]
    fn a_limit_above_native_needs_native() {
        let rows = Rows::parse("[[row]]\nname = \"a\"\ntitle = \"A\"\nabove_native = 78\n");
        let row = rows.all().next().expect("a row");
        assert_eq!(row.ceiling(Some(4.0)), Some(82.0));
        assert_eq!(row.ceiling(None), None);
    }

    #[test]
    fn a_share_of_nothing_is_allowed_where_nothing_is_native() {
        let rows = Rows::parse("[[row]]\nname = \"a\"\ntitle = \"A\"\nshare = 0.5\n");
        assert_eq!(rows.all().next().expect("a row").ceiling(Some(8.0)), Some(12.0));
    }
}
