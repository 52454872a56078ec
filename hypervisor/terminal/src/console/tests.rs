//! Speaks as guests, as the person at the keyboard, and reads the screen.

use super::*;
use std::{string::String, vec::Vec};

const ALPHA: GuestIndex = GuestIndex(0);
const BETA: GuestIndex = GuestIndex(1);

struct Screen(Vec<u8>);

impl Sink for Screen {
    fn put(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

/// A console with the guests alpha, which has the focus, and beta.
struct Bench {
    console: Console,
    screen: Screen,
}

impl Bench {
    fn new() -> Self {
        let mut console = Console::new();
        assert_eq!(console.add_guest("alpha"), ALPHA);
        assert_eq!(console.add_guest("beta"), BETA);
        Self { console, screen: Screen(Vec::new()) }
    }

    fn says(&mut self, guest: GuestIndex, text: &str) -> &mut Self {
        for byte in text.bytes() {
            self.console.guest_put(guest, byte, &mut self.screen);
        }
        self
    }

    fn logs(&mut self, text: &str) -> &mut Self {
        self.console.log_line(format_args!("{text}"), &mut self.screen);
        self
    }

    fn typed(&mut self, text: &str) -> Option<GuestIndex> {
        text.bytes().fold(None, |_, byte| self.console.input(byte, &mut self.screen))
    }

    fn reads(&mut self, guest: GuestIndex) -> String {
        core::iter::from_fn(|| self.console.take(guest)).map(char::from).collect()
    }

    /// What has appeared since the last call.
    fn screen(&mut self) -> String {
        String::from_utf8(core::mem::take(&mut self.screen.0)).unwrap()
    }
}

#[test]
fn each_line_starts_with_its_owners_name() {
    let mut bench = Bench::new();
    bench.says(ALPHA, "one\r\n").says(BETA, "two\r\n").logs("three");
    assert_eq!(bench.screen(), "[alpha] one\r\n[beta] two\r\n[bulkhead] three\r\n");
}

#[test]
fn guests_may_end_lines_with_or_without_a_carriage_return() {
    for end in ["\n", "\r\n", "\r\r\n"] {
        for guest in [ALPHA, BETA] {
            let mut bench = Bench::new();
            bench.says(guest, "a").says(guest, end).says(guest, "b").says(guest, end);
            let expected = if guest == ALPHA { "[alpha] a\r\n[alpha] b\r\n" } else { "[beta] a\r\n[beta] b\r\n" };
            assert_eq!(bench.screen(), expected);
        }
    }
}

#[test]
fn a_prompt_of_the_guest_with_the_focus_shows_at_once() {
    let mut bench = Bench::new();
    bench.says(ALPHA, "# ");
    assert_eq!(bench.screen(), "[alpha] # ");
    bench.says(ALPHA, "l");
    assert_eq!(bench.screen(), "l");
}

#[test]
fn an_unfinished_line_of_another_guest_waits() {
    let mut bench = Bench::new();
    bench.says(BETA, "# ");
    assert_eq!(bench.screen(), "");
    bench.says(BETA, "ls\n");
    assert_eq!(bench.screen(), "[beta] # ls\r\n");
}

#[test]
fn lines_of_two_guests_that_print_at_once_never_mix() {
    let mut bench = Bench::new();
    bench.console.set_unfinished_lines(UnfinishedLines::Held);
    for (alpha, beta) in "first line\r\n".chars().zip("other line\r\n".chars()) {
        bench.says(ALPHA, alpha.encode_utf8(&mut [0; 4]));
        bench.says(BETA, beta.encode_utf8(&mut [0; 4]));
    }
    assert_eq!(bench.screen(), "[alpha] first line\r\n[beta] other line\r\n");
}

#[test]
fn a_prompt_is_broken_off_by_another_line_and_comes_back_when_it_goes_on() {
    let mut bench = Bench::new();
    bench.says(ALPHA, "# ls").says(BETA, "hello\n").logs("note").says(ALPHA, " -l").says(ALPHA, "\r\n");
    assert_eq!(bench.screen(), "[alpha] # ls\r\n[beta] hello\r\n[bulkhead] note\r\n[alpha] # ls -l\r\n");
}

#[test]
fn a_broken_off_line_that_ends_at_once_is_shown_whole() {
    let mut bench = Bench::new();
    bench.says(ALPHA, "done").says(BETA, "hello\n").says(ALPHA, "\n");
    assert_eq!(bench.screen(), "[alpha] done\r\n[beta] hello\r\n[alpha] done\r\n");
}

#[test]
fn held_lines_appear_in_one_piece_even_of_the_guest_with_the_focus() {
    let mut bench = Bench::new();
    bench.console.set_unfinished_lines(UnfinishedLines::Held);
    bench.says(ALPHA, "# ls").says(BETA, "hello\n").says(ALPHA, "\n");
    assert_eq!(bench.screen(), "[beta] hello\r\n[alpha] # ls\r\n");
}

#[test]
fn a_stopped_guests_last_words_are_shown() {
    let mut bench = Bench::new();
    bench.says(ALPHA, "bye").says(BETA, "Power down\r");
    bench.console.flush_guest(ALPHA, &mut bench.screen);
    bench.console.flush_guest(BETA, &mut bench.screen);
    bench.console.flush_guest(BETA, &mut bench.screen);
    assert_eq!(bench.screen(), "[alpha] bye\r\n[beta] Power down\r\n");
}

#[test]
fn a_colour_ends_where_its_line_is_broken_off() {
    let mut bench = Bench::new();
    bench.says(ALPHA, "\x1b[31mred").logs("seen").says(ALPHA, "\n");
    let red = "[alpha] \x1b[0;0;31mred\x1b[0;0;39m\r\n";
    assert_eq!(bench.screen(), std::format!("{red}[bulkhead] seen\r\n{red}"));
}

#[test]
fn a_message_has_a_prefix_on_each_row_and_is_filtered_as_guests_lines_are() {
    let mut bench = Bench::new();
    bench.logs("one\ntwo\x1b[2J").logs(&"x".repeat(100));
    let long = std::format!("[bulkhead] {}\\\r\n[bulkhead] {}\r\n", "x".repeat(67), "x".repeat(33));
    assert_eq!(bench.screen(), std::format!("[bulkhead] one\r\n[bulkhead] two�\r\n{long}"));
}

#[test]
fn a_terminals_width_breaks_the_list_of_guests() {
    let mut console = Console::new();
    let mut screen = Screen(Vec::new());
    (0..GUESTS_MAX).for_each(|_| _ = console.add_guest("sixteen--letters"));
    console.help_line(&mut screen);
    let screen = String::from_utf8(screen.0).unwrap();
    assert!(screen.lines().count() > 1);
    assert!(screen.lines().all(|row| row.starts_with("[bulkhead] ") && row.len() < 80), "{screen}");
}

/// Whatever two guests send, whoever has the focus, and whatever Bulkhead says in between.
#[test]
fn no_row_of_random_output_lacks_its_owner() {
    let alphabet = b"ab[]\r\n\x08\t \x1b\x1b[[;2JKD\xc3\xa9\xc2\x9b\x0e\x7f";
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |limit: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % limit as u64) as usize
    };
    let mut bench = Bench::new();
    for _ in 0..if cfg!(miri) { 500 } else { 20_000 } {
        let guest = if next(2) == 0 { ALPHA } else { BETA };
        bench.console.guest_put(guest, alphabet[next(alphabet.len())], &mut bench.screen);
        match next(200) {
            0 => _ = bench.logs("note"),
            1 => _ = bench.typed("\x1d2"),
            2 => _ = bench.typed("\x1d1"),
            _ => {}
        }
    }
    for row in bench.screen().split_terminator("\r\n") {
        // A row that is begun again has its prefix again.
        for part in row.split('\r') {
            let (name, text, _) = crate::parse(part).unwrap_or_else(|| panic!("{row:?}"));
            let is_own = text == "note" || text.starts_with("input goes to ");
            assert!(["alpha", "beta"].contains(&name) || name == "bulkhead" && is_own, "{row:?}");
        }
    }
}

