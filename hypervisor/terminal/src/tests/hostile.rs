//! Guests that send whatever they like, judged by a terminal.

use super::*;
use core::num::NonZero;
use std::format;

/// A generator of numbers (xorshift64).
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    pub(super) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}

/// What a terminal can be made to do, in pieces, and what hides, joins or widens text.
const PIECES: &[&[u8]] = &[
    b"\x1b",
    b"[",
    b"]",
    b"P",
    b"\\",
    b"\x9b",
    b"\xc2",
    b"\x9d",
    b"\xc2\x9b",
    b"\x84",
    b"\x85",
    b";",
    b"?",
    b"1",
    b"0",
    b"5",
    b"H",
    b"J",
    b"K",
    b"A",
    b"B",
    b"C",
    b"D",
    b"G",
    b"P",
    b"@",
    b"n",
    b"m",
    b"h",
    b"r",
    b"S",
    b"\r",
    b"\x08",
    b"\t",
    b"\x0b",
    b"\x0c",
    b"\x0e",
    b"\x7f",
    b"\0",
    b"\x1b[D",
    b"\x1b[K",
    b"\x1b[P",
    b"\x1b[4@",
    b"\x1b[2K",
    b"\x1b[31m",
    b"\x1b[99C",
    b"\x1b]0;t\x07",
    b"\x1b[?1049h",
    b"\x1b[2J",
    b"[bulkhead] ",
    b"[beta] ",
    b"a",
    b"bc",
    b" ",
    "€".as_bytes(),
    "日本".as_bytes(),
    "\u{301}".as_bytes(),
    "\u{200d}".as_bytes(),
    "\u{fe0f}".as_bytes(),
    "😀".as_bytes(),
    "\u{202e}".as_bytes(),
    "\u{2028}".as_bytes(),
    "ü".as_bytes(),
    b"\xff",
    b"\xe2\x82",
    b"\xf0\x9f",
    b"                                                                        ",
];

/// Refuses everything that acts on more than a row.
struct Judge;

macro_rules! refuse {
    ($($name:ident($($argument:ty),*);)*) => {
        $(fn $name(&mut self, _: &mut vt100::Screen, $(_: $argument),*) { panic!(stringify!($name)) })*
    };
}

impl vt100::Callbacks for Judge {
    refuse! {
        visual_bell();
        audible_bell();
        resize((u16, u16));
        set_window_icon_name(&[u8]);
        set_window_title(&[u8]);
        copy_to_clipboard(&[u8], &[u8]);
        paste_from_clipboard(&[u8]);
        unhandled_control(u8);
        unhandled_escape(Option<u8>, Option<u8>, u8);
        unhandled_csi(Option<u8>, Option<u8>, &[&[u16]], char);
        unhandled_osc(&[&[u8]]);
    }
}

/// A terminal, and how often the cursor must have gone down.
struct Terminal {
    parser: vt100::Parser<Judge>,
    line_feeds: usize,
}

impl Terminal {
    fn new() -> Self {
        let (rows, columns) = (NonZero::new(24).unwrap(), NonZero::new(COLUMNS_DEFAULT).unwrap());
        Self { parser: vt100::Parser::new_with_callbacks(rows, columns, 0, Judge), line_feeds: 0 }
    }

    /// Each row that is not blank begins with one of `prefixes`, no row was begun by the terminal, and the cursor is
    /// behind the prefix of the last.
    fn judge(&mut self, bytes: &[u8], prefixes: &[&str]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.parser.process(part);
            self.line_feeds += usize::from(part.ends_with(b"\n"));
        }
        let screen = self.parser.screen();
        for (index, row) in (0..).zip(screen.rows(0, COLUMNS_DEFAULT)) {
            let owner = prefixes.iter().find(|prefix| row.starts_with(**prefix));
            assert!(owner.is_some() || row.trim().is_empty(), "{row:?} after {bytes:?}");
            assert!(!screen.row_wrapped(index), "{row:?} went on in the next row");
        }
        let (row, column) = screen.cursor_position();
        assert_eq!(usize::from(row), self.line_feeds.min(23), "the cursor has left its row after {bytes:?}");
        let text = screen.rows(0, COLUMNS_DEFAULT).nth(usize::from(row)).unwrap_or_default();
        let prefix = prefixes.iter().find(|prefix| text.starts_with(**prefix)).map_or(0, |prefix| prefix.len());
        assert!(usize::from(column) >= prefix, "the cursor is in the prefix of {text:?}");
    }
}

