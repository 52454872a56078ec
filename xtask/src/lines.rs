//! From rows of the board's console to the lines that somebody printed.
//!
//! Bulkhead writes the name of its owner before each row, and breaks long lines into several (`terminal`). Who has said
//! a line is what this prefix says, and nothing else in it.

use std::collections::{BTreeMap, VecDeque};

/// A longer line is taken for several: a guest may print without end.
const LINE_BYTES_MAX: usize = 16 << 10;
/// So much is kept of the beginning of what one owner printed, and as much of its end.
const KEPT_BYTES_MAX: usize = 4 << 20;
/// The lines of further owners are kept as nobody's: a run has no more, but what a forger writes may seem so.
const OWNERS_MAX: usize = 32;

/// Whose line it is, and what they have printed. `None` for those of QEMU, of firmware, or of a Bulkhead that fails.
pub(crate) fn owner(line: &str) -> Option<(&str, &str)> {
    let (name, _, _) = terminal::parse(line)?;
    // What looks like the mark of a break is text: the lines are whole.
    Some((name, line.get(name.len() + 3..)?))
}

/// Whether `line` is no guest's.
pub(crate) fn is_own(line: &str) -> bool {
    owner(line).is_none_or(|(name, _)| name == terminal::OWN_NAME)
}

/// Whether a row is one that Bulkhead would not write: without an owner, with control characters other than those of a
/// colour, or wider than a terminal of which nothing is known.
pub(crate) fn is_unruly(row: &str) -> bool {
    without_colours(row).is_none_or(|text| {
        terminal::parse(&text).is_none()
            || text.contains(char::is_control)
            || text.chars().count() >= usize::from(terminal::COLUMNS_DEFAULT)
    })
}

/// The text of a row without its colours, if they have the one form in which they are written.
pub(crate) fn without_colours(row: &str) -> Option<String> {
    let mut text = String::new();
    for (index, part) in row.split("\x1b[0;").enumerate() {
        // A colour: bold or not, and one digit.
        let plain =
            (index > 0).then(|| part.get(5..).filter(|_| part.get(1..3) == Some(";3") && part.get(4..5) == Some("m")));
        match plain {
            None => text += part,
            Some(Some(rest)) => text += rest,
            Some(None) => return None,
        }
    }
    Some(text)
}

/// Puts lines together that were broken into rows.
#[derive(Debug, Default)]
pub(crate) struct Joiner {
    /// The lines that go on, by their owner; each with its prefix.
    open: BTreeMap<String, String>,
}

impl Joiner {
    /// Takes the next row of the console, without its end. Gives the line that ends with it.
    pub(crate) fn take(&mut self, row: &str) -> Option<String> {
        let Some((name, text, is_broken)) = terminal::parse(row) else { return Some(row.to_owned()) };
        let mut line = self.open.remove(name).unwrap_or_else(|| format!("[{name}] "));
        // A line that ends like a broken one has a space more.
        line += if is_broken { text } else { text.strip_suffix("\\ ").map_or(text, |_| &text[..text.len() - 1]) };
        if is_broken && line.len() < LINE_BYTES_MAX {
            self.open.insert(name.to_owned(), line);
            return None;
        }
        Some(line)
    }

    /// What has come of the lines that have not ended.
    pub(crate) fn finish(self) -> impl Iterator<Item = String> {
        self.open.into_values()
    }
}

/// The first and the last lines of each owner, so that what is counted of one is not lost in the flood of another.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// By owner; under no name, the lines of nobody.
    owners: BTreeMap<String, Ends>,
    /// The number of the next line.
    next: u64,
}

/// The first and the last lines of one owner, each with its number.
#[derive(Debug, Default)]
struct Ends {
    first: Vec<(u64, String)>,
    first_bytes: usize,
    last: VecDeque<(u64, String)>,
    last_bytes: usize,
    dropped: usize,
}

impl Kept {
    /// Keeps `line`, and perhaps drops another of its owner's.
    pub(crate) fn push(&mut self, line: String) {
        let name = owner(&line).map_or("", |(name, _)| name);
        let name = if self.owners.contains_key(name) || self.owners.len() < OWNERS_MAX { name } else { "" };
        let name = name.to_owned();
        self.push_of(name, line);
    }

    /// As [`Kept::push`], for a line that is nobody's, whatever it looks like.
    pub(crate) fn push_of_nobody(&mut self, line: String) {
        self.push_of(String::new(), line);
    }

    fn push_of(&mut self, name: String, line: String) {
        self.owners.entry(name).or_default().push(self.next, line);
        self.next += 1;
    }

