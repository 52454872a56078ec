//! What is typed after the escape key: the number or the name of a guest.

use super::{Guest, GuestIndex};
use crate::NAME_BYTES_MAX;

/// Up to so many guests, a digit alone says which.
const DIGITS: usize = 9;

/// What a byte makes of a choice.
pub(super) enum Step {
    /// It is not complete yet.
    More,
    /// It is this guest, if there is such a guest.
    Guest(GuestIndex),
    /// It is none.
    Nobody,
}

/// A number or a name that is being typed.
#[derive(Clone, Copy)]
pub(super) struct Choice {
    characters: [u8; NAME_BYTES_MAX],
    /// How many characters have been typed. Of more than there is room for, none counts.
    pub(super) length: usize,
}

impl Choice {
    /// Nothing typed.
    pub(super) const NEW: Self = Self { characters: [0; NAME_BYTES_MAX], length: 0 };

    /// Takes the next byte.
    #[inline(never)]
    pub(super) fn take(&mut self, byte: u8, guests: &[Guest]) -> Step {
        let byte = byte.to_ascii_lowercase();
        match byte {
            b'1'..=b'9' if self.length == 0 && guests.len() <= DIGITS => {
                Step::Guest(GuestIndex(byte.wrapping_sub(b'1')))
            }
            b'\r' => self.find(guests).map_or(Step::Nobody, Step::Guest),
            b'0'..=b'9' | b'a'..=b'z' | b'-' => {
                if let Some(slot) = self.characters.get_mut(self.length) {
                    *slot = byte;
                }
                self.length = self.length.saturating_add(1);
                Step::More
            }
            _ => Step::Nobody,
        }
    }

    /// The guest whose number this is; or whose name; or else the only one whose name begins so.
    fn find(&self, guests: &[Guest]) -> Option<GuestIndex> {
        let typed = self.characters.get(..self.length)?;
        // Whatever is no digit makes it larger than any guest's, and so few characters never exceed 64 bits.
        let number = typed
            .iter()
            .fold(0_u64, |number, byte| number.wrapping_mul(10).wrapping_add(u64::from(byte.wrapping_sub(b'0'))));
        let (mut found, mut begin) = (None, 0_u8);
        for (guest, index) in guests.iter().zip(0_u8..) {
            let begins = guest.name().starts_with(typed);
            if number == u64::from(index).wrapping_add(1) || begins && guest.name().len() == typed.len() {
                return Some(GuestIndex(index));
            }
            if begins {
                begin = begin.wrapping_add(1);
                found = Some(GuestIndex(index));
            }
        }
        found.filter(|_| begin == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Console, GuestIndex, Sink};
    use std::{format, string::String, vec::Vec};

    struct Screen(Vec<u8>);

    impl Sink for Screen {
        fn put(&mut self, byte: u8) {
            self.0.push(byte);
        }
    }

    /// Who has the focus after `keys`, and what the screen shows, with guests of these names.
    fn typed(names: &[&str], keys: &str) -> (u8, String) {
        let (mut console, mut screen) = (Console::new(), Screen(Vec::new()));
        for name in names {
            console.add_guest(name);
        }
        for key in keys.bytes() {
            console.input(key, &mut screen);
        }
        (console.focus().0, String::from_utf8(screen.0).unwrap())
    }

    const THREE: [&str; 3] = ["alpha", "alpine", "driver-domain"];

    fn sixteen() -> Vec<String> {
        (1..=16).map(|number| format!("vm-{number}")).collect()
    }

    #[test]
    fn a_name_or_its_unique_beginning_and_enter_moves_the_focus() {
        for (keys, guest) in [("d", 2), ("driver-domain", 2), ("D", 2), ("alpi", 1), ("alpha", 0)] {
            assert_eq!(typed(&THREE, &format!("\x1d{keys}\r")).0, guest, "{keys}");
        }
        assert_eq!(typed(&["vm", "vm-2", "x"], "\x1d3\x1dvm\r").0, 0, "a whole name is no beginning of another");
    }

    #[test]
    fn what_names_no_one_guest_changes_nothing_and_explains() {
        for keys in ["al", "gamma", "driver-domain-2", "driver-domain-or-no-other", "-1", ""] {
            let (focus, screen) = typed(&THREE, &format!("\x1d3\x1d{keys}\r"));
            assert_eq!(focus, 2, "{keys}");
            assert_eq!(screen.matches("[bulkhead] input goes to driver-domain (Ctrl-]").count(), 2, "{screen}");
        }
    }

    #[test]
    fn more_than_nine_guests_have_numbers_of_two_digits() {
        let names = sixteen();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for (keys, guest) in [("16\r", 15), ("9\r", 8), ("1\r", 0), ("10\r", 9), ("vm-16\r", 15), ("vm-1\r", 0)] {
            assert_eq!(typed(&names, &format!("\x1d2\r\x1d{keys}")).0, guest, "{keys}");
        }
        for keys in ["0\r", "17\r", "99\r", "256\r", "vm\r", "1\x1d"] {
            assert_eq!(typed(&names, &format!("\x1d2\r\x1d{keys}")).0, 1, "{keys}");
        }
        assert_eq!(typed(&names, "\x1d1").1, "", "a digit alone is not complete");
        let help = typed(&names, "\x1d?").1.replace("\\\r\n[bulkhead] ", "");
        assert!(
            help.starts_with("[bulkhead] input goes to vm-1 (Ctrl-] then a number or name and Enter switches: 1 vm-1,")
        );
        assert!(help.ends_with("15 vm-15, 16 vm-16)\r\n"), "{help}");
    }

    #[test]
    fn what_is_typed_as_a_choice_reaches_no_guest() {
        let (mut console, mut screen) = (Console::new(), Screen(Vec::new()));
        console.add_guest("alpha");
        for key in "\x1dalpha\r\x1d-0123456789abcdefghij-0123456789\x1bghij".bytes() {
            console.input(key, &mut screen);
        }
        let read: Vec<_> = core::iter::from_fn(|| console.take(GuestIndex(0))).collect();
        assert_eq!(read, b"ghij", "what is no part of a name ends it");
    }
}
