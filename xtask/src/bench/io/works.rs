//! What is compared with the bare board, what share of it Bulkhead must reach, and what others reached:
//! `guests/bench/io.toml`.

use crate::bench::{Figure, Measured, Platform};
use anyhow::Context;
use io_bench::report::Report;
use serde::Deserialize;
use std::{collections::BTreeMap, fmt, path::Path};

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    /// Requests a second.
    Requests,
    /// 10⁶ bytes a second.
    Megabytes,
}

impl Unit {
    /// The rate of a work that was done.
    pub(super) fn rate(self, report: &Report) -> f64 {
        let seconds = report.nanoseconds.max(1) as f64 / 1e9;
        match self {
            Self::Requests => report.rounds as f64 / seconds,
            Self::Megabytes => report.bytes as f64 / 1e6 / seconds,
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Requests => "/s",
            Self::Megabytes => "MB/s",
        })
    }
}

/// What others reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Quoted {
    /// The bare board, in the same series of runs.
    pub(super) native: Option<f64>,
    /// Xen as it comes.
    pub(super) xen: Option<f64>,
    /// Xen with the settings that are fastest.
    pub(super) xen_tuned: Option<f64>,
    /// KVM.
    pub(super) kvm: Option<f64>,
}

impl Quoted {
    /// The best of the others, as a share of the bare board in the same series.
    pub(super) fn best_share(&self) -> Option<f64> {
        let best = [self.xen, self.xen_tuned, self.kvm].into_iter().flatten().reduce(f64::max)?;
        Some(best / self.native?)
    }
}

/// One comparison.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Work {
    /// The name that the guest prints.
    pub(super) name: String,
    /// What it is, for a reader.
    pub(super) title: String,
    /// What its rate counts.
    pub(super) unit: Unit,
    /// The share of the bare board's rate that Bulkhead must reach.
    pub(super) at_least: Option<f64>,
    /// The same where the guest has the real devices itself; that is not measured where this is absent.
    #[serde(default)]
    pub(super) assigned_at_least: Option<f64>,
    /// What others reached.
    #[serde(default)]
    pub(super) quoted: Quoted,
}

impl Work {
    /// The same with real devices of the guest's own, where that is measured.
    pub(super) fn assigned(&self) -> Option<Self> {
        Some(Self {
            title: format!("{}, devices assigned", self.title),
            at_least: Some(self.assigned_at_least?),
            assigned_at_least: None,
            quoted: Quoted::default(),
            ..self.clone()
        })
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Peers {
    source: String,
    instructions: BTreeMap<String, Quoted>,
}

/// Every comparison, in the order in which they are shown.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Works {
    work: Vec<Work>,
    peers: Peers,
}

impl Works {
    /// Reads the file.
    ///
    /// # Errors
    /// The file, and what is wrong in it.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a list of works", path.display()))
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Work> {
        self.work.iter()
    }

    /// Where the others' figures come from.
    pub(super) fn source(&self) -> &str {
        self.peers.source.trim()
    }

    /// `measured`, and beside it Xen's best figures.
    pub(super) fn with_quoted(&self, measured: &Measured) -> Measured {
        let mut all = measured.clone();
        for (row, quoted) in &self.peers.instructions {
            let figure = |value: f64| Figure::once(value.round() as u64);
            if let Some(xen) = quoted.xen_tuned.or(quoted.xen).filter(|_| measured.has(row)) {
                all.of_mut(Platform::Xen).insert(row, figure(xen));
            }
        }
        all
    }

    #[cfg(test)]
    pub(super) fn parse(text: &str) -> Self {
        toml::from_str(text).expect("works")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bench::Rows, workspace::Workspace};
    use io_bench::options::WORKS;

    #[test]
    fn the_guest_can_do_every_work_and_every_quoted_row_is_one() {
        let workspace = Workspace::find().expect("a workspace");
        let works = Works::read(&crate::bench::io::works_path(&workspace)).expect("works");
        for work in works.all() {
            assert!(WORKS.iter().any(|(name, _)| *name == work.name), "{}", work.name);
        }
        let rows = Rows::read(&crate::bench::rows_path(&workspace)).expect("rows");
        for row in works.peers.instructions.keys() {
            assert!(rows.all().any(|other| other.name == *row), "{row}");
        }
        assert!(works.source().contains("QEMU"), "{}", works.source());
    }

    #[test]
    fn a_rate_is_what_was_done_in_a_second() {
        let report = Report { rounds: 500, bytes: 4_000_000, nanoseconds: 2_000_000_000, ..Report::default() };
        assert!((Unit::Requests.rate(&report) - 250.0).abs() < 0.001);
        assert!((Unit::Megabytes.rate(&report) - 2.0).abs() < 0.001);
    }

    #[test]
    fn the_best_of_the_others_is_a_share_of_their_own_bare_board() {
        let quoted = Quoted { native: Some(1000.0), xen: Some(200.0), xen_tuned: Some(500.0), kvm: Some(100.0) };
        assert_eq!(quoted.best_share(), Some(0.5));
        assert_eq!(Quoted { native: None, ..quoted }.best_share(), None);
    }
}
