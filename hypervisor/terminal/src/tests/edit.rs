//! The line editors of shells, whose row is shown as it grows.

use super::*;
use std::format;

#[test]
fn a_prompt_appears_at_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.prints(ALPHA, "# ").written(), "[alpha] # ");
    assert_eq!(bench.prints(ALPHA, "l").written(), "l");
    assert_eq!(bench.prints(ALPHA, "\r\n").written(), "\r\n");
}

#[test]
fn a_shell_erases_what_was_typed() {
    let mut bench = Bench::new();
    bench.prints(ALPHA, "# lx\x08 \x08s\r\n").prints(BETA, "# lx\x08 \x08s\r\n");
    assert_eq!(bench.shown(), ["[alpha] # ls", "[beta] # ls"]);
}

#[test]
fn a_backspace_over_a_character_of_unknown_width_begins_the_row_again() {
    let mut bench = Bench::new();
    assert_eq!(bench.prints(ALPHA, "ä\x08").written(), "[alpha] ä\r[alpha] ");
    assert_eq!(bench.prints(ALPHA, " \x08").written(), "  \x08\x08");
}

#[test]
fn the_cursor_stops_at_either_end_of_the_text() {
    let mut bench = Bench::new();
    bench.prints(ALPHA, "ab\x1b[99D\x1b[DX\x1b[99999CY\x08\x08Z");
    assert_eq!(bench.shown(), ["[alpha] XZY"]);
}

#[test]
fn a_row_that_comes_back_is_as_it_was() {
    let mut bench = Bench::new();
    bench.prints(ALPHA, "# one two\x1b[4D").prints(BETA, "hello\n").prints(ALPHA, "X");
    assert_eq!(bench.shown(), ["[alpha] # one two", "[beta] hello", "[alpha] # oneXtwo"]);
}

#[test]
fn what_shells_send_with_each_prompt_shows_nothing() {
    let mut bench = Bench::new();
    assert_eq!(bench.prints(ALPHA, "\x1b[?2004h# \x1b[6n\x1b[J").written(), "[alpha] # ");
    assert_eq!(bench.prints(ALPHA, "ls\x1b[?2004l\n").written(), "ls\r\n");
}

#[test]
fn whatever_else_is_asked_of_the_terminal_shows_as_a_mark_where_it_is_typed_to_as_well() {
    let asked = [
        "?1049h",
        "?25l",
        "?7l",
        "?2004n",
        "?2004;1h",
        "?1049;2004h",
        "?2;004h",
        "?20004h",
        "?67540h",
        ">2004h",
        "2004h",
        "4h",
        "?6n",
        "1;6n",
        "31;6n",
        "06n",
        "0?2004h",
        "1;?2004h",
        "5n",
        "n",
        "6 n",
        "65542n",
        "c",
        "r",
    ];
    for sequence in asked {
        let written = Bench::new().prints(ALPHA, format!("a\x1b[{sequence}b")).written();
        assert_eq!(written, "[alpha] a\u{fffd}b", "{sequence}");
    }
}

#[test]
fn a_progress_bar_starts_its_row_over() {
    for guest in [ALPHA, BETA] {
        let mut bench = Bench::new();
        bench.prints(guest, "10 percent\r20\r\x1b[2K30\x1b[K%\n");
        assert_eq!(bench.shown()[0].split_once("] ").unwrap().1, "30%");
    }
}

#[test]
fn a_return_before_the_end_of_a_line_costs_nothing() {
    assert_eq!(Bench::new().prints(ALPHA, "text\r\n").written(), "[alpha] text\r\n");
}

#[test]
fn tabs_are_blanks_up_to_the_next_stop() {
    assert_eq!(seen("a\tb"), "[beta] a       b");
    assert_eq!(seen("abcdefgh\tb"), "[beta] abcdefgh        b");
    assert_eq!(seen(" ".repeat(70) + "\tx"), format!("[beta] {}\\\r\n[beta]         x", " ".repeat(71)));
}

