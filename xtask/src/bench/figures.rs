//! What was measured: for each platform and row, how long so many rounds took.

use std::{collections::BTreeMap, fmt};

/// What the guest runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Platform {
    /// The board itself.
    Native,
    /// Bulkhead.
    Bulkhead,
    /// Debian's Xen.
    Xen,
}

impl Platform {
    /// All of them, in the order in which they are shown.
    pub(crate) const ALL: [Self; 3] = [Self::Native, Self::Bulkhead, Self::Xen];

    /// The name in files.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Bulkhead => "bulkhead",
            Self::Xen => "xen",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Native => "no hypervisor",
            Self::Bulkhead => "Bulkhead",
            Self::Xen => "Xen",
        })
    }
}

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Figure {
    /// How often the operation ran.
    pub(crate) rounds: u64,
    /// The instructions of all rounds, the guest's own loop included.
    pub(crate) total: u64,
    /// The instructions of as many turns of the loop with a NOP in it; zero where there is no loop.
    pub(crate) empty: u64,
}

impl Figure {
    /// A number that was not measured in rounds.
    pub(crate) const fn once(total: u64) -> Self {
        Self { rounds: 1, total, empty: 0 }
    }

    /// Instructions for each round, the guest's own loop included.
    pub(crate) fn average(&self) -> f64 {
        self.total as f64 / self.rounds.max(1) as f64
    }

    /// Instructions of the loop itself, for each round.
    pub(crate) fn loop_average(&self) -> f64 {
        self.empty as f64 / self.rounds.max(1) as f64
    }
}

/// The measurements of one platform, by row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures(BTreeMap<String, Figure>);

impl Figures {
    /// Reads the lines `bench NAME rounds=N total=T loop=L`; whatever else a line says is left alone.
    pub(crate) fn from_lines<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        Self(lines.into_iter().filter_map(parse).collect())
    }

    /// The measurement of `row`.
    pub(crate) fn get(&self, row: &str) -> Option<&Figure> {
        self.0.get(row)
    }

    /// Adds or replaces a measurement.
    pub(crate) fn insert(&mut self, row: &str, figure: Figure) {
        self.0.insert(row.to_owned(), figure);
    }

    /// Adds the measurements of another run.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Without the measurement of `row`.
    pub(crate) fn without(mut self, row: &str) -> Self {
        self.0.remove(row);
        self
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Figure)> {
        self.0.iter().map(|(name, figure)| (name.as_str(), figure))
    }

    /// Whether nothing was measured.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn parse(line: &str) -> Option<(String, Figure)> {
    let mut words = line.strip_prefix("bench ")?.split(' ');
    let name = words.next()?;
    let mut number = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=')?.parse().ok();
    let figure = Figure { rounds: number("rounds")?, total: number("total")?, empty: number("loop")? };
    Some((name.to_owned(), figure))
}

/// The measurements of every platform, on one model of cores.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured(BTreeMap<Platform, Figures>);

impl Measured {
    /// The measurements of `platform`; none where it was not asked for.
    pub(crate) fn of(&self, platform: Platform) -> Option<&Figures> {
        self.0.get(&platform)
    }

    /// The measurements of `platform`, to add some.
    pub(crate) fn of_mut(&mut self, platform: Platform) -> &mut Figures {
        self.0.entry(platform).or_default()
    }

    /// The measurement of `row` on `platform`.
    pub(crate) fn get(&self, platform: Platform, row: &str) -> Option<&Figure> {
        self.of(platform)?.get(row)
    }

    /// The average of `row` on `platform`.
    pub(crate) fn average(&self, platform: Platform, row: &str) -> Option<f64> {
        self.get(platform, row).map(Figure::average)
    }

    /// Whether some platform has a measurement of `row`.
    pub(crate) fn has(&self, row: &str) -> bool {
        self.0.values().any(|figures| figures.get(row).is_some())
    }

    /// The first row that another run has measured differently.
    pub(crate) fn difference(&self, other: &Self) -> Option<(Platform, String)> {
        Platform::ALL.into_iter().find_map(|platform| {
            let (first, second) = (self.of(platform)?, other.of(platform)?);
            let names = first.iter().chain(second.iter()).map(|(name, _)| name);
            let differs = |name: &&str| first.get(name) != second.get(name);
            names.into_iter().find(differs).map(|name| (platform, name.to_owned()))
        })
    }

    /// The total of `row` on `platform`, in words.
    pub(crate) fn text(&self, platform: Platform, row: &str) -> String {
        self.get(platform, row).map_or_else(|| "not measured".to_owned(), |figure| figure.total.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_lines_are_read() {
        let figures = Figures::from_lines(["hello", "bench hvc rounds=1024 total=53250 loop=3076", "DONE"]);
        let hvc = figures.get("hvc").expect("measured");
        assert_eq!(*hvc, Figure { rounds: 1024, total: 53250, empty: 3076 });
        assert!((hvc.average() - 52.0).abs() < 0.01 && (hvc.loop_average() - 3.0).abs() < 0.01);
    }

    #[test]
    fn what_a_guest_could_not_measure_is_not_taken_for_zero() {
        let figures = Figures::from_lines(["bench ipi-running absent: there is one CPU", "bench hvc rounds=x total=1"]);
        assert!(figures.is_empty());
    }

    #[test]
    fn a_figure_that_changes_or_vanishes_between_runs_is_found() {
        let run = |lines: &[&str]| {
            let mut measured = Measured::default();
            measured.of_mut(Platform::Native).extend(Figures::from_lines(lines.iter().copied()));
            measured
        };
        let first = run(&["bench hvc rounds=2 total=8 loop=0", "bench eoi rounds=2 total=8 loop=0"]);
        assert_eq!(first.difference(&first.clone()), None);
        let changed = run(&["bench hvc rounds=2 total=8 loop=0", "bench eoi rounds=2 total=9 loop=0"]);
        assert_eq!(first.difference(&changed), Some((Platform::Native, "eoi".to_owned())));
        let vanished = run(&["bench eoi rounds=2 total=8 loop=0"]);
        assert_eq!(first.difference(&vanished), Some((Platform::Native, "hvc".to_owned())));
        assert_eq!(vanished.difference(&first), Some((Platform::Native, "hvc".to_owned())));
    }
}
