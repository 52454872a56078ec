//! What is wrong with a measurement: a row above its limit, dearer than before, or missing.

use super::{
    Measured, Platform, Rows,
    budgets::Kept,
    rows::{Row, Unit},
};
use std::fmt;

/// How much dearer than before a row may be: room for a change that is worth it elsewhere.
const SLACK: f64 = 1.02;
/// What the coarsest counter cannot tell: two ticks of 16 instructions over a thousand rounds, and the digits that are
/// kept.
const ROUNDING: f64 = 0.05;

/// What there is to say about a row.
#[derive(Debug, PartialEq)]
pub(crate) struct Finding {
    /// The row's name.
    pub(crate) row: String,
    /// What was found.
    pub(crate) kind: Kind,
}

/// What can be found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// It costs more than it may.
    AboveLimit {
        /// What it costs.
        average: f64,
        /// What it may cost.
        limit: f64,
        /// It has been above its limit before, and is no dearer now.
        is_known: bool,
    },
    /// It costs more than it has, by more than [`SLACK`].
    Dearer {
        /// What it costs.
        average: f64,
        /// What it has cost.
        kept: f64,
    },
    /// It costs less than it has, by more than [`SLACK`]: what is kept should be brought up to date.
    Cheaper {
        /// What it costs.
        average: f64,
        /// What it has cost.
        kept: f64,
    },
    /// It was not measured.
    Missing,
}

impl Finding {
    /// Whether something is wrong with the row.
    pub(crate) const fn is_refused(&self) -> bool {
        !matches!(self.kind, Kind::Cheaper { .. })
    }

    /// Whether a change made it so: a row that has met its limit stays below it, and one that has not gets no dearer.
    pub(crate) const fn is_regression(&self) -> bool {
        self.is_refused() && !matches!(self.kind, Kind::AboveLimit { is_known: true, .. })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { row, kind } = self;
        match kind {
            Kind::AboveLimit { average, limit, is_known } => {
                let since = if *is_known { "; it has not met its limit yet" } else { "" };
                write!(formatter, "`{row}` costs {average:.1}, and may cost {limit:.1}{since}")
            }
            Kind::Dearer { average, kept } => write!(
                formatter,
                "`{row}` costs {average:.1}, and has cost {kept:.1}; make it as cheap again, or say why not in the \
                 commit that runs `cargo xtask bench --update-budgets`"
            ),
            Kind::Cheaper { average, kept } => write!(
                formatter,
                "`{row}` costs {average:.1}, and has cost {kept:.1}; keep that with `cargo xtask bench --update-budgets`"
            ),
            Kind::Missing => write!(formatter, "`{row}` was not measured"),
        }
    }
}

/// Holds Bulkhead's figures against the limits of `rows` and against what was kept.
pub(crate) fn judge(rows: &Rows, measured: &Measured, kept: Option<&Kept>) -> Vec<Finding> {
    let kept = kept.and_then(|kept| kept.get(Platform::Bulkhead.key()));
    rows.due()
        .filter_map(|row| {
            let before = kept.and_then(|kept| kept.get(&row.name)).copied();
            judge_row(row, measured, before).map(|kind| Finding { row: row.name.clone(), kind })
        })
        .collect()
}

fn judge_row(row: &Row, measured: &Measured, before: Option<f64>) -> Option<Kind> {
    let Some(average) = measured.average(Platform::Bulkhead, &row.name) else { return Some(Kind::Missing) };
    match row.ceiling(measured) {
        Some(limit) if average > limit + ROUNDING => {
            let is_known = before.is_some_and(|kept| {
                kept > limit + ROUNDING && (row.unit != Unit::Instructions || average <= kept * SLACK + ROUNDING)
            });
            return Some(Kind::AboveLimit { average, limit, is_known });
        }
        _ => {}
    }
    // Code grows with what it can do; only its limit holds.
    let kept = before.filter(|_| row.unit == Unit::Instructions)?;
    if average > kept * SLACK + ROUNDING {
        Some(Kind::Dearer { average, kept })
    } else if average * SLACK + ROUNDING < kept {
        Some(Kind::Cheaper { average, kept })
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::Figure;
    use std::collections::BTreeMap;

    const ROWS: &str = "[[row]]\nname = \"hvc\"\ntitle = \"HVC\"\nabove_native = 78\n
        [[row]]\nname = \"later\"\ntitle = \"Later\"\ndue = \"devices\"\n";

    fn found(native: u64, bulkhead: u64, kept: Option<f64>) -> Option<Kind> {
        let mut measured = Measured::default();
        measured.of_mut(Platform::Native).insert("hvc", Figure::once(native));
        measured.of_mut(Platform::Bulkhead).insert("hvc", Figure::once(bulkhead));
        let kept: Kept =
            BTreeMap::from([("bulkhead".to_owned(), kept.map(|kept| ("hvc".to_owned(), kept)).into_iter().collect())]);
        judge(&Rows::parse(ROWS), &measured, Some(&kept)).pop().map(|finding| finding.kind)
    }

    #[test]
    fn a_row_within_its_limit_and_as_dear_as_before_is_fine() {
        assert_eq!(found(4, 82, None), None);
        assert_eq!(found(4, 51, Some(50.0)), None);
    }

    #[test]
    fn a_row_above_its_limit_is_refused_however_dear_it_was() {
        let above = |average, is_known| Some(Kind::AboveLimit { average, limit: 82.0, is_known });
        assert_eq!(found(4, 83, Some(90.0)), above(83.0, true));
        assert_eq!(found(4, 100, Some(90.0)), above(100.0, false), "dearer still");
        assert_eq!(found(4, 83, Some(80.0)), above(83.0, false), "it had met its limit");
        assert_eq!(found(4, 83, None), above(83.0, false));
    }

    #[test]
    fn a_row_dearer_than_before_is_refused_within_its_limit() {
        assert_eq!(found(4, 52, Some(50.0)), Some(Kind::Dearer { average: 52.0, kept: 50.0 }));
    }

    #[test]
    fn a_cheaper_row_is_worth_a_word_and_no_more() {
        let kind = found(4, 40, Some(50.0)).expect("a word");
        assert!(!Finding { row: "hvc".to_owned(), kind }.is_refused());
    }

    #[test]
    fn a_row_that_nobody_measured_is_refused_unless_it_is_not_due() {
        let findings = judge(&Rows::parse(ROWS), &Measured::default(), None);
        assert_eq!(findings, [Finding { row: "hvc".to_owned(), kind: Kind::Missing }]);
    }
}