/// What `written` consists of, apart from text: ends of rows, returns with a prefix, backspaces and styles.
fn check_controls(written: &[u8]) {
    let text = core::str::from_utf8(written).unwrap();
    let mut rest = text;
    while let Some(at) = rest.find(|character: char| character.is_control()) {
        let (_, control) = rest.split_at(at);
        rest = if let Some(style) = control.strip_prefix("\x1b[0") {
            style.trim_start_matches(|character: char| character.is_ascii_digit() || character == ';').strip_prefix('m')
        } else {
            let known = ["\r\n", "\x08", "\r[alpha] ", "\r[beta] "].into_iter();
            known.filter_map(|known| control.strip_prefix(known)).next()
        }
        .unwrap_or_else(|| panic!("{control:?}"));
    }
}

fn attack(mut piece: impl FnMut(&mut Random) -> Vec<u8>, rounds: usize) {
    let (mut bench, mut terminal, mut random) = (Bench::new(), Terminal::new(), Random::new());
    for _ in 0..if cfg!(miri) { 2 } else { rounds } {
        let guest = random.below(2);
        let mut bytes = piece(&mut random);
        // Its sound is all that a guest may do beside its row.
        bytes.retain(|byte| *byte != 0x07);
        if random.below(9) == 0 {
            bytes.push(b'\n');
        }
        bench.prints(guest, bytes);
        let written = core::mem::take(&mut bench.wire.0);
        check_controls(&written);
        terminal.judge(&written, &["[alpha] ", "[beta] "]);
    }
}

#[test]
fn a_terminal_shows_nothing_but_owned_rows_whatever_bytes_two_guests_send() {
    attack(|random| (0..random.below(30)).map(|_| random.below(256) as u8).collect(), 3000);
}

#[test]
fn a_terminal_shows_nothing_but_owned_rows_whatever_sequences_two_guests_send() {
    attack(
        |random| (0..random.below(12)).flat_map(|_| PIECES[random.below(PIECES.len())].iter().copied()).collect(),
        3000,
    );
}

#[test]
fn a_line_that_fills_the_terminal_begins_no_row_with_anothers_prefix() {
    for blanks in if cfg!(miri) { 71..72 } else { 60..90 } {
        for guest in [ALPHA, BETA].into_iter().take(if cfg!(miri) { 1 } else { 2 }) {
            let (mut bench, mut terminal) = (Bench::new(), Terminal::new());
            bench.prints(guest, " ".repeat(blanks)).prints(guest, "[bulkhead] error: no owner\n");
            terminal.judge(&bench.wire.0, &["[alpha] ", "[beta] "]);
        }
    }
}

/// What has passed once passes again and is not changed: there is nothing left in it to remove.
#[test]
fn a_row_that_was_filtered_is_its_own_filter() {
    let mut random = Random::new();
    let mut bench = Bench::new();
    for round in 0..if cfg!(miri) { 10 } else { 4000 } {
        let bytes: Vec<u8> = if round % 2 == 0 {
            (0..random.below(60)).map(|_| random.below(256) as u8).collect()
        } else {
            (0..random.below(20)).flat_map(|_| PIECES[random.below(PIECES.len())].iter().copied()).collect()
        };
        let once = bench.prints(BETA, &bytes).prints(BETA, "\n").written();
        for row in once.split_terminator("\r\n") {
            let (_, text, _) = parse(row).unwrap();
            // A broken row's text is a whole row here.
            let again = Bench::new().prints(BETA, text).prints(BETA, "\n").written();
            let (_, same, _) = parse(again.trim_end_matches("\r\n")).unwrap();
            assert_eq!(same.trim_end(), text.trim_end(), "{bytes:?}");
            assert_eq!(again, format!("[beta] {same}\r\n"));
        }
    }
}

/// A terminal may begin a row when its last column is written to, or when something follows, or never.
#[test]
fn nobody_writes_to_the_last_column() {
    let text = ["x", "ä", "日", "\x1b[31m€"];
    for columns in if cfg!(miri) { 30..=30 } else { COLUMNS_MIN..=COLUMNS_MAX } {
        for (guest, text) in [ALPHA, BETA, ALPHA, BETA].into_iter().zip(text).skip(if cfg!(miri) { 3 } else { 0 }) {
            let mut bench = Bench::new();
            bench.rows[guest].set_owner(guest as u8, "sixteen-letters!");
            bench.screen.set_columns(columns);
            bench.prints(guest, text.repeat(40)).prints(guest, "\x1b[99D\x1b[99C\n");
            let mut terminal = vt100::Parser::new(NonZero::new(80).unwrap(), NonZero::new(columns).unwrap(), 0);
            terminal.process(&bench.wire.0);
            for row in 0..80 {
                assert!(!terminal.screen().row_wrapped(row), "{columns} columns of {text}");
                let last = terminal.screen().cell(row, columns - 1).unwrap();
                assert!(!last.has_contents() && !last.is_wide_continuation(), "{columns} columns of {text}");
            }
        }
    }
}
