//! Prints as guests do, and reads the screen as a terminal shows it.

mod edit;
mod hostile;

use super::*;
use std::{
    string::{String, ToString},
    vec::Vec,
};

/// Bytes on their way to a terminal.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Sink for Wire {
    fn put(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

/// A screen with the rows of alpha and beta; alpha's is shown as it grows.
struct Bench {
    screen: Screen,
    rows: [Row; 2],
    wire: Wire,
}

const ALPHA: usize = 0;
const BETA: usize = 1;

impl Bench {
    fn new() -> Self {
        let mut rows = [Row::new(), Row::new()];
        rows[ALPHA].set_owner(0, "alpha");
        rows[BETA].set_owner(1, "beta");
        Self { screen: Screen::new(), rows, wire: Wire::default() }
    }

    fn prints(&mut self, guest: usize, bytes: impl AsRef<[u8]>) -> &mut Self {
        for byte in bytes.as_ref() {
            self.screen.print(&mut self.rows[guest], *byte, guest == ALPHA, &mut self.wire);
        }
        self
    }

    /// What has gone to the terminal since the last call.
    fn written(&mut self) -> String {
        String::from_utf8(core::mem::take(&mut self.wire.0)).unwrap()
    }

    /// What the terminal shows of all that has gone to it, without blanks at the ends of rows.
    fn shown(&mut self) -> Vec<String> {
        let mut terminal = vt100::Parser::default();
        terminal.process(&self.wire.0);
        let rows = terminal.screen().rows(0, COLUMNS_DEFAULT);
        let mut rows: Vec<_> = rows.map(|row| row.trim_end().to_string()).collect();
        while rows.last().is_some_and(String::is_empty) {
            rows.pop();
        }
        rows
    }
}

/// What beta's `bytes` look like on the terminal.
fn seen(bytes: impl AsRef<[u8]>) -> String {
    Bench::new().prints(BETA, bytes).prints(BETA, "\n").written().trim_end_matches("\r\n").to_string()
}

#[test]
fn text_of_any_script_passes() {
    for text in ["a b", "Grüße €", "日本語", "😀", "e\u{301}", "└─ ●"] {
        assert_eq!(seen(text), std::format!("[beta] {text}"));
    }
}

#[test]
fn what_is_removed_leaves_a_mark() {
    for (text, expected) in [
        (&b"a\x1b[2Jb"[..], "a�b"),
        (b"a\x1b[1;1Hb", "a�b"),
        (b"a\x1b[6nb", "a�b"),
        (b"a\x1b[?25lb", "a�b"),
        (b"a\x1b[>4;2mb", "a�b"),
        (b"a\x1b]0;title\x07b", "a�b"),
        (b"a\x1b]0;title\x1b\\b", "a�b"),
        (b"a\x1bPq#0\x1b\\b", "a�b"),
        (b"a\x1bcb", "a�b"),
        (b"a\x1b(0b", "a�b"),
        (b"a\x1b7b", "a�b"),
        (b"a\x1b[Ab\x1b[Bc\x1b[9Gd\x1b[1Je", "a�b�c�d�e"),
        (b"a\x0eb\x0bc\x0cd\x7fe", "a�b�c�d�e"),
        (b"a\x9b2Jb", "a�2Jb"),
        (b"a\xc2\x9b2Jb", "a�2Jb"),
        ("a\u{202e}b\u{2028}c\u{feff}d".as_bytes(), "a�b�c�d"),
        // Longer forms than needed, surrogates, beyond the last character, and what is cut off.
        (b"a\xc0\x8ab\xe0\x80\x8ac", "a��b�c"),
        (b"a\xed\xa0\x80b\xf4\x90\x80\x80c", "a�b�c"),
        (b"a\xe2\x82b\xf0\x9f\x98", "a�b�"),
    ] {
        assert_eq!(seen(text), std::format!("[beta] {expected}"), "{text:?}");
    }
}

#[test]
fn what_was_joined_by_a_removal_is_no_sequence() {
    // A filter that cuts C1 characters out of the text would make ESC [ of this.
    let text = b"\xc2\x1b\x9b2J\xc2\x1b\x9b1;1H[bulkhead] password: \xc2\x1b\x9d0;title\xc2\x1b\x9c\xc2\x1b\x9b6n";
    assert_eq!(seen(text), "[beta] ���2J���1;1H[bulkhead] password: ���0;title������6n");
}

#[test]
fn padding_and_sounds_show_nothing() {
    assert_eq!(seen("a\0b\x07c"), "[beta] abc");
    assert_eq!(Bench::new().prints(ALPHA, "a\x07").written(), "[alpha] a\x07");
}

#[test]
fn a_sequence_that_a_line_end_cuts_off_takes_nothing_of_the_next_line() {
    let mut bench = Bench::new();
    bench.prints(BETA, "a\x1b[1;2\nb\x1b\nc\x1b]0;t\nd\n");
    assert_eq!(bench.written(), "[beta] a�\r\n[beta] b�\r\n[beta] c�\r\n[beta] d\r\n");
}

#[test]
fn colours_pass_in_one_form_and_end_with_their_row() {
    let plain = "\x1b[0;0;39m";
    assert_eq!(seen("\x1b[1;31mred\x1b[mplain"), std::format!("[beta] \x1b[0;1;31mred{plain}plain"));
    assert_eq!(seen("\x1b[92mgreen\x1b[22mpale"), std::format!("[beta] \x1b[0;1;32mgreen\x1b[0;0;32mpale{plain}"));
    assert_eq!(seen("\x1b[7;38;5;31mmany\x1b[4:3mcurly"), "[beta] manycurly");
    assert_eq!(Bench::new().prints(BETA, "\x1b[31mred\nplain\n").written().matches("\x1b[0;0;31m").count(), 1);
}

#[test]
fn a_long_line_is_broken_between_characters_and_its_prefix_is_repeated() {
    for character in ["x", "ä", "€", "😀"].into_iter().take(if cfg!(miri) { 2 } else { 4 }) {
        let mut bench = Bench::new();
        bench.prints(BETA, character.repeat(200)).prints(BETA, "\n");
        let (mut whole, mut rows) = (String::new(), 0);
        for row in bench.written().split_terminator("\r\n") {
            let (name, text, is_broken) = parse(row).unwrap();
            assert_eq!((name, is_broken), ("beta", whole.len() + text.len() < 200 * character.len()));
            whole.push_str(text);
            rows += 1;
        }
        assert_eq!(whole, character.repeat(200));
        // 71 columns of text, and what is not ASCII may take two.
        assert_eq!(rows, if character == "x" { 3 } else { 6 });
    }
}

#[test]
fn a_colour_goes_on_where_its_line_was_broken() {
    let mut bench = Bench::new();
    bench.prints(BETA, "\x1b[32m").prints(BETA, "x".repeat(80)).prints(BETA, "\n");
    let written = bench.written();
    let rows: Vec<_> = written.split_terminator("\r\n").collect();
    assert_eq!(rows[0], std::format!("[beta] \x1b[0;0;32m{}\x1b[0;0;39m\\", "x".repeat(71)));
    assert_eq!(rows[1], std::format!("[beta] \x1b[0;0;32m{}\x1b[0;0;39m", "x".repeat(9)));
}

#[test]
fn a_line_that_ends_like_a_broken_one_is_told_from_it() {
    assert_eq!(seen("one\\"), "[beta] one\\ ");
    assert_eq!(parse("[beta] one\\ "), Some(("beta", "one\\ ", false)));
    assert_eq!(parse("[beta] one\\"), Some(("beta", "one", true)));
    assert_eq!(seen("one\\\rt"), "[beta] tne\\ ");
}

#[test]
fn only_a_prefix_makes_an_owner() {
    for row in ["", "plain", "[alpha]", "[] x", "[    0.000000] Booting", "[seventeen-letters] x", " [alpha] x"] {
        assert_eq!(parse(row), None, "{row}");
    }
    assert_eq!(parse("[alpha] [bulkhead] x"), Some(("alpha", "[bulkhead] x", false)));
}

#[test]
fn a_wider_terminal_has_longer_rows() {
    let mut bench = Bench::new();
    bench.screen.set_columns(132);
    bench.prints(BETA, "x".repeat(123)).prints(BETA, "\n");
    assert_eq!(bench.written(), std::format!("[beta] {}\r\n", "x".repeat(123)));
    for columns in [0, u16::MAX] {
        bench.screen.set_columns(columns);
        bench.prints(BETA, "y".repeat(if cfg!(miri) { 165 } else { 1000 })).prints(BETA, "\n");
        let widest = usize::from(columns.clamp(COLUMNS_MIN, COLUMNS_MAX));
        assert!(bench.written().lines().all(|row| row.len() < widest));
    }
}

#[test]
fn a_name_is_cut_and_cannot_carry_control_characters() {
    let mut bench = Bench::new();
    bench.rows[BETA].set_owner(1, "a\r\x1b]very-long-name-indeed");
    assert_eq!(bench.prints(BETA, "\n").written(), "[a??]very-long-na] \r\n");
}

#[test]
fn bulkheads_own_row_has_its_name() {
    assert_eq!(Row::own().name(), OWN_NAME.as_bytes());
}
