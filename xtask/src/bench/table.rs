//! The figures as a table on a terminal.

use super::{Finding, Measured, Platform, Rows, rows::Unit};

/// Prints every row: what it takes on each platform, Bulkhead beside native and beside Xen, its limit, and what was
/// found.
pub(crate) fn print(cpu: &str, rows: &Rows, measured: &Measured, findings: &[Finding]) {
    let lines: Vec<[String; 8]> = std::iter::once(head(measured))
        .chain(rows.all().map(|row| {
            let average = |platform| measured.average(platform, &row.name);
            let (native, bulkhead, xen) =
                (average(Platform::Native), average(Platform::Bulkhead), average(Platform::Xen));
            let verdict = match &row.due {
                Some(due) => format!("not yet: {due}"),
                None => verdict(row.name.as_str(), bulkhead, row.ceiling(measured), findings),
            };
            [
                row.title.clone(),
                number(native, row.unit),
                number(bulkhead, row.unit),
                number(xen, row.unit),
                number(bulkhead.zip(native).map(|(bulkhead, native)| bulkhead - native), row.unit),
                ratio(bulkhead, xen),
                number(row.ceiling(measured).filter(|_| row.due.is_none()), row.unit),
                verdict,
            ]
        }))
        .collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 8] = std::array::from_fn(width);
    println!("{cpu}: instructions for each operation, the guest's own loop (2 instructions) included");
    for line in &lines {
        let mut text = format!("  {:<1$}", line[0], widths[0]);
        for column in 1..7 {
            if widths[column] > 0 {
                text.push_str(&format!("  {:>1$}", line[column], widths[column]));
            }
        }
        println!("{}", format!("{text}  {}", line[7]).trim_end());
    }
}

fn head(measured: &Measured) -> [String; 8] {
    let xen = measured.of(Platform::Xen).is_some();
    let when = |there: bool, text: &str| if there { text.to_owned() } else { String::new() };
    [
        String::new(),
        "native".to_owned(),
        "Bulkhead".to_owned(),
        when(xen, "Xen"),
        "above native".to_owned(),
        when(xen, "Xen takes"),
        "at most".to_owned(),
        String::new(),
    ]
}

/// A figure as a reader wants it: whole above a hundred, with a decimal below, bytes as they are.
pub(super) fn number(value: Option<f64>, unit: Unit) -> String {
    match value {
        None => String::new(),
        Some(value) if unit == Unit::Bytes || value.abs() >= 99.95 => thousands(value.round() as i64),
        // The sum takes the sign from a zero.
        Some(value) => format!("{:.1}", (value * 10.0).round() / 10.0 + 0.0),
    }
}

/// Digits in groups of three, with a narrow comma: `1,234,567`.
fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

/// How many times as much Xen takes.
pub(super) fn ratio(bulkhead: Option<f64>, xen: Option<f64>) -> String {
    match (bulkhead, xen) {
        (Some(bulkhead), Some(xen)) if bulkhead > 0.0 => format!("{:.1} x", xen / bulkhead),
        _ => String::new(),
    }
}

/// What there is to say about a row.
pub(super) fn verdict(row: &str, bulkhead: Option<f64>, ceiling: Option<f64>, findings: &[Finding]) -> String {
    use super::judge::Kind;
    match findings.iter().find(|finding| finding.row == row).map(|finding| finding.kind) {
        Some(Kind::AboveLimit { .. }) => "TOO MUCH".to_owned(),
        Some(Kind::Dearer { kept, .. }) => format!("DEARER than {}", number(Some(kept), Unit::Instructions)),
        Some(Kind::Cheaper { kept, .. }) => format!("cheaper than {}", number(Some(kept), Unit::Instructions)),
        Some(Kind::Missing) => "MISSING".to_owned(),
        None if ceiling.is_some() && bulkhead.is_some() => "ok".to_owned(),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_as_exact_as_a_reader_needs() {
        assert_eq!(number(Some(52.003), Unit::Instructions), "52.0");
        assert_eq!(number(Some(99.96), Unit::Instructions), "100");
        assert_eq!(number(Some(1_234_567.8), Unit::Instructions), "1,234,568");
        assert_eq!(number(Some(-0.01), Unit::Instructions), "0.0");
        assert_eq!(number(Some(12.0), Unit::Bytes), "12");
        assert_eq!(number(None, Unit::Bytes), "");
    }

    #[test]
    fn a_ratio_says_how_much_more_the_peer_takes() {
        assert_eq!(ratio(Some(50.0), Some(475.0)), "9.5 x");
        assert_eq!(ratio(Some(50.0), None), "");
    }
}