#[test]
fn typing_reaches_the_guest_with_the_focus_alone() {
    let mut bench = Bench::new();
    assert_eq!(bench.typed("ls\r"), Some(ALPHA));
    assert!(bench.console.has_input(ALPHA));
    assert!(!bench.console.has_input(BETA));
    assert_eq!(bench.reads(ALPHA), "ls\r");
    assert_eq!(bench.reads(BETA), "");
    assert!(!bench.console.has_input(ALPHA));
    assert_eq!(bench.screen(), "", "the guest echoes, not the console");
}

#[test]
fn ctrl_bracket_and_a_digit_moves_the_focus() {
    let mut bench = Bench::new();
    assert_eq!(bench.typed("\x1d2"), None);
    assert_eq!(bench.screen(), "[bulkhead] input goes to beta (Ctrl-] then a digit switches: 1 alpha, 2 beta)\r\n");
    assert_eq!(bench.console.focus(), BETA);
    assert_eq!(bench.typed("x"), Some(BETA));
    assert_eq!((bench.reads(ALPHA), bench.reads(BETA)), (String::new(), String::from("x")));
}

#[test]
fn moving_the_focus_shows_the_new_guests_prompt_and_breaks_off_the_old_ones() {
    let mut bench = Bench::new();
    bench.says(BETA, "beta# ").says(ALPHA, "alpha# ");
    bench.typed("\x1d2");
    let screen = bench.screen();
    let lines: Vec<_> = screen.split("\r\n").collect();
    assert_eq!(lines[0], "[alpha] alpha# ");
    assert!(lines[1].starts_with("[bulkhead] input goes to beta"));
    assert_eq!(lines[2], "[beta] beta# ");
}