/// Whatever a line editor does with plain text, a terminal shows the same, and its cursor is at the same place.
#[test]
fn a_row_is_edited_as_a_terminal_of_its_own_would() {
    let pieces = [
        "a",
        "b",
        "long",
        " ",
        "\x08",
        "\r",
        "\x1b[D",
        "\x1b[2D",
        "\x1b[K",
        "\x1b[J",
        "\r\x1b[2K",
        "\x1b[31m",
        "\x1b[m",
    ];
    let mut random = hostile::Random::new();
    for _ in 0..if cfg!(miri) { 1 } else { 1000 } {
        let mut bench = Bench::new();
        let mut plain = vt100::Parser::default();
        for _ in 0..random.below(25) {
            let piece = pieces[random.below(pieces.len())];
            bench.prints(ALPHA, piece);
            plain.process(piece.as_bytes());
        }
        // A return waits for what follows it, and the prefix for anything at all.
        bench.prints(ALPHA, ".");
        plain.process(b".");
        let mut terminal = vt100::Parser::default();
        terminal.process(&bench.wire.0);
        let (own, real) = (terminal.screen(), plain.screen());
        assert_eq!(own.contents().trim_end(), format!("[alpha] {}", real.contents().trim_end()));
        assert_eq!(own.cursor_position().1, real.cursor_position().1 + 8);
        for column in 0..70 {
            let (own, real) = (own.cell(0, column + 8).unwrap(), real.cell(0, column).unwrap());
            if real.has_contents() && real.contents() != " " {
                assert_eq!(own.fgcolor(), real.fgcolor());
            }
        }
    }
}

/// What fills a row, 35 times over, and bytes that move the cursor to and fro there.
const TO_AND_FRO: &[(&str, &str)] = &[
    ("ää", "\x08ä"),
    ("ää", "\x08\x1b[C"),
    ("xxxx", "\x1b[199D\x1b[199C"),
    ("\x1b[31mx\x1b[32my\x1b[33mx\x1b[34my", "\x1b[199D\x1b[199C"),
    ("\x1b[31mä\x1b[32mö", "\x08\x1b[C"),
    ("\x1b[31mx\x1b[32my\x1b[33mx\x1b[34my", "\r."),
];

fn to_and_fro() -> impl Iterator<Item = &'static (&'static str, &'static str)> {
    TO_AND_FRO.iter().take(if cfg!(miri) { 1 } else { TO_AND_FRO.len() })
}

#[test]
fn a_byte_brings_sixteen_to_the_terminal_in_the_long_run() {
    for (text, moves) in to_and_fro() {
        for has_neighbour in [false, true] {
            let (mut bench, rounds) = (Bench::new(), if cfg!(miri) { 3 } else { 2000 });
            bench.screen.set_columns(COLUMNS_MAX);
            let text = text.repeat(35);
            bench.prints(ALPHA, &text);
            for _ in 0..rounds {
                bench.prints(ALPHA, moves);
                if has_neighbour {
                    bench.prints(BETA, "\n");
                }
            }
            let printed = text.len() + moves.len() * rounds;
            // What it has at first, and a row. A neighbour's line is not its own, and may end its row and its colour.
            let most = printed * 16 + 8192 + if has_neighbour { rounds * 32 } else { 0 };
            assert!(bench.wire.0.len() < most, "{} bytes of {printed}: {text:?}, {moves:?}", bench.wire.0.len());
        }
    }
}

#[test]
fn a_row_that_was_written_too_often_is_shown_again() {
    for (text, moves) in to_and_fro() {
        let mut bench = Bench::new();
        bench.screen.set_columns(COLUMNS_MAX);
        bench.prints(ALPHA, text.repeat(35)).prints(ALPHA, moves.repeat(if cfg!(miri) { 30 } else { 300 }));
        bench.wire.0.clear();
        bench.prints(ALPHA, ".".repeat(300)).prints(ALPHA, "\r\n# ls");
        let written = bench.written();
        assert!(written.contains("...."), "{written}");
        assert!(written.ends_with("\r\n[alpha] # ls"), "{written}");
    }
}
