//! Several consoles on one: each row begins with the name of the client that wrote it, and a client's bytes do nothing
//! to the terminal but show text (`terminal`).

use arrayvec::ArrayVec;
use terminal::{Row, Screen, Sink};

/// How many clients can have an unfinished line. Where more have begun one, the oldest is ended.
const ROWS_MAX: usize = 8;
/// How many bytes are passed on at a time.
const BATCH_BYTES: usize = 512;
/// With so many passed on, a client's turn ends.
pub const TURN_BYTES: usize = 1024;

/// The rows that clients have not ended, and the terminal.
pub struct Lines {
    screen: Screen,
    /// By client.
    rows: ArrayVec<(usize, Row), ROWS_MAX>,
}

impl Default for Lines {
    fn default() -> Self {
        // A driver domain that ran before may have left a row half written.
        Self { screen: Screen::after_another(), rows: ArrayVec::new() }
    }
}

impl Lines {
    /// Passes on what becomes of `bytes` that client `client`, called `name`, has written, and says of how many of
    /// them. A byte can become a row, and the terminal is slow: after [`TURN_BYTES`] the rest is for another turn. Its
    /// line is shown as it grows if the client `is_listening`, which is to say that it gets what is typed; else when it
    /// is ended.
    pub fn write(
        &mut self,
        client: usize,
        name: &str,
        bytes: &[u8],
        is_listening: bool,
        out: impl FnMut(&[u8]),
    ) -> usize {
        let mut batch = Batch { bytes: ArrayVec::new(), total: 0, out };
        let mut done = 0_usize;
        if let Some((screen, row)) = self.row_of(client, name, &mut batch) {
            for byte in bytes {
                if batch.total >= TURN_BYTES {
                    break;
                }
                screen.print(row, *byte, is_listening, &mut batch);
                done = done.saturating_add(1);
            }
        }
        batch.pass_on();
        done
    }

    /// Passes on a row of the driver domain's own. It has no client's name before it, and no client can write the like.
    pub fn announce(&mut self, words: &[&str], out: impl FnMut(&[u8])) {
        let mut batch = Batch { bytes: ArrayVec::new(), total: 0, out };
        self.screen.break_off(&mut batch);
        words.iter().chain(&["\r\n"]).flat_map(|word| word.bytes()).for_each(|byte| batch.put(byte));
        batch.pass_on();
    }

    fn row_of(&mut self, client: usize, name: &str, sink: &mut dyn Sink) -> Option<(&mut Screen, &mut Row)> {
        if !self.rows.iter().any(|(owner, _)| *owner == client) {
            if self.rows.is_full()
                && let Some((_, mut oldest)) = self.rows.pop_at(0)
            {
                self.screen.finish(&mut oldest, sink);
            }
            let mut row = Row::new();
            row.set_owner(u8::try_from(client).unwrap_or(u8::MAX), name);
            self.rows.push((client, row));
        }
        let (_, row) = self.rows.iter_mut().find(|(owner, _)| *owner == client)?;
        Some((&mut self.screen, row))
    }
}

/// Bytes on their way to the real console, which takes many at once.
struct Batch<F> {
    bytes: ArrayVec<u8, BATCH_BYTES>,
    /// How many there were so far.
    total: usize,
    out: F,
}

impl<F: FnMut(&[u8])> Batch<F> {
    fn pass_on(&mut self) {
        if !self.bytes.is_empty() {
            (self.out)(&self.bytes);
            self.bytes.clear();
        }
    }
}