#[test]
fn a_digit_without_a_guest_changes_nothing_and_explains() {
    let mut bench = Bench::new();
    bench.typed("\x1d9");
    assert_eq!(bench.console.focus(), ALPHA);
    assert!(bench.screen().starts_with("[bulkhead] input goes to alpha (Ctrl-]"));
}

#[test]
fn the_escape_key_explains_itself() {
    for key in ["\x1d?", "\x1d\x1b", "\x1d\r"] {
        let mut bench = Bench::new();
        assert_eq!(bench.typed(key), None);
        assert!(bench.screen().starts_with("[bulkhead] input goes to alpha (Ctrl-]"));
        assert_eq!(bench.reads(ALPHA), "");
    }
}

#[test]
fn the_escape_key_twice_reaches_the_guest_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.typed("\x1d\x1d"), Some(ALPHA));
    assert_eq!(bench.typed("2"), Some(ALPHA));
    assert_eq!(bench.reads(ALPHA), "\x1d2");
}

#[test]
fn more_than_the_queue_holds_is_dropped_from_the_end() {
    let mut bench = Bench::new();
    let typed: String = (0..200u8).map(|index| char::from(b'!' + index % 90)).collect();
    bench.typed(&typed);
    assert_eq!(bench.reads(ALPHA), typed[..128]);
    bench.typed("again");
    assert_eq!(bench.reads(ALPHA), "again");
}

#[test]
fn a_guest_too_many_is_silent_and_harms_nobody() {
    let mut console = Console::new();
    let mut screen = Screen(Vec::new());
    let guests: Vec<_> = (0..=GUESTS_MAX).map(|_| console.add_guest("guest")).collect();
    let extra = guests[GUESTS_MAX];
    console.guest_put(extra, b'\n', &mut screen);
    console.flush_guest(extra, &mut screen);
    assert_eq!(console.take(extra), None);
    assert!(!console.has_input(GuestIndex(u8::MAX)));
    assert!(screen.0.is_empty());
}

#[test]
fn without_guests_typing_goes_nowhere() {
    let mut console = Console::new();
    let mut screen = Screen(Vec::new());
    assert_eq!(console.input(b'x', &mut screen), None);
    console.log_line(format_args!("no guests"), &mut screen);
    assert_eq!(screen.0, b"[bulkhead] no guests\r\n");
}
