//! What the virtio consoles have said: their text goes into a file, beside the board's UART.
//!
//! The driver domain writes that file, and begins each line with the name of its client. A guest that has a UART is
//! heard there, so the file counts only for those that have no other way to say anything.

use crate::{lines, session::Outcome, system::Source, workspace::Workspace};
use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

/// More lines than this are not read: a guest may print without end.
const LINES_MAX: usize = 100_000;
/// So many rows that break the console's rules are kept.
const UNRULY_ROWS_MAX: usize = 8;

/// Where the text of the consoles of `source` goes.
pub(crate) fn log(workspace: &Workspace, source: &Source) -> PathBuf {
    workspace.cache().join("consoles").join(format!("{}.log", source.name()))
}

/// Adds to `outcome` what the guests of `source` have said on virtio consoles that are their only ones, and which rows
/// of any are not as a driver domain writes them.
pub(crate) fn hear(workspace: &Workspace, source: &Source, outcome: &mut Outcome) {
    let log = log(workspace, source);
    outcome.unruly_rows.extend(unruly(source, &log));
    outcome.hear(heard(source, &log));
}

/// As [`hear`], and shows it. What may move a terminal's cursor stays visible as what it is.
pub(crate) fn hear_and_show(workspace: &Workspace, source: &Source, outcome: &mut Outcome) {
    let lines = heard(source, &log(workspace, source));
    let mut output = std::io::stdout().lock();
    for line in &lines {
        let text: String = line.chars().map(|character| if character.is_control() { '?' } else { character }).collect();
        // Who has closed the output does not want to see it.
        let _ = writeln!(output, "{text}\r");
    }
    outcome.hear(lines);
}

/// The lines of those guests in the file `log`, each with the name before it.
fn heard(source: &Source, log: &Path) -> Vec<String> {
    let prefixes: Vec<_> = source.heard_by_virtio_alone().map(|vm| format!("[{}] ", vm.name())).collect();
    if prefixes.is_empty() {
        return Vec::new();
    }
    rows(log).filter(|row| prefixes.iter().any(|prefix| row.starts_with(prefix))).collect()
}

/// The first few rows in the file `log` that look like no guest's, or do more to a terminal than write them.
fn unruly(source: &Source, log: &Path) -> Vec<String> {
    let is_guests = |text: &str| {
        let owner = lines::owner(text).map(|(name, _)| name);
        !lines::is_unruly(text) && source.vms().iter().any(|vm| Some(vm.name()) == owner)
    };
    // A driver domain ends the row that one before it may have begun.
    let is_good = |row: &String| {
        lines::without_colours(row).map(|text| shown(&text)).is_some_and(|text| text.is_empty() || is_guests(&text))
    };
    rows(log).filter(|row| !is_good(row)).take(UNRULY_ROWS_MAX).collect()
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
    let rows = File::open(log).into_iter().flat_map(|file| BufReader::new(file).split(b'\n').map_while(Result::ok));
    rows.take(LINES_MAX).map(|row| String::from_utf8_lossy(&row).trim_end_matches('\r').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system;

    #[test]
    fn only_guests_without_another_console_are_heard_here() {
        let directory = std::env::temp_dir().join(format!("bulkhead-consoles-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("created");
        let (system, log) = (directory.join("both.toml"), directory.join("both.log"));
        let guest = |name: &str, device: &str| {
            format!(
                "[[vm]]\nname = \"{name}\"\nmemory = \"64 MiB\"\ncores = [0]\nkernel = \"debian\"\n\
                 [[vm.device]]\nkind = \"virtio-console\"\n{device}"
            )
        };
        let text = "board = \"qemu-virt\"\nmemory = \"1 GiB\"\ncores = 1\n".to_owned()
            + &guest("deaf", "")
            + &guest("both", "[[vm.device]]\nkind = \"pl011\"\n")
            + "[[vm]]\nname = \"io\"\nmemory = \"64 MiB\"\ncores = [0]\nkernel = \"guest:driver-domain\"\n\
               owns = [\"virtio-mmio\"]\ndriver_domain = true\n";
        std::fs::write(&system, text).expect("written");
        let text = "[deaf] one\r\n[both] two\n[bulkhead] three\n[io] four\n\x1b[0;0;39m\r\nnobody's\n[both] \x1b[2J\n\
                    [both] \x08\x08\x08s\n[both] ab\x08\x07\x08\r[both] b\n[deaf] five";
        std::fs::write(&log, text).expect("written");
        let source = system::load(&system).unwrap_or_else(|problem| panic!("{problem}"));
        let (lines, unruly) = (heard(&source, &log), unruly(&source, &log));
        std::fs::remove_dir_all(&directory).expect("removed");
        assert_eq!(lines, ["[deaf] one", "[deaf] five"]);
        assert_eq!(unruly, ["[bulkhead] three", "nobody's", "[both] \x1b[2J", "[both] \x08\x08\x08s"]);
    }
}