impl<F: FnMut(&[u8])> Sink for Batch<F> {
    fn put(&mut self, byte: u8) {
        if self.bytes.is_full() {
            self.pass_on();
        }
        self.bytes.push(byte);
        self.total = self.total.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{format, string::String, vec::Vec};

    const NAMES: [&str; 2] = ["alpha", "beta"];

    /// What alpha, which gets what is typed, and beta write; without the end of what was there before.
    fn told(writes: &[(usize, &str)]) -> String {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for &(client, text) in writes {
            lines.write(client, NAMES[client], text.as_bytes(), client == 0, |bytes| all.extend_from_slice(bytes));
        }
        String::from_utf8(all).unwrap().replacen("\x1b[0;0;39m\r\n", "", 1)
    }

    #[test]
    fn each_line_names_its_client() {
        assert_eq!(told(&[(0, "one\r\ntwo\r\n"), (1, "three\n")]), "[alpha] one\r\n[alpha] two\r\n[beta] three\r\n");
    }

    #[test]
    fn a_prompt_appears_at_once_and_goes_on() {
        assert_eq!(told(&[(0, "login: "), (0, "root\n")]), "[alpha] login: root\r\n");
        assert_eq!(told(&[(1, "login: ")]), "");
    }

    #[test]
    fn another_client_starts_a_line_of_its_own() {
        assert_eq!(told(&[(0, "half"), (1, "x\n"), (0, "rest\n")]), "[alpha] half\r\n[beta] x\r\n[alpha] halfrest\r\n");
    }

    #[test]
    fn nothing_written_is_nothing_said() {
        assert_eq!(told(&[(0, ""), (1, "")]), "");
    }

    #[test]
    fn what_acts_on_a_terminal_is_removed_and_long_lines_are_broken() {
        assert_eq!(told(&[(1, "a\x1b[2Jb\r[bulkhead] x\n")]), "[beta] [bulkhead] x\r\n");
        assert_eq!(told(&[(1, "a\x1b[2Jb\n")]), "[beta] a�b\r\n");
        let long = format!("[beta] {}\\\r\n[beta] {}\r\n", "x".repeat(71), "x".repeat(29));
        assert_eq!(told(&[(1, &("x".repeat(100) + "\n"))]), long);
    }

    #[test]
    fn what_a_driver_domain_has_left_half_written_is_ended_first() {
        let mut all = Vec::new();
        Lines::default().write(1, "beta", b"x\n", false, |bytes| all.extend_from_slice(bytes));
        assert_eq!(all, b"\x1b[0;0;39m\r\n[beta] x\r\n");
    }

    #[test]
    fn a_turn_has_a_bounded_output_and_the_rest_is_for_another() {
        let (text, mut lines) = ([b'\n'; if cfg!(miri) { 300 } else { 20_000 }], Lines::default());
        let (mut done, mut turns, mut all) = (0, 0, Vec::new());
        while done < text.len() {
            let mut turn = Vec::new();
            let count = lines.write(1, "beta", &text[done..], false, |bytes| turn.extend_from_slice(bytes));
            assert!(count > 0 && turn.len() <= TURN_BYTES + 2 * usize::from(terminal::COLUMNS_MAX), "{}", turn.len());
            done += count;
            turns += 1;
            all.extend(turn);
        }
        assert!(turns > 1);
        let whole = String::from_utf8(all).unwrap();
        assert_eq!(whole.matches("[beta]").count(), text.len(), "nothing is lost or told twice");
    }

    #[test]
    fn an_announcement_has_a_row_of_its_own() {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        let mut out = |bytes: &[u8]| all.extend_from_slice(bytes);
        lines.write(0, "alpha", b"# ", true, &mut out);
        lines.announce(&["[now typing to ", "beta", "]"], &mut out);
        lines.write(0, "alpha", b"x\n", false, &mut out);
        let all = String::from_utf8(all).unwrap();
        assert!(all.ends_with("[alpha] # \r\n[now typing to beta]\r\n[alpha] # x\r\n"), "{all:?}");
    }

    #[test]
    fn more_clients_than_rows_lose_nothing() {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for client in 0..=ROWS_MAX {
            lines.write(client, &format!("c{client}"), b"half", false, |bytes| all.extend_from_slice(bytes));
        }
        assert!(String::from_utf8(all).unwrap().ends_with("[c0] half\r\n"));
    }
}
