//! What the virtio consoles have said: their text goes into a file, beside the board's UART.
//!
//! The driver domain writes that file, and begins each line with the name of its client. A guest that has a UART is
//! heard there, so the file counts only for those that have no other way to say anything.

use crate::{lines, session::Outcome, system::Source, workspace::Workspace};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    iter,
    path::{Path, PathBuf},
};

/// A longer row is taken for several. The driver domain writes none: they are as wide as a terminal at most.
const ROW_BYTES_MAX: u64 = 16 << 10;
/// So many rows that break the console's rules are kept.
const UNRULY_ROWS_MAX: usize = 8;

/// Where the text of the consoles of `source` goes.
pub(crate) fn log(workspace: &Workspace, source: &Source) -> PathBuf {
    workspace.cache().join("consoles").join(format!("{}.log", source.name()))
}

/// Adds to `outcome` what the guests of `source` have said on virtio consoles that are their only ones, and which rows
/// of any are not as a driver domain writes them.
pub(crate) fn hear(workspace: &Workspace, source: &Source, outcome: &mut Outcome) {
    hear_file(source, &log(workspace, source), outcome, |_| {});
}

/// As [`hear`], and shows it. What may move a terminal's cursor stays visible as what it is.
pub(crate) fn hear_and_show(workspace: &Workspace, source: &Source, outcome: &mut Outcome) {
    let mut output = std::io::stdout().lock();
    hear_file(source, &log(workspace, source), outcome, |row| {
        let text: String = row.chars().map(|character| if character.is_control() { '?' } else { character }).collect();
        // Who has closed the output does not want to see it.
        let _ = writeln!(output, "{text}\r");
    });
}

/// Takes the rows of the file `log` one by one: all clients share it, and one may print without end.
fn hear_file(source: &Source, log: &Path, outcome: &mut Outcome, mut show: impl FnMut(&str)) {
    let prefixes: Vec<_> = source.heard_by_virtio_alone().map(|vm| format!("[{}] ", vm.name())).collect();
    let mut unruly = Vec::new();
    let judged = rows(log).inspect(|row| {
        if unruly.len() < UNRULY_ROWS_MAX && is_unruly(source, row) {
            unruly.push(row.clone());
        }
    });
    let heard = judged.filter(|row| prefixes.iter().any(|prefix| row.starts_with(prefix)));
    outcome.hear(heard.inspect(|row| show(row)));
    outcome.unruly_rows.extend(unruly);
}

/// Whether `row` looks like no guest's, or does more to a terminal than write it.
fn is_unruly(source: &Source, row: &str) -> bool {
    let is_guests = |text: &str| {
        let owner = lines::owner(text).map(|(name, _)| name);
        !lines::is_unruly(text) && source.vms().iter().any(|vm| Some(vm.name()) == owner)
    };
    // A driver domain ends the row that one before it may have begun.
    let is_good = |text: String| text.is_empty() || is_guests(&text);
    !lines::without_colours(row).map(|text| shown(&text)).is_some_and(is_good)
}

/// What a row shows in the end. The guest that gets what is typed has its row shown as it grows, and may ring the bell:
/// backspaces and returns are part of that, and cross no character that takes two columns.
fn shown(row: &str) -> String {
    let (mut cells, mut at) = (Vec::new(), 0);
    for character in row.chars() {
        match character {
            '\r' => at = 0,
            '\x08' => at = at.max(1) - 1,
            '\x07' => {}
            _ => {
                cells.resize(cells.len().max(at + 1), ' ');
                cells[at] = character;
                at += 1;
            }
        }
    }
    cells.into_iter().collect()
}

/// The rows in the file `log`, if there is one.
fn rows(log: &Path) -> impl Iterator<Item = String> {
    let mut file = File::open(log).ok().map(BufReader::new);
    iter::from_fn(move || {
        let mut row = Vec::new();
        let count = file.as_mut()?.take(ROW_BYTES_MAX).read_until(b'\n', &mut row).ok()?;
        (count > 0).then(|| String::from_utf8_lossy(&row).trim_end_matches(['\r', '\n']).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{session::Ending, system};

    /// What comes of a system whose guest `deaf` has a virtio console alone, `both` a UART too, and `io` drives them,
    /// when the file holds `text`.
    fn heard(name: &str, text: &[u8]) -> Outcome {
        let directory = std::env::temp_dir().join(format!("bulkhead-consoles-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("created");
        let (system, log) = (directory.join("both.toml"), directory.join("both.log"));
        let guest = |name: &str, device: &str| {
            format!(
                "[[vm]]\nname = \"{name}\"\nmemory = \"64 MiB\"\ncores = [0]\nkernel = \"debian\"\n\
                 [[vm.device]]\nkind = \"virtio-console\"\n{device}"
            )
        };
        let description = "board = \"qemu-virt\"\nmemory = \"1 GiB\"\ncores = 1\n".to_owned()
            + &guest("deaf", "")
            + &guest("both", "[[vm.device]]\nkind = \"pl011\"\n")
            + "[[vm]]\nname = \"io\"\nmemory = \"64 MiB\"\ncores = [0]\nkernel = \"guest:driver-domain\"\n\
               owns = [\"virtio-mmio\"]\ndriver_domain = true\n";
        std::fs::write(&system, description).expect("written");
        std::fs::write(&log, text).expect("written");
        let source = system::load(&system, &|_| Ok(())).unwrap_or_else(|problem| panic!("{problem}"));
        let mut outcome = Outcome::of(&[], Ending::Stopped);
        hear_file(&source, &log, &mut outcome, |_| {});
        std::fs::remove_dir_all(&directory).expect("removed");
        outcome
    }

    #[test]
    fn only_guests_without_another_console_are_heard_here() {
        let outcome = heard(
            "only",
            b"[deaf] one\r\n[both] two\n[bulkhead] three\n[io] four\n\x1b[0;0;39m\r\nnobody's\n[both] \x1b[2J\n\
              [both] \x08\x08\x08s\n[both] ab\x08\x07\x08\r[both] b\n[deaf] five",
        );
        assert_eq!(outcome.lines, ["[deaf] one", "[deaf] five"]);
        assert_eq!(outcome.unruly_rows, ["[bulkhead] three", "nobody's", "[both] \x1b[2J", "[both] \x08\x08\x08s"]);
    }

    #[test]
    fn a_failure_behind_a_flood_is_heard() {
        let mut text = b"[both] a line that is printed again and again\n".repeat(200_000);
        text.extend_from_slice(b"nobody's\n[deaf] FAIL x\n");
        let outcome = heard("flood", &text);
        assert_eq!(outcome.reports.of("deaf").failure.as_deref(), Some("FAIL x"));
        assert_eq!(
            (outcome.lines, outcome.unruly_rows),
            (vec!["[deaf] FAIL x".to_owned()], vec!["nobody's".to_owned()])
        );
    }

    #[test]
    fn a_row_without_end_is_taken_in_pieces() {
        let outcome = heard("endless", &[b"[deaf] ".as_slice(), &[b'x'; 100_000]].concat());
        assert!(outcome.lines.iter().all(|line| line.len() as u64 <= ROW_BYTES_MAX), "{}", outcome.lines.len());
        assert_eq!(outcome.unruly_rows.len(), 7);
    }
}
