//! What the virtio consoles have said: their text goes into a file, beside the board's UART.
//!
//! The driver domain writes that file, and begins each line with the name of its client. A guest that has a UART is
//! heard there, so the file counts only for those that have no other way to say anything.

use crate::{session::Outcome, system::Source, workspace::Workspace};
use std::{
    fs::File,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
};

/// More lines than this are not read: a guest may print without end.
const LINES_MAX: usize = 100_000;

/// Where the text of the consoles of `source` goes.
pub(crate) fn log(workspace: &Workspace, source: &Source) -> PathBuf {
    workspace.cache().join("consoles").join(format!("{}.log", source.name()))
}

/// Adds to `outcome` what the guests of `source` have said on virtio consoles that are their only ones.
pub(crate) fn hear(workspace: &Workspace, source: &Source, outcome: &mut Outcome) {
    outcome.hear(heard(source, &log(workspace, source)));
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
    let Ok(file) = File::open(log) else { return Vec::new() };
    let lines = BufReader::new(file).split(b'\n').map_while(Result::ok).take(LINES_MAX);
    let lines = lines.map(|line| String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned());
    lines.filter(|line| prefixes.iter().any(|prefix| line.starts_with(prefix))).collect()
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
        std::fs::write(&log, "[deaf] one\r\n[both] two\n[bulkhead] three\n[io] four\n[deaf] five").expect("written");
        let source = system::load(&system).unwrap_or_else(|problem| panic!("{problem}"));
        let lines = heard(&source, &log);
        std::fs::remove_dir_all(&directory).expect("removed");
        assert_eq!(lines, ["[deaf] one", "[deaf] five"]);
    }
}