    /// All that was kept, in order.
    pub(crate) fn finish(self) -> Vec<String> {
        let mut all: Vec<_> = self.owners.into_iter().flat_map(|(name, ends)| ends.finish(&name)).collect();
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, line)| line).collect()
    }
}

impl Ends {
    fn push(&mut self, number: u64, line: String) {
        let bytes = |line: &String| line.len() + size_of::<(u64, String)>();
        if self.last.is_empty() && self.first_bytes + bytes(&line) <= KEPT_BYTES_MAX {
            self.first_bytes += bytes(&line);
            self.first.push((number, line));
            return;
        }
        self.last_bytes += bytes(&line);
        self.last.push_back((number, line));
        while self.last_bytes > KEPT_BYTES_MAX
            && let Some((_, line)) = self.last.pop_front()
        {
            self.last_bytes -= bytes(&line);
            self.dropped += 1;
        }
    }

    fn finish(mut self, name: &str) -> impl Iterator<Item = (u64, String)> + use<> {
        if let (1.., Some((number, _))) = (self.dropped, self.first.last()) {
            let whose = if name.is_empty() { "nobody's".to_owned() } else { format!("{name}'s") };
            self.first.push((*number, format!("… {} of {whose} lines are not kept …", self.dropped)));
        }
        self.first.into_iter().chain(self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_lines_are_joined_whoever_prints_in_between() {
        let mut joiner = Joiner::default();
        assert_eq!(joiner.take("[a] one\\"), None);
        assert_eq!(joiner.take("[b] other").as_deref(), Some("[b] other"));
        assert_eq!(joiner.take("[a] two\\"), None);
        assert_eq!(joiner.take("[a] three").as_deref(), Some("[a] onetwothree"));
        assert_eq!(joiner.take("[a] back\\ ").as_deref(), Some("[a] back\\"));
        assert_eq!(joiner.take("qemu: no owner\\").as_deref(), Some("qemu: no owner\\"));
        assert_eq!(joiner.take("[a] rest\\"), None);
        assert_eq!(joiner.finish().collect::<Vec<_>>(), ["[a] rest"]);
    }

    #[test]
    fn a_line_without_end_comes_in_pieces() {
        let (mut joiner, mut pieces) = (Joiner::default(), 0);
        for _ in 0..1000 {
            let piece = joiner.take(&format!("[a] {}\\", "x".repeat(71)));
            assert!(piece.as_ref().is_none_or(|piece| piece.len() < LINE_BYTES_MAX + 80));
            pieces += usize::from(piece.is_some());
        }
        assert!(pieces > 2);
    }

    #[test]
    fn a_prefix_within_a_line_is_text() {
        assert_eq!(owner("[a] [bulkhead] vm b is off"), Some(("a", "[bulkhead] vm b is off")));
        assert_eq!(owner("[a] text\\"), Some(("a", "text\\")));
        assert!(is_own("[bulkhead] x") && is_own("BULKHEAD PANIC") && !is_own("[a] BULKHEAD PANIC"));
    }

    #[test]
    fn both_ends_of_a_flood_are_kept() {
        let mut kept = Kept::default();
        (0..800_000).for_each(|number| kept.push(number.to_string()));
        let lines = kept.finish();
        assert_eq!((lines[0].as_str(), lines.last().map(String::as_str)), ("0", Some("799999")));
        assert!(lines.len() < 700_000 && lines.iter().any(|line| line.ends_with("lines are not kept …")));
    }

    #[test]
    fn a_flood_drops_the_lines_of_its_owner_alone() {
        let mut kept = Kept::default();
        let flood = |kept: &mut Kept| (0..300_000).for_each(|_| kept.push("[a] again and again and again".to_owned()));
        flood(&mut kept);
        kept.push("[bulkhead] vm b virtio 0: id=2".to_owned());
        kept.push("[b] DONE".to_owned());
        flood(&mut kept);
        let lines = kept.finish();
        assert!(lines.len() < 500_000);
        let others: Vec<_> = lines.iter().filter(|line| !line.starts_with("[a] ")).collect();
        let dropped = 600_002 - (lines.len() - 1);
        assert_eq!(
            others,
            [&format!("… {dropped} of a's lines are not kept …"), "[bulkhead] vm b virtio 0: id=2", "[b] DONE"]
        );
    }

    #[test]
    fn more_names_than_there_can_be_owners_share_one_place() {
        let mut kept = Kept::default();
        (0..1000).for_each(|number| kept.push(format!("[x{number}] y")));
        assert_eq!(kept.owners.len(), OWNERS_MAX + 1);
        assert_eq!(kept.finish().len(), 1000);
    }
}
